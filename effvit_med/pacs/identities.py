"""Which instance of which series a received file is."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread

from effvit_med.errors import InputError

_TAGS = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"]


@dataclass(frozen=True)
class Identity:
    """What names an instance.

    Attributes:
        sop_uid: SOP Instance UID.
        series_uid: Series Instance UID.
        study_uid: Study Instance UID.
        modality: Modality; may be empty.
    """

    sop_uid: str
    series_uid: str
    study_uid: str
    modality: str


def read_identity(content: bytes) -> Identity:
    """The identity of a DICOM file.

    Raises:
        InputError: if the bytes are no DICOM file, are damaged, or one of the UIDs is missing.
    """
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
        values = [str(header.get(tag) or "").strip() for tag in _TAGS[1:]]
    except Exception as error:  # damaged bytes make pydicom raise nearly anything, struct.error among it
        raise InputError(f"A received file is no DICOM file ({type(error).__name__}).") from error
    if not all(values[:3]):
        raise InputError("A received file has no SOP, Series or Study Instance UID.")
    return Identity(*values)
