"""Pictures of single planes of a scan with the labels drawn over them, the way radiologists look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from effvit_med.volume.geometry import Geometry
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Volume

ByteImage = npt.NDArray[np.uint8]
UnsignedArray = npt.NDArray[np.unsignedinteger]

AXIAL, CORONAL, SAGITTAL = 0, 1, 2
"""The axis of a display stack across which each plane is cut."""

PLANE_NAMES = ("Axial", "Coronal", "Sagittal")
SIDES = (("R", "L", "A", "P"), ("R", "L", "S", "I"), ("A", "P", "S", "I"))
"""Letters at the left, right, top and bottom of each plane: patient right on the left, front or head up."""

CT_WINDOW_HU = (40.0, 400.0)

_DISPLAY = "SPL"  # slices to the head, rows to the back, columns to the left: an axial slice as it is looked at
_MARGIN_MM = 30.0
_FINE = 2  # pictures are drawn this much larger and then shrunk, which makes outlines smooth
_FILL = 0.34
_OUTLINE = 3
_PERCENTILES = (1, 99)


@dataclass(frozen=True)
class DisplayStack:
    """A scan and its labels turned into display orientation: axis 0 to the head, 1 to the back, 2 to the left.

    Attributes:
        array: (s, p, l) voxel values.
        labels: (s, p, l) label values.
        geometry: where they lie.
        window: smallest and largest value that is told apart, in the unit of the array.
        colours: (largest label value + 1, 3) colour of each label value, 0 to 255.
    """

    array: npt.NDArray[np.number]
    labels: UnsignedArray
    geometry: Geometry
    window: tuple[float, float]
    colours: ByteImage


@dataclass(frozen=True)
class Box:
    """The part of a display stack that is shown: the first index and one past the last, by axis."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]


def make_stack(volume: Volume, segmentation: Segmentation) -> DisplayStack:
    """The scan and its labels in display orientation; nothing is copied.

    Args:
        volume: the scan.
        segmentation: labels on its grid.

    Returns:
        The stack, with a window that suits the modality: soft tissue for CT, else the 1st to 99th percentile.
    """
    axes, flips = volume.geometry.reorienting(_DISPLAY)
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    largest = max((label.value for label in segmentation.table), default=0)
    colours = np.zeros((largest + 1, 3), np.uint8)
    for label in segmentation.table:
        colours[label.value] = label.colour
    geometry = volume.geometry.reoriented(_DISPLAY)
    array, labels = volume.array.transpose(axes)[turn], segmentation.labels.transpose(axes)[turn]
    return DisplayStack(array, labels, geometry, _window(volume), colours)


def find_box(stack: DisplayStack) -> Box:
    """The whole scan: what the labels leave out must be seen as well."""
    return Box((0, 0, 0), stack.geometry.shape)


def find_centre(stack: DisplayStack) -> tuple[int, int, int]:
    """The index nearest to the centre of mass of all labels, or the middle of the scan where there are none."""
    centre = []
    for axis in range(3):
        counts = np.count_nonzero(stack.labels, axis=tuple({0, 1, 2} - {axis}))
        middle = (stack.geometry.shape[axis] - 1) / 2
        centre.append(int(np.average(np.arange(len(counts)), weights=counts) if counts.any() else middle))
    return centre[0], centre[1], centre[2]


def size_mm(stack: DisplayStack, box: Box, axis: int) -> tuple[float, float]:
    """Height and width in mm of a plane cut across ``axis``, within the box."""
    lengths = [_edges_mm(stack.geometry, each)[[box.start[each], box.stop[each]]] for each in range(3) if each != axis]
    return float(np.ptp(lengths[0])), float(np.ptp(lengths[1]))


def draw_plane(stack: DisplayStack, box: Box, axis: int, index: int, pixels: tuple[int, int]) -> Image.Image:
    """One plane, the labels filled translucently and outlined.

    Args:
        stack: scan and labels in display orientation.
        box: the part to show.
        axis: axis of the stack across which to cut: AXIAL, CORONAL or SAGITTAL.
        index: where to cut along it.
        pixels: height and width of the picture; the caller keeps the true aspect, see `size_mm`.

    Returns:
        An RGB picture with head or front up and, except in a sagittal plane, patient right on the left.
    """
    height, width = pixels[0] * _FINE, pixels[1] * _FINE
    shown = [_sample(stack.geometry, box, each, size) for each, size in _axes_of_plane(axis, height, width)]
    values = np.take(stack.array, index, axis)
    labels = np.take(stack.labels, index, axis)[np.ix_(shown[0], shown[1])]
    grey = _to_grey(values[box_slices(box, axis)], stack.window)
    grey = np.asarray(
        Image.fromarray(_even(grey, stack.geometry, box, axis)).resize((width, height), Image.Resampling.BICUBIC)
    )
    if axis != AXIAL:  # rows of the stack go up to the head, rows of a picture go down
        grey, labels = grey[::-1], labels[::-1]
    colours = stack.colours[labels].astype(np.float32)
    strength = np.where(labels > 0, _FILL, 0.0).astype(np.float32)
    strength[_outline(labels)] = 1.0
    picture = grey[..., None] * (1 - strength[..., None]) + colours * strength[..., None]
    fine = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
    return fine.resize((pixels[1], pixels[0]), Image.Resampling.LANCZOS)


def box_slices(box: Box, axis: int) -> tuple[slice, ...]:
    """The index expression of the box within a plane cut across ``axis``."""
    return tuple(slice(box.start[each], box.stop[each]) for each in range(3) if each != axis)


def place_on_axis(stack: DisplayStack, box: Box, axis: int, index: int) -> float:
    """Where the centre of a slice lies within the box along ``axis``, from 0 at its low end to 1 at its high end."""
    edges = _edges_mm(stack.geometry, axis)
    start, stop = edges[box.start[axis]], edges[box.stop[axis]]
    return float(((edges[index] + edges[index + 1]) / 2 - start) / (stop - start))


def _window(volume: Volume) -> tuple[float, float]:
    if volume.modality == "CT":
        centre, width = CT_WINDOW_HU
        return centre - width / 2, centre + width / 2
    step = max(1, round((volume.array.size / 2e6) ** (1 / 3)))
    sample = volume.array[::step, ::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, _PERCENTILES) if sample.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _axes_of_plane(axis: int, height: int, width: int) -> list[tuple[int, int]]:
    """The two remaining axes, the one down the picture first, with the number of pixels along each."""
    across = [each for each in range(3) if each != axis]
    return [(across[0], height), (across[1], width)]


def _edges_mm(geometry: Geometry, axis: int) -> npt.NDArray[np.float64]:
    """The n+1 borders between the n voxels along an axis, in mm from the first border."""
    widths = np.full(geometry.shape[axis], geometry.spacing_mm[axis])
    if geometry.slice_offsets is not None and axis == geometry.slice_axis:
        volumes = geometry.voxel_volumes_mm3()
        widths = geometry.spacing_mm[axis] * volumes / abs(np.linalg.det(geometry.affine[:3, :3]))
    return np.concatenate([[0.0], np.cumsum(widths)])


def _sample(geometry: Geometry, box: Box, axis: int, count: int) -> npt.NDArray[np.intp]:
    """The voxel that each of ``count`` even steps through the box along ``axis`` falls into."""
    edges = _edges_mm(geometry, axis)
    start, stop = edges[box.start[axis]], edges[box.stop[axis]]
    places = start + (np.arange(count) + 0.5) * (stop - start) / count
    return np.clip(np.searchsorted(edges, places, side="right") - 1, box.start[axis], box.stop[axis] - 1)


def _even(plane: ByteImage, geometry: Geometry, box: Box, axis: int) -> ByteImage:
    """The plane with unequally thick slices repeated so that its rows and columns are equally far apart."""
    if geometry.slice_offsets is None or axis == geometry.slice_axis:
        return np.ascontiguousarray(plane)
    uneven = geometry.slice_axis
    row = [each for each in range(3) if each != axis].index(uneven)
    widths = np.diff(_edges_mm(geometry, uneven))[box.start[uneven] : box.stop[uneven]]
    count = min(4096, max(len(widths), int(np.ceil(widths.sum() / widths.min()))))
    chosen = _sample(geometry, box, uneven, count) - box.start[uneven]
    return np.ascontiguousarray(plane.take(chosen, row))


def _to_grey(values: npt.NDArray[np.number], window: tuple[float, float]) -> ByteImage:
    scaled = (values.astype(np.float32) - window[0]) * (255 / (window[1] - window[0]))
    return np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)


def _outline(labels: UnsignedArray) -> npt.NDArray[np.bool_]:
    """The inner rim of every labelled region."""
    padded = np.pad(labels, 1, mode="edge")
    rim = np.zeros(labels.shape, bool)
    for shift in ((0, 1), (2, 1), (1, 0), (1, 2)):
        rim |= padded[shift[0] : shift[0] + labels.shape[0], shift[1] : shift[1] + labels.shape[1]] != labels
    thick = rim.copy()
    for _ in range(_OUTLINE - 1):
        grown = thick.copy()
        grown[1:] |= thick[:-1]
        grown[:-1] |= thick[1:]
        grown[:, 1:] |= thick[:, :-1]
        grown[:, :-1] |= thick[:, 1:]
        thick = grown
    return thick & (labels > 0)
