"""How long a network will take for a scan, from windows that were timed on this machine just now."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from time import perf_counter

import torch

from effvit_med.engine.planning import Plan
from effvit_med.engine.scoring import HeldRows, Predict, Scoring, stream_scores
from effvit_med.engine.tiling import Size, padded_size, place_windows


@dataclass(frozen=True)
class Estimate:
    """How long the network will take for a scan.

    What is in it is what was measured: windows through the network, with all folds and mirrors, and adding up their
    scores. What is not in it: loading the model, reading the scan, preparing and resampling its rows, finding a
    region, labelling, and writing results; and whatever else the machine will be busy with.

    Attributes:
        seconds: for all windows.
        windows: how many there are; what ``total`` of the progress of phase ``network`` will be.
        seconds_per_window: as measured.
        at_most: whether fewer windows may be enough, since only a region will be segmented that is not known yet.
    """

    seconds: float
    windows: int
    seconds_per_window: float
    at_most: bool = False


def estimate_windows(shape: Size, predict: Predict, scoring: Scoring, plan: Plan, *, at_most: bool = False) -> Estimate:
    """Time as many windows as go through together, twice, and take the second time for all windows of a grid.

    The windows go the way that those of a scan go, but hold noise in place of a scan.

    Args:
        shape: of the grid.
        predict: the network.
        scoring: how the grid is cut up.
        plan: where it runs.
        at_most: for the estimate.

    Raises:
        SettingsError: if the window is not a whole number of strides.
    """
    flat_axes = (0,) if scoring.preprocess.spatial_dims == 2 else ()
    starts = place_windows(
        padded_size(shape, scoring.tiling.window, scoring.stride), scoring.tiling, scoring.stride, flat_axes
    )
    together = min(scoring.batch_size, max(Counter(start[0] for start in starts).values()))
    rows = HeldRows(_make_noise(scoring, together, plan.device))
    for _ in range(2):  # the first also pays for what is made once
        begun = perf_counter()
        for _ in stream_scores(rows, predict, scoring, slab_device=plan.slab_device):
            pass
        seconds = (perf_counter() - begun) / together
    return Estimate(seconds * len(starts), len(starts), seconds, at_most)


def _make_noise(scoring: Scoring, windows: int, device: torch.device) -> torch.Tensor:
    """A prepared scan that is cut into so many windows, side by side along the last axis."""
    a, b, c = scoring.tiling.window
    stride = scoring.stride[2]
    advance = max(stride, math.floor(c * (1 - scoring.tiling.overlap)))  # as `place_windows` has it
    more = (windows - 1) * advance // stride * stride  # whole strides, since padding could make room for one more
    return torch.randn((1, a, b, c + more), generator=torch.Generator().manual_seed(0)).to(device)
