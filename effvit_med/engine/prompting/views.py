"""What a promptable network looks at: a part of a scan, as fine as is, or coarser where an object does not fit.

A view is a grid parallel to the scan's, in array indices: no millimetre is needed to go there and back, so slices at
unequal distances and sheared scans are as good as any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effvit_med.transforms.resampling import RowResampler
from effvit_med.volume import Geometry

Size = tuple[int, int, int]
Step = tuple[float, float, float]
Box = tuple[slice, slice, slice]

FEWEST = 24
"""Voxels along an axis below which a view gets no coarser there: thick slices are few as it is."""


@dataclass(frozen=True)
class Outlook:
    """How far a network looks, in voxels along an axis.

    Attributes:
        finest: most of a view; where more of the scan is to be seen, it is seen coarser.
        least: fewest of the scan that a view shows.
        overview: most of the scan that is looked at first where nothing is known of an object's size.
        growth: how many times larger the next view is, where an object reaches the border of this one.
        roomy: how many times larger than a box, lasso, mask or answer a view is.
        evidence: how far a new prompt speaks, in voxels of the view: farther pieces of a change are not taken.
    """

    finest: int
    least: int
    overview: int
    growth: float = 2.0
    roomy: float = 2.0
    evidence: float = 48.0


@dataclass(frozen=True)
class View:
    """A grid of voxels within a scan.

    Attributes:
        start: array index of the centre of the first voxel, along each axis of the scan.
        step: array indices from voxel to voxel.
        shape: voxels along each axis.
    """

    start: Step
    step: Step
    shape: Size

    @property
    def grid(self) -> Geometry:
        """The grid in array indices of the scan, as if these were millimetres."""
        affine = np.diag([*self.step, 1.0])
        affine[:3, 3] = self.start
        return Geometry(affine, self.shape)

    def box(self, shape: Sequence[int]) -> Box:
        """The voxels of the scan whose centres it covers.

        Args:
            shape: of the scan.
        """
        parts = []
        for start, step, count, size in zip(self.start, self.step, self.shape, shape, strict=True):
            low = int(np.ceil(start - step / 2 - 1e-6))
            high = int(np.floor(start + step * (count - 0.5) + 1e-6))
            parts.append(slice(max(0, low), min(size, high + 1)))
        return tuple(parts)  # type: ignore[return-value]


def make_view(
    centre: Sequence[float], extent: Sequence[float], shape: Sequence[int], largest: Sequence[int], flat: int | None
) -> View:
    """The view of a size about a place, moved so that it lies within the scan.

    Args:
        centre: array index that should be in the middle.
        extent: how many voxels of the scan it should cover along each axis; cut to the scan.
        shape: of the scan.
        largest: most voxels of the view along each axis; what is more is seen coarser, and all axes alike, so that
            nothing is distorted, but along none are fewer than `FEWEST` left of more.
        flat: the axis along which it is a single slice; None for a block.

    Examples:
        >>> view = make_view((3, 10, 90), (1, 40, 40), (8, 100, 100), (1, 20, 20), 0)
        >>> view.start, view.step, view.shape
        ((3.0, 0.5, 60.5), (1.0, 2.0, 2.0), (1, 20, 20))
    """
    covered = [min(size, max(1, round(wanted))) for wanted, size in zip(extent, shape, strict=True)]
    coarsest = max(seen / most for axis, (seen, most) in enumerate(zip(covered, largest, strict=True)) if axis != flat)
    starts, steps, counts = [], [], []
    for axis, (middle, seen, most, size) in enumerate(zip(centre, covered, largest, shape, strict=True)):
        if axis == flat:
            starts.append(float(min(max(0, round(middle)), size - 1)))
            steps.append(1.0)
            counts.append(1)
            continue
        count = min(most, max(1, round(seen / max(1.0, min(coarsest, seen / FEWEST)))))
        step = seen / count
        low = min(max(0, round(middle - (seen - 1) / 2)), size - seen)  # whole voxels: with a step of 1 a cut
        starts.append(low + (step - 1) / 2)
        steps.append(step)
        counts.append(count)
    return View(tuple(starts), tuple(steps), tuple(counts))  # type: ignore[arg-type]


def cut_view(array: npt.NDArray[np.generic], view: View, *, slices: int = 0, flat: int = 0) -> npt.NDArray[np.float32]:
    """The values of a scan on a view, averaged where the view is coarser.

    Args:
        array: the scan, or a mask of it.
        view: what to look at.
        slices: of a flat view, how many neighbours on each side come along; beyond the scan the last is repeated.
        flat: the axis of a flat view.

    Returns:
        Of the view's shape; with neighbours 2 * slices + 1 along the flat axis.
    """
    box = tuple(
        slice(max(0, int(np.floor(start - step))), min(size, int(np.ceil(start + step * count)) + 1))
        for start, step, count, size in zip(view.start, view.step, view.shape, array.shape, strict=True)
    )
    if slices:
        numbers = np.clip(np.arange(-slices, slices + 1) + round(view.start[flat]), 0, array.shape[flat] - 1)
        parts = []
        for number in numbers:
            start = tuple(float(number) if axis == flat else at for axis, at in enumerate(view.start))
            parts.append(cut_view(array, View(start, view.step, view.shape)))  # type: ignore[arg-type]
        return np.concatenate(parts, axis=flat)
    block = np.asarray(array[box])
    if view.step == (1.0, 1.0, 1.0) and all(start == round(start) for start in view.start):
        inner = tuple(
            slice(int(start) - part.start, int(start) - part.start + count)
            for start, part, count in zip(view.start, box, view.shape, strict=True)
        )
        return np.ascontiguousarray(block[inner], np.float32)
    moved = tuple(start - part.start for start, part in zip(view.start, box, strict=True))
    here = View(moved, view.step, view.shape)  # type: ignore[arg-type]
    return _read_rows(block, Geometry(np.eye(4), block.shape), here.grid, slice(0, here.shape[0]))


def spread_rows(values: npt.NDArray[np.float32], view: View, box: Box, rows: slice) -> npt.NDArray[np.float32]:
    """Values of a view on some of the scan's voxels that it covers, interpolated linearly.

    Args:
        values: of the view's shape.
        view: where they lie.
        box: the voxels that it covers, as of `View.box`.
        rows: which of them, along axis 0 of the box.
    """
    if view.step == (1.0, 1.0, 1.0):
        return values[rows]
    target = np.eye(4)
    target[:3, 3] = [part.start for part in box]
    size = tuple(part.stop - part.start for part in box)
    return _read_rows(values, view.grid, Geometry(target, size), rows)


def _read_rows(
    values: npt.NDArray[np.generic], source: Geometry, target: Geometry, rows: slice
) -> npt.NDArray[np.float32]:
    """Some rows of values on another grid, without a copy of the values as a whole."""
    return np.asarray(RowResampler(values, source, target).read(rows.start, rows.stop).numpy())


def touches(mask: npt.NDArray[np.bool_], view: View, shape: Sequence[int], flat: int | None) -> bool:
    """Whether an object reaches a border of its view beyond which the scan goes on.

    Args:
        mask: of the view's shape.
        view: what was looked at.
        shape: of the scan.
        flat: the axis of a flat view, which has no such borders.
    """
    for axis in (axis for axis in range(3) if axis != flat):
        part = view.box(shape)[axis]
        if part.start > 0 and mask.take(0, axis).any():
            return True
        if part.stop < shape[axis] and mask.take(-1, axis).any():
            return True
    return False
