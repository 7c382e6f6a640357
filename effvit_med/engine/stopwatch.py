"""Where the time of a case goes: wall and processor seconds by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from effvit_med.volume import Step


class Stopwatch:
    """Adds up times under names; the times of a name may be many short ones."""

    def __init__(self) -> None:
        self._wall: dict[str, float] = {}
        self._cpu: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to a name."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self._wall[name] = self._wall.get(name, 0.0) + time.perf_counter() - wall
            self._cpu[name] = self._cpu.get(name, 0.0) + time.process_time() - cpu

    def steps(self, details: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Step, ...]:
        """A step for each name, in the order in which they began.

        Args:
            details: plain values by name, for the record.
        """
        found = details or {}
        return tuple(Step(name, self._wall[name], found.get(name, {}), self._cpu[name]) for name in self._wall)
