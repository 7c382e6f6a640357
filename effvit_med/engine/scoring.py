"""Running a network over a prepared volume, window by window, in 2D, 2.5D or 3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.tiling import Size, Tiling, blending_weight, padded_size, place_windows
from effvit_med.transforms import Preprocess, stack_neighbours

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


@torch.inference_mode()
def score_volume(
    values: Float[Tensor, "channels g0 g1 g2"],
    predict: Predict,
    scoring: Scoring,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "classes s0 s1 s2"]:
    """The blended scores of all classes at the network's output stride.

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
    window, stride = scoring.tiling.window, scoring.stride
    size = (values.shape[1], values.shape[2], values.shape[3])
    flat_axes = (0,) if scoring.preprocess.spatial_dims == 2 else ()
    padded = _pad(values, padded_size(size, window, stride), repeat_slices=bool(flat_axes))
    shape: Size = (padded.shape[1], padded.shape[2], padded.shape[3])
    out_window = _divide(window, stride)
    weight = blending_weight(out_window, flat_axes)
    weights = torch.zeros(_divide(shape, stride))
    total: Tensor | None = None
    starts = place_windows(shape, scoring.tiling, stride, flat_axes)
    for first in range(0, len(starts), scoring.batch_size):
        batch = starts[first : first + scoring.batch_size]
        for start, logits in zip(batch, _predict_windows(padded, batch, predict, scoring), strict=True):
            if total is None:
                total = torch.zeros(len(logits), *weights.shape)
            begins = _divide(start, stride)
            place = tuple(slice(b, b + length) for b, length in zip(begins, out_window, strict=True))
            total[(slice(None), *place)] += logits * weight
            weights[place] += weight
        if progress:
            progress(first + len(batch), len(starts))
    kept = [slice(0, -(-length // step)) for length, step in zip(size, stride, strict=True)]
    if total is None:
        raise AssertionError("a grid has at least one window")
    return total.div_(weights)[(slice(None), *kept)]


def _predict_windows(
    values: Float[Tensor, "channels p0 p1 p2"], starts: list[Size], predict: Predict, scoring: Scoring
) -> Float[Tensor, "batch classes w0 w1 w2"]:
    w0, w1, w2 = scoring.tiling.window
    if scoring.preprocess.spatial_dims == 3:
        tiles = torch.stack([values[:, a : a + w0, b : b + w1, c : c + w2] for a, b, c in starts])
        return predict(tiles).float().cpu()
    neighbours = scoring.preprocess.neighbours
    columns = [values[:, :, b : b + w1, c : c + w2] for _, b, c in starts]
    stacks = [stack_neighbours(col, range(s[0], s[0] + w0), neighbours) for col, s in zip(columns, starts, strict=True)]
    logits = predict(torch.cat(stacks)).float().cpu()
    return logits.reshape(len(starts), w0, *logits.shape[1:]).transpose(1, 2)


def _divide(sizes: Size, steps: Size) -> Size:
    return sizes[0] // steps[0], sizes[1] // steps[1], sizes[2] // steps[2]


def _pad(
    values: Float[Tensor, "channels g0 g1 g2"], size: Size, *, repeat_slices: bool
) -> Float[Tensor, "channels p0 p1 p2"]:
    """Values made larger at the far end of each axis, by their smallest value (air) or by repeating the last slice."""
    missing = [wanted - found for wanted, found in zip(size, values.shape[1:], strict=True)]
    if repeat_slices and missing[0]:  # they are neighbours of the last slices, which shall not see air
        values = torch.cat([values, values[:, -1:].expand(-1, missing[0], -1, -1)], dim=1)
        missing[0] = 0
    pad = [0, missing[2], 0, missing[1], 0, missing[0]]
    return torch.nn.functional.pad(values, pad, value=float(values.min())) if any(missing) else values
