"""What a case holds in memory, part by part, worked out before it starts.

The formulas follow the engine: windows ordered along axis 0, scores kept for the rows that windows still touch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

from effvit_med.engine.memory import NetworkMemory, allocator_bytes
from effvit_med.engine.tiling import Size
from effvit_med.errors import SettingsError
from effvit_med.transforms.pipeline import PreparingMemory

PROCESSOR = "processor"


@dataclass(frozen=True)
class CaseSize:
    """The sizes of a case that decide what memory it needs.

    Attributes:
        shape: voxels of the scan along each axis.
        item_bytes: bytes of a voxel of the scan.
        grid: voxels of the padded network grid; axis 0 is the one that the engine streams along.
        classes: classes of the network, background included.
        stride: grid voxels per voxel of the network's output.
        confidence: whether the 8-bit confidence is wanted beside the labels.
        scan_in_memory: False where the reader leaves the scan on disk.
        preparing: what `effvit_med.transforms.pipeline.preparing_memory` says of the scan.
    """

    shape: Size
    item_bytes: int
    grid: Size
    classes: int
    stride: Size
    confidence: bool = True
    scan_in_memory: bool = True
    preparing: PreparingMemory = field(default_factory=PreparingMemory)


@dataclass(frozen=True)
class PlanOptions:
    """What the user and the bundle want, before anything gives way.

    Attributes:
        device: where the network runs.
        precision: of its arithmetic.
        window: size of a window on the network's grid; for 2D networks the first is slices that go through together.
        overlap: of neighbouring windows.
        batch_size: windows that go through together.
        spatial_dims: of the network, 2 or 3.
        slices_per_input: channels of the network.
        smallest_window: what windows must not fall below, per axis of the grid; the network's deepest stride.
        memory_limit_bytes: the most that the process may hold of the machine's memory; None for what it holds now and
            80 % of what is free now.
        accelerator_limit_bytes: the most that it may take of the accelerator's; None for 80 % of what is free now.
        process_bytes: what it holds before the scan is read and the weights are loaded; None for what it holds now,
            which counts twice what is loaded already.
        keeps_freed_memory: what `effvit_med.engine.allocation.keep_freed_memory` returned.
        mirror: whether tiles are looked at in the mirror, too.
        folds: networks whose logits are averaged.

    Raises:
        SettingsError: if a limit or the batch size is not above 0.
    """

    device: torch.device
    precision: str
    window: Size
    overlap: float
    batch_size: int
    spatial_dims: int
    slices_per_input: int
    smallest_window: Size
    memory_limit_bytes: int | None = None
    accelerator_limit_bytes: int | None = None
    process_bytes: int | None = None
    keeps_freed_memory: bool = False
    mirror: bool = False
    folds: int = 1

    def __post_init__(self) -> None:
        for name, limit in (("memory", self.memory_limit_bytes), ("accelerator", self.accelerator_limit_bytes)):
            if limit is not None and limit <= 0:
                raise SettingsError(f"The {name} limit is {limit} bytes; it must be above 0.")
        if self.batch_size < 1:
            raise SettingsError(f"The batch size is {self.batch_size}; it must be at least 1.")


@dataclass(frozen=True)
class Part:
    """One thing that takes memory.

    Attributes:
        name: what it is.
        bytes: how much it takes at most.
        where: ``processor``, ``cuda`` or ``mps``.
    """

    name: str
    bytes: int
    where: str


@dataclass(frozen=True)
class Choice:
    """What a plan settles.

    Attributes:
        device: where the network runs.
        slab_device: where scores are added up.
        window: size of a window on the network's grid.
        batch_size: windows that go through together.
    """

    device: torch.device
    slab_device: torch.device
    window: Size
    batch_size: int


def list_parts(
    size: CaseSize,
    options: PlanOptions,
    held_bytes: int,
    network_bytes: Callable[[tuple[int, ...]], NetworkMemory],
    choice: Choice,
) -> Iterator[Part]:
    """Everything that takes memory, and where.

    Args:
        size: of the case.
        options: what was asked for.
        held_bytes: what the process holds before the scan.
        network_bytes: what the network needs for tiles of (batch, channels, *window).
        choice: what the plan settles.
    """
    window, batch = choice.window, choice.batch_size
    place, slab_place = place_of(choice.device), place_of(choice.slab_device)
    tile = tile_shape(window, batch, options)
    network = network_bytes(tile)
    logits = 4 * batch * size.classes * math.prod(_divide(window, size.stride))
    yield Part("process before the scan", held_bytes, PROCESSOR)
    if network.tracing_bytes:
        yield Part("finding out what is needed", network.tracing_bytes, PROCESSOR)
    yield Part("weights", network.weights_bytes, place)
    yield Part("activations", activations_bytes(network.activations_bytes, logits, batch), place)
    extra = allocator_bytes(network.activations_bytes, place == PROCESSOR, options.keeps_freed_memory)
    yield Part("allocator and libraries", extra, place)
    yield Part("tiles", 4 * math.prod(tile), place)
    if options.mirror:
        yield Part("mirroring", 2 * logits + 4 * math.prod(tile), place)
    if options.folds > 1:
        yield Part("mean of the folds", 2 * logits, place)
    if slab_place != place:
        yield Part("logits on their way", logits, slab_place)
    yield from _prepared_parts(size, options, window, place)
    yield Part("rolling scores", scores_bytes(size, options, window), slab_place)
    yield Part("finished slab", slab_bytes(size, options, window), PROCESSOR)
    if size.scan_in_memory:
        yield Part("scan", size.item_bytes * math.prod(size.shape), PROCESSOR)
    yield Part("labels", labels_bytes(size), PROCESSOR)
    if size.confidence:
        yield Part("confidence", math.prod(size.shape), PROCESSOR)


def _prepared_parts(size: CaseSize, options: PlanOptions, window: Size, place: str) -> Iterator[Part]:
    """The prepared rows, which lie where the network runs, and what making them takes."""
    preparing = size.preparing
    yield Part("prepared rows", prepared_bytes(size, options, window), place)
    if preparing.held_bytes:
        yield Part("grid for percentiles", preparing.held_bytes, place)
    if preparing.scratch_bytes:
        yield Part("resampling", preparing.scratch_bytes, PROCESSOR)
    if place != PROCESSOR and preparing.device_bytes:
        yield Part("resampling on the accelerator", preparing.device_bytes, place)
    if preparing.thin_bytes:
        yield Part("tilted scan, thinned", preparing.thin_bytes, PROCESSOR)


def tile_shape(window: Size, batch: int, options: PlanOptions) -> tuple[int, ...]:
    """What the network is called with: slices are batch entries of a 2D network."""
    if options.spatial_dims == 2:
        return (batch * window[0], options.slices_per_input, *window[1:])
    return (batch, options.slices_per_input, *window)


def activations_bytes(network_bytes: int, logits_bytes: int, batch: int) -> int:
    """A call of the network, or, once only its logits are left, these and the weighted ones of a window."""
    return max(network_bytes, logits_bytes + logits_bytes // batch)


def advance(options: PlanOptions, window: Size, stride: Size) -> int:
    """How many rows of the grid windows move on by at the most; slices of a 2D network do not overlap."""
    return window[0] if options.spatial_dims == 2 else max(stride[0], math.floor(window[0] * (1 - options.overlap)))


def prepared_bytes(size: CaseSize, options: PlanOptions, window: Size) -> int:
    """Rows of the resampled scan, float32, with neighbours, where windows move on: thrice the windows', and the new.

    The rows of the last windows and their padded copy are there until those of the next have been put together.
    """
    neighbours = options.slices_per_input - 1 if options.spatial_dims == 2 else 0
    step = advance(options, window, size.stride)
    held = min(size.grid[0], window[0]) + neighbours
    rows = 3 * held + min(step, size.grid[0])
    return 4 * rows * size.grid[1] * size.grid[2]


def scores_bytes(size: CaseSize, options: PlanOptions, window: Size) -> int:
    """Rows of scores that are not finished, float32: a window's, and a copy of what is left while it moves on."""
    nodes = _divide(size.grid, size.stride)
    rows = math.ceil((2 * window[0] - advance(options, window, size.stride)) / size.stride[0])
    return 4 * rows * nodes[1] * nodes[2] * size.classes


def slab_bytes(size: CaseSize, options: PlanOptions, window: Size) -> int:
    """Finished rows that are being labelled, float32: one advance, and a row on either side to interpolate from."""
    nodes = _divide(size.grid, size.stride)
    rows = min(nodes[0], math.ceil(advance(options, window, size.stride) / size.stride[0]) + 2)
    return 4 * rows * nodes[1] * nodes[2] * size.classes


def labels_bytes(size: CaseSize) -> int:
    """Labels of every voxel of the scan: one byte each, two where there are more than 255 structures."""
    return math.prod(size.shape) * (1 if size.classes <= 256 else 2)


def place_of(device: torch.device) -> str:
    """Where a device keeps its memory: ``processor``, ``cuda`` or ``mps``."""
    return PROCESSOR if device.type == "cpu" else device.type


def _divide(sizes: Size, steps: Size) -> Size:
    return -(-sizes[0] // steps[0]), -(-sizes[1] // steps[1]), -(-sizes[2] // steps[2])
