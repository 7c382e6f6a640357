"""How long and how fast the network learns, and how its patches are changed at random."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from effvit_med.networks import build_network
from effvit_med.planning.choice import Chooser
from effvit_med.planning.fingerprint import Fingerprint
from effvit_med.planning.grid_choices import ANISOTROPIC, Grid
from effvit_med.planning.network_choices import FEWEST_STEPS, Budget, NetworkPlan
from effvit_med.volume import LabelTable

STEPS = {"cpu": 6000, "cuda": 50000}
"""Training steps where no time is set."""

STEPS_PER_EPOCH = {"cpu": 100, "cuda": 250}
EPOCHS = (10, 1000)
SHARE_OF_STEPS = 0.8
"""Of the time; the rest goes into validation, patches and the first look at the data."""

VALIDATIONS = 20
"""So often the network is validated in a training."""

_SIDES = ("left", "right")
_UNPAIRED = ("liver", "spleen", "stomach", "pancreas", "gallbladder", "heart", "aorta", "colon", "duodenum", "cava")


@dataclass(frozen=True)
class TrainingPlan:
    """What was decided about the training.

    Attributes:
        epochs: passes of ``steps_per_epoch``.
        steps_per_epoch: training steps in each.
        step_s: measured time of a step; None if it was not measured.
    """

    epochs: int
    steps_per_epoch: int
    step_s: float | None

    @property
    def is_hasty(self) -> bool:
        """Whether the time that was set leaves too few steps to learn anything."""
        return self.step_s is not None and self.epochs * self.steps_per_epoch < FEWEST_STEPS


def choose_training(
    chooser: Chooser, grid: Grid, fingerprint: Fingerprint, table: LabelTable, network: NetworkPlan, budget: Budget
) -> TrainingPlan:
    """Decide augmentation and schedule.

    Args:
        chooser: takes the decisions.
        grid: what the network sees.
        fingerprint: of the data set.
        table: the structures; sides in their names forbid mirroring.
        network: what was decided about it.
        budget: what training may take; with minutes, a step is timed on this machine.
    """
    _choose_foreground(chooser, fingerprint, grid, network)
    choose_mirroring(chooser, grid, table, photographs=fingerprint.photographs)
    _choose_turning(chooser, grid, photographs=fingerprint.photographs)
    levels = min(3, len(network.arguments["stage_strides"]) - 1)
    chooser.choose("deep_supervision", levels, f"The {levels} finest of the decoder's maps must know the labels.")
    step_s = time_step(network, budget.device) if budget.minutes else None
    epochs, steps = _choose_schedule(chooser, budget, step_s)
    interval = max(1, round(epochs / VALIDATIONS))
    chooser.choose("val_interval", interval, f"Whole cases are segmented {epochs // interval} times, to keep the best.")
    warm = min(1000, max(1, epochs * steps // 50))
    chooser.choose("warmup_steps", warm, "The rate rises over the first fiftieth of all steps, then falls to nought.")
    rate = 0.003 if network.batch_size < 8 else 0.004
    chooser.choose(
        "learning_rate",
        rate,
        f"A usual one of AdamW for networks of few channels and {network.batch_size} patches in a step.",
    )
    return TrainingPlan(epochs, steps, step_s)


def _choose_foreground(chooser: Chooser, fingerprint: Fingerprint, grid: Grid, network: NetworkPlan) -> None:
    share = fingerprint.foreground_share
    if math.prod(network.patch) >= math.prod(grid.middle) and grid.spatial_dims == 3:
        value, reason = 0.33, "Most patches hold a whole case anyway."
    elif share < 0.01:
        value, reason = 0.67, f"Only {share:.2%} of voxels are marked: most patches drawn anywhere would be empty."
    else:
        value, reason = (
            0.33,
            f"{share:.1%} of voxels are marked; a third of patches centred on one keeps rare ones in sight.",
        )
    chooser.choose("foreground_share", value, reason)


def choose_mirroring(chooser: Chooser, grid: Grid, table: LabelTable, *, photographs: bool) -> None:
    """Decide along which axes patches are mirrored: those along which a mirrored scan is one that there could be.

    Pictures may be mirrored at will, patients from side to side, unless that would make one structure of another.

    Args:
        chooser: takes the decision.
        grid: what the network sees.
        table: the structures; words for sides in their names, and single organs of the trunk, count.
        photographs: whether all cases are pictures.
    """
    axes = list(range(3 - grid.spatial_dims, 3))
    if photographs or grid.orientation is None:
        chooser.choose("mirror_axes", tuple(axes), "A mirrored picture is a picture that could have been taken.")
        return
    names = [set(re.split(r"[^a-z]+", label.name)) for label in table]
    words = [word for word in _SIDES if any(word in name for name in names)]
    single = len(table) > 1 and any(name & set(_UNPAIRED) for name in names)
    if words or single or any(label.laterality is not None for label in table):
        told = f"which {' and '.join(words)} in names depend on" if words else "which tell some of these organs apart"
        chooser.choose("mirror_axes", (), f"Not across left and right, {told}; and no patient lies upside down.")
    elif len(grid.orientation) == 3:
        value = tuple(axis for axis in axes if grid.orientation[axis] in "LR")
        chooser.choose("mirror_axes", value, "From side to side, as no structure has one; no patient lies upside down.")
    else:
        value = tuple(axis for axis in axes if axis > 0)
        chooser.choose("mirror_axes", value, "Within slices, which lie each otherwise; no structure has a side.")


def _choose_turning(chooser: Chooser, grid: Grid, *, photographs: bool) -> None:
    flat = grid.spatial_dims == 2
    if photographs:
        turn: tuple[float, ...] = (180, 0, 0)
        reason = "A picture may be taken any way round."
    elif flat or grid.is_thick:
        turn = (30, 0, 0)
        ratio = grid.steps_mm[0] / min(grid.steps_mm[1:])
        reason = f"Only within slices: they are {ratio:.2g} times thicker than pixels are wide."
        if flat:
            reason = "Only within slices, which is all that the network sees."
    else:
        turn, reason = (30, 30, 30), f"About every axis: spacings differ by less than {ANISOTROPIC:g} times."
    chooser.choose("rotate_degrees", tuple(float(angle) for angle in turn), reason)
    scale = (0.0 if flat or grid.is_thick else 0.25, 0.25, 0.25)
    chooser.choose(
        "scale_range",
        scale,
        "Bodies differ in size by so much" + (", slices in distance not." if not scale[0] else "."),
    )


def _choose_schedule(chooser: Chooser, budget: Budget, step_s: float | None) -> tuple[int, int]:
    steps, total = STEPS_PER_EPOCH[budget.device], STEPS[budget.device]
    reason = f"{total} steps, the usual length on {_DEVICE_WORDS[budget.device]}; --minutes plans by the time there is."
    if step_s is not None and budget.minutes is not None:
        total = max(1, int(budget.minutes * 60 * SHARE_OF_STEPS / step_s))
        steps = max(1, min(steps, total // EPOCHS[0]))
        reason = (
            f"A step takes {step_s:.3g} s on this machine (timed), so {budget.minutes:g} minutes hold {total} steps, "
            f"{1 - SHARE_OF_STEPS:.0%} left for validation."
        )
    steps = chooser.choose("steps_per_epoch", steps, "Between two looks at the clock, the curve and the checkpoint.")
    value = max(1, min(EPOCHS[1], round(total / steps)))
    epochs: int = chooser.choose("epochs", value, reason)
    return epochs, steps


_DEVICE_WORDS = {"cpu": "a processor", "cuda": "a GPU"}


def time_step(network: NetworkPlan, device: str, repeats: int = 3) -> float:
    """Seconds of one training step on this machine: the fastest of a few, after one that does not count.

    Args:
        network: what was decided about it.
        device: ``cpu`` or ``cuda``.
        repeats: how many count.
    """
    where = torch.device(device)
    model = build_network(**network.arguments).to(where).train()
    optimiser = torch.optim.AdamW(model.parameters())
    shape = _input_shape(network)
    patch = torch.randn(shape, device=where)
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = model(patch).float().logsumexp(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _input_shape(network: NetworkPlan) -> Sequence[int]:
    flat = network.arguments["spatial_dims"] == 2
    return (network.batch_size, *(network.patch if flat else (1, *network.patch)))
