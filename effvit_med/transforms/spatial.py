"""Moving values between grids: a scan onto the network's grid, and scores of classes back as labels.

Grids whose axes run in parallel (nearly every scan and its network grid) are resampled one axis at a time, with a
small matrix for each axis; a tilted scan is first thinned on its own grid, then sampled point by point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from effvit_med.volume import Geometry

SHEAR_TOLERANCE_DEGREES = 0.2
"""Below this angle a grid counts as right-angled: over 400 mm the error stays under 1.4 mm times its cosine."""

PARALLEL_TOLERANCE = 0.05
"""Two grids count as parallel when no voxel is further off the other grid's lines than this part of a voxel."""

SLAB_VALUES = 1 << 25
"""How many values one slab of work may hold (128 MiB of float32)."""


@dataclass(frozen=True, eq=False)
class AxisMap:
    """Which axis of another grid an axis runs along, and where its voxels lie there.

    Attributes:
        axis: the axis of the other grid.
        index: fractional indices along that axis, one for each voxel of this axis.
    """

    axis: int
    index: npt.NDArray[np.float64]


def map_axes(grid: Geometry, other: Geometry) -> tuple[AxisMap, AxisMap, AxisMap] | None:
    """Where each axis of a grid lies in another grid.

    Args:
        grid: the grid whose voxels are asked for.
        other: the grid whose indices are the answer.

    Returns:
        One map for each axis of ``grid``, or None if the grids are not parallel.
    """
    to_other = np.linalg.inv(other.affine) @ grid.affine
    linear = to_other[:3, :3]
    axes = [int(np.argmax(np.abs(linear[:, axis]))) for axis in range(3)]
    if sorted(axes) != [0, 1, 2]:
        return None
    strays = np.abs(linear) * np.array([max(1, size - 1) for size in grid.shape])
    strays[axes, [0, 1, 2]] = 0
    if strays.sum(axis=1).max() > PARALLEL_TOLERANCE:
        return None
    centre = _strays_at_centre(linear, axes, grid.shape)
    maps = []
    for axis in range(3):
        steps = np.arange(grid.shape[axis], dtype=np.float64)
        if grid.slice_offsets is not None and axis == grid.slice_axis:
            steps = np.array(grid.slice_offsets)
        offsets = linear[axes[axis], axis] * steps + to_other[axes[axis], 3] + centre[axes[axis]]
        points = np.zeros((len(steps), 3))
        points[:, axes[axis]] = offsets
        # offsets along an irregular axis become indices; the other two columns are not used
        index = other.world_to_index(points @ other.affine[:3, :3].T + other.affine[:3, 3])[:, axes[axis]]
        maps.append(AxisMap(axes[axis], index))
    return maps[0], maps[1], maps[2]


def _strays_at_centre(
    linear: npt.NDArray[np.float64], axes: list[int], shape: tuple[int, int, int]
) -> npt.NDArray[np.float64]:
    """What the small off-axis terms add in the middle of the grid, so that leaving them out errs evenly."""
    strays = linear.copy()
    strays[axes, [0, 1, 2]] = 0
    return np.asarray(strays @ ((np.array(shape) - 1) / 2), dtype=np.float64)


def interpolation_matrix(index: npt.NDArray[np.float64], size: int) -> Float[Tensor, "out size"]:
    """The linear interpolation at fractional indices, as a matrix; averages where it thins out.

    Where the indices step by more than one, the interpolated line is averaged over a window, so that no voxel is
    skipped and noise is averaged; window and interpolation together are as wide as a triangle of that step. A straight
    line stays where it is. Outside the grid the end values go on.

    Args:
        index: fractional indices into an axis.
        size: number of voxels along that axis.

    Returns:
        (len(index), size) float32 weights; each row sums to 1.
    """
    step = max(1.0, float(np.abs(np.diff(index)).mean())) if len(index) > 1 else 1.0
    width = np.sqrt(2 * (step**2 - 1))  # variances add: step^2/6 = 1/6 + width^2/12
    count = 4 * int(np.ceil(width)) + 1
    window = (np.arange(count) - (count - 1) / 2) * (width / count)
    weights = np.zeros((len(index), size))
    for shift in window:
        places = np.clip(index + shift, 0, size - 1)
        weights += np.maximum(0.0, 1 - np.abs(places[:, None] - np.arange(size)[None, :])) / count
    return torch.from_numpy(weights).float()


def network_grid(
    geometry: Geometry, orientation: str | None, spacing_mm: tuple[float | None, float | None, float | None]
) -> Geometry:
    """The right-angled regular grid on which a network sees a scan.

    It has the scan's own directions (for a tilted scan: its in-plane directions and their normal), brought into the
    orientation, covers the scan to its outer voxel edges and is centred on it.

    Args:
        geometry: the scan's.
        orientation: three letters such as ``"SPL"``, or None to keep the scan's axes.
        spacing_mm: the spacing along each axis of the result; None keeps that axis of the scan as it is: exactly, or
            for a tilted scan its spacing, along the normal for the slices.

    Returns:
        The grid.

    Raises:
        GeometryError: if the letters do not name three different patient axes.
    """
    scan = geometry if orientation is None else geometry.reoriented(orientation)
    directions, steps = scan.directions.copy(), np.array(scan.spacing_mm)
    sheared = scan.shear_degrees > SHEAR_TOLERANCE_DEGREES
    if sheared:
        directions = _square_directions(scan)
        steps = np.abs((directions * scan.affine[:3, :3]).sum(axis=0))  # between slices: along their normal
    local = np.linalg.solve(directions, scan.corners_world().T)  # (axis, corner), mm along each direction
    low, high = local.min(axis=1), local.max(axis=1)
    affine, shape, offsets = np.eye(4), [1, 1, 1], None
    start = np.linalg.solve(directions, scan.affine[:3, 3])
    for axis, spacing in enumerate(spacing_mm):
        step = float(steps[axis]) if spacing is None else spacing
        if spacing is None and not sheared:
            shape[axis] = scan.shape[axis]
            offsets = scan.slice_offsets if axis == scan.slice_axis else offsets
        else:
            shape[axis] = max(1, int(np.ceil((high[axis] - low[axis]) / step - 1e-6)))
            start[axis] = (low[axis] + high[axis]) / 2 - (shape[axis] - 1) / 2 * step
        affine[:3, axis] = directions[:, axis] * step
    affine[:3, 3] = directions @ start
    sizes = (shape[0], shape[1], shape[2])
    return Geometry(affine, sizes, geometry.frame_of_reference_uid, offsets, scan.slice_axis)


def strided_grid(grid: Geometry, stride: tuple[int, int, int]) -> Geometry:
    """The grid of a network's output that has one value for each block of ``stride`` voxels of its input."""
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ ((np.array(stride) - 1) / 2)
    affine[:3, :3] *= np.array(stride)
    shape = tuple(-(-size // step) for size, step in zip(grid.shape, stride, strict=True))
    offsets, step = grid.slice_offsets, stride[grid.slice_axis]
    if offsets is not None:
        blocks = [offsets[first : first + step] for first in range(0, len(offsets), step)]
        offsets = tuple((float(np.mean(block)) - (step - 1) / 2) / step for block in blocks)
    return replace(grid, affine=affine, shape=(shape[0], shape[1], shape[2]), slice_offsets=offsets)


def resample(
    values: Shaped[Tensor, "a0 a1 a2"], source: Geometry, target: Geometry, *, fill: float = 0.0
) -> Float[Tensor, "b0 b1 b2"]:
    """Values of a scan on another grid, linearly interpolated; averaged where the other grid is coarser.

    Args:
        values: (a0, a1, a2) values on ``source``, of any real type.
        source: the grid of the values.
        target: the grid of the result.
        fill: the value outside the scan, used only where the grids are not parallel.

    Returns:
        float32 values of the shape of ``target``.
    """
    maps = map_axes(target, source)
    if maps is not None:
        return _resample_parallel(values, source.shape, maps)
    thin = _thinned(source, target)
    maps = map_axes(thin, source)
    if maps is None:
        raise AssertionError("a thinned grid is parallel to its own scan")
    values = _resample_parallel(values, source.shape, maps)
    result = torch.empty(target.shape)
    for rows, points in _points_by_slab(target, thin, classes=1):
        result[rows] = _sample(values[None], points, fill)[0]
    return result


def label_grid(
    scores: Float[Tensor, "classes a0 a1 a2"],
    grid: Geometry,
    target: Geometry,
    on_slab: Callable[[int, int], None] | None = None,
) -> Shaped[Tensor, "b0 b1 b2"]:
    """The class of the highest score at each voxel of another grid; scores are linearly interpolated.

    Equal to interpolating the scores of all classes onto the target and taking the largest (the lowest class on a
    tie), without ever holding them: slab by slab, class by class, and each class only in the box where it beats
    class 0 at some node. That is exact, because interpolation weights are not negative.

    Args:
        scores: (classes, a0, a1, a2) scores; class 0 is background.
        grid: the grid of the scores.
        target: the grid of the result.
        on_slab: called with the number of finished and of all rows of axis 0; may raise to stop.

    Returns:
        Labels of the shape of ``target``: uint8, or int32 for more than 256 classes.
    """
    labels = torch.zeros(target.shape, dtype=torch.uint8 if len(scores) <= 256 else torch.int32)
    maps = map_axes(target, grid)
    if maps is None:
        for rows, points in _points_by_slab(target, grid, classes=len(scores)):
            labels[rows] = _sample(scores, points, None).argmax(dim=0).to(labels.dtype)
            if on_slab:
                on_slab(rows.stop, target.shape[0])
        return labels
    ordered = scores.permute(0, *(1 + each.axis for each in maps))
    matrices = [interpolation_matrix(m.index, n) for m, n in zip(maps, ordered.shape[1:], strict=True)]
    rows_per_slab = max(1, SLAB_VALUES // (4 * target.shape[1] * target.shape[2]))
    for start in range(0, target.shape[0], rows_per_slab):
        rows = slice(start, min(start + rows_per_slab, target.shape[0]))
        _label_slab(ordered, [matrices[0][rows], *matrices[1:]], labels[rows])
        if on_slab:
            on_slab(rows.stop, target.shape[0])
    return labels


def _label_slab(
    scores: Float[Tensor, "classes a0 a1 a2"], matrices: list[Tensor], labels: Shaped[Tensor, "b0 b1 b2"]
) -> None:
    """Write into ``labels`` the winners of one slab; the matrices lead from the nodes to its rows."""
    used = torch.nonzero(matrices[0].sum(dim=0)).flatten()
    nodes = slice(int(used[0]), int(used[-1]) + 1)
    margin = torch.zeros(labels.shape)
    for value in range(1, len(scores)):
        lead = scores[value, nodes] - scores[0, nodes]
        box = [_reach(lead > 0, axis, matrix) for axis, matrix in enumerate([matrices[0][:, nodes], *matrices[1:]])]
        if any(reach is None for reach in box):
            continue
        (rows, n0), (lines, n1), (columns, n2) = (reach for reach in box if reach is not None)
        part = torch.tensordot(matrices[0][:, nodes][rows, n0], lead[n0, n1, n2], dims=1)
        part = torch.matmul(matrices[1][lines, n1], part) @ matrices[2][columns, n2].T
        best = margin[rows, lines, columns]
        wins = part > best
        labels[rows, lines, columns][wins] = value
        torch.maximum(best, part, out=best)


def _reach(
    mask: Shaped[Tensor, "a0 a1 a2"], axis: int, matrix: Float[Tensor, "out size"]
) -> tuple[slice, slice] | None:
    """The output rows that the true nodes reach along an axis, and all the nodes those rows need."""
    line = mask.any(dim=(axis + 1) % 3, keepdim=True).any(dim=(axis + 2) % 3, keepdim=True).flatten()
    touched = (matrix[:, line] > 0).any(dim=1).nonzero().flatten()
    if len(touched) == 0:
        return None
    rows = slice(int(touched[0]), int(touched[-1]) + 1)
    needed = (matrix[rows] > 0).any(dim=0).nonzero().flatten()
    return rows, slice(int(needed[0]), int(needed[-1]) + 1)


def _resample_parallel(
    values: Shaped[Tensor, "a0 a1 a2"], shape: tuple[int, int, int], maps: tuple[AxisMap, AxisMap, AxisMap]
) -> Float[Tensor, "b0 b1 b2"]:
    by_axis = {each.axis: interpolation_matrix(each.index, shape[each.axis]) for each in maps}
    rows = max(1, SLAB_VALUES // (shape[1] * shape[2]))
    thin = torch.empty(shape[0], len(by_axis[1]), len(by_axis[2]))
    for start in range(0, shape[0], rows):
        part = values[start : start + rows].float()
        if len(by_axis[1]) <= len(by_axis[2]):
            part = torch.matmul(by_axis[1], part) @ by_axis[2].T
        else:
            part = torch.matmul(by_axis[1], part @ by_axis[2].T)
        thin[start : start + rows] = part
    return torch.tensordot(by_axis[0], thin, dims=1).permute(*(each.axis for each in maps)).contiguous()


def _square_directions(scan: Geometry) -> npt.NDArray[np.float64]:
    """The in-plane directions of a tilted scan and their normal, which takes the place of the slice direction."""
    directions = scan.directions.copy()
    first, second = (axis for axis in range(3) if axis != scan.slice_axis)
    normal = np.cross(directions[:, first], directions[:, second])
    normal /= np.linalg.norm(normal)
    normal *= np.sign(normal @ directions[:, scan.slice_axis])
    directions[:, scan.slice_axis] = normal
    return directions


def _thinned(source: Geometry, target: Geometry) -> Geometry:
    """The source's own grid, made coarser where the target is coarser: averages before points are sampled."""
    coarse = float(np.median(target.spacing_mm))
    affine, shape = source.affine.copy(), list(source.shape)
    for axis in range(3):
        irregular = axis == source.slice_axis and not source.is_regular
        if not irregular and source.spacing_mm[axis] < coarse and source.shape[axis] > 1:
            shape[axis] = max(2, int(np.ceil(source.shape[axis] * source.spacing_mm[axis] / coarse)))
            factor = source.shape[axis] / shape[axis]
            affine[:3, 3] += source.affine[:3, axis] * (factor - 1) / 2
            affine[:3, axis] *= factor
    return replace(source, affine=affine, shape=(shape[0], shape[1], shape[2]))


def _points_by_slab(target: Geometry, grid: Geometry, classes: int) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Slabs of the target's axis 0 with the fractional indices of their voxels in ``grid``, (rows, b1, b2, 3)."""
    lines = np.stack(np.meshgrid(*(np.arange(size) for size in target.shape[1:]), indexing="ij"), axis=-1)
    rows = max(1, SLAB_VALUES // (target.shape[1] * target.shape[2] * (classes + 6)))
    for start in range(0, target.shape[0], rows):
        stop = min(start + rows, target.shape[0])
        index = np.empty((stop - start, *lines.shape[:2], 3))
        index[..., 0] = np.arange(start, stop)[:, None, None]
        index[..., 1:] = lines
        yield slice(start, stop), grid.world_to_index(target.index_to_world(index))


def _sample(
    values: Float[Tensor, "channels a0 a1 a2"], points: npt.NDArray[np.float64], fill: float | None
) -> Float[Tensor, "channels b0 b1 b2"]:
    """Values at fractional indices; outside the grid ``fill``, or the nearest end value where fill is None."""
    sizes = np.array(values.shape[1:])
    scaled = np.where(sizes > 1, points * 2 / np.maximum(sizes - 1, 1) - 1, 0.0)
    flow = torch.from_numpy(scaled[None, ..., ::-1].copy()).to(values.dtype)
    sampled = torch.nn.functional.grid_sample(
        values[None].contiguous(), flow, mode="bilinear", padding_mode="border", align_corners=True
    )[0]
    if fill is not None:
        outside = ((points < -0.5) | (points > sizes - 0.5)).any(axis=-1)
        sampled[:, torch.from_numpy(outside)] = fill
    return sampled
