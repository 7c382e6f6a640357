"""A scan on another grid, a few rows at a time: separable weighted sums, or point by point for tilted scans.

Values are interpolated linearly and averaged where the other grid is coarser (anti-aliasing, see `axis_weights`). Time
is in proportion to the voxels; memory is that of the rows asked for and of the slices under them. Labels never come
this way: `effvit_med.transforms.labelling` makes them from scores on the grid where they are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from effvit_med.transforms import tensor_loops
from effvit_med.transforms.axes import AxisWeights, axis_weights, map_axes
from effvit_med.transforms.loops import in_parts, inner_loops
from effvit_med.transforms.spatial import thinned_grid
from effvit_med.transforms.tensor_loops import sum_taps
from effvit_med.volume import Geometry
from effvit_med.volume.pages import count_slab, find_outermost, lies_on_disk, release_pages

BLOCK_VALUES = 1 << 22
"""How many values of a scan are taken at once (16 MiB of float32)."""

_BLOCK_POINTS = BLOCK_VALUES // 16
_POINT_BYTES = 224  # a point's indices and places in three coordinates of float64, as they go from grid to grid

_COMPILED = frozenset(np.dtype(name) for name in ("int16", "uint8", "uint16", "int32", "float32"))


@dataclass(frozen=True)
class ResamplingMemory:
    """What bringing a scan onto another grid holds beside the scan and the rows that come out.

    Attributes:
        thin_bytes: of a tilted scan, averaged on its own grid; kept from the first row to the last.
        scratch_bytes: while rows are made, on the processor.
        device_bytes: while rows are made, on the accelerator where they come to lie.
    """

    thin_bytes: int
    scratch_bytes: int
    device_bytes: int


def resampling_memory(source: Geometry, target: Geometry, dtype: npt.DTypeLike) -> ResamplingMemory:
    """What a `RowResampler` of a scan holds at most, found from the grids alone.

    Args:
        source: the grid of the values.
        target: the grid of the result.
        dtype: of the values.

    Examples:
        >>> scan, wanted = Geometry(np.eye(4), (8, 8, 8)), Geometry(np.diag([2.0, 2, 2, 1]), (4, 4, 4))
        >>> resampling_memory(scan, wanted, np.int16).thin_bytes
        0
    """
    maps = map_axes(target, source)
    row = target.shape[1] * target.shape[2]
    if maps is None:
        thin = thinned_grid(source, target)
        first = resampling_memory(source, thin, dtype)
        points = _POINT_BYTES * max(row, _BLOCK_POINTS)
        return ResamplingMemory(4 * math.prod(thin.shape), max(first.scratch_bytes, points), 0)
    along = maps[0].axis
    length = source.shape[along]
    plane = math.prod(source.shape) // length
    taps = axis_weights(maps[0].index, length).weights.shape[1]
    slices = min(length, max(taps, BLOCK_VALUES // max(plane, row)))
    scratch = slices * (_block_type(np.dtype(dtype)).itemsize * plane + 4 * row)
    if inner_loops() is tensor_loops:
        scratch += 4 * (4 * max(BLOCK_VALUES, row) + 4 * max(plane, row))
    return ResamplingMemory(0, scratch, 24 * max(slices * max(plane, row), BLOCK_VALUES))


class RowResampler:
    """The rows of a scan on another grid, in any order and number.

    Args:
        values: (a0, a1, a2) values of any real type on ``source``; may lie on disk.
        source: the grid of the values.
        target: the grid of the result.
        fill: the value outside the scan, used only where the grids are not parallel.
        device: where the sums are made and the rows come to lie.
    """

    def __init__(
        self,
        values: npt.NDArray[Any],
        source: Geometry,
        target: Geometry,
        fill: float = 0.0,
        device: torch.device | None = None,
    ) -> None:
        self.target = target
        self._values, self._fill = values, fill
        self._device = device or torch.device("cpu")
        self._thin: Tensor | None = None
        self._from = source
        maps = map_axes(target, source)
        if maps is None:  # tilted: averaged on its own grid first, which is kept whole
            self._from = thinned_grid(source, target)
            self._thin = RowResampler(values, source, self._from).read(0, self._from.shape[0])
            return
        self._axes = [each.axis for each in maps]
        self._weights = [axis_weights(each.index, source.shape[each.axis]) for each in maps]

    def read(self, start: int, stop: int) -> Float[Tensor, "rows b1 b2"]:
        """The rows from ``start`` up to but not including ``stop`` of axis 0 of the target."""
        if self._thin is not None:
            return self._sample(self._thin, start, stop)
        result = torch.empty(stop - start, *self.target.shape[1:], device=self._device)
        at = start
        while at < stop:
            end = self._end_of_block(at, stop)
            self._fill_rows(slice(at, end), result[at - start : end - start])
            at = end
        return result

    def _end_of_block(self, start: int, stop: int) -> int:
        """As many rows as the slices of one block give, and no more than a block of rows."""
        row = self.target.shape[1] * self.target.shape[2]
        plane = max(row, self._values.size // self._values.shape[self._axes[0]])
        slices = max(1, BLOCK_VALUES // plane)
        stop = min(stop, start + max(1, BLOCK_VALUES // row))
        first = self._weights[0].first[start:stop]
        ends = np.maximum.accumulate(np.abs(first - first[0])) + self._weights[0].weights.shape[1]
        return start + max(1, int(np.searchsorted(ends, slices, side="right")))

    def _fill_rows(self, rows: slice, out: Tensor) -> None:
        reach = self._weights[0].reach(rows)
        block = self._take(reach)
        across, lines, columns = self._weights[0].part(rows).shifted(reach.start), *self._weights[1:]
        if self._device.type != "cpu":
            part = torch.from_numpy(block).to(self._device).float()
            for axis, weights in ((1, lines), (2, columns), (0, across)):
                part = sum_taps(part, weights.first, weights.weights, dim=axis)
            out.copy_(part)
        else:
            _sum_on_processor(block, across, lines, columns, out.numpy())
        release_pages(self._values)

    def _take(self, reach: slice) -> npt.NDArray[Any]:
        """The slices of a block, of a type that the loops know, axis 0 first and in one piece.

        Where the slices lie across the planes of a file, every page of it has a little of each: they are gathered a few
        planes at a time, and the pages go before the next come.
        """
        view = self._values.transpose(self._axes)[reach]
        view = view.view(np.uint8) if view.dtype == np.bool_ else view
        outer = find_outermost(view)
        if outer == 0 or not lies_on_disk(view):
            return np.ascontiguousarray(view, _block_type(view.dtype))
        block = np.empty(view.shape, _block_type(view.dtype))
        step = count_slab(self._values, self._axes[outer])
        for start in range(0, view.shape[outer], step):
            planes = (slice(None),) * outer + (slice(start, start + step),)
            block[planes] = view[planes]
            release_pages(self._values)
        return block

    def _sample(self, thin: Tensor, start: int, stop: int) -> Tensor:
        result = torch.empty(stop - start, *self.target.shape[1:])
        for rows, points in _points_by_slab(self.target, self._from, range(start, stop)):
            result[rows.start - start : rows.stop - start] = _sample(thin, points, self._fill)
        return result.to(self._device)


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
    return RowResampler(values.numpy(), source, target, fill).read(0, target.shape[0])


def _sum_on_processor(
    block: npt.NDArray[Any],
    across: AxisWeights,
    lines: AxisWeights,
    columns: AxisWeights,
    out: npt.NDArray[np.float32],
) -> None:
    """Sums along lines and columns of each slice, then across the slices."""
    loops = inner_loops()
    planes = np.empty((len(block), len(lines), len(columns)), np.float32)

    def resample_planes(part: slice) -> None:
        loops.resample_planes(block[part], lines.first, lines.weights, columns.first, columns.weights, planes[part])

    def resample_rows(part: slice) -> None:
        rows = across.part(part)
        loops.resample_rows(flat, rows.first, rows.weights, out[part].reshape(len(rows), -1))

    in_parts(len(block), resample_planes)
    flat = planes.reshape(len(block), -1)
    in_parts(len(across), resample_rows)


def _block_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type itself where the loops know it, in this machine's byte order, else float32."""
    if dtype == np.bool_:
        return np.dtype(np.uint8)
    return dtype if dtype in _COMPILED and dtype.isnative else np.dtype(np.float32)


def _points_by_slab(target: Geometry, grid: Geometry, rows: range) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Slabs of the target's axis 0 with the fractional indices of their voxels in ``grid``, (rows, b1, b2, 3)."""
    lines = np.stack(np.meshgrid(*(np.arange(size) for size in target.shape[1:]), indexing="ij"), axis=-1)
    step = max(1, _BLOCK_POINTS // (target.shape[1] * target.shape[2]))
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        index = np.empty((stop - start, *lines.shape[:2], 3))
        index[..., 0] = np.arange(start, stop)[:, None, None]
        index[..., 1:] = lines
        yield slice(start, stop), grid.world_to_index(target.index_to_world(index))


def _sample(values: Tensor, points: npt.NDArray[np.float64], fill: float) -> Tensor:
    """Values at fractional indices, ``fill`` outside the grid."""
    sizes = np.array(values.shape)
    scaled = np.where(sizes > 1, points * 2 / np.maximum(sizes - 1, 1) - 1, 0.0)
    flow = torch.from_numpy(scaled[None, ..., ::-1].copy()).to(values.dtype)
    sampled = torch.nn.functional.grid_sample(
        values[None, None], flow, mode="bilinear", padding_mode="border", align_corners=True
    )[0, 0]
    outside = ((points < -0.5) | (points > sizes - 0.5)).any(axis=-1)
    sampled[torch.from_numpy(outside)] = fill
    return sampled
