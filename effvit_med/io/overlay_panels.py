"""Pictures of single planes of a scan with the labels drawn over them, the way radiologists look at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from effvit_med.volume.geometry import Geometry
from effvit_med.volume.pages import count_slab, find_outermost, release_pages
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
_CENTRE_SAMPLES = 128  # of each axis, which is enough to place a panel


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
    """The index nearest to the centre of mass of all labels, or the middle of the scan where there are none.

    A large scan is looked at in steps of several voxels; only where nothing is found so, voxel by voxel.
    """
    steps = [max(1, size // _CENTRE_SAMPLES) for size in stack.labels.shape]
    sampled = stack.labels[:: steps[0], :: steps[1], :: steps[2]] > 0
    if not sampled.any():
        steps, sampled = [1, 1, 1], stack.labels > 0
    centre = []
    for axis in range(3):
        counts = np.count_nonzero(sampled, axis=tuple({0, 1, 2} - {axis}))
        middle = (stack.geometry.shape[axis] - 1) / 2
        places = np.arange(len(counts)) * steps[axis]
        centre.append(int(np.average(places, weights=counts) if counts.any() else middle))
    release_pages(stack.labels)
    return centre[0], centre[1], centre[2]


def find_touched(stack: DisplayStack, axis: int) -> npt.NDArray[np.intp]:
    """The indices along an axis of the planes that hold labels, in rising order."""
    labels = stack.labels
    outer = find_outermost(labels)
    if axis == outer:
        return np.flatnonzero([plane.any() for plane in np.moveaxis(labels, axis, 0)])
    touched = np.zeros(labels.shape[axis], bool)
    across = sum(1 for each in range(axis) if each != outer)  # where the axis stands in a plane across the outer one
    for plane in np.moveaxis(labels, outer, 0):
        touched |= plane.any(axis=1 - across)
    return np.flatnonzero(touched)


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
    values = _take_plane(stack.array, index, axis)
    labels = _take_plane(stack.labels, index, axis)[np.ix_(shown[0], shown[1])]
    grey = _to_grey(values[box_slices(box, axis)], stack.window)
    grey = np.asarray(
        Image.fromarray(_even(grey, stack.geometry, box, axis)).resize((width, height), Image.Resampling.BICUBIC)
    )
    if axis != AXIAL:  # rows of the stack go up to the head, rows of a picture go down
        grey, labels = grey[::-1], labels[::-1]
    fine = Image.fromarray(_blend(grey, labels, stack.colours))
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
    planes = np.moveaxis(volume.array, find_outermost(volume.array), 0)
    slab = -(-count_slab(planes) // step) * step
    parts = []
    for start in range(0, len(planes), slab):
        parts.append(planes[start : start + slab : step, ::step, ::step].astype(np.float64).ravel())
        release_pages(planes)
    sample = np.concatenate(parts)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, _PERCENTILES) if sample.size else (0.0, 1.0)
    return float(low), float(high if high > low else low + 1)


def _take_plane(array: npt.NDArray[Any], index: int, axis: int) -> npt.NDArray[Any]:
    """A plane of an array that may lie in a file: never more than a slab of it is in memory."""
    outer = find_outermost(array)
    if axis == outer:
        return np.array(np.take(array, index, axis))
    slab = count_slab(array, outer)
    parts = []
    for start in range(0, array.shape[outer], slab):
        part = [slice(None)] * 3
        part[outer] = slice(start, start + slab)
        parts.append(np.take(array[tuple(part)], index, axis))
        release_pages(array)
    return np.concatenate(parts, axis=outer - (axis < outer))


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


def _blend(grey: ByteImage, labels: UnsignedArray, colours: ByteImage) -> ByteImage:
    """The grey picture in RGB, with the labels over it; only labelled pixels are worked on."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    inside = labels > 0
    strength = np.where(_outline(labels)[inside], 1.0, _FILL).astype(np.float32)[:, None]
    mixed = picture[inside] * (1 - strength) + colours[labels[inside]].astype(np.float32) * strength
    picture[inside] = np.clip(mixed, 0, 255).astype(np.uint8)
    return picture


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
