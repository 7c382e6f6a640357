"""One DICOM file without its pixels: the tags that say where an image lies and what it belongs to."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pydicom
from pydicom.tag import Tag

from effvit_med.io.cases import SetAside
from effvit_med.io.dicom_elements import PARSE_ERRORS, Elements, quiet_pydicom, share, split_frames
from effvit_med.io.dicom_extents import RESEND, Extent, Flaw, find_extent, find_flaw, is_deflated
from effvit_med.io.dicom_header import DIMENSIONS, SPLIT_ATTRIBUTES, Header
from effvit_med.io.dicom_kinds import describe_other, may_be_dicom, why_no_slice
from effvit_med.io.dicom_mosaic import split_mosaic

_GRID_CREATOR, _GRID_COUNT = 0x00650010, 0x00651050
_NAMES: list[str | int] = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "Modality", "InstanceNumber", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated",
    "BitsStored", "NumberOfFrames", "PixelSpacing", "SliceThickness", "ImageOrientationPatient",
    "ImagePositionPatient", "FrameOfReferenceUID", "ImageType", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence", "PatientIdentityRemoved", _GRID_CREATOR, _GRID_COUNT, *SPLIT_ATTRIBUTES.values(),
]  # fmt: skip
_TAGS: list[Any] = [Tag(name) for name in _NAMES]
_SPATIAL_DIMENSIONS = frozenset({0x00200032, 0x00209057, 0x00209113, 0x00201041, 0x00209056})
_HEAD_BYTES = 2**16  # more than nearly every header has


class _BoundedFile(io.BufferedReader):
    """A file that never tries to read more bytes than it has: a false length then costs no memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.size = self.seek(0, io.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_header(path: Path) -> tuple[Header, ...] | SetAside:
    """The header of each image in a file, or why the file is no image to segment.

    Args:
        path: a regular file.

    Returns:
        One header, or one per frame of an image with functional groups; for anything but grey DICOM images the reason
        to set the file aside.
    """
    try:
        with quiet_pydicom(), _BoundedFile(path) as file:
            head = file.read(_HEAD_BYTES)
            if not may_be_dicom(head[:132]):
                return describe_other(path, head[:132], file.size)
            dataset, extent = _parse(file, head)
            return _refine(path, file, dataset, extent)
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
    found = _parse_start(content[:_HEAD_BYTES], tags)
    return found[0] if found else None


def _parse_start(content: bytes, tags: list[Any] | None) -> tuple[pydicom.Dataset, Extent] | None:
    file = io.BytesIO(content)
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
        extent = None if is_deflated(dataset) else find_extent(file, dataset)
    except PARSE_ERRORS:
        return None
    return (dataset, extent) if extent else None


def _parse(file: _BoundedFile, head: bytes) -> tuple[pydicom.Dataset, Extent | None]:
    found = _parse_start(head, _TAGS)
    if found:
        return found
    file.seek(0)
    dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_TAGS)
    if not is_deflated(dataset):
        return dataset, find_extent(file, dataset)
    file.seek(0)
    inflated = pydicom.dcmread(file, force=True, specific_tags=["PixelData"])
    length = len(inflated.get("PixelData") or b"")
    return dataset, Extent(0x7FE00010, length, file.size - length) if "PixelData" in inflated else None


def _refine(
    path: Path, file: _BoundedFile, dataset: pydicom.Dataset, extent: Extent | None
) -> tuple[Header, ...] | SetAside:
    top, views = Elements(dataset), split_frames(dataset)
    series = share(top.text("SeriesInstanceUID"))
    why = why_no_slice(dataset, views[0] if views else top)
    if why is not None:
        return SetAside(path, why[0], f"{path.name} {why[1]}.", series, share(top.text("Modality").upper()))
    frames = max(1, top.whole("NumberOfFrames") or 1)
    flaw = find_flaw(file, file.size, extent, dataset, frames)
    if not flaw and views and len(views) != frames:
        words = f"has {frames} frames, but functional groups for {len(views)}"
        flaw = ("BAD_GEOMETRY", words, "Export the series again from the source system.")
    if not views or len(views) != frames:
        placed = frames == 1
        header = _make_header(path, top, 0, frames, flaw=flaw, placed=placed)
        return split_mosaic(header) if "MOSAIC" in header.image_type else (header,)
    pointers = _index_pointers(dataset)
    return tuple(
        _make_header(path, view, number, frames, flaw=flaw, pointers=pointers) for number, view in enumerate(views, 1)
    )


def _make_header(
    path: Path,
    elements: Elements,
    frame: int,
    frames: int,
    *,
    flaw: Flaw | None,
    pointers: tuple[int, ...] = (),
    placed: bool = True,
) -> Header:
    thickness = elements.numbers("SliceThickness", 1)
    number = elements.whole("InstanceNumber")
    image_type = tuple(elements.text("ImageType").upper().split("\\"))
    flaw, notes = flaw or _find_bad_rescale(elements), _note_values(elements)
    attributes = [share(elements.text(tag)) for tag in SPLIT_ATTRIBUTES.values()]
    return Header(
        path=path,
        frame=frame,
        frames=frames,
        sop_instance_uid=elements.text("SOPInstanceUID"),
        study_instance_uid=share(elements.text("StudyInstanceUID")),
        series_instance_uid=share(elements.text("SeriesInstanceUID")),
        series_number=share(elements.text("SeriesNumber")),
        series_description=share(elements.text("SeriesDescription")),
        modality=share(elements.text("Modality").upper()),
        instance_number=(number or 0) * frames + frame if frame else number,
        rows=elements.whole("Rows") or 0,
        columns=elements.whole("Columns") or 0,
        pixel_spacing=share(elements.numbers("PixelSpacing", 2)),
        slice_thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        orientation=share(elements.numbers("ImageOrientationPatient", 6)) if placed else None,
        position=elements.numbers("ImagePositionPatient", 3) if placed else None,
        frame_of_reference_uid=share(elements.text("FrameOfReferenceUID")),
        image_type=share(image_type),
        attributes=share((*attributes, _join_indices(elements, pointers))),
        flaw=share(flaw),
        notes=share(notes),
        grid=_count_grid(elements),
        identity_removed=elements.text("PatientIdentityRemoved").upper() == "YES",
    )


def _index_pointers(dataset: pydicom.Dataset) -> tuple[int, ...]:
    """What each dimension of an organised multi-frame image runs over, as tags."""
    try:
        items = dataset.get("DimensionIndexSequence") or ()
        return tuple(int(item.get("DimensionIndexPointer") or 0) for item in items)
    except PARSE_ERRORS:
        return ()


def _count_grid(elements: Elements) -> int:
    """How many slices United Imaging says to have put into one image: private 0065,1050; 0 for none."""
    is_theirs = "Image Private Header" in elements.text(_GRID_CREATOR)
    return (elements.whole(_GRID_COUNT) or 0) if is_theirs else 0


def _join_indices(elements: Elements, pointers: tuple[int, ...]) -> str:
    """The frame's place along all dimensions that do not run over slices."""
    indices = elements.values(DIMENSIONS) if pointers else []
    if len(indices) != len(pointers):
        return ""
    kept = [str(index) for index, tag in zip(indices, pointers, strict=True) if tag not in _SPATIAL_DIMENSIONS]
    return share("\\".join(kept))


def _find_bad_rescale(elements: Elements) -> Flaw | None:
    if elements.values("ModalityLUTSequence"):
        return None
    numbers = (elements.number("RescaleSlope", 1.0), elements.number("RescaleIntercept", 0.0))
    if all(math.isfinite(number) for number in numbers):
        return None
    return "BAD_RESCALE", "has a Rescale Slope or Intercept that is no number", RESEND


def _note_values(elements: Elements) -> tuple[str, ...]:
    notes = []
    if elements.text("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("MONOCHROME1")
    if elements.number("RescaleSlope", 1.0) == 0 and not elements.values("ModalityLUTSequence"):
        notes.append("ZERO_SLOPE")
    return tuple(notes)
