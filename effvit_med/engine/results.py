"""The results of one case: which files there are to be, how they are written, and how they come into their folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from effvit_med.engine.settings import OutputType
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.errors import OutputError, RefusedError
from effvit_med.io import (
    ReadOptions,
    SegOptions,
    why_no_dicom_seg,
    write_confidence,
    write_dicom_seg,
    write_measurements_csv,
    write_measurements_json,
    write_nifti,
    write_overlay,
)
from effvit_med.volume import Finding, Segmentation, Volume
from effvit_med.volume.geometry import SHEAR_TOLERANCE_DEGREES
from effvit_med.volume.measurements import Measurement

OUTPUT_FILES = {
    "dicom-seg": "segmentation.seg.dcm",
    "nifti": "segmentation.nii.gz",
    "labels": "segmentation.labels.json",
    "confidence": "segmentation.confidence.nii.gz",
    "measurements-csv": "measurements.csv",
    "measurements-json": "measurements.json",
    "overlay": "overlay.png",
    "record": "record.json",
}
"""The names of the files of a case; a run replaces or removes all of them."""


@dataclass(frozen=True)
class Job:
    """What to write and how strictly to read.

    Attributes:
        output_types: what to write beside measurements, picture and record; None for all that the input allows.
        read: which remedies the user asked for.
        seg: how a DICOM SEG is written.
        confidence: whether the confidence of every voxel is written, as NIfTI.
    """

    output_types: tuple[OutputType, ...] | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    seg: SegOptions = field(default_factory=SegOptions)
    confidence: bool = False


def check_folder_is_free(folder: Path, volume: Volume) -> None:
    """Refuse to write over the results of other input.

    Raises:
        RefusedError: ``OUTPUT_TAKEN``, if the folder holds the results of other files.
    """
    try:
        record = json.loads((folder / OUTPUT_FILES["record"]).read_text(encoding="utf-8"))
        found = [file["sha256"] for file in record["source"]["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return  # no record, or none of ours
    if volume.source and found != [file.sha256 for file in volume.source.files]:
        raise RefusedError(
            "OUTPUT_TAKEN",
            f"{folder} holds the results of other files of the same name.",
            "Choose another output folder, or remove that one.",
        )


def choose_output_types(volume: Volume, job: Job) -> tuple[tuple[OutputType, ...], tuple[Finding, ...]]:
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
    findings = [*reasons.values()] if is_dicom and job.output_types is None else []
    if "nifti" in chosen and volume.geometry.shear_degrees > SHEAR_TOLERANCE_DEGREES:
        text = "The NIfTI file is sheared as the scan is; programs built on ITK refuse such files. Use the DICOM SEG."
        findings.append(Finding("NIFTI_SHEARED", text))
    return chosen, tuple(findings)


def write_results(
    volume: Volume,
    segmentation: Segmentation,
    rows: tuple[Measurement, ...],
    folder: Path,
    job: Job,
    watch: Stopwatch,
) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Write all but the record.

    Args:
        volume: the scan.
        segmentation: its labels.
        rows: its measurements.
        folder: where to.
        job: what to write; its output types are settled.
        watch: takes the time of each file.

    Returns:
        The files by kind, and what the DICOM writer had to repair.

    Raises:
        OutputError: if a file cannot be written.
    """
    kinds = job.output_types or ()
    files: dict[str, Path] = {}
    notes: tuple[str, ...] = ()
    if "dicom-seg" in kinds:
        files["dicom-seg"] = folder / OUTPUT_FILES["dicom-seg"]
        with watch("write dicom-seg"):
            notes = write_dicom_seg(segmentation, files["dicom-seg"], job.seg)
    if "nifti" in kinds:
        files["nifti"] = folder / OUTPUT_FILES["nifti"]
        with watch("write nifti"):
            write_nifti(segmentation, files["nifti"])
        files["labels"] = folder / OUTPUT_FILES["labels"]
    if job.confidence and segmentation.confidence is not None and segmentation.geometry.is_regular:
        files["confidence"] = folder / OUTPUT_FILES["confidence"]
        with watch("write confidence"):
            write_confidence(segmentation.confidence, segmentation, files["confidence"])
    files["measurements-csv"] = folder / OUTPUT_FILES["measurements-csv"]
    files["measurements-json"] = folder / OUTPUT_FILES["measurements-json"]
    with watch("write tables"):
        write_measurements_csv(rows, files["measurements-csv"])
        write_measurements_json(rows, files["measurements-json"], segmentation.provenance)
    files["overlay"] = folder / OUTPUT_FILES["overlay"]
    with watch("write overlay"):
        write_overlay(volume, segmentation, files["overlay"], rows)
    return files, notes


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it.

    Raises:
        OutputError: if that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be made: {error.strerror}. Choose another.") from error


@contextmanager
def case_folder(output: Path, case_id: str) -> Iterator[tuple[Path, Path]]:
    """A hidden folder to fill; at the end its files move into the case's own folder, the record last.

    Files of an earlier run go; what else lies in the case's folder stays. On any error before the end nothing moves,
    and the hidden folder goes.

    Args:
        output: the folder of all results.
        case_id: the name of the case's own folder.

    Yields:
        The hidden folder, and the case's own.

    Raises:
        OutputError: if a folder or file cannot be made.
    """
    final = output / case_id
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{case_id}.", suffix=".partial", dir=output))
    except OSError as error:
        raise OutputError(f"Nothing can be written into {output}: {error.strerror}. Choose another folder.") from error
    try:
        yield partial, final
        make_folder(final)
        for name in OUTPUT_FILES.values():
            if name == OUTPUT_FILES["record"] or not (partial / name).exists():
                (final / name).unlink(missing_ok=True)  # of an earlier run: without a record the folder is not whole
        for path in sorted(partial.iterdir(), key=lambda path: path.name == OUTPUT_FILES["record"]):
            path.replace(final / path.name)
    except OSError as error:
        raise OutputError(f"Results of {case_id} cannot be written into {final}: {error.strerror}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
