"""Stages for tests: a threshold in place of a network, and cases that raise, crash, hang or eat memory on demand.

What a case does stands in its voxels: the first voxel holds a number of `FAULTS` or an ordinary value.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from effvit_med.batch import BatchOptions
from effvit_med.engine.stages import Scan, Task, segment_stage
from effvit_med.volume import Code, Label, LabelTable, Provenance, Segmentation, Volume

RAISE, SEGFAULT, MEMORY, HANG, EXIT, OOM_KILL, CRASH_ONCE, DISK_FULL, DEVICE = range(2001, 2010)

TABLE = LabelTable((Label(1, "bright", Code("T-1", "99TEST", "Bright")),))


class Threshold:
    """Labels what is above 100; leaves a line per case in the file that TEST_BATCH_COUNTS names."""

    def __init__(self) -> None:
        self.about = {
            "bundle": "threshold",
            "bundle_version": "1",
            "weights_sha256": "0" * 64,
            "device": "cpu",
            "versions": {"effvit-med": "0"},
        }

    def __call__(self, task: Task, scan: Scan, *, progress: Callable[[str, int, int], None]) -> Segmentation:
        """Misbehave or segment."""
        progress("network", 0, 1)
        misbehave(int(scan.volume.array[0, 0, 0]), task)
        count(task.case_id)
        time.sleep(float(os.environ.get("TEST_BATCH_SLEEP_S", "0")))
        return segment_stage(task, scan, self)  # type: ignore[arg-type]

    def segment(self, volume: Volume, progress: Any, cancelled: Any) -> Segmentation:
        """As a Segmenter does."""
        labels = (volume.array > 100).astype(np.uint8)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        made = Provenance("threshold", "1", "0" * 64, {}, {"effvit-med": "0"}, "cpu", started, source=volume.source)
        return Segmentation(labels, volume.geometry, TABLE, made)


def make_threshold(options: BatchOptions) -> Threshold:
    return Threshold()


def make_broken(options: BatchOptions) -> Threshold:
    raise RuntimeError("there is no such device")


def count(case_id: str) -> None:
    path = os.environ.get("TEST_BATCH_COUNTS")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(case_id + "\n")


def misbehave(fault: int, task: Task) -> None:
    """Do what the first voxel of a case asks for."""
    if fault == RAISE:
        raise ValueError("this case raises")
    if fault == SEGFAULT:
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (2**32, resource.RLIM_INFINITY))
        np.ones(2**33, np.uint8)
    if fault == HANG:
        time.sleep(3600)
    if fault == EXIT:
        os._exit(3)
    if fault == OOM_KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == DISK_FULL:
        raise OSError(28, "No space left on device")
    if fault == DEVICE:
        raise RuntimeError("CUDA error: unspecified launch failure")
    marker = Path(os.environ.get("TEST_BATCH_COUNTS", os.devnull) + f".{task.case_id}")
    if fault == CRASH_ONCE and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
