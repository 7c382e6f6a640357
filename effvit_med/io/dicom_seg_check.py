"""A second look at a DICOM segmentation before anyone sees it: are place and voxels those of the labels?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from io import SEEK_CUR, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import iter_pixels
from pydicom.tag import Tag

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.dicom_seg_frames import draw_fractions
from effvit_med.io.dicom_seg_headers import Headers
from effvit_med.io.dicom_slices import LATERAL_TOLERANCE, STEP_TOLERANCE, STEP_TOLERANCE_MM
from effvit_med.volume.counts import count_values
from effvit_med.volume.geometry import FloatArray, Geometry
from effvit_med.volume.overlaps import count_structures, take_structure
from effvit_med.volume.pages import count_slab, release_pages
from effvit_med.volume.segmentation import Segmentation

WRITTEN_TOLERANCE_MM = 0.01
_PIXEL_HEADER_BYTES = 12  # of an element with a length of 32 bits: tag, VR, reserved, length
EXTENT_TOLERANCE = 2e-4  # of the diagonal of a slice: what direction cosines rounded to four decimals can do


def check_slices(headers: Headers, geometry: Geometry) -> None:
    """Make sure that the source slices, on which a result is to be drawn, lie where the labels lie.

    Args:
        headers: of the source slices; their frame of reference was compared when they were read.
        geometry: where the labels lie; array axis 0 is the slice.

    Raises:
        GeometryError: if a slice lies elsewhere than the labels of it, or its last voxel is displaced against its
            first.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1).
    """
    source = np.array([part.ImagePositionPatient for part in headers.slices], dtype=np.float64)
    labels = geometry.index_to_world([[k, 0, 0] for k in range(len(source))])
    _compare(source, labels, "the labels", _departure(source - labels, geometry))
    for part in headers.slices:
        _check_extent(part.ImageOrientationPatient, part.PixelSpacing, geometry)


def check_positions(dataset: Any, geometry: Geometry, headers: Headers) -> tuple[int, ...]:
    """The slice of every frame, once each is known to lie where the labels of that slice lie.

    The frame must lie on its source slice to 0.01 mm. The source slice must lie where the geometry has it, within the
    rounding of positions that the reader accepts, since the reader may have straightened them.

    Args:
        dataset: the segmentation.
        geometry: where the labels lie; array axis 0 is the slice.
        headers: of the source slices.

    Returns:
        The index along array axis 0 of each frame.

    Raises:
        GeometryError: if a frame lies elsewhere than its slice or the labels, its last voxel is displaced against its
            first, or it names another frame of reference.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1).
    """
    if geometry.frame_of_reference_uid and dataset.FrameOfReferenceUID != geometry.frame_of_reference_uid:
        raise GeometryError(
            f"The segmentation has the frame of reference {dataset.FrameOfReferenceUID}, the labels "
            f"{geometry.frame_of_reference_uid}."
        )
    frames = dataset.PerFrameFunctionalGroupsSequence
    slices = slices_of_frames(dataset, headers)
    read = _OncePerValue("PlanePositionSequence", lambda position: position.ImagePositionPatient)
    found = np.array([read(frame) for frame in frames], dtype=np.float64)
    source = np.array([headers.slices[k].ImagePositionPatient for k in slices], dtype=np.float64)
    labels = geometry.index_to_world([[k, 0, 0] for k in slices])
    _compare(found, source, "its source slice", np.linalg.norm(found - source, axis=1) / WRITTEN_TOLERANCE_MM)
    _compare(found, labels, "the labels", _departure(found - labels, geometry))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    measures = shared.PixelMeasuresSequence[0]
    _check_extent(shared.PlaneOrientationSequence[0].ImageOrientationPatient, measures.PixelSpacing, geometry)
    return slices


def slices_of_frames(dataset: Any, headers: Headers) -> tuple[int, ...]:
    """The index along array axis 0 of the source slice that each frame names.

    Args:
        dataset: the segmentation.
        headers: of the source slices; a frame names the true object of its slice or the stand-in of its header.
    """
    slice_of = {(str(part.SOPInstanceUID), 0): k for k, part in enumerate(headers.slices)}
    slice_of |= {(each.sop_instance_uid, each.frame): k for k, each in enumerate(headers.references)}

    def find(item: Any) -> int:
        image = item.SourceImageSequence[0]
        return slice_of[str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber") or 0)]

    read = _OncePerValue("DerivationImageSequence", find)
    return tuple(read(frame) for frame in dataset.PerFrameFunctionalGroupsSequence)


def check_file(path: Path, segmentation: Segmentation, headers: Headers, values: Sequence[int]) -> None:
    """Make sure that a written file holds the labels at their place; its pixel data are read frame by frame.

    Args:
        path: the file.
        segmentation: what was written.
        headers: of the source slices.
        values: the label value of each segment number, which begin at 1; empty for LABELMAP.

    Raises:
        GeometryError: as of `check_positions`.
        OutputError: as of `check_voxels`.
    """
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    slices = check_positions(dataset, segmentation.geometry, headers)
    check_voxels(dataset, segmentation, slices, values, path)


def check_voxels(
    dataset: Any,
    segmentation: Segmentation,
    slices: Sequence[int],
    values: Sequence[int],
    path: Path | None = None,
) -> None:
    """Make sure that a written file holds the labels, voxel for voxel.

    Args:
        dataset: the segmentation; with its pixel data where there is no ``path``.
        segmentation: the labels that were given, with their confidence if the file is FRACTIONAL.
        slices: the slice of each frame.
        values: the label value of each segment number, which begin at 1; empty for LABELMAP.
        path: the file to read the pixel data from, frame by frame.

    Raises:
        OutputError: if a voxel differs, or labels lie on a slice that has no frame.
    """
    labels, is_binary = segmentation.labels, dataset.SegmentationType == "BINARY"
    table = segmentation.table
    counts = count_structures(count_values(labels, size=max((label.value for label in table), default=0) + 1), table)
    expected, found = int(counts[:, 1:].sum()), 0
    groups = dataset.PerFrameFunctionalGroupsSequence
    number_of = _segment_numbers(dataset) if values else None
    frames: Iterator[Any] = _packed_frames(dataset, path) if is_binary else _plain_frames(dataset, path)
    slab = count_slab(labels)
    for frame, (k, pixels, group) in enumerate(zip(slices, frames, groups, strict=True)):
        if number_of is not None:
            value = values[number_of(group) - 1]
            voxels = int(counts[k, value])
            if is_binary:
                same = _same_bits(pixels, take_structure(labels[k], value, overlaps=table.overlaps))
            else:
                same = np.array_equal(pixels, draw_fractions(segmentation, k, value))
        else:
            same, voxels = np.array_equal(pixels, labels[k]), int(counts[k, 1:].sum())
        if not same:
            raise OutputError(f"The written frame of slice {k} differs from the labels; the file was not kept.")
        found += voxels
        if frame % slab == slab - 1:
            release_pages(labels)
    if found != expected:
        raise OutputError(f"The written file holds {found} labelled voxels of {expected}; it was not kept.")


def _departure(difference: FloatArray, geometry: Geometry) -> FloatArray:
    """How far each frame is off, as a part of what the reader accepts along and across the slices."""
    normal = np.cross(geometry.directions[:, 1], geometry.directions[:, 2])
    normal /= np.linalg.norm(normal)
    along = difference @ normal
    across = np.linalg.norm(difference - along[:, None] * normal, axis=1)
    step_mm, *pixel_mm = geometry.spacing_mm
    along_mm = max(STEP_TOLERANCE_MM, STEP_TOLERANCE * step_mm)
    return np.maximum(np.abs(along) / along_mm, across / (LATERAL_TOLERANCE * min(pixel_mm)))


def _compare(found: FloatArray, wanted: FloatArray, what: str, departure: FloatArray) -> None:
    worst = int(departure.argmax())
    if departure[worst] > 1:
        raise GeometryError(
            f"The first voxel of frame {worst + 1} lies at {found[worst].round(4).tolist()} mm, that of {what} at "
            f"{wanted[worst].round(4).tolist()} mm, {np.linalg.norm(found[worst] - wanted[worst]):.4g} mm away; "
            "the labels are not on the grid of the source slices."
        )


def _check_extent(orientation: Sequence[float], spacing: Sequence[float], geometry: Geometry) -> None:
    """Make sure that the way from the first to the last voxel of a frame is that of the labels."""
    cosines = np.array(orientation, dtype=np.float64)
    between_rows, between_columns = (float(part) for part in spacing)
    rows, columns = geometry.shape[1] - 1, geometry.shape[2] - 1
    found = cosines[:3] * between_columns * columns + cosines[3:] * between_rows * rows
    wanted = geometry.affine[:3, :3] @ [0, rows, columns]
    allowed_mm = WRITTEN_TOLERANCE_MM + EXTENT_TOLERANCE * float(np.linalg.norm(wanted))
    if np.linalg.norm(found - wanted) > allowed_mm:
        raise GeometryError(
            f"From the first to the last voxel of a frame it is {found.round(4).tolist()} mm, in the labels "
            f"{wanted.round(4).tolist()} mm; the labels are not on the grid of the source slices."
        )


class _OncePerValue:
    """Reads something of the first item of a sequence; sequences of equal bytes are taken apart only once.

    Args:
        keyword: of the sequence.
        read: what to read of its first item.
    """

    def __init__(self, keyword: str, read: Callable[[Any], Any]) -> None:
        self._tag, self._read = Tag(keyword), read
        self._known: dict[bytes, Any] = {}

    def __call__(self, frame: Any) -> Any:
        element = frame.get_item(self._tag)
        encoded = element.value if element.is_raw else None
        if encoded is None:
            return self._read(element.value[0])
        if encoded not in self._known:
            self._known[encoded] = self._read(frame[self._tag].value[0])
        return self._known[encoded]


def _segment_numbers(dataset: Any) -> Callable[[Any], int]:
    """What reads the segment number of a frame; a file of one segment says it once for all."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        number = int(shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        return lambda _: number
    return _OncePerValue("SegmentIdentificationSequence", lambda item: int(item.ReferencedSegmentNumber))


def _same_bits(packed: tuple[npt.NDArray[np.uint8], int], wanted: npt.NDArray[np.bool_]) -> bool:
    """Whether bits that begin at a place in the first byte are those of a frame."""
    content, first = packed
    if first == 0 and wanted.size % 8 == 0:
        return bool(np.array_equal(content, np.packbits(wanted, bitorder="little")))
    bits = np.unpackbits(content, bitorder="little")[first : first + wanted.size]
    return bool(np.array_equal(bits, wanted.reshape(-1)))


def _packed_frames(dataset: Any, path: Path | None) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
    """The frames of one bit a voxel: the bytes that hold each, and the place of its first bit in the first byte."""
    size = int(dataset.Rows) * int(dataset.Columns)
    with ExitStack() as stack:
        if path is None:
            file: BinaryIO = BytesIO(dataset.PixelData)
        else:
            file = stack.enter_context(path.open("rb"))
            pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows"])
            file.seek(_PIXEL_HEADER_BYTES, SEEK_CUR)
        begin = file.tell()
        for frame in range(int(dataset.NumberOfFrames)):
            start, stop = frame * size, (frame + 1) * size
            file.seek(begin + start // 8)
            yield np.frombuffer(file.read(-(-stop // 8) - start // 8), np.uint8), start % 8


def _plain_frames(dataset: Any, path: Path | None) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    """The compressed frames in order, as (rows, columns) arrays."""
    with warnings.catch_warnings():  # a small frame may by chance be as long packed as unpacked
        warnings.filterwarnings("ignore", "The number of bytes of compressed pixel data", UserWarning)
        yield from iter_pixels(dataset if path is None else path, raw=True, decoding_plugin="pydicom")
