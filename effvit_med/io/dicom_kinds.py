"""What a file is, told from its first bytes and its header: a grey image of a scan, or something else."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
from pydicom.uid import UID

from effvit_med.io.cases import SetAside
from effvit_med.io.dicom_elements import Elements

_NO_IMAGE_MODALITIES = frozenset({
    "AU", "DOC", "ECG", "EPS", "FID", "HD", "KO", "PLAN", "PR", "REG", "RESP", "RTDOSE", "RTPLAN", "RTRECORD",
    "RTSTRUCT", "RWV", "SEG", "SMR", "SR", "STAIN",
})  # fmt: skip
_LFS_START = b"version https://git-lfs"


def may_be_dicom(start: bytes) -> bool:
    """Whether the file has the DICM mark, or begins with a tag of group 2 or 8 as files without preamble do."""
    return start[128:132] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def describe_other(path: Path, start: bytes, size: int) -> SetAside:
    """Why a file that is no DICOM is set aside."""
    if size == 0:
        return SetAside(path, "EMPTY_FILE", f"{path.name} has no bytes.")
    if start.startswith(_LFS_START):
        return SetAside(path, "GIT_LFS_POINTER", f"{path.name} is a Git LFS pointer; fetch the file with git lfs pull.")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return SetAside(path, "TEXT", f"{path.name} is a text.")
    return SetAside(path, "UNKNOWN_FORMAT", f"{path.name} is neither DICOM nor NIfTI.")


def why_no_slice(dataset: pydicom.Dataset, first: Elements) -> tuple[str, str] | None:
    """Code and words why a data set is no grey image of a scan; None if it is one.

    Args:
        dataset: its header.
        first: the elements of its first frame.
    """
    meta = getattr(dataset, "file_meta", {})
    sop_class = first.text("SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    kind = UID(sop_class).name if sop_class else ""
    modality = first.text("Modality").upper()
    rows, columns = first.whole("Rows") or 0, first.whole("Columns") or 0
    has_position = first.numbers("ImagePositionPatient", 3) is not None
    photometric, samples = first.text("PhotometricInterpretation"), first.whole("SamplesPerPixel") or 1
    image_type = (first.text("ImageType") + "\\" + first.text("FrameType")).upper().split("\\")
    is_image = "Image Storage" in kind or has_position
    rules = (
        (kind == "Media Storage Directory Storage", "DICOMDIR", "is a directory; its images are read without it"),
        (
            modality in _NO_IMAGE_MODALITIES or "Segmentation Storage" in kind,
            "NOT_AN_IMAGE",
            f"is a DICOM object of modality {_word(modality)}, no scan",
        ),
        ("Spectroscopy Storage" in kind, "NOT_AN_IMAGE", "holds spectra, no image"),
        (not kind and not modality and rows < 1, "UNREADABLE", "is called DICOM but has no readable header"),
        ((rows < 1 or columns < 1) and not is_image, "NOT_AN_IMAGE", f"is a DICOM object without an image ({kind})"),
        (rows < 1 or columns < 1, "UNREADABLE", f"has {rows} Rows and {columns} Columns; it may be cut off"),
        ("LOCALIZER" in image_type, "LOCALIZER", "is a localizer, as its Image Type says"),
        (samples != 1 or "COLOR" in photometric, "NOT_GRAYSCALE", f"is a colour image ({_word(photometric)})"),
        (
            "Secondary Capture" in kind and not has_position,
            "SECONDARY_CAPTURE",
            "is a secondary capture with no place in the patient",
        ),
    )
    return next(((code, words) for applies, code, words in rules if applies), None)


def _word(text: str) -> str:
    """A code of the standard as it is; anything else, which may be a name, is not repeated."""
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else "unknown"
