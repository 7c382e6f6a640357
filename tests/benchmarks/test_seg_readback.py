"""A SEG that is displaced, mirrored, swapped or of another place is found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from benchmarks.scans import draw_blobs
from benchmarks.seg_readback import Complaints, corners_mm, read_back, sort_complaints
from effvit_med.io import SegOptions, write_dicom_seg
from effvit_med.volume import Segmentation
from tests.io.source_series import FRAME_UID, TABLE, axial, segment, write_series

Change = Callable[[Dataset], None]


@pytest.fixture(name="segmentation")
def _segmentation(tmp_path: Path) -> Segmentation:
    volume = write_series(tmp_path, axial((6, 16, 24)))
    return segment(volume, draw_blobs((6, 16, 24), (1, 2, 3, 7)))


def spoilt(segmentation: Segmentation, path: Path, change: Change) -> Path:
    """A file that was changed after it was written."""
    write_dicom_seg(segmentation, path, SegOptions("binary"))
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


def set_frames(dataset: Dataset, turn: Callable[[np.ndarray], np.ndarray]) -> None:
    """Put other pixels into the frames, bit by bit."""
    frames = turn(dataset.pixel_array)
    dataset.PixelData = np.packbits(frames.astype(np.uint8).ravel(), bitorder="little").tobytes()


def shift_place(dataset: Dataset) -> None:
    """Move every frame by at least 1 mm."""
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0]
        place.ImagePositionPatient = [place.ImagePositionPatient[0], place.ImagePositionPatient[1] + 1, 30.0]


def turn_rows(dataset: Dataset) -> None:
    """Let the rows run to the other side."""
    plane = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [-1, 0, 0, *plane.ImageOrientationPatient[3:]]


def swap_spacing(dataset: Dataset) -> None:
    """Take the distance of rows for that of columns."""
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = measures.PixelSpacing[::-1]


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_right_file_is_right(segmentation: Segmentation, tmp_path: Path, kind: str) -> None:
    """What the writer makes has every voxel, every place and the frame of reference."""
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    found = read_back(tmp_path / "seg.dcm", segmentation)
    assert found.is_right
    assert (found.segments, found.wrong_voxels) == (4, 0)
    assert found.labelled_voxels == np.count_nonzero(segmentation.labels) > 0
    assert found.max_distance_mm < 1e-6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_voxels_are_wrong(segmentation: Segmentation, tmp_path: Path, axis: int) -> None:
    """Frames in the wrong order, upside down or left for right are found out."""
    path = spoilt(segmentation, tmp_path / "seg.dcm", lambda seg: set_frames(seg, lambda each: np.flip(each, axis)))
    found = read_back(path, segmentation)
    assert found.wrong_voxels > 0
    assert not found.is_right


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_shifted_by_one_are_wrong(segmentation: Segmentation, tmp_path: Path, axis: int) -> None:
    """A shift by one voxel is found out though every place is right."""
    path = spoilt(segmentation, tmp_path / "seg.dcm", lambda seg: set_frames(seg, lambda each: np.roll(each, 1, axis)))
    found = read_back(path, segmentation)
    assert found.wrong_voxels > 0
    assert found.max_distance_mm < 1e-6


@pytest.mark.parametrize(
    ("change", "least_mm"), [(shift_place, 1.0), (turn_rows, 2 * 23 * 0.7 - 0.01), (swap_spacing, 23 * 0.2 - 0.01)]
)
def test_displaced_frames_are_wrong(
    segmentation: Segmentation, tmp_path: Path, change: Change, least_mm: float
) -> None:
    """A frame that lies elsewhere, is turned over or has its spacings swapped is off by that many mm."""
    found = read_back(spoilt(segmentation, tmp_path / "seg.dcm", change), segmentation)
    assert found.max_distance_mm >= least_mm
    assert not found.is_right


def test_other_frame_of_reference_is_wrong(segmentation: Segmentation, tmp_path: Path) -> None:
    """The same numbers in another frame of reference are another place."""
    path = spoilt(segmentation, tmp_path / "seg.dcm", lambda seg: setattr(seg, "FrameOfReferenceUID", f"{FRAME_UID}.9"))
    found = read_back(path, segmentation)
    assert not found.same_frame_of_reference
    assert not found.is_right


def test_exchanged_names_are_wrong(segmentation: Segmentation, tmp_path: Path) -> None:
    """Left kidney called right and right called left: the voxels of both are wrong."""

    def exchange(dataset: Dataset) -> None:
        left, right = dataset.SegmentSequence[1], dataset.SegmentSequence[2]
        left.SegmentLabel, right.SegmentLabel = right.SegmentLabel, left.SegmentLabel

    found = read_back(spoilt(segmentation, tmp_path / "seg.dcm", exchange), segmentation)
    kidneys = [TABLE.by_name(name).value for name in ("kidney_left", "kidney_right")]
    assert found.wrong_voxels == np.isin(segmentation.labels, kidneys).sum()


def test_corners_of_a_tilted_image() -> None:
    """The last corner lies (columns - 1) along the row and (rows - 1) along the column, each with its own spacing."""
    corners = corners_mm([10, 20, 30], [0, 1, 0, 0, 0, -1], [2, 5], (3, 4))
    assert corners.tolist() == [[10, 20, 30], [10, 35, 30], [10, 20, 26], [10, 35, 26]]


def test_complaints_are_sorted() -> None:
    """Known ones count only for LABELMAP, inherited ones only where they quote a UID of the source."""
    text = (
        "Error - Information Object Not found\nWarning - something\n"
        'Error - Illegal root for UID - "0.1.2" in Referenced SOP Instance UID\n'
        'Error - Illegal root for UID - "0.1.3" in SOP Instance UID\n'
    )
    assert sort_complaints(text, {"0.1.2"}, is_labelmap=True) == Complaints(errors=1, known=1, inherited=1)
    assert sort_complaints(text, {"0.1.2"}, is_labelmap=False) == Complaints(errors=2, known=0, inherited=1)
