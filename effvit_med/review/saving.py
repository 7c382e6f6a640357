"""What a review leaves for others: segmentation files, measurements and the record of the review."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from effvit_med.errors import GeometryError, OutputError, SettingsError
from effvit_med.io import (
    Predecessor,
    Revision,
    SegOptions,
    read_predecessor,
    why_no_dicom_seg,
    write_dicom_seg,
    write_measurements_csv,
    write_measurements_json,
    write_nifti,
)
from effvit_med.io.atomic import write_json
from effvit_med.review.session import ReviewSession
from effvit_med.volume import Finding, LabelTable, Segmentation, Volume
from effvit_med.volume.measurements import measure

ReviewOutput = Literal["dicom-seg", "nifti"]

REVIEW_FILES = {
    "dicom-seg": "reviewed.seg.dcm",
    "nifti": "reviewed.nii.gz",
    "labels": "reviewed.labels.json",
    "measurements-csv": "reviewed.measurements.csv",
    "measurements-json": "reviewed.measurements.json",
    "record": "review.json",
}
"""The names of what is saved; saving again replaces or removes all of them, and touches no other file."""

SERIES_NUMBER = 901
"""Series Number of a reviewed DICOM segmentation: the one after that of automatic ones."""


@dataclass(frozen=True)
class SavedReview:
    """What was saved.

    Attributes:
        files: by kind.
        findings: what the writers had to repair or have to say.
    """

    files: dict[str, Path]
    findings: tuple[Finding, ...]


def save_review(
    session: ReviewSession,
    volume: Volume,
    output: Path,
    types: Sequence[ReviewOutput],
    *,
    seg: SegOptions | None = None,
    predecessor: Path | Predecessor | None = None,
) -> SavedReview:
    """Write what a review came to; rejected structures are left out of all but the record.

    Files of an earlier saving stay until new ones take their place, so that a full disk costs none of them. The record
    is written last: with it the files beside it are whole and of one state of the review. The session goes
    on, and may be saved again; each state of a review has UIDs of its own, and the same after it was opened again.

    Args:
        session: the review.
        volume: the scan, read again; its files must be those that were segmented.
        output: the folder; made if it is not there.
        types: which files of labels.
        seg: how a DICOM segmentation is written; None for binary with series number `SERIES_NUMBER`.
        predecessor: the DICOM segmentation of the automatic result, or its file, to be referred to.

    Returns:
        The files, and what there is to say about them.

    Raises:
        SettingsError: if a type is not known.
        GeometryError: if the scan lies on another grid than the labels.
        InputError: if a source file is gone or has changed, or the predecessor is no segmentation.
        OutputError: if the scan is another one, does not allow a type, or a file could not be written.
    """
    check_scan(session, volume)
    before = read_predecessor(predecessor) if isinstance(predecessor, Path) else predecessor
    _check_types(volume, types, before)
    record, made = session.snapshot()
    made = _without_rows(made, frozenset(row.value for row in record.structures if row.state == "rejected"))
    made = made.with_provenance(replace(made.provenance, source=volume.source))
    edited = frozenset(row.value for row in record.structures if row.edited_fraction)
    revision = Revision(f"{record.started} {record.changed}", edited, before)
    seg = replace(seg or SegOptions(series_number=SERIES_NUMBER), revision=revision)
    dated = made.with_provenance(replace(made.provenance, started=record.changed))
    writers: dict[ReviewOutput, Callable[[Path], tuple[str, ...] | None]] = {
        "dicom-seg": lambda path: write_dicom_seg(dated, path, seg),
        "nifti": lambda path: write_nifti(made, path),
    }
    paths = _make_ready(output)
    files: dict[str, Path] = {}
    findings: list[Finding] = []
    for kind in dict.fromkeys(types):
        notes = writers[kind](paths[kind]) or ()
        findings += [Finding(f"{kind.upper().replace('-', '_')}_NOTE", note) for note in notes]
        files[kind] = paths[kind]
    if "nifti" in files:
        files["labels"] = paths["labels"]
    rows = measure(volume, made)
    write_measurements_csv(rows, paths["measurements-csv"])
    write_measurements_json(rows, paths["measurements-json"], made.provenance)
    files |= {kind: paths[kind] for kind in ("measurements-csv", "measurements-json")}
    _remove(paths[kind] for kind in set(paths) - set(files))
    outputs = {kind: _describe(path) for kind, path in files.items()}
    write_json(paths["record"], {**record.to_dict(), "outputs": outputs})
    return SavedReview({**files, "record": paths["record"]}, tuple(findings))


def check_scan(session: ReviewSession, volume: Volume) -> None:
    """Make sure that a scan is the one that was segmented.

    Args:
        session: the review.
        volume: the scan.

    Raises:
        GeometryError: if it lies on another grid than the labels.
        OutputError: if its files are others.
    """
    distance = session.geometry.max_distance_mm(volume.geometry)
    if distance > 0.01:
        raise GeometryError(
            f"The labels {session.geometry.shape} lie up to {distance:.3g} mm away from the voxels of the scan "
            f"{volume.geometry.shape}; give the scan that was segmented, as it was read."
        )
    segmented, given = session.provenance.source, volume.source
    if segmented and given:
        had, has = ([(file.sha256, file.frame) for file in each.files] for each in (segmented, given))
        if had != has:
            raise OutputError("The files of the scan are not those that were segmented; give that scan.")


def _check_types(volume: Volume, types: Sequence[ReviewOutput], before: Predecessor | None) -> None:
    """Make sure that the scan allows the files, before any is written."""
    unknown = sorted(set(types) - {"dicom-seg", "nifti"})
    if unknown:
        raise SettingsError(f"A review cannot be saved as {unknown[0]!r}; choose dicom-seg or nifti.")
    reason = why_no_dicom_seg(volume) if "dicom-seg" in types else None
    if reason is not None:
        raise OutputError(reason.message)
    if "nifti" in types and not volume.geometry.is_regular:
        raise OutputError("NIfTI cannot hold slices at unequal distances; save the review as dicom-seg only.")
    if before and volume.source and before.study_instance_uid != volume.source.study_instance_uid:
        raise OutputError("The segmentation that was reviewed belongs to another study than the scan; leave it out.")


def _without_rows(segmentation: Segmentation, values: frozenset[int]) -> Segmentation:
    table = LabelTable(tuple(label for label in segmentation.table if label.value not in values))
    return replace(segmentation, table=table) if values else segmentation


def _make_ready(output: Path) -> dict[str, Path]:
    """The paths of what is saved in a folder. Files of an earlier saving stay until new ones take their place.

    Its record goes: from now on it does not speak of what lies beside it.
    """
    paths = {kind: output / name for kind, name in REVIEW_FILES.items()}
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Nothing can be saved into {output}: {error.strerror}. Choose another folder.") from error
    _remove([paths["record"]])
    return paths


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path} of an earlier saving cannot be removed: {error.strerror}. Choose another folder."
            ) from error


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
