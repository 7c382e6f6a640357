"""From a path to a folder of results: every case read, segmented and written, one after another."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from effvit_med.engine.quality import judge_case
from effvit_med.engine.results import (
    OUTPUT_FILES,
    Job,
    case_folder,
    check_folder_is_free,
    choose_output_types,
    make_folder,
    write_results,
)
from effvit_med.engine.segmenter import Cancelled, Progress, Segmenter
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.errors import CancelledError, EffvitError, InputError, OutputError, RefusedError
from effvit_med.io import (
    DicomSeries,
    NiftiFile,
    SetAside,
    open_input,
    read_case,
    write_record,
)
from effvit_med.volume import Finding
from effvit_med.volume.measurements import Measurement, measure
from effvit_med.volume.quality import CaseQuality

log = logging.getLogger(__name__)

Case = DicomSeries | NiftiFile

DAMAGED = frozenset({"UNREADABLE", "EMPTY_FILE", "GIT_LFS_POINTER", "UNREADABLE_PIXELS"})
"""Codes of files that may have been slices of a series beside them."""

_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case_id: its name, also of its folder.
        status: ``segmented``, ``refused`` (not safe to segment as it is) or ``failed``.
        code: a machine-readable word for why; empty if segmented.
        message: a sentence for why; empty if segmented.
        input: where it lies below the input, to tell cases of the same name apart; empty if refused on sight.
        outputs: the written files by kind.
        measurements: one row per structure.
        quality: the verdict on the result; None if there is none.
        findings: what was noticed on the way.
        seconds: wall time by step.
        cpu_seconds: processor time of all threads by step.
    """

    case_id: str
    status: str
    code: str = ""
    message: str = ""
    input: str = ""
    outputs: Mapping[str, Path] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    quality: CaseQuality | None = None
    findings: tuple[Finding, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)


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
        source: a folder, a file or a zip archive of DICOM or NIfTI.
        output: the folder for the results; made if it is not there.
        segmenter: the loaded model.
        job: what to write and how strictly to read.
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
            task = _Task(case, _name_input(case, source), _look_beside(case, found.set_aside), output, job)
            results.append(_run_case(task, segmenter, progress, cancelled))
        return BatchResult(tuple(results), found.set_aside, find_s)


@dataclass(frozen=True)
class _Task:
    """One case with all that decides what becomes of it."""

    case: Case
    input: str
    findings: tuple[Finding, ...]
    output: Path
    job: Job

    def result(self, status: str, code: str, message: str) -> CaseResult:
        return CaseResult(self.case.case_id, status, code, message, input=self.input)


def _run_case(task: _Task, segmenter: Segmenter, progress: Progress | None, cancelled: Cancelled | None) -> CaseResult:
    """One case from file to files; what goes wrong with it is its result, unless it would stop every case."""
    try:
        return _segment_case(task, segmenter, progress, cancelled)
    except CancelledError:
        raise
    except RefusedError as error:
        log.warning("refused %s: %s", task.case.case_id, error)
        return task.result("refused", error.code, str(error))
    except EffvitError as error:
        cause = error.__cause__
        if isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in _OF_THE_DISK:
            raise  # a full disk or an output folder without permission meets every case
        log.error("failed %s: %s", task.case.case_id, error)  # noqa: TRY400 - our own errors say all in one line
        return task.result("failed", type(error).__name__, str(error))
    except Exception as error:
        log.error("crashed %s: %s: %s", task.case.case_id, type(error).__name__, error)  # noqa: TRY400
        log.debug("trace of %s", task.case.case_id, exc_info=error)
        message = f"{type(error).__name__}: {error}. This is a fault of effvit-med; run with --verbose and report it."
        return task.result("failed", "CRASHED", message)


def _segment_case(
    task: _Task, segmenter: Segmenter, progress: Progress | None, cancelled: Cancelled | None
) -> CaseResult:
    tell = progress or (lambda *_: None)
    watch = Stopwatch()
    tell("read", 0, 1)
    with watch("read"):
        volume = read_case(task.case, task.job.read)
    check_folder_is_free(task.output / task.case.case_id, volume)
    kinds, left_out = choose_output_types(volume, task.job)
    segmentation = segmenter.segment(volume, progress, cancelled)
    provenance = segmentation.provenance
    provenance = replace(
        provenance,
        steps=(*watch.steps(), *provenance.steps),
        findings=(*provenance.findings, *task.findings, *left_out),
    )
    segmentation = segmentation.with_provenance(provenance)
    for finding in provenance.findings:
        log.warning("%s: %s: %s", task.case.case_id, finding.code, finding.message)
    watch = Stopwatch()
    tell("write", 0, 1)
    with watch("measure"):
        rows = measure(volume, segmentation)
    with watch("judge"):
        quality = judge_case(volume, segmentation, rows, segmenter.model)
    with case_folder(task.output, task.case.case_id) as (folder, final):
        job = replace(task.job, output_types=kinds)
        files, notes = write_results(volume, segmentation, rows, folder, job, watch)
        provenance = replace(
            provenance,
            steps=(*provenance.steps, *watch.steps()),
            findings=(*provenance.findings, *(Finding("DICOM_SEG_NOTE", note) for note in notes)),
        )
        write_record(folder / OUTPUT_FILES["record"], provenance, files, rows, quality)
    tell("write", 1, 1)
    for step in provenance.steps:
        log.debug(
            "%s: %s took %.2f s (%.2f s of processor)", task.case.case_id, step.name, step.seconds, step.cpu_seconds
        )
    return CaseResult(
        task.case.case_id,
        "segmented",
        input=task.input,
        outputs={kind: final / name for kind, name in OUTPUT_FILES.items() if (final / name).exists()},
        measurements=rows,
        quality=quality,
        findings=provenance.findings,
        seconds={step.name: round(step.seconds, 3) for step in provenance.steps},
        cpu_seconds={step.name: round(step.cpu_seconds, 3) for step in provenance.steps},
    )


def _files_of(case: Case) -> tuple[Path, ...]:
    return case.files if isinstance(case, DicomSeries) else (case.path,)


def _name_input(case: Case, source: Path) -> str:
    """Where a case lies below the input: a NIfTI file, or the folder of a series."""
    files = _files_of(case)
    place = files[0] if len(files) == 1 else files[0].parent
    return str(place.relative_to(source)) if source.is_dir() and place.is_relative_to(source) else source.name


def _look_beside(case: Case, set_aside: tuple[SetAside, ...]) -> tuple[Finding, ...]:
    """A finding if damaged files lie beside the files of a DICOM series: they may be slices of its ends."""
    folders = {file.parent for file in _files_of(case)} if isinstance(case, DicomSeries) else set()
    damaged = [aside.path.name for aside in set_aside if aside.code in DAMAGED and aside.path.parent in folders]
    if not damaged:
        return ()
    named = ", ".join(sorted(damaged)[:5]) + (" ..." if len(damaged) > 5 else "")
    message = f"{len(damaged)} files beside the slices cannot be read ({named}); the ends of the scan may be missing."
    return (Finding("DAMAGED_FILES_BESIDE", message),)
