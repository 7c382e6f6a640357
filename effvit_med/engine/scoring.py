"""Running a network over a prepared volume, window by window, in 2D, 2.5D or 3D, as a stream of finished rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.model import Model
from effvit_med.engine.recovery import is_out_of_memory, with_room
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.engine.tiling import Size, Tiling, blending_lines, padded_size, place_windows
from effvit_med.transforms import PreparedRows, Preprocess, cut_mirrored, stack_neighbours, strided_grid
from effvit_med.transforms.loops import in_parts, inner_loops
from effvit_med.volume import Volume

Predict = Callable[[Tensor], Tensor]
"""From (batch, channels, *window) to logits (batch, classes, *window at the output stride)."""


@dataclass(frozen=True)
class Scoring:
    """How a volume is cut up for a network and put together again.

    Attributes:
        preprocess: says whether the network takes slices, stacks of slices or blocks.
        tiling: window and overlap.
        stride: input voxels per output voxel along each axis of the grid; 1 along the slices of a 2D network.
        batch_size: windows that go through together.
    """

    preprocess: Preprocess
    tiling: Tiling
    stride: Size
    batch_size: int = 1


def grid_stride(output_stride: tuple[int, ...]) -> Size:
    """A network's output stride along the three axes of the grid; a 2D network leaves the slices alone."""
    padded = (1, *output_stride)[-3:]
    return padded[0], padded[1], padded[2]


@runtime_checkable
class RowSource(Protocol):
    """A prepared volume that is read a few rows at a time; `effvit_med.transforms.PreparedRows` is one.

    Attributes:
        shape: (g0, g1, g2) of the grid.
    """

    @property
    def shape(self) -> Size:
        """The size of the grid."""

    def read(self, start: int, stop: int) -> Float[Tensor, "channels rows g1 g2"]:
        """The rows from ``start`` up to but not including ``stop`` of axis 0."""


@dataclass(frozen=True, eq=False)
class HeldRows:
    """A prepared volume that is already there.

    Attributes:
        values: (channels, g0, g1, g2).
    """

    values: Float[Tensor, "channels g0 g1 g2"]

    @property
    def shape(self) -> Size:
        """The size of the grid."""
        return self.values.shape[1], self.values.shape[2], self.values.shape[3]

    def read(self, start: int, stop: int) -> Float[Tensor, "channels rows g1 g2"]:
        """A part of the values."""
        return self.values[:, start:stop]


@torch.inference_mode()
def stream_scores(
    rows: RowSource,
    predict: Predict,
    scoring: Scoring,
    watch: Stopwatch | None = None,
    progress: Callable[[int, int], None] | None = None,
    slab_device: torch.device | None = None,
) -> Iterator[Float[Tensor, "rows s1 s2 classes"]]:
    """The blended scores of all classes at the network's output stride, a few rows at a time, in their order.

    Windows are taken in order along axis 0. What no later window touches is given away at once, so that scores are only
    ever held for one window's length of the axis, whatever the length of the volume.

    Args:
        rows: the scan on the network's grid.
        predict: the network.
        scoring: how the grid is cut up.
        watch: takes the times of ``prepare``, ``network`` and ``stitch``.
        progress: called as progress(done, total) windows; may raise to stop.
        slab_device: where scores are added up; the processor if None.

    Yields:
        (rows, s1, s2, classes) logits, on the processor; all together ceil(g / stride) voxels along each axis. They
        are to be used before the next are asked for.

    Raises:
        SettingsError: if the window is not a whole number of strides.
    """
    watch = watch or Stopwatch()
    plan = _Plan.over(rows.shape, scoring)
    slab = _Slab(plan, slab_device or torch.device("cpu"))
    reader = _Reader(rows, plan, scoring.preprocess)
    done = 0
    for number, (first, group) in enumerate(plan.groups):
        with watch("prepare"):
            values = with_room(partial(reader.read, first), "preparing rows")
        for at in range(0, len(group), scoring.batch_size):
            batch = group[at : at + scoring.batch_size]
            with watch("network"):
                logits = _predict_windows(values, batch, predict, scoring)
            with watch("stitch"):
                for start, part in zip(batch, logits, strict=True):
                    with_room(partial(slab.add, part, (first, *start)), "adding up scores")
            done += len(batch)
            if progress:
                progress(done, plan.windows)
        following = plan.groups[number + 1][0] if number + 1 < len(plan.groups) else plan.shape[0]
        finished = slab.before(following // scoring.stride[0])
        if len(finished):
            yield finished.cpu()
        with watch("stitch"):
            slab.move_to(following // scoring.stride[0])


def score_volume(
    values: Float[Tensor, "channels g0 g1 g2"],
    predict: Predict,
    scoring: Scoring,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "classes s0 s1 s2"]:
    """The blended scores of all classes at the network's output stride, all at once.

    Args:
        values: the scan on the network's grid.
        predict: the network.
        scoring: how the grid is cut up.
        progress: called as progress(done, total) windows; may raise to stop.

    Returns:
        (classes, s0, s1, s2) logits with ceil(g / stride) voxels along each axis, on the CPU.

    Raises:
        SettingsError: if the window is not a whole number of strides.
    """
    parts = [part.clone() for part in stream_scores(HeldRows(values), predict, scoring, progress=progress)]
    return torch.cat(parts).movedim(-1, 0).contiguous()


def label_volume(
    predict: Predict, volume: Volume, model: Model, progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[Any]:
    """The label values of a scan, as any way of running a model's network gives them: to compare two of them.

    Args:
        predict: the network, at the output stride that the model's network has.
        volume: the scan.
        model: how the scan is prepared and cut up, and what the classes mean.
        progress: called as progress(done, total) windows.

    Returns:
        Label values of the shape of the scan.

    Raises:
        InputError: if a value of the scan is not finite.
        RefusedError: if the network gives numbers that are not finite.
    """
    rows = PreparedRows(volume, model.preprocess)
    scoring = Scoring(model.preprocess, model.tiling, grid_stride(model.build_network().output_stride))
    nodes = strided_grid(rows.grid, scoring.stride)
    labeller = model.make_labeller(nodes, volume.geometry)
    for scores in stream_scores(rows, predict, scoring, progress=progress):
        labeller.push(scores)
    return labeller.labels


@dataclass(frozen=True, eq=False)
class _Plan:
    """Where the windows stand.

    Attributes:
        size: the grid.
        shape: the padded grid.
        stride: input voxels per output voxel.
        window: in input voxels.
        groups: windows by their first row: (first row, their starts along axes 1 and 2).
        lines: shares of the windows along each axis, by their first output voxel.
    """

    size: Size
    shape: Size
    stride: Size
    window: Size
    groups: list[tuple[int, list[tuple[int, int]]]]
    lines: list[dict[int, Tensor]]

    @classmethod
    def over(cls, size: Size, scoring: Scoring) -> _Plan:
        window, stride = scoring.tiling.window, scoring.stride
        flat_axes = (0,) if scoring.preprocess.spatial_dims == 2 else ()
        shape = padded_size(size, window, stride)
        starts = place_windows(shape, scoring.tiling, stride, flat_axes)
        groups = [
            (first, [(b, c) for _, b, c in group]) for first, group in itertools.groupby(starts, key=lambda at: at[0])
        ]
        out, out_window = _divide(shape, stride), _divide(window, stride)
        lines = [
            blending_lines(
                out[axis],
                sorted({start[axis] // stride[axis] for start in starts}),
                out_window[axis],
                flat=axis in flat_axes,
            )
            for axis in range(3)
        ]
        return cls(size, shape, stride, window, groups, lines)

    @property
    def windows(self) -> int:
        return sum(len(group) for _, group in self.groups)

    @property
    def kept(self) -> Size:
        """The output voxels that the grid itself has."""
        kept = [-(-n // s) for n, s in zip(self.size, self.stride, strict=True)]
        return kept[0], kept[1], kept[2]


class _Slab:
    """Scores that are being added up, for one window's length of axis 0."""

    def __init__(self, plan: _Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._total: Tensor | None = None
        self._base = 0

    def add(self, logits: Float[Tensor, "classes w0 w1 w2"], start: Size) -> None:
        """Add a window's logits, each voxel with its share."""
        begins = _divide(start, self._plan.stride)
        try:
            self._add(logits, begins)
        except RuntimeError as error:
            if not is_out_of_memory(error) or self._device.type == "cpu":
                raise
            self._device = torch.device("cpu")  # slower, and the sums are the same
            self._total = None if self._total is None else self._total.cpu()
            self._add(logits, begins)

    def _add(self, logits: Float[Tensor, "classes w0 w1 w2"], begins: Size) -> None:
        plan = self._plan
        if self._total is None:
            lengths = _divide((plan.window[0], *plan.shape[1:]), plan.stride)
            self._total = torch.zeros(*lengths, len(logits), device=self._device)
        weights = [line[begin] for line, begin in zip(plan.lines, begins, strict=True)]
        corner = (begins[0] - self._base, begins[1], begins[2])
        place = tuple(slice(b, b + len(w)) for b, w in zip(corner, weights, strict=True))
        logits = logits.to(self._device).movedim(0, -1).contiguous()
        if self._device.type != "cpu":
            weight = (weights[0][:, None, None] * weights[1][:, None] * weights[2]).to(self._device)
            self._total[place].add_(logits * weight[..., None])
            return
        total, new = self._total[place].numpy(), logits.numpy()
        lines = [line.numpy() for line in weights]
        add_window = inner_loops().add_window
        in_parts(len(new), lambda rows: add_window(total[rows], new[rows], lines[0][rows], lines[1], lines[2]))

    def before(self, following: int) -> Float[Tensor, "rows s1 s2 classes"]:
        """The rows before that one, which no later window touches; a view."""
        if self._total is None:
            raise AssertionError("a grid has at least one window")
        kept = self._plan.kept
        return self._total[: max(0, min(following, kept[0]) - self._base), : kept[1], : kept[2]]

    def move_to(self, following: int) -> None:
        """Let the slab begin at that row; what was before it is gone."""
        if self._total is None:
            raise AssertionError("a grid has at least one window")
        count = following - self._base
        left = max(0, len(self._total) - count)
        for row in range(left):  # one after the other, so that no second slab is needed
            self._total[row] = self._total[row + count]
        self._total[left:] = 0
        self._base = following


class _Reader:
    """Windows' rows, mirrored beyond the grid, each row prepared once."""

    def __init__(self, rows: RowSource, plan: _Plan, preprocess: Preprocess) -> None:
        self._rows, self._plan = rows, plan
        self._neighbours = preprocess.neighbours
        self._held: Tensor | None = None
        self._base = 0

    def read(self, first: int) -> Float[Tensor, "channels rows p1 p2"]:
        """The rows of the windows that begin at one; for 2D networks with the neighbours on both sides."""
        plan, more = self._plan, self._neighbours
        low, high = first - more, first + plan.window[0] + more
        start = max(0, low)
        values = self._take(start, min(high, plan.size[0]))
        return cut_mirrored(values, (low - start, 0, 0), (high - start, *plan.shape[1:]))

    def _take(self, start: int, stop: int) -> Tensor:
        if self._held is None:
            self._held, self._base = self._rows.read(start, stop), start
        held = self._held[:, start - self._base :]
        if start + held.shape[1] < stop:
            held = torch.cat([held, self._rows.read(start + held.shape[1], stop)], dim=1)
        self._held, self._base = held, start
        return held[:, : stop - start]


def _predict_windows(
    values: Float[Tensor, "channels rows p1 p2"], starts: list[tuple[int, int]], predict: Predict, scoring: Scoring
) -> Float[Tensor, "batch classes w0 w1 w2"]:
    w0, w1, w2 = scoring.tiling.window
    columns = [values[:, :, b : b + w1, c : c + w2] for b, c in starts]
    if scoring.preprocess.spatial_dims == 3:
        return predict(torch.stack(columns)).float()
    neighbours = scoring.preprocess.neighbours
    stacks = [stack_neighbours(column, range(neighbours, neighbours + w0), neighbours) for column in columns]
    logits = predict(torch.cat(stacks)).float()
    return logits.reshape(len(starts), w0, *logits.shape[1:]).transpose(1, 2)


def _divide(sizes: Size, steps: Size) -> Size:
    return sizes[0] // steps[0], sizes[1] // steps[1], sizes[2] // steps[2]
