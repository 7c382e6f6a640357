"""What the processes of a batch do: find, read, segment and write, with what each needs loaded once.

Each ``make_...`` runs in a process of its own. What it gives is called for every case with the arguments shown below
and ``progress``; an attribute ``about``, where there is one, tells the parent what was loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effvit_med.batch.options import BatchOptions
from effvit_med.engine.stages import CaseResult, Scan, Task, read_stage, segment_stage, write_stage
from effvit_med.io import Found, open_input

if TYPE_CHECKING:
    from effvit_med.volume import Segmentation

Tell = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""


class Finder:
    """Finds the cases; an unpacked archive stays as long as the process."""

    def __init__(self, options: BatchOptions) -> None:
        self._options = options
        self._stack = ExitStack()

    def __call__(self, source: Path, *, progress: Tell) -> Found:
        """The cases of a path."""
        progress("find", 0, 1)
        return self._stack.enter_context(open_input(source, self._options.job.read))


class Segmenting:
    """The loaded model."""

    def __init__(self, options: BatchOptions) -> None:
        from effvit_med.engine import Segmenter, open_model
        from effvit_med.engine.allocation import keep_freed_memory
        from effvit_med.engine.record import describe_device, library_versions

        kept = keep_freed_memory()
        self._segmenter = Segmenter(open_model(options.bundle), options.settings, keeps_freed_memory=kept)
        model = self._segmenter.model
        self.about: dict[str, Any] = {
            "bundle": model.name,
            "bundle_version": model.version,
            "weights_sha256": model.weights_sha256,
            "device": describe_device(self._segmenter.device),
            "versions": library_versions(),
        }

    def __call__(self, task: Task, scan: Scan, *, progress: Tell) -> Segmentation:
        """The structures of a scan."""
        return segment_stage(task, scan, self._segmenter, progress)


class Reading:
    """Decodes a case."""

    def __call__(self, task: Task, *, progress: Tell) -> Scan:
        """The scan of a case."""
        del progress
        return read_stage(task)


class Writing:
    """Measures, judges and writes."""

    def __call__(self, task: Task, scan: Scan, segmentation: Segmentation, *, progress: Tell) -> CaseResult:
        """The files of a case."""
        del progress
        return write_stage(task, scan, segmentation)


def make_finder(options: BatchOptions) -> Finder:
    """What finds cases."""
    return Finder(options)


def make_reader(options: BatchOptions) -> Reading:
    """What reads them."""
    del options
    return Reading()


def make_segmenter(options: BatchOptions) -> Segmenting:
    """What segments them.

    Raises:
        EffvitError: if the bundle, a setting or the device is wrong.
    """
    return Segmenting(options)


def make_writer(options: BatchOptions) -> Writing:
    """What writes their results."""
    del options
    return Writing()
