"""The inner loops of `compiled_loops` in torch, for machines without numba: slower, bit for bit the same numbers.

Each takes and fills numpy arrays, as its compiled twin does. Products and sums stay apart, because a fused one rounds
differently. `resample_planes` and `resample_rows` also run on an accelerator, through `sum_taps`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effvit_med.transforms.decision import Decision

Array = npt.NDArray[Any]

_POINTS = 1 << 16
"""Voxels that are sampled together off the axes: with 105 classes 28 MB a corner."""


def sum_taps(values: Tensor, first: Array, weights: Array, dim: int) -> Tensor:
    """Weighted sums along one axis: output i is the sum over t of weights[i, t] * values[first[i] + t].

    Args:
        values: any shape, float32.
        first: (n,) index of the first summand of each output.
        weights: (n, taps).
        dim: the axis.

    Returns:
        The sums, on the device of the values; n along the axis.
    """
    shape = [1] * values.dim()
    shape[dim] = -1
    start, shares = (torch.from_numpy(array).to(values.device) for array in (first, weights))
    total = values.index_select(dim, start) * shares[:, 0].reshape(shape)
    for tap in range(1, weights.shape[1]):
        total = total + values.index_select(dim, start + tap) * shares[:, tap].reshape(shape)
    return total


def resample_planes(values: Array, first1: Array, weights1: Array, first2: Array, weights2: Array, out: Array) -> None:
    """Weighted sums along axis 1, then along axis 2, of each plane of axis 0."""
    for plane in range(len(out)):
        lines = sum_taps(torch.from_numpy(values[plane].astype(np.float32)), first1, weights1, dim=0)
        out[plane] = sum_taps(lines, first2, weights2, dim=1).numpy()


def resample_rows(values: Array, first: Array, weights: Array, out: Array) -> None:
    """Weighted sums of whole rows: (rows, n) values into (out rows, n)."""
    out[:] = sum_taps(torch.from_numpy(values), first, weights, dim=0).numpy()


def add_window(total: Array, logits: Array, weight0: Array, weight1: Array, weight2: Array) -> None:
    """Add the logits of a window, each voxel with its weight; both (rows, lines, columns, classes)."""
    line0, line1, line2 = (torch.from_numpy(weight) for weight in (weight0, weight1, weight2))
    weight = line0[:, None, None] * line1[:, None] * line2
    torch.from_numpy(total).add_(torch.from_numpy(logits) * weight[..., None])


def find_best(nodes: Array, top: Array, lead: Array, decision: int) -> bool:
    """The number of each node by a `Decision`, and its margin; False if a score is not finite."""
    if nodes.shape[-1] == 1 and decision == Decision.HIGHEST:
        top[:], lead[:] = 0, np.inf
    else:
        number, margin = _decide(torch.from_numpy(nodes).unbind(-1), decision)
        top[:], lead[:] = number.numpy(), margin.numpy()
    return bool(np.isfinite(nodes).all())


def label_cells(
    nodes: Array, top: Array, lead: Array, runs0: Array, runs1: Array, runs2: Array, part0: Array, part1: Array,
    part2: Array, values: Array, levels: Array, sure: float, decision: int, labels: Array, confidence: Array,
) -> None:  # fmt: skip
    """Labels and confidence of the voxels that lie between nodes; a run is (start, stop, low, high)."""
    del top, lead, sure  # only its twin skips what is clear
    scores = torch.from_numpy(nodes).movedim(-1, 0)
    low1, high1 = _spread(runs1)
    low2, high2 = _spread(runs2)
    g1, g2 = torch.from_numpy(part1[: len(low1)])[:, None], torch.from_numpy(part2[: len(low2)])
    for a, b, low, high in runs0.tolist():
        for t0 in range(a, b):
            g0 = torch.tensor(part0[t0])
            pick = _Pick(low1, high1, low2, high2, g1, g2)
            classes = (pick.interpolate(score[low] * (1 - g0) + score[high] * g0) for score in scores)
            _fill(_decide(classes, decision), values, levels, labels[t0], confidence[t0])


def label_points(
    nodes: Array, top: Array, lead: Array, matrix: Array, origin: Array, place0: Array, place1: Array, place2: Array,
    reach: Array, base: int, sizes: Array, limited: bool, values: Array, levels: Array, sure: float, decision: int,
    labels: Array, confidence: Array,
) -> None:  # fmt: skip
    """The same for voxels whose lines do not run along the nodes; those whose place on axis 0 lies within reach."""
    del top, lead, sure
    scores = torch.from_numpy(nodes)
    for t0 in range(len(place0)):
        places = [
            matrix[a, 0] * place0[t0] + matrix[a, 1] * place1[:, None] + matrix[a, 2] * place2 + origin[a]
            for a in range(3)
        ]
        wanted = np.ones(places[0].shape, bool)
        for place, size in zip(places, sizes, strict=True):
            wanted &= not limited or (place >= -0.5) & (place <= size - 0.5)
            np.clip(place, 0.0, float(size - 1), out=place)
        where = np.nonzero(wanted & (places[0] >= reach[0]) & (places[0] < reach[1]))
        for first in range(0, len(where[0]), _POINTS):
            part = tuple(axis[first : first + _POINTS] for axis in where)
            near = [place[part] for place in places]
            lows = [np.clip(p.astype(np.int64), 0, max(0, n - 2)) for p, n in zip(near, sizes, strict=True)]
            parts = [torch.from_numpy((p - low).astype(np.float32)) for p, low in zip(near, lows, strict=True)]
            low = [torch.from_numpy(index) for index in lows]
            low[0] = low[0] - base
            ends = (nodes.shape[0] - 1, int(sizes[1]) - 1, int(sizes[2]) - 1)
            high = [(index + 1).clamp(max=end) for index, end in zip(low, ends, strict=True)]
            found, margin = np.empty(len(lows[0]), labels.dtype), np.empty(len(lows[0]), np.uint8)
            classes = (_sample(score, low, high, parts) for score in scores.movedim(-1, 0))
            _fill(_decide(classes, decision), values, levels, found, margin)
            labels[t0][part], confidence[t0][part] = found, margin


class _Pick:
    """Linear interpolation of a plane of nodes at lines and columns."""

    def __init__(self, low1: Tensor, high1: Tensor, low2: Tensor, high2: Tensor, g1: Tensor, g2: Tensor) -> None:
        self._low1, self._high1, self._low2, self._high2, self._g1, self._g2 = low1, high1, low2, high2, g1, g2

    def interpolate(self, plane: Tensor) -> Tensor:
        lines = plane[self._low1] * (1 - self._g1) + plane[self._high1] * self._g1
        return lines[:, self._low2] * (1 - self._g2) + lines[:, self._high2] * self._g2


def _sample(score: Tensor, low: list[Tensor], high: list[Tensor], parts: list[Tensor]) -> Tensor:
    g0, g1, g2 = parts
    h0, h1, h2 = 1 - g0, 1 - g1, 1 - g2
    columns = []
    for k in (low[2], high[2]):
        near = (score[low[0], low[1], k] * h0 + score[high[0], low[1], k] * g0) * h1
        columns.append(near + (score[low[0], high[1], k] * h0 + score[high[0], high[1], k] * g0) * g1)
    return columns[0] * h2 + columns[1] * g2


def _decide(scores: Iterable[Tensor], decision: int) -> tuple[Tensor, Tensor]:
    """The number and the margin that scores make, as they come; see `Decision`."""
    best = second = who = None
    for number, score in enumerate(scores):
        if best is None or second is None or who is None:
            lowest, who = torch.full_like(score, -torch.inf), torch.zeros(score.shape, dtype=torch.int64)
            best, second = (score, lowest) if decision == Decision.HIGHEST else (-lowest, torch.zeros_like(score))
            if decision == Decision.HIGHEST:
                continue
        if decision == Decision.HIGHEST:
            wins = score > best
            second = torch.where(wins, best, torch.maximum(second, score))
            best = torch.where(wins, score, best)
            who[wins] = number
        elif decision == Decision.LAST:
            best = torch.where(score > 0, score, torch.minimum(best, -score))
            who[score > 0] = number + 1
        else:
            best = torch.minimum(best, score.abs())
            who |= (score > 0).to(torch.int64) << number
    if best is None or second is None or who is None:
        raise AssertionError("there is at least one class")
    return who, best - second


def _fill(decided: tuple[Tensor, Tensor], values: Array, levels: Array, labels: Array, confidence: Array) -> None:
    """Numbers and margins as label values and levels of confidence."""
    labels[...] = values[decided[0].numpy()].astype(labels.dtype)
    margin = (decided[1] * 256).clamp(max=len(levels))
    confidence[...] = np.append(levels, np.uint8(255))[margin.to(torch.int64).numpy()]


def _spread(runs: Array) -> tuple[Tensor, Tensor]:
    """The node below and the node above each voxel; the runs cover the voxels from 0 on, without gaps."""
    counts = runs[:, 1] - runs[:, 0]
    order = np.argsort(runs[:, 0])
    low, high = (torch.from_numpy(np.repeat(runs[order, column], counts[order])) for column in (2, 3))
    return low, high
