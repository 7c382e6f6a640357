"""From a path to a folder of results: every case read, segmented and written, one after another."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effvit_med.engine.results import Job
from effvit_med.engine.stages import CaseResult, Task, judge_error, read_stage, segment_stage, write_stage
from effvit_med.errors import InputError, RefusedError
from effvit_med.io import DicomSeries, ReadOptions, SetAside, open_input
from effvit_med.io.atomic import make_folder
from effvit_med.io.cases import Case
from effvit_med.volume import Finding

if TYPE_CHECKING:
    from effvit_med.engine.model import Model
    from effvit_med.engine.segmenter import Cancelled, Progress, Segmenter

log = logging.getLogger(__name__)

DAMAGED = frozenset(
    {"UNREADABLE", "EMPTY_FILE", "GIT_LFS_POINTER", "UNREADABLE_PIXELS", "MISSING_FILE", "STILL_COPIED"}
)
"""Codes of files that may have been slices of a series beside them."""


@dataclass(frozen=True)
class BatchResult:
    """What became of an input.

    Attributes:
        cases: one result per case.
        set_aside: files that are no images to segment, with reasons.
        find_s: wall time of finding the cases, which reads all headers.
    """

    cases: tuple[CaseResult, ...]
    set_aside: tuple[SetAside, ...]
    find_s: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 if every case was segmented, 1 if one failed, 3 if one was refused."""
        states = {case.status for case in self.cases}
        return InputError.exit_code if "failed" in states else RefusedError.exit_code if "refused" in states else 0


def segment_input(
    source: Path,
    output: Path,
    segmenter: Segmenter,
    job: Job,
    *,
    on_case: Callable[[str, int, int], None] | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> BatchResult:
    """Segment every case of a folder, file or zip archive.

    Each case gets a folder of its own under ``output``. Its files are made elsewhere on the same disk and moved in
    when all of them are whole; ``record.json`` comes last.

    Args:
        source: a folder, a file or a zip archive of DICOM or NIfTI, or of photographs where the model is made for them
            or there is nothing else.
        output: the folder for the results; made if it is not there.
        segmenter: the loaded model.
        job: what to write and how strictly to read; whether photographs are cases follows from the model.
        on_case: called as on_case(case_id, number, cases) before each case.
        progress: called as progress(phase, done, total) within a case.
        cancelled: asked often; True stops the run, finished cases stay.

    Returns:
        What became of each case and file.

    Raises:
        InputError: if there is nothing to segment.
        OutputError: if results cannot be written at all: disk full, no permission.
        CancelledError: if ``cancelled`` said so.
    """
    job = replace(job, read=read_as(job.read, segmenter.model))
    results: list[CaseResult] = []
    start = time.perf_counter()
    if progress:
        progress("find", 0, 1)
    with open_input(source, job.read) as found:
        find_s = time.perf_counter() - start
        make_folder(output)
        for aside in found.set_aside:
            level = logging.WARNING if aside.code in DAMAGED else logging.INFO
            log.log(level, "set aside %s: %s (%s)", aside.path.name, aside.reason, aside.code)
        for refused in found.refused:
            log.warning("refused %s: %s: %s %s", refused.case_id, refused.code, refused.message, refused.remedy)
            message = f"{refused.message} {refused.remedy}".strip()
            results.append(CaseResult(refused.case_id, "refused", refused.code, message))
        for number, case in enumerate(found.cases, start=1):
            if on_case:
                on_case(case.case_id, number, len(found.cases))
            task = Task(case, name_input(case, source), output, job, look_beside(case, found.set_aside))
            results.append(_run_case(task, segmenter, progress, cancelled))
        return BatchResult(tuple(results), found.set_aside, find_s)


def read_as(options: ReadOptions, model: Model) -> ReadOptions:
    """How an input is read for a model: one made for photographs takes them wherever they are, in its own colours.

    Args:
        options: what the user accepts.
        model: what the bundle says.
    """
    if model.colour_weights is None:
        return replace(options, photographs="alone")
    return replace(options, photographs="always", colour_weights=model.colour_weights)


def _run_case(task: Task, segmenter: Segmenter, progress: Progress | None, cancelled: Cancelled | None) -> CaseResult:
    """One case from file to files; what goes wrong with it is its result, unless it would stop every case."""
    from effvit_med.engine.quality import judge_case

    tell = progress or (lambda *_: None)
    try:
        tell("read", 0, 1)
        scan = read_stage(task)
        segmentation = segment_stage(task, scan, segmenter, progress, cancelled)
        tell("write", 0, 1)
        result = write_stage(task, scan, segmentation, partial(judge_case, model=segmenter.model))
    except Exception as error:  # noqa: BLE001 - judged
        return judge_error(task, error)
    tell("write", 1, 1)
    return result


def _files_of(case: Case) -> tuple[Path, ...]:
    return case.files if isinstance(case, DicomSeries) else (case.path,)


def name_input(case: Case, source: Path) -> str:
    """Where a case lies below the input: a NIfTI file, or the folder of a series."""
    return name_place(_files_of(case), source)


def name_place(files: tuple[Path, ...], source: Path) -> str:
    """Where files lie below the input: a single file, or the folder of several."""
    place = files[0] if len(set(files)) == 1 else files[0].parent
    return str(place.relative_to(source)) if source.is_dir() and place.is_relative_to(source) else source.name


def look_beside(case: Case, set_aside: tuple[SetAside, ...]) -> tuple[Finding, ...]:
    """A finding if damaged files lie beside the files of a DICOM series: they may be slices of its ends."""
    folders = {file.parent for file in _files_of(case)} if isinstance(case, DicomSeries) else set()
    damaged = [aside.path.name for aside in set_aside if aside.code in DAMAGED and aside.path.parent in folders]
    if not damaged:
        return ()
    named = ", ".join(sorted(damaged)[:5]) + (" ..." if len(damaged) > 5 else "")
    message = f"{len(damaged)} files beside the slices cannot be read ({named}); the ends of the scan may be missing."
    return (Finding("DAMAGED_FILES_BESIDE", message),)
