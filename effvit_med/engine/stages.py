"""The three stages of a case, read, segment and write: plain functions, one process or three."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from effvit_med.engine.concealment import Concealment, conceal_case
from effvit_med.engine.results import (
    OUTPUT_FILES,
    Job,
    case_folder,
    check_folder_is_free,
    choose_output_types,
    write_results,
)
from effvit_med.engine.settings import OutputType
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.errors import CancelledError, EffvitError, OutputError, RefusedError
from effvit_med.io import read_case, write_record
from effvit_med.io.cases import Case
from effvit_med.volume import Finding, Provenance, Segmentation, Step, Volume
from effvit_med.volume.measurements import Measurement, measure
from effvit_med.volume.quality import CaseQuality

if TYPE_CHECKING:
    from effvit_med.engine.segmenter import Cancelled, Progress, Segmenter

log = logging.getLogger(__name__)

Judge = Callable[[Volume, Segmentation, tuple[Measurement, ...]], CaseQuality]
"""Called as judge(volume, segmentation, measurements)."""

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What meets every case that writes, until somebody makes room."""

_OF_THE_DISK = FULL_DISK | {errno.EACCES, errno.EPERM, errno.EFBIG}


@dataclass(frozen=True)
class Task:
    """One case with all that decides what becomes of it.

    Attributes:
        case: what to read.
        input: where it lies below the input, to tell cases of the same name apart; hashed where ids are not kept.
        output: the folder of all results.
        job: what to write and how strictly to read.
        findings: what was noticed before reading.
        replaces: whether the case's folder may hold results of other files, which go.
        keep_ids: whether names of files and UIDs stay as they are in record and messages, or are hashed.
        hidden: names of files beside the case that its findings mention; hashed, too.
    """

    case: Case
    input: str
    output: Path
    job: Job
    findings: tuple[Finding, ...] = ()
    replaces: bool = False
    keep_ids: bool = True
    hidden: frozenset[str] = frozenset()

    @property
    def case_id(self) -> str:
        """The name of the case and of its folder."""
        return self.case.case_id

    @property
    def concealment(self) -> Concealment | None:
        """What hides names and UIDs in all that is said of the case; None where they are kept."""
        return None if self.keep_ids else conceal_case(self.case, self.hidden)


@dataclass(frozen=True)
class Scan:
    """A case that has been read.

    Attributes:
        volume: the scan.
        output_types: what will be written.
        findings: why something else will not.
        steps: what reading took.
    """

    volume: Volume
    output_types: tuple[OutputType, ...] = ()
    findings: tuple[Finding, ...] = ()
    steps: tuple[Step, ...] = ()


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
        findings: what was noticed on the way.
        seconds: wall time by step.
        cpu_seconds: processor time of all threads by step.
        quality: the verdict; None where nothing was judged.
        provenance: how it was made; None unless segmented.
        shape: voxels along each axis; empty unless segmented.
        spacing_mm: along each axis; empty unless segmented.
        attempts: how often it was begun; more than 1 after a crash.
        trace: where a fault happened, without values; empty otherwise.
        stage_seconds: wall time of reading, segmenting and writing, with what it takes to hand the scan over.
        stage_cpu_seconds: processor time of the same.
    """

    case_id: str
    status: str
    code: str = ""
    message: str = ""
    input: str = ""
    outputs: Mapping[str, Path] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    quality: CaseQuality | None = None
    provenance: Provenance | None = None
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    attempts: int = 1
    trace: str = ""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    stage_cpu_seconds: Mapping[str, float] = field(default_factory=dict)


def read_stage(task: Task) -> Scan:
    """Read a case and settle what will be written.

    Args:
        task: the case.

    Raises:
        RefusedError: if the scan is not safe to segment, an output type does not fit it, or its folder holds the
            results of other files.
        InputError: if a file cannot be read.
        OutputError: if a large scan does not fit into the folder for temporary files.
    """
    watch = Stopwatch()
    with watch("read"):
        volume = read_case(task.case, task.job.read)
    if not task.replaces:
        check_folder_is_free(task.output / task.case_id, volume)
    kinds, left_out = choose_output_types(volume, task.job)
    return Scan(volume, kinds, left_out, watch.steps())


def segment_stage(
    task: Task,
    scan: Scan,
    segmenter: Segmenter,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Segmentation:
    """Segment a scan; the record of how holds the steps and findings of reading, too.

    Args:
        task: the case.
        scan: what `read_stage` gave.
        segmenter: the loaded model.
        progress: called as progress(phase, done, total).
        cancelled: asked often; True stops the run.

    Raises:
        InputError: if a value of the scan is not finite.
        RefusedError: if the scan is too large for the memory, or the network gives numbers that are not finite.
        CancelledError: if ``cancelled`` said so.
    """
    segmentation = segmenter.segment(scan.volume, progress, cancelled)
    provenance = segmentation.provenance
    provenance = replace(
        provenance,
        steps=(*scan.steps, *provenance.steps),
        findings=(*provenance.findings, *task.findings, *scan.findings),
    )
    for finding in provenance.findings:
        log.warning("%s: %s: %s", task.case_id, finding.code, finding.message)
    return segmentation.with_provenance(provenance)


def write_stage(task: Task, scan: Scan, segmentation: Segmentation, judge: Judge | None = None) -> CaseResult:
    """Measure, judge and write a case: its files come into its folder when all are whole, ``record.json`` last.

    Args:
        task: the case.
        scan: what `read_stage` gave.
        segmentation: what `segment_stage` gave.
        judge: gives the verdict on the case; None for none.

    Raises:
        OutputError: if a file cannot be written.
    """
    volume, provenance = scan.volume, segmentation.provenance
    watch = Stopwatch()
    with watch("measure"):
        rows = measure(volume, segmentation)
    quality: CaseQuality | None = None
    if judge is not None:
        with watch("judge"):
            quality = judge(volume, segmentation, rows)
    with case_folder(task.output, task.case_id) as (folder, final):
        job = replace(task.job, output_types=scan.output_types)
        files, notes = write_results(volume, segmentation, rows, folder, job, watch)
        provenance = replace(
            provenance,
            steps=(*provenance.steps, *watch.steps()),
            findings=(*provenance.findings, *notes),
        )
        hidden = task.concealment
        conceal = hidden.plain if hidden else None
        write_record(folder / OUTPUT_FILES["record"], provenance, files, rows, quality, conceal=conceal)
    for step in provenance.steps:
        log.debug("%s: %s took %.2f s (%.2f s of processor)", task.case_id, step.name, step.seconds, step.cpu_seconds)
    return CaseResult(
        task.case_id,
        "segmented",
        input=task.input,
        outputs={kind: final / name for kind, name in OUTPUT_FILES.items() if (final / name).exists()},
        measurements=rows,
        findings=provenance.findings,
        seconds={step.name: round(step.seconds, 3) for step in provenance.steps},
        cpu_seconds={step.name: round(step.cpu_seconds, 3) for step in provenance.steps},
        quality=quality,
        provenance=provenance,
        shape=volume.geometry.shape,
        spacing_mm=tuple(volume.geometry.spacing_mm),
    )


def judge_error(task: Task, error: Exception) -> CaseResult:
    """What an error makes of the case that it met.

    Args:
        task: the case.
        error: any but CancelledError.

    Raises:
        CancelledError: if the error is one: it stops the run.
        OutputError: if it would meet every case: a full disk, or an output folder without permission.
    """
    if isinstance(error, CancelledError):
        raise error
    if isinstance(error, RefusedError):
        log.warning("refused %s: %s", task.case_id, error)
        return CaseResult(task.case_id, "refused", error.code, str(error), input=task.input)
    if isinstance(error, EffvitError):
        if isinstance(error, OutputError) and has_errno(error, _OF_THE_DISK):
            raise error
        log.error("failed %s: %s", task.case_id, error)
        return CaseResult(task.case_id, "failed", type(error).__name__, str(error), input=task.input)
    log.error("crashed %s: %s: %s", task.case_id, type(error).__name__, error)
    log.debug("trace of %s", task.case_id, exc_info=error)
    message = f"{type(error).__name__}: {error}. This is a fault of effvit-med; run with --verbose and report it."
    return CaseResult(task.case_id, "failed", "CRASHED", message, input=task.input)


def has_errno(error: BaseException, numbers: frozenset[int]) -> bool:
    """Whether an error, or one that it was raised from, is an OSError of one of the numbers.

    Examples:
        >>> has_errno(OSError(28, "No space left on device"), FULL_DISK)
        True
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in numbers:
            return True
        cause = cause.__cause__
    return False
