"""Measuring one forward pass: CPU or GPU time, the peak of memory, and the products that it takes."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.network_list import OUT_CHANNELS, Entry, prepare

#: A call shorter than this is timed right after one that is not: the others of its turn leave the caches cold, which
#: small networks feel most, and a tile of a scan follows another.
WARMED_BELOW_S = 1.0

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Conditions:
    """What all networks of a run have in common.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: ``float32``, or ``bfloat16`` by autocast.
        runtime: ``eager``, or ``compile`` by torch.compile.
        allocator: of the processor's memory: ``kept`` as the command line has it, or glibc's ``default``.
        batch: how many images at a time.
        budget_s: how long the repeats of one network at one size may take together.
        limit_s: a call that is estimated to take longer is left out.
        limit_mib: so is one that is estimated to need more memory.
    """

    device: str = "cpu"
    precision: str = "float32"
    runtime: str = "eager"
    allocator: str = "kept"
    batch: int = 1
    budget_s: float = 20.0
    limit_s: float = 120.0
    limit_mib: float = 16 * 1024

    @property
    def clock(self) -> str:
        """What the times are."""
        return "GPU seconds" if self.device == "cuda" else "CPU seconds"


@dataclass(frozen=True)
class Measurement:
    """One network at one size.

    Attributes:
        network: its name.
        spatial_dims: 2 or 3.
        edge: pixels or voxels of the image along each axis.
        parameters: how many it has, before folding.
        gflops: of one forward pass, 2 for each product; 0 where it was not counted.
        peak_mib: the most memory beyond weights and input in a fresh process of glibc's default allocator (on a GPU:
            that torch's allocator handed out); None where it was left out.
        fresh_seconds: of each call in that process.
        seconds: of each call in turns with all the others, under the conditions of the run.
        skipped: why it was not measured, with the estimate; empty if it was.
    """

    network: str
    spatial_dims: int
    edge: int
    parameters: int
    gflops: float
    peak_mib: float | None = None
    fresh_seconds: tuple[float, ...] = ()
    seconds: tuple[float, ...] = field(default=())
    skipped: str = ""

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Measurement:
        """The measurement that was kept as JSON."""
        times = {name: tuple(values[name]) for name in ("fresh_seconds", "seconds")}
        return cls(**{**values, **times})

    @property
    def time(self) -> float | None:
        """The median under the conditions of the run."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def fresh_time(self) -> float | None:
        """The median in the fresh process; its first call, which prepares kernels, counts only where it is alone."""
        later = self.fresh_seconds[1:] or self.fresh_seconds
        return statistics.median(later) if later else None

    @property
    def voxels(self) -> int:
        """Of the image."""
        return self.edge**self.spatial_dims


def measure_fresh(entry: Entry, edges: Sequence[int], conditions: Conditions) -> Iterator[Measurement]:
    """One network alone, eager, its sizes upward, with peaks of memory; for a process that has done nothing else.

    Args:
        entry: the network.
        edges: sizes, ascending.
        conditions: of the run; the allocator is left as it is.

    Yields:
        A measurement for each size, without ``seconds``.
    """
    done: list[Measurement] = []
    for edge in edges:
        network, parameters = prepare(entry, edge)
        gflops = count_gflops(network, entry.spatial_dims, edge, conditions.batch)
        plain = Measurement(entry.name, entry.spatial_dims, edge, parameters, gflops)
        skipped = explain_skip(done, plain, conditions)
        if skipped:
            yield Measurement(**{**vars(plain), "skipped": skipped})
            continue
        network = network.to(conditions.device)
        image = make_image(entry.spatial_dims, edge, conditions)
        try:
            with peak_memory(conditions.device) as peak:
                taken = [take_time(network, image, conditions)]
        except torch.OutOfMemoryError as error:
            yield Measurement(**{**vars(plain), "skipped": str(error).partition(".")[0]})
            continue
        while sum(taken) + taken[-1] < conditions.budget_s / 4 and len(taken) < 4:
            taken.append(take_time(network, image, conditions))
        done.append(Measurement(**{**vars(plain), "peak_mib": peak[0], "fresh_seconds": tuple(taken)}))
        yield done[-1]


def measure_in_turns(
    entries: Sequence[Entry], fresh: Sequence[Measurement], conditions: Conditions
) -> list[Measurement]:
    """Networks at one size, turn by turn in this process, so that a busy machine slows them alike.

    Args:
        entries: the networks.
        fresh: what is known of each of them at this size, in the same order; none was skipped.
        conditions: of the run.

    Returns:
        The same measurements with ``seconds``.
    """
    calls = [place(prepare(entry, each.edge)[0], conditions) for entry, each in zip(entries, fresh, strict=True)]
    image = make_image(fresh[0].spatial_dims, fresh[0].edge, conditions)
    estimates = [each.fresh_time or 0.0 for each in fresh]
    repeats = [count_repeats(estimate, conditions.budget_s) for estimate in estimates]
    if conditions.device == "cpu" and conditions.allocator == "kept":
        grow_heap(max(each.peak_mib or 0.0 for each in fresh))
    for call, estimate in zip(calls, estimates, strict=True):
        if estimate < conditions.budget_s / 4 or conditions.runtime == "compile":
            take_time(call, image, conditions)  # prepares kernels; of no weight in a long call
    turns = max(repeats)
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(turns):
        for call, estimate, times, count in zip(calls, estimates, taken, repeats, strict=True):
            if turn * count % turns >= count:  # in so many of the turns, evenly
                continue
            if estimate < WARMED_BELOW_S:
                take_time(call, image, conditions)
            times.append(take_time(call, image, conditions))
    return [Measurement(**{**vars(each), "seconds": tuple(times)}) for each, times in zip(fresh, taken, strict=True)]


def count_repeats(estimate_s: float, budget_s: float) -> int:
    """How often a call is timed: 7 times, fewer where that takes too long, but twice at least.

    Args:
        estimate_s: of one call.
        budget_s: for all of them.

    Examples:
        >>> count_repeats(0.1, 20), count_repeats(5.5, 20), count_repeats(60, 20)
        (7, 3, 2)
    """
    return max(2, min(7, int(budget_s / max(estimate_s, 1e-6))))


def explain_skip(done: Sequence[Measurement], following: Measurement, conditions: Conditions) -> str:
    """Why the next size of a network is left out, or nothing.

    Time is taken to grow as the products do, memory as it grew between the last two sizes, and both at least as the
    number of voxels; a fifth is added to the time.

    Args:
        done: its smaller sizes, ascending.
        following: the next.
        conditions: with the limits.
    """
    last = done[-1] if done else None
    if last is None or last.peak_mib is None:
        return ""
    larger = following.voxels / last.voxels
    seconds = 1.2 * (last.fresh_time or 0.0) * max(larger, following.gflops / last.gflops if last.gflops else 0.0)
    slope = 1.0
    before = done[-2] if len(done) > 1 else last
    if before is not last and before.peak_mib and last.peak_mib > 0:
        slope = max(1.0, math.log(last.peak_mib / before.peak_mib) / math.log(last.voxels / before.voxels))
    mib = last.peak_mib * larger**slope
    if mib > conditions.limit_mib:
        return f"skipped: about {mib / 1024:.0f} GiB"
    return f"skipped: about {seconds:.0f} s" if seconds > conditions.limit_s else ""


def count_gflops(network: nn.Module, spatial_dims: int, edge: int, batch: int = 1) -> float:
    """Thousand millions of operations of a forward pass, 2 for each product, counted without computing anything.

    Args:
        network: any network on the processor.
        spatial_dims: 2 or 3.
        edge: of the image.
        batch: how many images.
    """
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network(torch.empty(batch, 1, *(edge,) * spatial_dims))
    return counter.get_total_flops() / 1e9


def make_image(spatial_dims: int, edge: int, conditions: Conditions) -> Tensor:
    """Random values, the same for every network."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(conditions.batch, 1, *(edge,) * spatial_dims, generator=generator).to(conditions.device)


def place(network: nn.Module, conditions: Conditions) -> nn.Module:
    """The network on its device, compiled where wanted."""
    network = network.to(conditions.device)
    if conditions.runtime == "compile":
        return torch.compile(network)  # type: ignore[return-value]  # it is a module around ours
    return network


def take_time(call: nn.Module, image: Tensor, conditions: Conditions) -> float:
    """Seconds of one forward pass: the process's CPU time, or the GPU's between two events.

    Args:
        call: the network on its device.
        image: on the same.
        conditions: device and precision.

    Raises:
        ValueError: if the output has not the image's size; the comparison would be unfair.
    """
    half = conditions.precision == "bfloat16"
    with torch.inference_mode(), torch.autocast(conditions.device, dtype=torch.bfloat16, enabled=half):
        if conditions.device == "cuda":
            before = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            after = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            before.record()
            output = call(image)
            after.record()
            torch.cuda.synchronize()
            seconds = before.elapsed_time(after) / 1000
        else:
            start = time.process_time()
            output = call(image)
            seconds = time.process_time() - start
    if output.shape != (image.shape[0], OUT_CHANNELS, *image.shape[2:]):
        raise ValueError(f"the output has the shape {tuple(output.shape)}, not full size")
    return float(seconds)


@contextmanager
def peak_memory(device: str) -> Iterator[list[float]]:
    """What the block inside holds at most beyond what was held before, in MiB, put into the list that is given.

    Args:
        device: ``cuda`` for what torch's allocator hands out, else resident memory of this process.
    """
    peak: list[float] = []
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield peak
        peak.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        return
    if sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)  # what is free now must not serve the block unseen
    if _CLEAR.exists():
        _CLEAR.write_text("5")  # the peak starts anew
    held = _resident_mib("VmRSS")
    yield peak
    peak.append(max(0.0, _resident_mib("VmHWM") - held))


def _resident_mib(name: str) -> float:
    """VmRSS or VmHWM; elsewhere than on Linux the largest so far, which serves as well for sizes that grow."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def grow_heap(mib: float) -> None:
    """Let the process get so much memory from the kernel now, in place of during the first timed call.

    Args:
        mib: how much.
    """
    block = torch.empty(int(mib * 2**20), dtype=torch.uint8)
    block.fill_(0)
