"""A second look at a DICOM segmentation before anyone sees it: are place and voxels those of the labels?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.pixels import iter_pixels

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.dicom_slices import LATERAL_TOLERANCE, STEP_TOLERANCE, STEP_TOLERANCE_MM
from effvit_med.volume.geometry import FloatArray, Geometry

WRITTEN_TOLERANCE_MM = 0.01
EXTENT_TOLERANCE = 2e-4  # of the diagonal of a slice: what direction cosines rounded to four decimals can do


def check_positions(dataset: Any, geometry: Geometry, headers: Sequence[Any]) -> tuple[int, ...]:
    """The slice of every frame, once each is known to lie where the labels of that slice lie.

    The frame must lie on its source slice to 0.01 mm. The source slice must lie where the geometry has it, within the
    rounding of positions that the reader accepts, since the reader may have straightened them.

    Args:
        dataset: the segmentation.
        geometry: where the labels lie; array axis 0 is the slice.
        headers: header of the source of each slice.

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
    slice_of = {header.SOPInstanceUID: k for k, header in enumerate(headers)}
    frames = dataset.PerFrameFunctionalGroupsSequence
    slices = [slice_of[_source_uid(frame)] for frame in frames]
    found = np.array([frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames], dtype=np.float64)
    source = np.array([headers[k].ImagePositionPatient for k in slices], dtype=np.float64)
    labels = geometry.index_to_world([[k, 0, 0] for k in slices])
    _compare(found, source, "its source slice", np.linalg.norm(found - source, axis=1) / WRITTEN_TOLERANCE_MM)
    _compare(found, labels, "the labels", _departure(found - labels, geometry))
    _check_extent(dataset.SharedFunctionalGroupsSequence[0], geometry)
    return tuple(slices)


def check_voxels(
    dataset: Any, labels: npt.NDArray[np.unsignedinteger], slices: Sequence[int], values: Sequence[int]
) -> None:
    """Make sure that a written file holds the labels, voxel for voxel.

    Args:
        dataset: the segmentation, with its pixel data.
        labels: (slices, rows, columns) the labels that were given.
        slices: the slice of each frame.
        values: the label value of each segment number, which begin at 1 (BINARY); empty for LABELMAP.

    Raises:
        OutputError: if a voxel differs, or labels lie on a slice that has no frame.
    """
    expected = int(np.count_nonzero(labels))
    found = 0
    groups = dataset.PerFrameFunctionalGroupsSequence
    for k, pixels, group in zip(slices, _frames(dataset), groups, strict=True):
        if values:
            number = _segment_number(dataset, group)
            wanted = labels[k] == values[number - 1]
        else:
            wanted = labels[k]
        if not np.array_equal(pixels, wanted):
            raise OutputError(f"The written frame of slice {k} differs from the labels; the file was not kept.")
        found += int(np.count_nonzero(pixels))
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


def _check_extent(shared: Any, geometry: Geometry) -> None:
    """Make sure that the way from the first to the last voxel of a frame is that of the labels."""
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = (float(part) for part in shared.PixelMeasuresSequence[0].PixelSpacing)
    rows, columns = geometry.shape[1] - 1, geometry.shape[2] - 1
    found = cosines[:3] * between_columns * columns + cosines[3:] * between_rows * rows
    wanted = geometry.affine[:3, :3] @ [0, rows, columns]
    allowed_mm = WRITTEN_TOLERANCE_MM + EXTENT_TOLERANCE * float(np.linalg.norm(wanted))
    if np.linalg.norm(found - wanted) > allowed_mm:
        raise GeometryError(
            f"From the first to the last voxel of a frame it is {found.round(4).tolist()} mm, in the labels "
            f"{wanted.round(4).tolist()} mm; the labels are not on the grid of the source slices."
        )


def _source_uid(frame: Any) -> str:
    return str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


def _segment_number(dataset: Any, group: Any) -> int:
    holder = group if "SegmentIdentificationSequence" in group else dataset.SharedFunctionalGroupsSequence[0]
    return int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)


def _frames(dataset: Any) -> Iterator[npt.NDArray[np.unsignedinteger]]:
    """The frames in order, as (rows, columns) arrays."""
    if dataset.BitsAllocated != 1:
        with warnings.catch_warnings():  # a small frame may by chance be as long packed as unpacked
            warnings.filterwarnings("ignore", "The number of bytes of compressed pixel data", UserWarning)
            yield from iter_pixels(dataset, raw=True, decoding_plugin="pydicom")
        return
    packed = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    rows, columns = dataset.Rows, dataset.Columns
    for frame in range(int(dataset.NumberOfFrames)):
        start = frame * rows * columns
        stop = start + rows * columns
        bits = np.unpackbits(packed[start // 8 : -(-stop // 8)], bitorder="little")
        yield bits[start % 8 :][: rows * columns].reshape(rows, columns)
