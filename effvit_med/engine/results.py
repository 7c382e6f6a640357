"""The results of one case: which files there are to be, how they are written, and how they come into their folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from effvit_med.engine.settings import OutputType
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.errors import OutputError, RefusedError
from effvit_med.io import (
    ReadOptions,
    SegOptions,
    why_no_dicom,
    why_no_dicom_seg,
    write_confidence,
    write_dicom_seg,
    write_dicom_sr,
    write_measurements_csv,
    write_measurements_json,
    write_nifti,
    write_nrrd,
    write_overlay,
    write_photograph_labels,
    write_photograph_overlay,
    write_plane,
    write_rtstruct,
    write_slicer_colours,
    write_snap_labels,
)
from effvit_med.io.atomic import make_folder
from effvit_med.volume import Finding, Segmentation, Volume
from effvit_med.volume.geometry import SHEAR_TOLERANCE_DEGREES
from effvit_med.volume.measurements import Measurement

OUTPUT_FILES = {
    "dicom-seg": "segmentation.seg.dcm",
    "rtstruct": "segmentation.rtstruct.dcm",
    "nifti": "segmentation.nii.gz",
    "labels": "segmentation.labels.json",
    "slicer-colours": "segmentation.ctbl",
    "snap-labels": "segmentation.itksnap.txt",
    "nrrd": "segmentation.seg.nrrd",
    "dicom-sr": "measurements.sr.dcm",
    "png": "segmentation.png",
    "confidence": "segmentation.confidence.nii.gz",
    "confidence-png": "segmentation.confidence.png",
    "measurements-csv": "measurements.csv",
    "measurements-json": "measurements.json",
    "overlay": "overlay.png",
    "record": "record.json",
}
"""The names of the files of a case; a run replaces or removes all of them."""

_WITHOUT_OVERLAPS: tuple[OutputType, ...] = ("nrrd",)
"""Types whose writers put every voxel into one structure."""

_UNEQUAL: tuple[tuple[OutputType, str, str], ...] = (
    ("nifti", "NOT_IN_NIFTI", "NIfTI"),
    ("nrrd", "NOT_IN_NRRD", "NRRD"),
)


@dataclass(frozen=True)
class Job:
    """What to write and how strictly to read.

    Attributes:
        output_types: what to write beside measurements, picture and record; None for all that the input allows.
        read: which remedies the user asked for.
        seg: how a DICOM SEG is written, and whether free text of the source passes into any DICOM result.
        confidence: whether the confidence of every voxel is written, as NIfTI.
        strict_types: whether a case is refused that does not allow one of the types; else that type is left out with a
            finding, as long as another one is left.
    """

    output_types: tuple[OutputType, ...] | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    seg: SegOptions = field(default_factory=SegOptions)
    confidence: bool = False
    strict_types: bool = True


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
        RefusedError: if the user asked for a type that the volume does not allow, and the job is strict or asked for
            no other.
    """
    reasons = _find_reasons(volume)
    asked = job.output_types or ()
    impossible = tuple(kind for kind in asked if kind in reasons)
    for kind in impossible:
        if job.strict_types or impossible == asked:
            raise RefusedError(reasons[kind].code, reasons[kind].message, f"Leave out --output-type {kind}.")
    usual: tuple[OutputType, ...] = ("png",) if volume.is_photograph else ("dicom-seg", "nifti")
    chosen = tuple(kind for kind in asked or usual if kind not in reasons)
    is_dicom = volume.source is not None and volume.source.kind == "DICOM"
    missing = impossible if asked else [kind for kind in usual if kind in reasons and is_dicom]
    findings = list(dict.fromkeys(reasons[kind] for kind in missing))
    if "dicom-sr" in chosen and "dicom-seg" not in chosen:
        chosen = ("dicom-seg", *chosen)
        text = "A DICOM SR refers to the segments of a DICOM SEG, so that is written too."
        findings.append(Finding("DICOM_SEG_ADDED", text))
    if volume.geometry.shear_degrees > SHEAR_TOLERANCE_DEGREES:
        for kind, code, name in (("nifti", "NIFTI_SHEARED", "NIfTI"), ("nrrd", "NRRD_SHEARED", "NRRD")):
            if kind in chosen:
                text = f"The {name} file is sheared as the scan is; programs built on ITK refuse such files."
                findings.append(Finding(code, f"{text} Use the DICOM SEG."))
    return chosen, tuple(findings)


def _find_reasons(volume: Volume) -> dict[OutputType, Finding]:
    """Why a volume cannot be written as some types, known before it is segmented."""
    if volume.is_photograph:
        text = "A photograph has no place in a patient, and its labels are written as PNG only."
        return {kind: Finding("NOT_FOR_PHOTOGRAPHS", text) for kind in get_args(OutputType) if kind != "png"}
    found: dict[OutputType, Finding | None] = {
        "dicom-seg": why_no_dicom_seg(volume),
        "rtstruct": why_no_dicom(volume, "RTSTRUCT"),
        "dicom-sr": why_no_dicom(volume, "DICOM SR") or why_no_dicom_seg(volume),
        "png": Finding("NO_PHOTOGRAPH", "PNG is for photographs; it cannot say where a scan lies."),
    }
    if not volume.geometry.is_regular:
        for kind, code, name in _UNEQUAL:
            found[kind] = Finding(code, f"{name} cannot hold slices at unequal distances, so there is no {name} file.")
    return {kind: finding for kind, finding in found.items() if finding is not None}


def write_results(
    volume: Volume,
    segmentation: Segmentation,
    rows: tuple[Measurement, ...],
    folder: Path,
    job: Job,
    watch: Stopwatch,
) -> tuple[dict[str, Path], tuple[Finding, ...]]:
    """Write all but the record.

    Args:
        volume: the scan.
        segmentation: its labels.
        rows: its measurements.
        folder: where to.
        job: what to write; its output types are settled.
        watch: takes the time of each file.

    Returns:
        The files by kind, and what their writers had to repair or have to say.

    Raises:
        OutputError: if a file cannot be written.
    """
    files, notes = _write_labels(segmentation, rows, folder, job, watch)
    if job.confidence and segmentation.confidence is not None and segmentation.geometry.is_regular:
        kind = "confidence-png" if volume.is_photograph else "confidence"
        files[kind] = folder / OUTPUT_FILES[kind]
        with watch("write confidence"):
            if volume.is_photograph:
                write_plane(segmentation.confidence, segmentation.geometry, files[kind])
            else:
                write_confidence(segmentation.confidence, segmentation, files[kind])
    files["measurements-csv"] = folder / OUTPUT_FILES["measurements-csv"]
    files["measurements-json"] = folder / OUTPUT_FILES["measurements-json"]
    with watch("write tables"):
        write_measurements_csv(rows, files["measurements-csv"])
        write_measurements_json(rows, files["measurements-json"], segmentation.provenance)
    files["overlay"] = folder / OUTPUT_FILES["overlay"]
    with watch("write overlay"):
        draw = write_photograph_overlay if volume.is_photograph else write_overlay
        draw(volume, segmentation, files["overlay"], rows)
    return files, notes


def _write_labels(
    segmentation: Segmentation, rows: tuple[Measurement, ...], folder: Path, job: Job, watch: Stopwatch
) -> tuple[dict[str, Path], tuple[Finding, ...]]:
    """The labels in every type that was chosen; what two writers have to say is said once."""
    paths = {kind: folder / OUTPUT_FILES[kind] for kind in get_args(OutputType)}
    strip = job.seg.strip_free_text
    writers: dict[OutputType, Callable[[Path], tuple[str, ...] | None]] = {
        "dicom-seg": lambda path: write_dicom_seg(segmentation, path, job.seg),
        "rtstruct": lambda path: write_rtstruct(segmentation, path, strip_free_text=strip),
        "nifti": lambda path: write_nifti(segmentation, path),
        "nrrd": lambda path: write_nrrd(segmentation, path),
        "dicom-sr": lambda path: write_dicom_sr(segmentation, rows, paths["dicom-seg"], path, strip_free_text=strip),
        "png": lambda path: write_photograph_labels(segmentation, path),
    }  # the SR comes after the SEG that it refers to
    files: dict[str, Path] = {}
    notes: dict[str, Finding] = {}
    for kind, write in writers.items():
        if kind not in (job.output_types or ()):
            continue
        if segmentation.table.overlaps and kind in _WITHOUT_OVERLAPS:
            text = f"Structures overlap; they are not written as {kind}. Use dicom-seg, rtstruct or nifti."
            notes[text] = Finding("OVERLAPS_NOT_WRITTEN", text)
            continue
        with watch(f"write {kind}"):
            for note in write(paths[kind]) or ():
                notes.setdefault(note, Finding(f"{kind.upper().replace('-', '_')}_NOTE", note))
        if paths[kind].exists():
            files[kind] = paths[kind]
    if "png" in files:
        files["labels"] = folder / OUTPUT_FILES["labels"]
    if "nifti" in files:
        files |= {name: folder / OUTPUT_FILES[name] for name in ("labels", "slicer-colours", "snap-labels")}
        write_slicer_colours(segmentation.table, files["slicer-colours"])
        write_snap_labels(segmentation.table, files["snap-labels"])
    return files, tuple(notes.values())


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
