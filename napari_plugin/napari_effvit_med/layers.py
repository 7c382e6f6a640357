"""Where a scan is shown: all axis order between napari and the patient is here. Knows neither napari nor Qt.

napari draws its world axes as they come. With the axes (-z, y, x) of the patient system LPS, in mm, the axial, coronal
and sagittal views look as radiologists expect them, and the view in 3D is no mirror image. Arrays are therefore shown
as views whose axes grow to the feet, the back and the left (``IPL``); no voxel is copied and none is resampled.

A scan acquired obliquely is shown straight, about its own centre: napari cannot paint on a rotated grid rightly. What
was turned away stays in a `DisplayFrame`, so that every point shown leads back to its true place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from effvit_med.volume import Geometry, Segmentation, Volume
from effvit_med.volume.geometry import FloatArray

ORIENTATION = "IPL"
AXIS_LABELS = ("S→I", "A→P", "R→L")
UNITS = ("mm", "mm", "mm")
METADATA_KEY = "effvit_med"

STRAIGHT_MM = 0.05
"""A grid whose corners are farther from straight is oblique; nearer ones only have rounded direction cosines."""

AGREEMENT_VOXELS = 0.25
"""Two grids overlay rightly if no corner is shown farther from its place than this part of a voxel."""

Scalar = TypeVar("Scalar", bound=np.generic)
Triple = tuple[float, float, float]

_SHOWN = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""From LPS (x, y, z) to napari's world (-z, y, x); it is orthogonal, so its transpose leads back."""


@dataclass(frozen=True, eq=False)
class DisplayFrame:
    """A turn about a point, which makes an oblique scan straight.

    Attributes:
        rotation: (3, 3), from the straight axes x, y, z to their true directions in the patient.
        centre_mm: the point of the patient that stays where it is.
    """

    rotation: FloatArray = field(default_factory=lambda: np.eye(3))
    centre_mm: FloatArray = field(default_factory=lambda: np.zeros(3))

    @classmethod
    def of(cls, geometry: Geometry) -> DisplayFrame:
        """The frame in which a grid stands straight; no turn at all for one that is straight but for rounding.

        Args:
            geometry: the grid; a sheared one is taken as its nearest right-angled one.

        Examples:
            >>> DisplayFrame.of(Geometry(np.eye(4), (4, 5, 6))).angle_degrees
            0.0
        """
        shown = geometry.without_shear().reoriented(ORIENTATION)
        rotation = shown.directions @ _SHOWN
        centre = _centre_of(shown)
        reach = float(np.linalg.norm(shown.corners_world() - centre, axis=1).max())
        frame = cls(rotation, centre)
        if np.radians(frame.angle_degrees) * reach < STRAIGHT_MM:
            return cls()
        return frame

    @property
    def angle_degrees(self) -> float:
        """How far the frame is turned."""
        cosine = (float(np.trace(self.rotation)) - 1) / 2
        sine = float(np.linalg.norm(self.rotation - self.rotation.T)) / np.sqrt(8)
        return float(np.degrees(np.arctan2(sine, cosine)))

    def to_shown(self, world: npt.ArrayLike) -> FloatArray:
        """Where napari shows points of the patient.

        Args:
            world: (..., 3) points in mm, LPS.

        Returns:
            (..., 3) points of napari's world in mm.
        """
        straight = (np.asarray(world, dtype=np.float64) - self.centre_mm) @ self.rotation + self.centre_mm
        return np.asarray(straight @ _SHOWN.T, dtype=np.float64)

    def to_world(self, shown: npt.ArrayLike) -> FloatArray:
        """The points of the patient that napari shows at points of its world; the inverse of `to_shown`."""
        straight = np.asarray(shown, dtype=np.float64) @ _SHOWN
        return np.asarray((straight - self.centre_mm) @ self.rotation.T + self.centre_mm, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class DisplayGrid:
    """How an array on a grid of the patient is shown, and the way back.

    Attributes:
        geometry: the true grid; its array axes are those of the files.
        frame: what was turned away.
        axes: for ``array.transpose``.
        flips: for each axis shown, whether it runs against the array's.
        scale: step of each axis shown, in mm; the mean step along slices at unequal distances.
        translate: centre of the first voxel shown, in napari's world.
        error_mm: how far a corner voxel is shown from its place at most: by shear, unequal slices or a foreign frame.
    """

    geometry: Geometry
    frame: DisplayFrame
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    scale: Triple
    translate: Triple
    error_mm: float

    @classmethod
    def of(cls, geometry: Geometry, frame: DisplayFrame | None = None) -> DisplayGrid:
        """How to show a grid.

        Args:
            geometry: the grid.
            frame: that of what is shown already; by default the grid's own.

        Examples:
            >>> axial = Geometry(np.diag([5.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]], (10, 64, 64))
            >>> grid = DisplayGrid.of(axial)
            >>> grid.flips, grid.scale, grid.translate
            ((True, False, False), (5.0, 2.0, 2.0), (-45.0, 0.0, 0.0))
        """
        frame = frame or DisplayFrame.of(geometry)
        straightened = np.eye(4)
        straightened[:3, :3] = frame.rotation.T
        straightened[:3, 3] = frame.centre_mm - frame.rotation.T @ frame.centre_mm
        axes, flips = replace(geometry, affine=straightened @ geometry.affine).reorienting(ORIENTATION)
        turned = geometry.permuted(axes)
        for axis in range(3):
            turned = turned.flipped(axis) if flips[axis] else turned
        size = np.array(turned.shape)
        steps = np.array(turned.spacing_mm)
        if turned.slice_offsets is not None and len(turned.slice_offsets) > 1:
            first, *_, last = turned.slice_offsets
            steps[turned.slice_axis] *= (last - first) / (len(turned.slice_offsets) - 1)
        start = frame.to_shown(_centre_of(turned)) - steps * (size - 1) / 2
        index = _ends(turned)
        error = np.linalg.norm(start + index * steps - frame.to_shown(turned.index_to_world(index)), axis=1).max()
        scale, translate = (_triple(np.round(values, 9) + 0.0) for values in (steps, start))
        return cls(geometry, frame, axes, flips, scale, translate, float(error))

    @property
    def agrees(self) -> bool:
        """Whether all is shown so near to its place that another layer of the same frame overlays rightly."""
        return self.error_mm <= max(STRAIGHT_MM, AGREEMENT_VOXELS * min(self.scale))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape that is shown."""
        a, b, c = (self.geometry.shape[axis] for axis in self.axes)
        return a, b, c

    def view(self, array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The array as it is shown; it shares the memory, so what is painted there is painted here.

        Args:
            array: on the true grid.
        """
        return np.flip(array.transpose(self.axes), tuple(axis for axis in range(3) if self.flips[axis]))

    def unview(self, shown: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """The array on the true grid of one that is shown; shares the memory, and is the inverse of `view`."""
        back = [self.axes.index(axis) for axis in range(3)]
        return np.flip(shown, tuple(axis for axis in range(3) if self.flips[axis])).transpose(back)

    def to_index(self, shown_index: npt.ArrayLike) -> FloatArray:
        """Indices on the true grid of indices of what is shown.

        Args:
            shown_index: (..., 3), also fractional.
        """
        index = np.asarray(shown_index, dtype=np.float64)
        found = np.empty_like(index)
        for axis, (mine, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            along = index[..., axis]
            found[..., mine] = self.geometry.shape[mine] - 1 - along if flip else along
        return found

    def from_index(self, index: npt.ArrayLike) -> FloatArray:
        """Indices of what is shown of indices on the true grid; the inverse of `to_index`."""
        points = np.asarray(index, dtype=np.float64)
        found = np.empty_like(points)
        for axis, (mine, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            along = points[..., mine]
            found[..., axis] = self.geometry.shape[mine] - 1 - along if flip else along
        return found

    def to_world(self, shown: npt.ArrayLike) -> FloatArray:
        """The true place in the patient of points of napari's world, also where the scan is shown straightened.

        Args:
            shown: (..., 3) points of napari's world.

        Returns:
            (..., 3) points in mm, LPS.
        """
        index = (np.asarray(shown, dtype=np.float64) - self.translate) / self.scale
        return self.geometry.index_to_world(self.to_index(index))

    def remarks(self) -> tuple[str, ...]:
        """What the user must know of how this is shown; empty if it is shown as it lies."""
        if self.geometry.shear_degrees > 1:
            degrees = self.geometry.shear_degrees
            tilt = f"The gantry was tilted by {degrees:.1f} degrees: slices are shown above one another"
            return (f"{tilt}, voxels up to {self.error_mm:.0f} mm from their place; saved files keep it.",)
        found = []
        if self.frame.angle_degrees > 1:
            found.append(
                f"The scan is turned by {self.frame.angle_degrees:.1f} degrees and shown straight; saved files keep "
                "its true place."
            )
        if not self.geometry.is_regular and not self.agrees:
            found.append(
                f"Slices have unequal distances and are shown {max(self.scale):.3g} mm apart, up to "
                f"{self.error_mm:.1f} mm from their place."
            )
        return tuple(found)

    def layer_arguments(self) -> dict[str, Any]:
        """What napari wants to know to show `view` of an array in its place."""
        return {"scale": self.scale, "translate": self.translate, "units": UNITS, "axis_labels": AXIS_LABELS}


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """What a layer of ours carries in its metadata.

    Attributes:
        grid: how the layer is shown.
        volume: the scan it shows, or that its labels belong to; None if not known.
        segmentation: of a layer of labels: as it was opened or made; None for a scan.
        is_resampled: whether the layer shows voxels made for display, on another grid than the scan's.
        digest: of the labels as they were opened or made, to know whether they were painted on; empty if not known.
    """

    grid: DisplayGrid
    volume: Volume | None = None
    segmentation: Segmentation | None = None
    is_resampled: bool = False
    digest: str = ""


def record_of(metadata: Any) -> LayerRecord | None:
    """The record in the metadata of a layer; None if it is not ours."""
    record = metadata.get(METADATA_KEY) if hasattr(metadata, "get") else None
    return record if isinstance(record, LayerRecord) else None


def foreign_grid(affine: npt.ArrayLike, shape: Sequence[int]) -> DisplayGrid:
    """How a layer that is not ours is taken to lie: its world axes as (-z, y, x) in mm.

    Args:
        affine: (4, 4), from its data to napari's world.
        shape: of its data.

    Raises:
        GeometryError: if the affine cannot be inverted or the shape is not that of a volume.
    """
    world = np.eye(4)
    world[:3, :3] = _SHOWN.T
    size = tuple(int(each) for each in shape)
    return DisplayGrid.of(Geometry(world @ np.asarray(affine, dtype=np.float64), size), DisplayFrame())  # type: ignore[arg-type]


def _centre_of(geometry: Geometry) -> FloatArray:
    """Midway between the first and the last voxel."""
    last = np.array(geometry.shape) - 1.0
    return np.asarray(geometry.index_to_world(np.stack([np.zeros(3), last])).mean(axis=0), dtype=np.float64)


def _ends(geometry: Geometry) -> FloatArray:
    """The indices of the corner voxels of every slice at an unequal distance, or of the grid."""
    sizes = [[0.0, size - 1.0] for size in geometry.shape]
    if geometry.slice_offsets is not None:
        sizes[geometry.slice_axis] = [float(number) for number in range(geometry.shape[geometry.slice_axis])]
    return np.stack(np.meshgrid(*sizes, indexing="ij"), axis=-1).reshape(-1, 3)


def _triple(values: FloatArray) -> Triple:
    a, b, c = (float(value) for value in values)
    return a, b, c
