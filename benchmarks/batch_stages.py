"""The shipped network's stage for the benchmark of faults: some cases raise, crash, or ask for too much memory."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from effvit_med.batch import BatchOptions
from effvit_med.batch.stages import Segmenting
from effvit_med.engine.stages import Scan, Task
from effvit_med.volume import Segmentation

RAISE, SEGFAULT, MEMORY = 2001, 2002, 2003
"""Values of a scan's first voxel that make its case misbehave."""


class Faulty(Segmenting):
    """The loaded model, and what ends it."""

    def __call__(self, task: Task, scan: Scan, *, progress: Callable[[str, int, int], None]) -> Segmentation:
        """The structures of a scan, unless its first voxel asks for something else.

        Raises:
            ValueError: if it asks for that.
            MemoryError: if it asks for more memory than the process may have.
        """
        fault = int(scan.volume.array[0, 0, 0])
        if fault == RAISE:
            raise ValueError("this case raises")
        if fault == SEGFAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == MEMORY:
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (2**35, most))
            held: Any = np.ones(2**36, np.uint8)
            del held
        return super().__call__(task, scan, progress=progress)


def make_faulty(options: BatchOptions) -> Faulty:
    """The stage.

    Args:
        options: of the batch.

    Raises:
        EffvitError: if the bundle or the device is wrong.
    """
    return Faulty(options)
