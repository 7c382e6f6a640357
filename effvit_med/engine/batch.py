"""From a path to a folder of results: every case read, segmented and written, one after another."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from effvit_med.engine.segmenter import Cancelled, Progress, Segmenter
from effvit_med.engine.settings import OutputType
from effvit_med.errors import CancelledError, EffvitError, InputError, OutputError, RefusedError
from effvit_med.io import (
    DicomSeries,
    NiftiFile,
    ReadOptions,
    SegOptions,
    SetAside,
    open_input,
    read_case,
    why_no_dicom_seg,
    write_dicom_seg,
    write_measurements_csv,
    write_measurements_json,
    write_nifti,
    write_overlay,
    write_record,
)
from effvit_med.volume import Finding, Segmentation, Step, Volume
from effvit_med.volume.measurements import Measurement, measure

log = logging.getLogger(__name__)

Case = DicomSeries | NiftiFile


@dataclass(frozen=True)
class Job:
    """What to write and how strictly to read.

    Attributes:
        output_types: what to write beside measurements, picture and record; None for all that the input allows.
        read: which remedies the user asked for.
        seg: how a DICOM SEG is written.
    """

    output_types: tuple[OutputType, ...] | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    seg: SegOptions = field(default_factory=SegOptions)


@dataclass(frozen=True)
class CaseResult:
    """What became of a case.

    Attributes:
        case_id: its name, also of its folder.
        status: ``segmented``, ``refused`` (not safe to segment as it is) or ``failed``.
        code: a machine-readable word for why; empty if segmented.
        message: a sentence for why; empty if segmented.
        outputs: the written files by kind.
        measurements: one row per structure.
        findings: what was noticed on the way.
        seconds: wall time by phase.
    """

    case_id: str
    status: str
    code: str = ""
    message: str = ""
    outputs: Mapping[str, Path] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


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
    _make_folder(output)
    results: list[CaseResult] = []
    start = time.perf_counter()
    with open_input(source, job.read) as found:
        find_s = time.perf_counter() - start
        for aside in found.set_aside:
            log.info("set aside %s: %s (%s)", aside.path.name, aside.reason, aside.code)
        for refused in found.refused:
            log.warning("refused %s: %s: %s %s", refused.case_id, refused.code, refused.message, refused.remedy)
            message = f"{refused.message} {refused.remedy}".strip()
            results.append(CaseResult(refused.case_id, "refused", refused.code, message))
        for number, case in enumerate(found.cases, start=1):
            if on_case:
                on_case(case.case_id, number, len(found.cases))
            results.append(_run_case(case, output, segmenter, job, progress, cancelled))
        return BatchResult(tuple(results), found.set_aside, find_s)


def _run_case(
    case: Case,
    output: Path,
    segmenter: Segmenter,
    job: Job,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> CaseResult:
    """One case from file to files; what goes wrong with it is its result, unless it would stop every case."""
    try:
        return _segment_case(case, output, segmenter, job, progress, cancelled)
    except CancelledError:
        raise
    except OutputError as error:
        if isinstance(error.__cause__, OSError):  # a full disk or a lack of permission meets every case
            raise
        return _failed(case, error)
    except RefusedError as error:
        log.warning("refused %s: %s", case.case_id, error)
        return CaseResult(case.case_id, "refused", error.code, str(error))
    except EffvitError as error:
        return _failed(case, error)
    except Exception as error:
        log.error("crashed %s: %s: %s", case.case_id, type(error).__name__, error)  # noqa: TRY400
        log.debug("trace of %s", case.case_id, exc_info=error)
        message = f"{type(error).__name__}: {error}. This is a fault of effvit-med; run with --verbose and report it."
        return CaseResult(case.case_id, "failed", "CRASHED", message)


def _failed(case: Case, error: EffvitError) -> CaseResult:
    log.error("failed %s: %s", case.case_id, error)
    return CaseResult(case.case_id, "failed", type(error).__name__, str(error))


def _segment_case(
    case: Case,
    output: Path,
    segmenter: Segmenter,
    job: Job,
    progress: Progress | None,
    cancelled: Cancelled | None,
) -> CaseResult:
    start = time.perf_counter()
    volume = read_case(case)
    read_s = time.perf_counter() - start
    kinds, left_out = _output_types(volume, job)
    segmentation = segmenter.segment(volume, progress, cancelled)
    provenance = segmentation.provenance
    provenance = replace(
        provenance,
        steps=(Step("read", read_s), *provenance.steps),
        findings=(*provenance.findings, *left_out),
    )
    segmentation = segmentation.with_provenance(provenance)
    start = time.perf_counter()
    rows = measure(volume, segmentation)
    with _case_folder(output, case.case_id) as (folder, final):
        files, notes = _write_results(volume, segmentation, rows, folder, kinds, job)
        write_s = time.perf_counter() - start
        provenance = replace(
            provenance,
            steps=(*provenance.steps, Step("measure and write", write_s)),
            findings=(*provenance.findings, *(Finding("HEADER_REPAIRED", note) for note in notes)),
        )
        write_record(folder / "record.json", provenance, files)
    outputs = {kind: final / path.name for kind, path in files.items()} | {"record": final / "record.json"}
    seconds = {step.name: round(step.seconds, 3) for step in provenance.steps}
    return CaseResult(
        case.case_id, "segmented", outputs=outputs, measurements=rows, findings=provenance.findings, seconds=seconds
    )


def _output_types(volume: Volume, job: Job) -> tuple[tuple[OutputType, ...], tuple[Finding, ...]]:
    """What to write for a volume, and a finding for what it cannot be written as.

    Raises:
        RefusedError: if the user asked for a type that the volume does not allow.
    """
    reasons: dict[OutputType, Finding] = {}
    no_seg = why_no_dicom_seg(volume)
    if no_seg:
        reasons["dicom-seg"] = no_seg
    if not volume.geometry.is_regular:
        text = "NIfTI cannot hold slices at unequal distances, so there is no NIfTI file."
        reasons["nifti"] = Finding("NOT_IN_NIFTI", text)
    for kind in job.output_types or ():
        if kind in reasons:
            raise RefusedError(reasons[kind].code, reasons[kind].message, f"Leave out --output-type {kind}.")
    possible: tuple[OutputType, ...] = ("dicom-seg", "nifti")
    chosen = job.output_types or tuple(kind for kind in possible if kind not in reasons)
    is_dicom = volume.source is not None and volume.source.kind == "DICOM"
    return chosen, tuple(reasons.values()) if is_dicom and job.output_types is None else ()


def _write_results(
    volume: Volume,
    segmentation: Segmentation,
    rows: tuple[Measurement, ...],
    folder: Path,
    kinds: tuple[OutputType, ...],
    job: Job,
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Write all but the record; returns the files by kind, and what the DICOM writer had to repair."""
    files: dict[str, Path] = {}
    notes: tuple[str, ...] = ()
    if "dicom-seg" in kinds:
        files["dicom-seg"] = folder / "segmentation.seg.dcm"
        notes = write_dicom_seg(segmentation, files["dicom-seg"], job.seg)
    if "nifti" in kinds:
        files["nifti"] = folder / "segmentation.nii.gz"
        write_nifti(segmentation, files["nifti"])
        files["labels"] = folder / "segmentation.labels.json"
    files["measurements-csv"] = folder / "measurements.csv"
    write_measurements_csv(rows, files["measurements-csv"])
    files["measurements-json"] = folder / "measurements.json"
    write_measurements_json(rows, files["measurements-json"], segmentation.provenance)
    files["overlay"] = folder / "overlay.png"
    write_overlay(volume, segmentation, files["overlay"], rows)
    return files, notes


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be made: {error.strerror}. Choose another.") from error


@contextmanager
def _case_folder(output: Path, case_id: str) -> Iterator[tuple[Path, Path]]:
    """A hidden folder to fill; at the end its files move into the case's own folder, the record last.

    What else lies in the case's folder stays. On any error nothing moves and the hidden folder goes.
    """
    final = output / case_id
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{case_id}.", suffix=".partial", dir=output))
    except OSError as error:
        raise OutputError(f"Nothing can be written into {output}: {error.strerror}. Choose another folder.") from error
    try:
        yield partial, final
        _make_folder(final)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "record.json"):
            path.replace(final / path.name)
    except OSError as error:
        raise OutputError(f"Results of {case_id} cannot be written into {final}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
