"""From scores of classes at nodes to labels and confidence on the grid of the scan, as the scores come.

The scores of all classes are interpolated linearly to each voxel; the highest names the label (the lowest class on a
tie), its margin over the next is the confidence. Two shortcuts change nothing: between nodes that all have the same
winner by a wide margin it wins everywhere, and a class that two others exceed at all surrounding nodes is neither first
nor second anywhere between them, because interpolation weights are not negative. So time depends on how much of a scan
is in doubt more than on the number of classes, and no class is ever held at full size.

The same holds for scores that each stand for a region or a structure and are compared with 0 (`Decision`): between
nodes that agree by a wide margin nothing is computed, and what is far below 0 at all surrounding nodes is not there.

Along an axis where the scan is coarser than the nodes, the scores are averaged as a scan would be (see `axis_weights`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from effvit_med.errors import GeometryError, RefusedError
from effvit_med.transforms.axes import AxisMap, AxisWeights, axis_weights, map_axes, thins
from effvit_med.transforms.decision import Decision
from effvit_med.transforms.loops import in_parts, inner_loops
from effvit_med.transforms.tensor_loops import sum_taps
from effvit_med.volume import Geometry
from effvit_med.volume.pages import release_pages

SLAB_SCORES = 1 << 24
"""How many scores `label_grid` hands on at once (64 MiB)."""

PUSHED_SCORES = 1 << 21
"""How many scores a `Labeller` works on at once (8 MiB); more rows are taken in parts."""

_PER_UNIT = 256
_SURE = np.float32(7.0)  # the margin from which the confidence is 255, and a little

Scores = npt.NDArray[np.float32]


@functools.cache
def confidence_levels() -> npt.NDArray[np.uint8]:
    """The 8-bit confidence of each margin between the two best scores, in steps of 1/256; beyond the end it is 255.

    The confidence is 255 tanh(d / 2) for a margin of d: with p and q the softmax shares of the two best classes,
    tanh(d / 2) = (p - q) / (p + q). 0 is a tie, 255 certain.
    """
    levels = np.rint(255 * np.tanh(np.arange(8 * _PER_UNIT) / _PER_UNIT / 2)).astype(np.uint8)
    return np.ascontiguousarray(levels[: int(np.argmax(levels == 255))])


class Labeller:
    """Labels on the grid of a scan, from rows of nodes that come in order.

    Args:
        grid: the grid of the nodes.
        target: the grid of the labels.
        values: the label value of each number that the scores can make.
        decision: how they make it.
        limited: label only what lies within the outer edges of the nodes; the rest stays 0, with no confidence.
        confidence: (b0, b1, b2) zeros to write the confidence to, perhaps on disk; made if None.

    Attributes:
        labels: (b0, b1, b2) label values, uint8, or uint16 where a value needs it.
        confidence: (b0, b1, b2) uint8; see `confidence_levels`.

    Raises:
        GeometryError: if the nodes are irregular and not parallel to the target.
    """

    def __init__(
        self,
        grid: Geometry,
        target: Geometry,
        values: Sequence[int],
        *,
        decision: Decision = Decision.HIGHEST,
        limited: bool = False,
        confidence: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        wide = max(values, default=0) > 255
        self.labels: npt.NDArray[Any] = np.zeros(target.shape, np.uint16 if wide else np.uint8)
        self.confidence = np.zeros(target.shape, np.uint8) if confidence is None else confidence
        self._values = np.array(values, np.uint16)
        self._decision = decision
        self._size = grid.shape[0]
        self._end = 0  # rows of nodes that have come
        self._base = 0  # the first of them that is still held
        self._held: _Nodes | None = None
        maps = map_axes(target, grid)
        if maps is None:
            self._way: _Lines | _Points = _Points(grid, target, limited)
        else:
            self._way = _Lines(grid.shape, maps, limited, decision)

    def push(self, nodes: Scores | Float[Tensor, "rows n1 n2 classes"]) -> None:
        """Take the next rows of nodes and label what they finish.

        Args:
            nodes: (rows, n1, n2, classes) scores; the rows follow those that came before.

        Raises:
            RefusedError: if a score is not finite.
        """
        rows = np.asarray(nodes, np.float32)
        step = max(1, PUSHED_SCORES // max(1, rows[:1].size))
        for start in range(0, len(rows), step):
            self._push(np.ascontiguousarray(rows[start : start + step]))
            release_pages(self.confidence)

    def _push(self, rows: Scores) -> None:
        fresh = _Nodes.of(self._way.thin(rows), self._decision)
        held = fresh if self._held is None else self._held.joined(fresh)
        self._end += len(rows)
        sink = self._values, confidence_levels(), _SURE, int(self._decision), self.labels, self.confidence
        self._way.label(held, self._base, self._end, sink)
        keep = min(max(self._way.needed_from(self._end), self._base), self._end)
        self._held = held.from_row(keep - self._base)
        self._base = keep

    @property
    def is_complete(self) -> bool:
        """Whether all rows of nodes have come."""
        return self._end == self._size


def label_grid(
    scores: Float[Tensor, "classes a0 a1 a2"],
    grid: Geometry,
    target: Geometry,
    on_slab: Callable[[int, int], None] | None = None,
    decision: Decision = Decision.HIGHEST,
) -> Shaped[Tensor, "b0 b1 b2"]:
    """The number that the scores make at each voxel of another grid; scores are linearly interpolated.

    Args:
        scores: (classes, a0, a1, a2) scores.
        grid: the grid of the scores.
        target: the grid of the result.
        on_slab: called with the number of finished and of all rows of nodes; may raise to stop.
        decision: how scores make a number; usually the class of the highest.

    Returns:
        Numbers of the shape of ``target``: uint8, or int32 where there can be more than 256.

    Raises:
        RefusedError: if a score is not finite.
        GeometryError: if the scores' grid is irregular and not parallel to the target.
    """
    labeller = Labeller(grid, target, range(decision.outcomes(len(scores))), decision=decision)
    step = max(1, SLAB_SCORES // max(1, scores[:, :1].numel()))
    for start in range(0, grid.shape[0], step):
        stop = min(start + step, grid.shape[0])
        labeller.push(scores[:, start:stop].movedim(0, -1).contiguous())
        if on_slab:
            on_slab(stop, grid.shape[0])
    labels = labeller.labels
    return torch.from_numpy(labels if labels.dtype == np.uint8 else labels.astype(np.int32))


class _Nodes(NamedTuple):
    """Rows of nodes: (rows, n1, n2, classes) scores, the number that each makes, and its margin."""

    scores: Scores
    top: npt.NDArray[np.uint16]
    lead: npt.NDArray[np.float32]

    @classmethod
    def of(cls, scores: Scores, decision: Decision) -> _Nodes:
        """The nodes of scores.

        Raises:
            RefusedError: if a score is not finite.
        """
        nodes = cls(scores, np.empty(scores.shape[:3], np.uint16), np.empty(scores.shape[:3], np.float32))
        finite: list[bool] = []
        find_best = inner_loops().find_best
        in_parts(len(scores), lambda part: finite.append(find_best(*(each[part] for each in nodes), int(decision))))
        if not all(finite):
            raise RefusedError(
                "NOT_FINITE",
                "The network gave scores that are not finite numbers.",
                "Run it in float32; if that fails too, its weights are damaged.",
            )
        return nodes

    def joined(self, more: _Nodes) -> _Nodes:
        """These rows and more after them."""
        if not len(self.scores):
            return more
        return _Nodes(
            np.concatenate([self.scores, more.scores]),
            np.concatenate([self.top, more.top]),
            np.concatenate([self.lead, more.lead]),
        )

    def from_row(self, first: int) -> _Nodes:
        """A copy of the rows from one on."""
        return _Nodes(self.scores[first:].copy(), self.top[first:].copy(), self.lead[first:].copy())


class _Lines:
    """Voxels whose lines run along those of the nodes: cell by cell."""

    def __init__(
        self, shape: tuple[int, int, int], maps: tuple[AxisMap, AxisMap, AxisMap], limited: bool, decision: Decision
    ) -> None:
        self._decision = decision
        order = [[each.axis for each in maps].index(axis) for axis in range(3)]
        self._order = order
        self._thin: list[AxisWeights | None] = []
        self._spans: list[slice] = []
        self._runs: list[npt.NDArray[np.int64]] = []
        self._parts: list[npt.NDArray[np.float32]] = []
        for axis, target_axis in enumerate(order):
            index, size = maps[target_axis].index, shape[axis]
            inside = np.flatnonzero((index >= -0.5) & (index <= size - 0.5)) if limited else np.arange(len(index))
            self._spans.append(slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0))
            index = index[self._spans[-1]]
            weights = axis_weights(index, size) if thins(index) else None
            self._thin.append(weights)
            if weights is not None:
                index, size = np.arange(len(weights), dtype=np.float64), len(weights)
            places = np.clip(index, 0, size - 1)
            low = np.floor(places).astype(np.int64)
            self._parts.append((places - low).astype(np.float32))
            self._runs.append(_runs(low, self._parts[-1]))
        self._done = np.zeros(len(self._runs[0]), bool)

    def thin(self, rows: Scores) -> Scores:
        """The rows with axes 1 and 2 averaged where the target is coarser."""
        for axis in (1, 2):
            weights = self._thin[axis]
            if weights is not None:
                rows = sum_taps(torch.from_numpy(rows), weights.first, weights.weights, dim=axis).contiguous().numpy()
        return rows

    def label(self, held: _Nodes, base: int, end: int, sink: Any) -> None:
        """Label the rows of voxels that the nodes from ``base`` to ``end`` finish."""
        *tables, labels, confidence = sink
        runs, weights = self._runs[0], self._thin[0]
        last = runs[:, 3] if weights is None else weights.first[runs[:, 0]] + weights.weights.shape[1] - 1
        ready = ~self._done & (last < end)
        if not ready.any() or not all(map(len, self._runs)):
            return
        self._done |= ready
        runs = runs[ready]
        if weights is None:
            nodes = held
            runs = runs - np.array([0, 0, base, base])
        else:
            taps = AxisWeights(weights.first[ready] - base, weights.weights[ready])
            scores = torch.from_numpy(held.scores)
            nodes = _Nodes.of(sum_taps(scores, taps.first, taps.weights, dim=0).contiguous().numpy(), self._decision)
            rows = np.arange(len(runs))
            runs = np.stack([runs[:, 0], runs[:, 1], rows, rows], axis=1)
        boxes = [
            array.transpose(self._order)[self._spans[0], self._spans[1], self._spans[2]]
            for array in (labels, confidence)
        ]
        loops = inner_loops()

        def label_part(part: slice) -> None:
            lines = self._runs[1][part]
            first, stop = int(lines[:, 0].min()), int(lines[:, 1].max())
            loops.label_cells(
                *nodes,
                np.ascontiguousarray(runs), lines - np.array([first, first, 0, 0]), self._runs[2],
                self._parts[0], self._parts[1][first:stop], self._parts[2],
                *tables, boxes[0][:, first:stop], boxes[1][:, first:stop],
            )  # fmt: skip

        in_parts(len(self._runs[1]), label_part)

    def needed_from(self, end: int) -> int:
        """The first row of nodes that voxels still need which are not yet done."""
        left = ~self._done
        if not left.any():
            return end
        weights = self._thin[0]
        return int((self._runs[0][left, 2] if weights is None else weights.first[self._runs[0][left, 0]]).min())


class _Points:
    """Voxels of a tilted scan: each has a place of its own between the nodes."""

    def __init__(self, grid: Geometry, target: Geometry, limited: bool) -> None:
        if not grid.is_regular:
            raise GeometryError(
                f"Scores at unequal distances (offsets {grid.slice_offsets}) cannot be labelled on a grid that is not "
                "parallel to theirs; give the network a spacing along every axis."
            )
        to_nodes = np.linalg.inv(grid.affine) @ target.affine
        self._matrix, self._origin = np.ascontiguousarray(to_nodes[:3, :3]), np.ascontiguousarray(to_nodes[:3, 3])
        places = [np.arange(size, dtype=np.float64) for size in target.shape]
        if target.slice_offsets is not None:
            places[target.slice_axis] = np.array(target.slice_offsets)
        # the first loop goes over the target's axis that runs most along axis 0 of the nodes: fewest planes are touched
        order = np.argsort(-np.abs(self._matrix[0]), kind="stable")
        self._order = [int(axis) for axis in order]
        self._matrix = np.ascontiguousarray(self._matrix[:, order])
        places = [places[axis] for axis in self._order]
        self._places = places
        self._sizes = np.array(grid.shape, np.int64)
        self._limited = limited
        sides = [
            np.outer(self._matrix[0, axis], [each.min(), each.max()])[0] for axis, each in enumerate(places) if axis
        ]
        middle = self._matrix[0, 0] * places[0] + self._origin[0]
        self._low = middle + sum(side.min() for side in sides)
        self._high = middle + sum(side.max() for side in sides)
        self._from = -np.inf

    def thin(self, rows: Scores) -> Scores:
        """The rows as they are."""
        return rows

    def label(self, held: _Nodes, base: int, end: int, sink: Any) -> None:
        """Label the voxels that the nodes from ``base`` to ``end`` finish."""
        *tables, labels, confidence = sink
        labels, confidence = labels.transpose(self._order), confidence.transpose(self._order)
        to = np.inf if end == self._sizes[0] else end - 1.0
        reach = np.array([self._from, to])
        slices = np.flatnonzero(
            (np.maximum(self._high, 0) >= self._from) & (np.minimum(self._low, self._sizes[0]) < to)
        )
        self._from = max(self._from, to)
        if not len(slices) or reach[0] >= reach[1]:
            return
        first = int(slices[0])
        loops = inner_loops()

        def label_part(part: slice) -> None:
            rows = slice(first + part.start, first + part.stop)
            loops.label_points(
                *held, self._matrix, self._origin, self._places[0][rows], *self._places[1:], reach, base, self._sizes,
                self._limited, *tables, labels[rows], confidence[rows],
            )  # fmt: skip

        in_parts(int(slices[-1]) + 1 - first, label_part)

    def needed_from(self, end: int) -> int:
        """The first row of nodes that voxels still need."""
        return end - 1 if end < self._sizes[0] else end


def _runs(low: npt.NDArray[np.int64], part: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(start, stop, low, high) of the voxels between the same two nodes; where all lie on one node, high is low."""
    if not len(low):
        return np.empty((0, 4), np.int64)
    starts = np.flatnonzero(np.diff(low, prepend=low[0] - 1))
    stops = np.append(starts[1:], len(low))
    between = np.maximum.reduceat(part, starts) > 0
    return np.stack([starts, stops, low[starts], low[starts] + between], axis=1)
