"""Which network, how it halves its maps, on which patches it learns, and how many of them fit into memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effvit_med.engine.memory import MIB, training_memory
from effvit_med.errors import SettingsError
from effvit_med.networks import SegmentationNetwork, build_network
from effvit_med.networks.cost import count_parameters
from effvit_med.planning.choice import Chooser, show_value
from effvit_med.planning.fingerprint import Fingerprint
from effvit_med.planning.grid_choices import Grid

Size = tuple[int, int, int]

SMALLEST_MAP = 4
"""A map is not halved along an axis when fewer voxels than these would be left."""

COARSE = 2.0
"""An axis that is so many times coarser than the finest is not halved until the others have caught up."""

PATCH_VOXELS = {("cpu", 2): 512 * 512, ("cpu", 3): 64 * 96 * 96, ("cuda", 2): 1024 * 1024, ("cuda", 3): 128**3}
"""Voxels of a patch above which more steps of smaller patches are the better use of the same time."""

LARGEST_WINDOW = 2048 * 2048
"""Pixels of a picture that is still seen in one piece."""

OPTIMISER_COPIES = 4
"""What is kept of each weight beside itself: its gradient, two moments, and its running mean."""

FEW_CASES = 10
SMALL_BATCH = 8
MANY_PIXELS = 100_000
"""In a step, from which on the means of two slices hold for batch normalisation."""

FEWEST_STEPS = 1000
FEWEST_PATCHES = 2
"""Where there is time for fewer steps, a step gets fewer patches, but not fewer than these."""
_MOST_PATCHES = {("cpu", 2): 8, ("cpu", 3): 2, ("cuda", 2): 32, ("cuda", 3): 16}
_LIBRARIES_BYTES = 512 * MIB


@dataclass(frozen=True)
class Budget:
    """What training may take.

    Attributes:
        device: ``cpu`` or ``cuda``.
        memory_bytes: of a step, on the device.
        minutes: of the whole training; None if it does not matter.
        most_patches: in a step, so that there is time for enough of them; None for any number.
    """

    device: str
    memory_bytes: int
    minutes: float | None = None
    most_patches: int | None = None


@dataclass(frozen=True)
class NetworkPlan:
    """What was decided about the network and its patches.

    Attributes:
        arguments: of `effvit_med.networks.build_network`.
        patch: what a training step sees of a case, on the grid.
        window: what the engine gives to the network in use.
        batch_size: patches in a step.
        step_bytes: measured memory of a step.
        parameters: how many numbers the network has.
        multiple: what sizes of patches and windows are multiples of.
    """

    arguments: dict[str, Any]
    patch: Size
    window: Size
    batch_size: int
    step_bytes: int
    parameters: int
    multiple: Size


def choose_network(chooser: Chooser, grid: Grid, fingerprint: Fingerprint, classes: int, budget: Budget) -> NetworkPlan:
    """Decide the network, its strides, patch, batch and window.

    Memory is measured, not guessed: a step is followed on tensors without content.

    Args:
        chooser: takes the decisions.
        grid: what the network sees.
        fingerprint: of the data set.
        classes: that it tells apart, background included.
        budget: what training may take.

    Raises:
        SettingsError: if a choice of the user's cannot be built, or not even one small patch fits into the memory.
    """
    preset = _choose_preset(chooser, fingerprint, budget, grid.spatial_dims)
    arguments: dict[str, Any] = {
        "preset": preset,
        "spatial_dims": grid.spatial_dims,
        "in_channels": grid.channels,
        "out_channels": classes,
    }
    plain = _default_strides(arguments)
    fits = _Fitting(arguments, grid, plain, budget)
    patch, strides, held = fits.find_patch()
    arguments["stage_strides"] = _choose_strides(chooser, plain, strides, grid)
    multiple = _multiple(arguments["stage_strides"], grid)
    patch = _choose_patch(chooser, patch, grid, multiple, held, budget)
    batch = _choose_batch(chooser, fits, patch, budget)
    voxels = batch * math.prod(patch[3 - grid.spatial_dims :])
    arguments["norm"] = _choose_norm(chooser, batch, voxels, grid.spatial_dims)
    arguments["decoder_stride"] = _choose_decoder_stride(chooser, fingerprint, grid)
    return NetworkPlan(
        arguments={**arguments, "stage_strides": _plain_strides(arguments["stage_strides"])},
        patch=patch,
        window=_choose_window(chooser, grid, patch, multiple),
        batch_size=batch,
        step_bytes=int(fits.fixed_bytes + fits.bytes_per_voxel * voxels),
        parameters=count_parameters(_build(arguments)),
        multiple=multiple,
    )


class _Fitting:
    """Finds the largest patch of which two fit into the memory.

    Args:
        arguments: of the network so far.
        grid: what it sees.
        plain: its strides where all axes are alike.
        budget: what training may take.
    """

    def __init__(self, arguments: dict[str, Any], grid: Grid, plain: Sequence[int], budget: Budget) -> None:
        self.grid = grid
        self.plain = plain
        self.budget = budget
        self.precision = "float32" if budget.device == "cpu" else "bfloat16"
        whole = choose_strides(plain, grid, grid.middle if grid.spatial_dims == 3 else (1, *grid.middle[1:]))
        network = _build({**arguments, "stage_strides": _plain_strides(whole), "norm": "instance"})
        probe = (1, 64, 64) if grid.spatial_dims == 2 else (32, 64, 64)
        memory = training_memory(network, (2, *_shape(grid, probe)), self.precision)
        self.bytes_per_voxel = memory.activations_bytes / (2 * math.prod(probe))
        self.fixed_bytes = memory.weights_bytes * (1 + OPTIMISER_COPIES) + _LIBRARIES_BYTES

    def find_patch(self) -> tuple[Size, list[tuple[int, ...]], str]:
        """The patch, the strides that go with it, and what bounds it: the images, the memory or the time."""
        flat = self.grid.spatial_dims == 2
        whole = (1, *self.grid.middle[1:]) if flat else self.grid.middle
        by_memory = (self.budget.memory_bytes - self.fixed_bytes) / (2 * self.bytes_per_voxel)
        by_time = PATCH_VOXELS[self.budget.device, self.grid.spatial_dims]
        if by_memory < 16**self.grid.spatial_dims:
            raise SettingsError(
                f"The memory is {_gib(self.budget.memory_bytes)}; two small patches need "
                f"{(self.fixed_bytes + 2 * 16**self.grid.spatial_dims * self.bytes_per_voxel) / 2**30:.2g} GiB."
            )
        limit = min(by_memory, by_time)
        size = list(whole)
        strides = choose_strides(self.plain, self.grid, size)
        while True:
            multiple = _multiple(strides, self.grid)
            rounded = [math.ceil(n / m) * m for n, m in zip(size, multiple, strict=True)]
            if math.prod(rounded) <= limit or all(n <= m for n, m in zip(size, multiple, strict=True)):
                break
            # shorten the axis that is physically the longest, so that a patch sees equally far in all directions
            can = [axis for axis in range(3) if rounded[axis] > max(multiple[axis], SMALLEST_MAP)]
            axis = max(can, key=lambda axis: rounded[axis] * self.grid.steps_mm[axis])
            size[axis] = rounded[axis] - multiple[axis]
            strides = choose_strides(self.plain, self.grid, size)
        held = "images" if size == list(whole) else "memory" if by_memory < by_time else "time"
        return (rounded[0], rounded[1], rounded[2]), strides, held


def choose_strides(plain: Sequence[int], grid: Grid, size: Sequence[int]) -> list[tuple[int, ...]]:
    """The stride of each stage along each axis that the network has.

    Args:
        plain: the strides of the network's stages where all axes are alike.
        grid: what the network sees: two axes or three.
        size: of a patch along the three axes of the grid.

    Examples:
        >>> thick = Grid(3, 0, "SPL", (None, 1.0, 1.0), (4.0, 1.0, 1.0), (12, 64, 64), (12, 64, 64))
        >>> choose_strides([1, 2, 2, 2], thick, (12, 64, 64))
        [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]
    """
    axes = range(3 - grid.spatial_dims, 3)
    steps = {axis: grid.steps_mm[axis] if grid.spatial_dims == 3 else 1.0 for axis in axes}
    left = {axis: float(size[axis]) for axis in axes}
    strides = []
    for stride in plain:
        finest = min(steps.values())
        row = []
        for axis in axes:
            halves = stride > 1 and steps[axis] < COARSE * finest and left[axis] >= SMALLEST_MAP * stride
            row.append(stride if halves else 1)
        if stride > 1 and max(row) == 1:  # nothing may be halved any more: the finest axis is, or the stage is lost
            row[max(range(len(row)), key=lambda index: list(left.values())[index])] = stride
        for axis, step in zip(axes, row, strict=True):
            steps[axis] *= step
            left[axis] /= step
        strides.append(tuple(row))
    return strides


def _choose_preset(chooser: Chooser, fingerprint: Fingerprint, budget: Budget, spatial_dims: int) -> str:
    few = fingerprint.cases <= FEW_CASES
    if budget.device == "cuda" and not few:
        size, why = "base", f"On a GPU and with {fingerprint.cases} cases the largest of the family can be afforded."
    elif spatial_dims == 2:
        size, why = "tiny", "In 2D the smallest was as good as larger ones where that was measured, in half their time."
    elif budget.device == "cuda":
        size, why = "small", f"{fingerprint.cases} cases are few for a larger one."
    else:
        size, why = "small", "Small enough to be trained on a processor."
    other = {
        "base": "fullres_tiny and fullres_small are faster.",
        "small": "fullres_tiny is faster, fullres_base larger.",
        "tiny": "fullres_small and fullres_base are larger.",
    }[size]
    preset: str = chooser.choose("preset", f"fullres_{size}", f"{why} {other}")
    return preset


def _default_strides(arguments: dict[str, Any]) -> list[int]:
    """The stride of each stage as the preset has it, along an axis."""
    totals = [stride[0] for stride in _build(arguments).backbone.strides]
    return [totals[0], *(b // a for a, b in itertools.pairwise(totals))]


def _build(arguments: dict[str, Any]) -> SegmentationNetwork:
    return build_network(**arguments)


def _shape(grid: Grid, patch: Sequence[int]) -> tuple[int, ...]:
    return (1, *patch) if grid.spatial_dims == 3 else (grid.channels, *patch[1:])


def _multiple(strides: Sequence[int | Sequence[int]], grid: Grid) -> Size:
    total = [1, 1, 1]
    for stride in strides:
        row = [stride] * grid.spatial_dims if isinstance(stride, int) else list(stride)
        for axis, step in zip(range(3 - grid.spatial_dims, 3), row, strict=True):
            total[axis] *= step
    return total[0], total[1], total[2]


def _plain_strides(strides: Sequence[int | Sequence[int]]) -> list[int | list[int]]:
    """Strides as YAML shows them: one number where all axes are alike."""
    rows = [[row] if isinstance(row, int) else list(row) for row in strides]
    return [row[0] if len(set(row)) == 1 else row for row in rows]


def _choose_strides(
    chooser: Chooser, plain: Sequence[int], strides: list[tuple[int, ...]], grid: Grid
) -> list[int | Sequence[int]]:
    steps = " x ".join(f"{step:.3g}" for step in grid.steps_mm[3 - grid.spatial_dims :])
    if all(set(row) == {step} for row, step in zip(strides, plain, strict=True)):
        reason = "All axes are halved together: their spacings are alike, and the patch is large enough along each."
    else:
        reason = (
            f"At {steps} mm an axis is halved only once it is less than {COARSE:g} times as coarse as the finest, and "
            f"not below {SMALLEST_MAP} voxels."
        )
    value: list[int | Sequence[int]] = list(
        chooser.choose("stage_strides", tuple(_freeze(row) for row in _plain_strides(strides)), reason)
    )
    if len(value) != len(plain):
        raise SettingsError(f"stage_strides has {len(value)} entries; this network has {len(plain)} stages.")
    if any(not isinstance(row, int) and len(row) != grid.spatial_dims for row in value):
        raise SettingsError(
            f"stage_strides is {show_value(value, ', ')}; give one number, or {grid.spatial_dims}, a stage."
        )
    return value


def _freeze(row: int | Sequence[int]) -> int | tuple[int, ...]:
    return row if isinstance(row, int) else tuple(row)


def _choose_patch(chooser: Chooser, patch: Size, grid: Grid, multiple: Size, held: str, budget: Budget) -> Size:
    first = grid.channels if grid.spatial_dims == 2 else patch[0]
    wanted = (first, patch[1], patch[2])
    middle = show_value(grid.middle)
    reason = {
        "images": f"As large as the middle case, {middle} voxels, rounded up to whole strides.",
        "memory": f"The largest of which two fit into {_gib(budget.memory_bytes)}; the middle case has {middle}.",
        "time": f"Large enough to see around; the middle case has {middle}. Larger ones take the time of more steps.",
    }[held]
    value: Size = chooser.choose("patch", wanted, reason)
    if any(size % step for size, step in zip(value[1:], multiple[1:], strict=True)) or (
        grid.spatial_dims == 3 and value[0] % multiple[0]
    ):
        raise SettingsError(
            f"The patch is {show_value(value)}; each size must be a multiple of {show_value(multiple)}."
        )
    if grid.spatial_dims == 2 and value[0] != grid.channels:
        raise SettingsError(
            f"The patch is {show_value(value)}; its first size must be {grid.channels}, the slices seen."
        )
    return value


def _choose_batch(chooser: Chooser, fits: _Fitting, patch: Size, budget: Budget) -> int:
    dims = fits.grid.spatial_dims
    voxels = math.prod(patch[3 - dims :])
    room = int((budget.memory_bytes - fits.fixed_bytes) // (fits.bytes_per_voxel * voxels))
    most = min(_MOST_PATCHES[budget.device, dims], 2 * PATCH_VOXELS[budget.device, dims] // voxels)
    value = max(1, min(room, max(2, most)))
    told = f"A voxel of a patch takes {fits.bytes_per_voxel:.0f} bytes in a step, measured on this network"
    reason = (
        f"{told}, so {max(0, room)} patches would fit into {_gib(budget.memory_bytes)}; more than {value} make steps "
        "slower, not better."
    )
    if value == room:
        reason = f"{told}: no more fit into {_gib(budget.memory_bytes)}."
    if budget.most_patches is not None and budget.most_patches < value:
        value = budget.most_patches
        reason = f"With more there would be time for fewer than {FEWEST_STEPS} steps in {budget.minutes:g} minutes."
    batch: int = chooser.choose("batch_size", value, reason)
    return batch


def _gib(number: int) -> str:
    return f"{number / 2**30:.3g} GiB"


def _choose_norm(chooser: Chooser, batch: int, voxels: int, spatial_dims: int) -> str:
    value, reason = "instance", f"The mean over {batch} patches is too uncertain for batch normalisation."
    if batch >= SMALL_BATCH:
        value, reason = "batch", f"{batch} patches give means that hold, and it costs nothing in use."
    elif spatial_dims == 2 and batch > 1 and voxels >= MANY_PIXELS:
        told = f"{voxels / 1000:.0f} thousand pixels in a step give means that hold"
        value, reason = "batch", f"{told}, it costs nothing in use, and does not hang on how much of an image is seen."
    norm: str = chooser.choose("norm", value, reason)
    return norm


def _choose_decoder_stride(chooser: Chooser, fingerprint: Fingerprint, grid: Grid) -> int:
    there = [row for row in fingerprint.structures if row.cases and row.thickness_mm]
    finest = min(grid.steps_mm[1:])
    thin = min(there, key=lambda row: row.thickness_mm, default=None)
    told = f" ({thin.name}, the thinnest, is about {thin.thickness_mm / finest:.1f} voxels thick)" if thin else ""
    value: int = chooser.choose("decoder_stride", 1, f"Labels are decided voxel by voxel{told}; 2 is faster and blurs.")
    return value


def _choose_window(chooser: Chooser, grid: Grid, patch: Size, multiple: Size) -> Size:
    """What the engine sees at once: whole pictures where they are not too large, else blocks like those learnt from."""
    if grid.spatial_dims == 3:
        value, reason = patch, "As large as the patches that were learnt from."
    else:
        rows, columns = (
            math.ceil(size / step) * step for size, step in zip(grid.largest[1:], multiple[1:], strict=True)
        )
        whole = rows * columns <= LARGEST_WINDOW and rows * columns <= 2 * math.prod(grid.middle[1:])
        slices = min(8, grid.middle[0])
        value = (slices, rows, columns) if whole else (slices, patch[1], patch[2])
        reason = (
            "The whole picture in one piece." if whole else "Pictures differ much in size, so they are seen in tiles."
        )
    window: Size = chooser.choose("window", value, reason)
    if any(size % step for size, step in zip(window[1:], multiple[1:], strict=True)) or (
        grid.spatial_dims == 3 and window[0] % multiple[0]
    ):
        raise SettingsError(
            f"The window is {show_value(window)}; each size must be a multiple of {show_value(multiple)}."
        )
    chooser.choose("overlap", 0.5, "Half of each window is seen twice, so that no voxel is decided from an edge alone.")
    return window
