"""The plan of a run before it starts: what memory it needs, and what gives way where that is too much.

What each part takes is said in `effvit_med.engine.footprint`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch

from effvit_med.engine.footprint import PROCESSOR, CaseSize, Choice, Part, PlanOptions, list_parts, place_of
from effvit_med.engine.memory import MIB, NetworkMemory, machine_memory, process_bytes
from effvit_med.engine.recovery import shrink_window
from effvit_med.engine.tiling import Size
from effvit_med.errors import RefusedError, SettingsError
from effvit_med.volume import Finding

__all__ = ["CaseSize", "Part", "Plan", "PlanOptions", "plan_run"]

SHARE_OF_FREE = 0.8  # what a plan takes of the memory free now, where the user says nothing


@dataclass(frozen=True)
class Plan:
    """How a case will run, and what memory that takes.

    Attributes:
        device: where the network runs.
        slab_device: where scores are added up and labelled.
        window: size of a window on the network's grid.
        overlap: of neighbouring windows.
        batch_size: windows that go through together.
        parts: what takes memory, and where.
        limit_bytes: the most that may be taken, by place.
        rungs: every remedy that was taken, in words, with the figures.
        wanted_window: the window before any remedy.
        spatial_dims: of the network, 2 or 3.
    """

    device: torch.device
    slab_device: torch.device
    window: Size
    overlap: float
    batch_size: int
    parts: tuple[Part, ...]
    limit_bytes: Mapping[str, int]
    rungs: tuple[str, ...]
    wanted_window: Size
    spatial_dims: int

    @property
    def total_bytes(self) -> dict[str, int]:
        """What is needed at each place."""
        return {place: sum(part.bytes for part in self.parts if part.where == place) for place in self.limit_bytes}

    @property
    def fits(self) -> bool:
        """Whether no place is over its limit."""
        return not self.full_places()

    def findings(self) -> tuple[Finding, ...]:
        """What the user must know because it changes labels: smaller windows see less around each voxel."""
        first = 3 - self.spatial_dims  # the slices of a 2D network do not see one another
        if self.window[first:] == self.wanted_window[first:]:
            return ()
        message = (
            f"Memory is short: windows are {_times(self.window)} voxels in place of the {_times(self.wanted_window)} "
            "that the bundle asks for, so the network sees less around each voxel and labels can differ."
        )
        return (Finding("SMALLER_WINDOWS", message),)

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values for JSON."""
        return {
            "device": str(self.device),
            "slab_device": str(self.slab_device),
            "window": list(self.window),
            "overlap": self.overlap,
            "batch_size": self.batch_size,
            "parts": [asdict(part) for part in self.parts],
            "total_bytes": self.total_bytes,
            "limit_bytes": dict(self.limit_bytes),
            "remedies": list(self.rungs),
        }

    def to_text(self) -> str:
        """The plan as a table for people: MiB of each part, sum and limit of each place, and every remedy."""
        width = max(len(part.name) for part in self.parts) + 2
        windows = f"windows of {_times(self.window)} voxels, {self.batch_size} at a time, overlap {self.overlap:g}"
        lines = [f"Network on {self.device}, scores on {self.slab_device}, {windows}"]
        for place, total in self.total_bytes.items():
            lines += ["", f"{'Memory of the ' + place:{width}}{'MiB':>9}"]
            lines += [f"{part.name:{width}}{part.bytes / MIB:9.1f}" for part in self.parts if part.where == place]
            lines += [f"{'sum':{width}}{total / MIB:9.1f}", f"{'limit':{width}}{self.limit_bytes[place] / MIB:9.1f}"]
        remedies = [f"  {number}. {rung}" for number, rung in enumerate(self.rungs, start=1)]
        return "\n".join([*lines, "", "Remedies:" if remedies else "Everything fits as it was asked for.", *remedies])

    def full_places(self) -> tuple[str, ...]:
        """The places that are over their limit."""
        return tuple(place for place, total in self.total_bytes.items() if total > self.limit_bytes[place])

    def describe_need(self) -> str:
        """What the places need that are over their limit, in words."""
        totals = self.total_bytes
        return " and ".join(
            f"{totals[place] / MIB:.1f} of {self.limit_bytes[place] / MIB:.1f} MiB on the {place}"
            for place in self.full_places()
        )


def plan_run(size: CaseSize, options: PlanOptions, network_bytes: Callable[[tuple[int, ...]], NetworkMemory]) -> Plan:
    """The plan of a case: everything as asked for where that fits, else the first that fits of a ladder.

    The ladder, each rung only where it frees memory where that is short:

    1. fewer windows at a time, halved down to 1 (and fewer slices, for 2D networks); labels stay the same;
    2. scores added up on the processor and not on the accelerator, where the processor has room; labels stay the same;
    3. smaller windows: the longest axis is halved, down to the smallest window; labels can change, see `Plan.findings`;
    4. the processor in place of the accelerator, where the ladder begins anew with what was asked for.

    On one device more memory never leads to smaller windows or, of the same window, to fewer at a time.

    Args:
        size: of the case.
        options: what was asked for, and the limits.
        network_bytes: what the network needs for tiles of (batch, channels, *window); see
            `effvit_med.engine.memory.network_memory`.

    Raises:
        RefusedError: ``NOT_ENOUGH_MEMORY``, if even the last rung is over a limit.
        SettingsError: if the window is no multiple of the output stride.

    Examples:
        >>> import math
        >>> size = CaseSize((300, 512, 512), 2, (200, 280, 280), 14, (2, 2, 2))
        >>> options = PlanOptions(torch.device("cpu"), "float32", (64, 96, 96), 0.5, 4, 3, 1, (32, 32, 32),
        ...                       memory_limit_bytes=1200 * MIB, process_bytes=300 * MIB)
        >>> plan = plan_run(size, options, lambda tile: NetworkMemory(4 * MIB, 150 * math.prod(tile)))
        >>> plan.window, plan.batch_size
        ((64, 96, 96), 2)
        >>> plan.rungs
        ('2 windows at a time in place of 4: ... of 1200.0 MiB on the processor were needed.',)
    """
    if any(length % step for length, step in zip(options.window, size.stride, strict=True)):
        raise SettingsError(f"The window {options.window} must be a multiple of the output stride {size.stride}.")
    budget = _Budget.of(size, options, network_bytes)
    plan = _climb(budget.plan(options.device, options.device, options.window, options.batch_size), budget)
    if not plan.fits and PROCESSOR not in plan.full_places():
        cpu = torch.device("cpu")
        rung = f"The processor in place of {options.device}: there {plan.describe_need()} would be needed at the least."
        plan = _climb(replace(budget.plan(cpu, cpu, options.window, options.batch_size), rungs=(rung,)), budget)
    if plan.fits:
        return plan
    raise RefusedError(
        "NOT_ENOUGH_MEMORY",
        f"Even with windows of {_times(plan.window)} voxels, {plan.batch_size} at a time, {plan.describe_need()} would "
        "be needed.",
        "Close other programs, allow more memory or segment a part of the scan.",
    )


def _climb(plan: Plan, budget: _Budget) -> Plan:
    """The first plan on the ladder of one device that fits, or the last there is."""
    while not plan.fits:
        for words, candidate in _next_rungs(plan, budget):
            now, then = plan.total_bytes, candidate.total_bytes
            helps = any(then[place] < now[place] for place in plan.full_places())
            if helps and set(candidate.full_places()) <= set(plan.full_places()):
                rung = f"{words}: {plan.describe_need()} were needed."
                plan = replace(candidate, rungs=(*plan.rungs, rung))
                break
        else:
            return plan
    return plan


def _next_rungs(plan: Plan, budget: _Budget) -> Iterator[tuple[str, Plan]]:
    """What could give way next, in order, in words and as a plan."""
    device, slab_device, window, batch = plan.device, plan.slab_device, plan.window, plan.batch_size
    if batch > 1:
        words = f"{batch // 2} {'windows' if batch > 3 else 'window'} at a time in place of {batch}"
        yield words, budget.plan(device, slab_device, window, batch // 2)
    slices = window[0]
    if plan.spatial_dims == 2 and slices > 1:
        words = f"{slices // 2} {'slices' if slices > 3 else 'slice'} at a time in place of {slices}"
        yield words, budget.plan(device, slab_device, (slices // 2, window[1], window[2]), batch)
    if slab_device.type != "cpu":
        words = f"Scores added up on the processor and not on {slab_device}"
        yield words, budget.plan(device, torch.device("cpu"), window, batch)
    smaller = shrink_window(window, budget.options.smallest_window, budget.size.stride)
    if smaller:
        words = f"Windows of {_times(smaller)} voxels in place of {_times(window)}"
        yield words, budget.plan(device, slab_device, (smaller[0], smaller[1], smaller[2]), batch)


@dataclass(frozen=True)
class _Budget:
    """What does not change on the ladder."""

    size: CaseSize
    options: PlanOptions
    held_bytes: int
    limits: Mapping[str, int]
    network_bytes: Callable[[tuple[int, ...]], NetworkMemory]

    @classmethod
    def of(
        cls, size: CaseSize, options: PlanOptions, network_bytes: Callable[[tuple[int, ...]], NetworkMemory]
    ) -> _Budget:
        """With all that is not given measured now."""
        held = process_bytes() if options.process_bytes is None else options.process_bytes
        limits = {PROCESSOR: options.memory_limit_bytes or held + _share_of_free(torch.device("cpu"))}
        if options.device.type != "cpu":
            limits[place_of(options.device)] = options.accelerator_limit_bytes or _share_of_free(options.device)
        return cls(size, options, held, limits, cache(network_bytes))

    def plan(self, device: torch.device, slab_device: torch.device, window: Size, batch: int) -> Plan:
        """The plan for a choice, whether it fits or not."""
        places = {PROCESSOR, place_of(device)}
        choice = Choice(device, slab_device, window, batch)
        return Plan(
            device=device,
            slab_device=slab_device,
            window=window,
            overlap=self.options.overlap,
            batch_size=batch,
            parts=tuple(list_parts(self.size, self.options, self.held_bytes, self.network_bytes, choice)),
            limit_bytes={place: limit for place, limit in self.limits.items() if place in places},
            rungs=(),
            wanted_window=self.options.window,
            spatial_dims=self.options.spatial_dims,
        )


def _share_of_free(device: torch.device) -> int:
    return int(SHARE_OF_FREE * machine_memory(device).free_bytes)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in sizes)
