"""Doubt summed over cells of a few mm, so that places to look at can be found among few numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effvit_med.volume.geometry import Geometry

Confidence = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Slices = tuple[slice, slice, slice]

CELL_MM = 4.0
CELL_VOXELS = 3
"""A cell has at least so many voxels along each axis."""


@dataclass(frozen=True, eq=False)
class DoubtCells:
    """Sums over cells of a few mm.

    Attributes:
        edges: the first index of each cell along each axis.
        doubt_ml: expected wrong volume in each cell.
        core_ml: the part of it whose neighbours are in doubt as well.
        volume_ml: of each cell.
    """

    edges: tuple[npt.NDArray[np.intp], ...]
    doubt_ml: npt.NDArray[np.float32]
    core_ml: npt.NDArray[np.float32]
    volume_ml: npt.NDArray[np.float32]

    def box(self, first: Sequence[int], last: Sequence[int], shape: Sequence[int]) -> Slices:
        """The voxels of all cells from the first to the last one."""
        stops = [np.append(edge[1:], size) for edge, size in zip(self.edges, shape, strict=True)]
        starts = [edge[number] for edge, number in zip(self.edges, first, strict=True)]
        ends = [stop[number] for stop, number in zip(stops, last, strict=True)]
        return tuple(slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True))  # type: ignore[return-value]


def _cell_edges(geometry: Geometry) -> tuple[npt.NDArray[np.intp], ...]:
    steps = [max(CELL_VOXELS, round(CELL_MM / spacing)) for spacing in geometry.spacing_mm]
    return tuple(np.arange(0, size, step) for size, step in zip(geometry.shape, steps, strict=True))


def voxel_ml_of(geometry: Geometry) -> npt.NDArray[np.float32]:
    """The volume of each voxel, with one value along the axes on which it does not depend."""
    volumes = (geometry.voxel_volumes_mm3() / 1000).astype(np.float32)
    return volumes.reshape([-1 if axis == geometry.slice_axis else 1 for axis in range(3)])


def _cell_volumes(edges: Sequence[npt.NDArray[np.intp]], geometry: Geometry) -> npt.NDArray[np.float32]:
    sizes = [np.ones(size) for size in geometry.shape]
    sizes[geometry.slice_axis] = geometry.voxel_volumes_mm3() / 1000
    a, b, c = (np.add.reduceat(size, edge) for size, edge in zip(sizes, edges, strict=True))
    return np.asarray(a[:, None, None] * b[:, None] * c, np.float32)


def _walk_planes(confidence: Confidence, settled: Mask | None) -> Iterator[tuple[Confidence, Confidence]]:
    """Of each plane along axis 0 how unsure its voxels are (0 to 255), and how unsure with their neighbours."""

    def read(number: int) -> Confidence:
        plane = ~confidence[number]  # 255 minus it
        return plane if settled is None else plane * ~settled[number]

    count = confidence.shape[0]
    before, plane = None, read(0)
    for number in range(count):
        after = read(number + 1) if number + 1 < count else None
        core = plane.copy()
        for beside in (before, after):
            if beside is not None:
                np.minimum(core, beside, out=core)
        for axis in (0, 1):
            low, high = np.moveaxis(plane, axis, 0), np.moveaxis(core, axis, 0)
            np.minimum(high[1:], low[:-1], out=high[1:])
            np.minimum(high[:-1], low[1:], out=high[:-1])
        yield plane, core
        before, plane = plane, plane if after is None else after


def sum_cells(confidence: Confidence, geometry: Geometry, settled: Mask | None) -> DoubtCells:
    """The cells of a scan, with no more than a few planes in memory at a time."""
    edges = _cell_edges(geometry)
    doubt, core_doubt = np.zeros((2, *(len(edge) for edge in edges)), np.float32)
    voxel_ml, planes = voxel_ml_of(geometry), _walk_planes(confidence, settled)
    kind = np.uint32 if geometry.is_regular else np.float32
    stops = [*edges[0][1:], confidence.shape[0]]
    for row, (start, stop) in enumerate(zip(edges[0], stops, strict=True)):
        totals = np.zeros((2, *confidence.shape[1:]), kind)
        for number in range(start, stop):
            weight = take_part(voxel_ml, (slice(number, number + 1), slice(None), slice(None)))[0]
            for total, plane in zip(totals, next(planes), strict=True):
                np.add(total, plane if geometry.is_regular else plane * weight, out=total)
        for sums, total in zip((doubt, core_doubt), totals, strict=True):
            cells = np.add.reduceat(np.add.reduceat(total, edges[1], axis=0), edges[2], axis=1)
            sums[row] = cells * (voxel_ml.flat[0] if geometry.is_regular else 1) / np.float32(510)
    return DoubtCells(edges, doubt, core_doubt, _cell_volumes(edges, geometry))


def take_part(volumes: npt.NDArray[np.float32], box: Slices) -> npt.NDArray[np.float32]:
    """The volumes of the voxels of a box."""
    return volumes[tuple(part if size > 1 else slice(None) for part, size in zip(box, volumes.shape, strict=True))]
