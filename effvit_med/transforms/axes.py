"""How the axes of one grid run along those of another, and the weights that lead from one to the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effvit_med.volume import Geometry

PARALLEL_TOLERANCE = 0.05
"""Two grids count as parallel when no voxel is further off the other grid's lines than this part of a voxel."""


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


@dataclass(frozen=True, eq=False)
class AxisWeights:
    """A weighted sum for each voxel of an axis: voxel i takes ``weights[i, t]`` of node ``first[i] + t``.

    Attributes:
        first: (n,) first node of each voxel.
        weights: (n, taps) float32, none negative, each row with the sum 1.
    """

    first: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def part(self, voxels: slice) -> AxisWeights:
        """The weights of some of the voxels."""
        return AxisWeights(np.ascontiguousarray(self.first[voxels]), np.ascontiguousarray(self.weights[voxels]))

    def shifted(self, nodes: int) -> AxisWeights:
        """The same weights where the nodes before that one have been cut off."""
        return AxisWeights(self.first - nodes, self.weights)

    def reach(self, voxels: slice) -> slice:
        """The nodes that some of the voxels need."""
        first = self.first[voxels]
        return slice(int(first.min()), int(first.max()) + self.weights.shape[1])


def thins(index: npt.NDArray[np.float64]) -> bool:
    """Whether an axis is coarser than the nodes it looks at, so that it averages."""
    return len(index) > 1 and float(np.abs(np.diff(index)).mean()) > 1.0 + 1e-6


def axis_weights(index: npt.NDArray[np.float64], size: int) -> AxisWeights:
    """Linear interpolation at fractional indices of an axis; averages where it thins out.

    Where the indices step by more than one, the interpolated line is averaged over a window, so that no voxel is
    skipped and noise is averaged; window and interpolation together are as wide as a triangle of that step. A straight
    line stays where it is. Outside the grid the end values go on. The number of weights of a voxel does not depend on
    the length of the axis: resampling takes time in proportion to the voxels.

    Args:
        index: fractional indices into an axis.
        size: number of nodes along that axis.

    Returns:
        The weights of each index.

    Examples:
        >>> found = axis_weights(np.array([0.0, 0.25, 1.5]), 3)
        >>> found.first.tolist(), found.weights.tolist()
        ([0, 0, 1], [[1.0, 0.0], [0.75, 0.25], [0.5, 0.5]])
    """
    step = max(1.0, float(np.abs(np.diff(index)).mean())) if len(index) > 1 else 1.0
    width = np.sqrt(2 * (step**2 - 1))  # variances add: step^2/6 = 1/6 + width^2/12
    count = 4 * int(np.ceil(width)) + 1
    window = (np.arange(count) - (count - 1) / 2) * (width / count)
    places = np.clip(index[:, None] + window, 0, size - 1)
    low = np.minimum(np.floor(places).astype(np.int64), max(0, size - 2))
    part = places - low
    last = np.minimum(low[:, -1] + 1, size - 1)
    taps = int((last - low[:, 0]).max()) + 1
    first = np.minimum(low[:, 0], size - taps)
    weights = np.zeros((len(index), taps))
    rows = np.broadcast_to(np.arange(len(index))[:, None], low.shape)
    np.add.at(weights, (rows, low - first[:, None]), (1 - part) / count)
    np.add.at(weights, (rows, np.minimum(low + 1, size - 1) - first[:, None]), part / count)
    return AxisWeights(first, weights.astype(np.float32))
