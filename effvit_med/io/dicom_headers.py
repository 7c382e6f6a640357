"""One DICOM file without its pixels: the tags that say where an image lies and what it belongs to."""

from __future__ import annotations

import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from effvit_med.io.cases import SetAside

# What pydicom raises on files that are cut off, scrambled or lie about lengths; all mean "cannot be read".
PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# Attributes by which scanners keep several volumes in one series, best first. Private ones hold the b-value.
SPLIT_ATTRIBUTES: Mapping[str, str | int] = {
    "TemporalPositionIdentifier": "TemporalPositionIdentifier",
    "DiffusionBValue": "DiffusionBValue",
    "b-value (private 0019,100C)": 0x0019100C,
    "b-value (private 0043,1039)": 0x00431039,
    "b-value (private 2001,1003)": 0x20011003,
    "DiffusionGradientOrientation": "DiffusionGradientOrientation",
    "EchoTime": "EchoTime",
    "EchoNumbers": "EchoNumbers",
    "InversionTime": "InversionTime",
    "TriggerTime": "TriggerTime",
    "AcquisitionNumber": "AcquisitionNumber",
    "ImageType": "ImageType",
    "SequenceName": "SequenceName",
    "ConvolutionKernel": "ConvolutionKernel",
    "ContrastBolusAgent": "ContrastBolusAgent",
    "AcquisitionDateTime": "AcquisitionDateTime",
    "AcquisitionTime": "AcquisitionTime",
    "ContentTime": "ContentTime",
}

_TAGS: list[Any] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "InstanceNumber", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient",
    "FrameOfReferenceUID", "ImageType", "PatientIdentityRemoved", *SPLIT_ATTRIBUTES.values(),
]  # fmt: skip
_NO_IMAGE_MODALITIES = frozenset({
    "AU", "DOC", "ECG", "EPS", "FID", "HD", "KO", "PLAN", "PR", "REG", "RESP", "RTDOSE", "RTPLAN", "RTRECORD",
    "RTSTRUCT", "RWV", "SEG", "SMR", "SR", "STAIN",
})  # fmt: skip
_PIXEL_TAGS = tuple(struct.pack("<HH", 0x7FE0, element) for element in (0x10, 0x08, 0x09)) + tuple(
    struct.pack(">HH", 0x7FE0, element) for element in (0x10, 0x08, 0x09)
)
_HEAD_BYTES = 2**16  # more than nearly every header has
_LFS_START = b"version https://git-lfs"


@dataclass(frozen=True)
class Header:
    """What one image file says of itself; None or empty where it says nothing or nonsense.

    Attributes:
        path: the file.
        sop_instance_uid: SOP Instance UID (0008,0018).
        study_instance_uid: Study Instance UID (0020,000D).
        series_instance_uid: Series Instance UID (0020,000E).
        series_number: Series Number (0020,0011) as text.
        series_description: Series Description (0008,103E).
        modality: Modality (0008,0060).
        instance_number: Instance Number (0020,0013).
        rows: Rows (0028,0010); 0 if absent.
        columns: Columns (0028,0011); 0 if absent.
        frames: Number of Frames (0028,0008); 1 if absent.
        pixel_spacing: mm between rows, mm between columns (0028,0030).
        slice_thickness: mm (0018,0050).
        orientation: the direction along a row, then down a column (0020,0037).
        position: centre of the first voxel in mm, LPS (0020,0032).
        frame_of_reference_uid: Frame of Reference UID (0020,0052).
        image_type: values of Image Type (0008,0008).
        attributes: values as text of the attributes that may tell volumes of one series apart.
        has_pixels: whether pixel data follow the header.
        identity_removed: whether Patient Identity Removed (0012,0062) is YES.
    """

    path: Path
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    series_number: str
    series_description: str
    modality: str
    instance_number: int | None
    rows: int
    columns: int
    frames: int
    pixel_spacing: tuple[float, ...] | None
    slice_thickness: float | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    frame_of_reference_uid: str
    image_type: tuple[str, ...]
    attributes: Mapping[str, str]
    has_pixels: bool
    identity_removed: bool = False


class _BoundedFile(io.BufferedReader):
    """A file that never tries to read more bytes than it has: a false length then costs no memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging: it quotes header values, and those may name the patient."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_header(path: Path) -> Header | SetAside:
    """The header of an image file, or why the file is no image to segment.

    Args:
        path: a regular file.

    Returns:
        The header; for anything but a grey DICOM image the reason to set the file aside.
    """
    try:
        with quiet_pydicom(), _BoundedFile(path) as file:
            head = file.read(_HEAD_BYTES)
            if not _may_be_dicom(head[:132]):
                return _describe_other(path, head[:132], file.size)
            dataset = parse_head(head, _TAGS)
            if dataset is not None:
                return _refine(path, dataset, has_pixels=True)
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            return _refine(path, dataset, has_pixels=_has_pixels(file, dataset))
    except PARSE_ERRORS as error:
        reason = (isinstance(error, OSError) and error.strerror) or f"the file is damaged ({type(error).__name__})"
        return SetAside(path, "UNREADABLE", f"{path.name} cannot be read: {reason}.")


def parse_head(content: bytes, tags: list[Any] | None = None) -> pydicom.Dataset | None:
    """The header of a file whose first bytes hold all of it, or None where they do not show that they do.

    Args:
        content: the first bytes of a file; only the first 64 KiB are looked at.
        tags: the elements to take; None for all.

    Returns:
        The header, if pixel data follow it within these bytes and nothing is odd on the way.
    """
    file = io.BytesIO(content[:_HEAD_BYTES])
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
        return dataset if not _is_deflated(dataset) and file.read(4) in _PIXEL_TAGS else None
    except PARSE_ERRORS:
        return None


def _is_deflated(dataset: pydicom.Dataset) -> bool:
    meta = getattr(dataset, "file_meta", {})
    return str(meta.get("TransferSyntaxUID", "")) == pydicom.uid.DeflatedExplicitVRLittleEndian


def _may_be_dicom(start: bytes) -> bool:
    """Whether the file has the DICM mark, or begins with a tag of group 2 or 8 as files without preamble do."""
    return start[128:132] == b"DICM" or start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _describe_other(path: Path, start: bytes, size: int) -> SetAside:
    if size == 0:
        return SetAside(path, "EMPTY_FILE", f"{path.name} has no bytes.")
    if start.startswith(_LFS_START):
        return SetAside(path, "GIT_LFS_POINTER", f"{path.name} is a Git LFS pointer; fetch the file with git lfs pull.")
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return SetAside(path, "TEXT", f"{path.name} is a text.")
    return SetAside(path, "UNKNOWN_FORMAT", f"{path.name} is neither DICOM nor NIfTI.")


def _has_pixels(file: _BoundedFile, dataset: pydicom.Dataset) -> bool:
    """Whether the reader stopped before pixel data; a deflated file does not show it, so the answer is yes."""
    return _is_deflated(dataset) or file.read(4) in _PIXEL_TAGS


def _refine(path: Path, dataset: pydicom.Dataset, *, has_pixels: bool) -> Header | SetAside:
    why = _why_no_slice(dataset)
    if why is not None:
        return SetAside(path, why[0], f"{path.name} {why[1]}.")
    thickness = _numbers(dataset, "SliceThickness", 1)
    return Header(
        path=path,
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        series_number=_text(dataset, "SeriesNumber"),
        series_description=_text(dataset, "SeriesDescription"),
        modality=_text(dataset, "Modality").upper(),
        instance_number=_whole(dataset, "InstanceNumber"),
        rows=_whole(dataset, "Rows") or 0,
        columns=_whole(dataset, "Columns") or 0,
        frames=_whole(dataset, "NumberOfFrames") or 1,
        pixel_spacing=_numbers(dataset, "PixelSpacing", 2),
        slice_thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        orientation=_numbers(dataset, "ImageOrientationPatient", 6),
        position=_numbers(dataset, "ImagePositionPatient", 3),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        image_type=_image_type(dataset),
        attributes={name: _text(dataset, tag) for name, tag in SPLIT_ATTRIBUTES.items()},
        has_pixels=has_pixels,
        identity_removed=_text(dataset, "PatientIdentityRemoved").upper() == "YES",
    )


def _why_no_slice(dataset: pydicom.Dataset) -> tuple[str, str] | None:
    """Code and words why a data set is no grey image of a scan; None if it is one."""
    meta = getattr(dataset, "file_meta", {})
    sop_class = _text(dataset, "SOPClassUID") or str(meta.get("MediaStorageSOPClassUID", ""))
    kind = UID(sop_class).name if sop_class else ""
    modality = _text(dataset, "Modality").upper()
    rows, columns = _whole(dataset, "Rows") or 0, _whole(dataset, "Columns") or 0
    has_position = _numbers(dataset, "ImagePositionPatient", 3) is not None
    photometric, samples = _text(dataset, "PhotometricInterpretation"), _whole(dataset, "SamplesPerPixel") or 1
    is_image = "Image Storage" in kind or has_position
    rules = (
        (kind == "Media Storage Directory Storage", "DICOMDIR", "is a directory; its images are read without it"),
        (
            modality in _NO_IMAGE_MODALITIES or "Segmentation Storage" in kind,
            "NOT_AN_IMAGE",
            f"is a DICOM object of modality {modality}, no scan",
        ),
        (not kind and not modality and rows < 1, "UNREADABLE", "is called DICOM but has no readable header"),
        ((rows < 1 or columns < 1) and not is_image, "NOT_AN_IMAGE", f"is a DICOM object without an image ({kind})"),
        (rows < 1 or columns < 1, "UNREADABLE", f"has {rows} Rows and {columns} Columns; it may be cut off"),
        ("LOCALIZER" in _image_type(dataset), "LOCALIZER", "is a localizer, as its Image Type says"),
        (samples != 1 or "COLOR" in photometric, "NOT_GRAYSCALE", f"is a colour image ({photometric})"),
        (
            "Secondary Capture" in kind and not has_position,
            "SECONDARY_CAPTURE",
            "is a secondary capture with no place in the patient",
        ),
    )
    return next(((code, words) for applies, code, words in rules if applies), None)


def _image_type(dataset: pydicom.Dataset) -> tuple[str, ...]:
    return tuple(_text(dataset, "ImageType").upper().split("\\"))


@lru_cache
def _tag_of(name: str | int) -> BaseTag:
    return Tag(name)


def _values(dataset: pydicom.Dataset, tag: str | int) -> list[Any]:
    """The values of an element, an empty list where it is absent, empty or cannot be parsed."""
    try:
        number = _tag_of(tag)
        value = dataset[number].value if number in dataset else None
    except PARSE_ERRORS:
        return []
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _text(dataset: pydicom.Dataset, tag: str | int) -> str:
    values = (value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in _values(dataset, tag))
    return "\\".join(value.strip(" \x00") for value in values)


def _numbers(dataset: pydicom.Dataset, tag: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in _values(dataset, tag))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(math.isfinite(number) for number in numbers) else None


def _whole(dataset: pydicom.Dataset, tag: str) -> int | None:
    try:
        return int(_values(dataset, tag)[0])
    except (IndexError, TypeError, ValueError, OverflowError):
        return None
