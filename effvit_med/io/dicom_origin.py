"""What every DICOM result says of the study it belongs to and of the program that made it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from effvit_med.errors import OutputError
from effvit_med.io.dicom_seg_segments import MANUFACTURER, long_string, software_versions
from effvit_med.volume.provenance import Provenance
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Finding, SourceFile, Volume

_AGAINST = {
    "SEVERAL_STUDIES": (
        "SLICES_OF_SEVERAL_STUDIES",
        "it belongs to one study, and the slices of this series name several.",
    ),
    "FRAMES_OF_REFERENCE": (
        "SLICES_OF_SEVERAL_FRAMES",
        "it has one frame of reference, and every slice of this series names another.",
    ),
    "MOSAIC": ("TILES_OF_A_MOSAIC", "it refers to slices, and those of a mosaic are tiles of one image."),
}
"""By the code of what the reader found: the code and the words of why no DICOM result can refer to the slices."""


def why_no_dicom(volume: Volume, what: str) -> Finding | None:
    """Why no DICOM result can be written for a scan, known before it is segmented.

    Args:
        volume: the scan.
        what: the result, such as ``RTSTRUCT``.

    Returns:
        A code and one sentence, or None where nothing is known to stand against it.
    """
    source = volume.source
    if source is None or source.kind != "DICOM":
        return Finding("NO_DICOM_SOURCE", f"No {what}: it needs the headers of DICOM slices; this is no DICOM.")
    uids = [source.study_instance_uid, source.series_instance_uid, *(file.sop_instance_uid for file in source.files)]
    if not all(uids):
        text = f"No {what}: it refers to study, series and slices by their UIDs, and some of them are empty."
        return Finding("EMPTY_UIDS", text)
    found = {finding.code for finding in source.findings}
    code, text = next((reason for sign, reason in _AGAINST.items() if sign in found), ("", ""))
    return Finding(code, f"No {what}: {text}") if code else None


def find_files(segmentation: Segmentation, what: str) -> Sequence[SourceFile]:
    """The source file, or frame of a file, of every slice.

    Args:
        segmentation: labels whose axes are slice, row, column of the source.
        what: the result, such as ``segmentation``, for messages.

    Raises:
        OutputError: if the source is no DICOM, or the slices are not those of the source.
    """
    source = segmentation.provenance.source
    kind = source.kind if source else "a volume made in memory"
    if source is None or kind != "DICOM":
        raise OutputError(
            f"A DICOM {what} refers to the DICOM slices it was made from, but the source is {kind}; "
            "segment a DICOM series, or write NIfTI."
        )
    geometry = segmentation.geometry
    if len(source.files) != geometry.shape[0] or geometry.slice_axis != 0:
        raise OutputError(
            f"A DICOM {what} needs one source file per slice along array axis 0: there are {len(source.files)} "
            f"files, {geometry.shape[0]} slices along axis 0, and the slices were acquired along axis "
            f"{geometry.slice_axis}. Give the labels as they were read, not reoriented or cropped."
        )
    return source.files


def describe_series(provenance: Provenance, header: Dataset) -> dict[str, Any]:
    """What highdicom wants to know of maker and time of a new series.

    Args:
        provenance: how the result was made.
        header: of the first source slice.

    Raises:
        OutputError: if the time of the run is no ISO 8601 time.

    Source:
        DICOM PS3.3 sections C.7.3.1 (General Series), C.7.5.1 (General Equipment).
    """
    started = find_start(provenance, header)
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": long_string(provenance.bundle) or "unnamed",
        "software_versions": software_versions(provenance),
        "device_serial_number": long_string(provenance.weights_sha256) or "none",
        "series_description": long_string(f"{provenance.bundle} {provenance.bundle_version}"),
        "specific_character_set": "ISO_IR 192",
        "series_date": started.date(),
        "series_time": started.time(),
    }


def date_content(provenance: Provenance, header: Dataset) -> dict[str, Any]:
    """Content date and time for highdicom: when the run began.

    Args:
        provenance: how the result was made.
        header: of the first source slice.

    Raises:
        OutputError: if the time of the run is no ISO 8601 time.
    """
    started = find_start(provenance, header)
    return {"content_date": started.date(), "content_time": started.time()}


def find_start(provenance: Provenance, header: Dataset) -> dt.datetime:
    """When the run began, on the clock of the study if it names its offset from UTC.

    Args:
        provenance: how the result was made.
        header: of the first source slice.

    Raises:
        OutputError: if the time of the run is no ISO 8601 time.
    """
    try:
        started = dt.datetime.fromisoformat(provenance.started)
    except ValueError as error:
        raise OutputError(
            f"The run began at {provenance.started!r}, which is no ISO 8601 time such as 2024-05-01T12:00:00+02:00."
        ) from error
    zone = _find_zone(header)
    return started.astimezone(zone) if zone and started.tzinfo else started


def keep_zone(dataset: Dataset, header: Dataset) -> None:
    """Name in a result the offset from UTC of the study's times, if the study names it.

    Args:
        dataset: the result; changed in place.
        header: of the first source slice.
    """
    if _find_zone(header):
        dataset.TimezoneOffsetFromUTC = header.TimezoneOffsetFromUTC


def _find_zone(header: Dataset) -> dt.tzinfo | None:
    try:
        return dt.datetime.strptime(str(header.get("TimezoneOffsetFromUTC")), "%z").tzinfo
    except ValueError:
        return None
