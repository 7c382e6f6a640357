"""A threshold in place of a network, which tells when it begins, and waits while a gate is closed.

The folder of the bundle serves for what it tells, since workers that run already see no other change of a test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from effvit_med.batch import BatchOptions, Stages
from effvit_med.engine.stages import CaseResult, Scan, Task, write_stage
from effvit_med.volume import Segmentation
from tests.batch.stages import Threshold, misbehave

CHEAP = Stages(segment="tests.cluster.stages:make_gated", write="tests.cluster.stages:make_writer")


class Gated(Threshold):
    """Leaves a line when a case begins and one when it is segmented."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        note(folder, "loaded", str(os.getpid()))

    def __call__(self, task: Task, scan: Scan, *, progress: Callable[[str, int, int], None]) -> Segmentation:
        """What is above the threshold, once the gate is open."""
        note(self._folder, "begun", f"{task.case_id}:{os.getpid()}")
        while (self._folder / "closed").exists():
            time.sleep(0.02)
        misbehave(int(scan.volume.array[0, 0, 0]), task)
        note(self._folder, "segmented", task.case_id)
        return super().__call__(task, scan, progress=progress)


def make_gated(options: BatchOptions) -> Gated:
    """The stage of a worker."""
    assert options.bundle is not None
    return Gated(options.bundle)


class Unjudged:
    """Writes without a verdict: the folder of notes is no bundle to judge by."""

    def __call__(
        self, task: Task, scan: Scan, segmentation: Segmentation, *, progress: Callable[[str, int, int], None]
    ) -> CaseResult:
        """The files of a case."""
        return write_stage(task, scan, segmentation)


def make_writer(options: BatchOptions) -> Unjudged:
    """The last stage of a worker."""
    return Unjudged()


def note(folder: Path, kind: str, line: str) -> None:
    """Add a line to the file of a kind."""
    with (folder / kind).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def read_notes(folder: Path, kind: str) -> list[str]:
    """All lines of a kind."""
    return (folder / kind).read_text(encoding="utf-8").split() if (folder / kind).exists() else []
