"""Results of multi-frame sources: they lie on the frames and refer to them by number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from effvit_med.errors import GeometryError, InputError
from effvit_med.io.dicom_seg import SegOptions, write_dicom_seg
from effvit_med.io.dicom_seg_headers import read_headers
from effvit_med.io.dicom_sr import write_dicom_sr
from effvit_med.io.rtstruct import write_rtstruct
from effvit_med.volume import Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.io.independent import errors_of, make_grid, needs_dcmqi, read_with_dcmqi, sample
from tests.io.multiframe_series import write_multiframe
from tests.io.source_series import random_labels, segment

ORDER = [3, 0, 4, 2, 1]
UID = "1.2.826.0.1.3680043.8.498.2.9"


@pytest.fixture(name="segmentation", params=[True, False], ids=["shared groups", "own groups"])
def _segmentation(tmp_path: Path, request: pytest.FixtureRequest) -> Segmentation:
    """Labels of an oblique series whose frames are shuffled."""
    geometry = make_grid("oblique", (5, 12, 10))
    return segment(write_multiframe(tmp_path, geometry, ORDER, shared=request.param), random_labels((5, 12, 10)))


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_every_frame_of_the_seg_names_its_source_frame_and_lies_on_it(
    tmp_path: Path, segmentation: Segmentation, kind: str
) -> None:
    """A frame refers to object and frame number, and stands where that frame stands."""
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    source, seg = pydicom.dcmread(tmp_path / "enhanced.dcm"), pydicom.dcmread(tmp_path / "seg.dcm")
    numbers = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        named = source.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
        found, wanted = (group.PlanePositionSequence[0].ImagePositionPatient for group in (frame, named))
        assert reference.ReferencedSOPInstanceUID == UID
        assert np.allclose(found, wanted, atol=1e-6)
        numbers.add(int(reference.ReferencedFrameNumber))
    assert numbers == {1, 3, 4, 5}  # the first slice, frame 2, is empty
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    assert kind == "labelmap" or errors_of(tmp_path / "seg.dcm") == []


@needs_dcmqi
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_another_program_finds_every_voxel(tmp_path: Path, segmentation: Segmentation, kind: str) -> None:
    """The program dcmqi reads the labels at their place in the patient."""
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    found = sum(
        sample(image, segmentation.geometry) > 0 for image in read_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "o")
    )
    assert np.array_equal(found > 0, segmentation.labels > 0)


def test_contours_name_their_source_frame(tmp_path: Path, segmentation: Segmentation) -> None:
    """A contour refers to object and frame number, the structure set once to the object."""
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    images = [contour.ContourImageSequence[0] for roi in dataset.ROIContourSequence for contour in roi.ContourSequence]
    series = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert {(image.ReferencedSOPInstanceUID, int(image.ReferencedFrameNumber)) for image in images} == {
        (UID, number) for number in (1, 3, 4, 5)
    }
    assert [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence] == [UID]
    assert errors_of(tmp_path / "rt.dcm") == []


def test_report_lists_the_object_once(tmp_path: Path, segmentation: Segmentation) -> None:
    """The evidence of a report is the object and the SEG."""
    volume = Volume(np.zeros(segmentation.labels.shape), segmentation.geometry, "CT", segmentation.provenance.source)
    write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    write_dicom_sr(segmentation, measure(volume, segmentation), tmp_path / "seg.dcm", tmp_path / "sr.dcm")
    study = pydicom.dcmread(tmp_path / "sr.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    images = [
        [item.ReferencedSOPInstanceUID for item in s.ReferencedSOPSequence] for s in study.ReferencedSeriesSequence
    ]
    assert images == [[UID], [pydicom.dcmread(tmp_path / "seg.dcm").SOPInstanceUID]]
    assert errors_of(tmp_path / "sr.dcm") == []


def _renumber(segmentation: Segmentation, change: Callable[[int], int]) -> Segmentation:
    source = segmentation.provenance.source
    files = tuple(replace(file, frame=change(file.frame)) for file in source.files)
    provenance = replace(segmentation.provenance, source=replace(source, files=files))
    return segmentation.with_provenance(provenance)


def test_frames_in_another_order_are_refused(tmp_path: Path, segmentation: Segmentation) -> None:
    """Labels are never written onto a frame that lies elsewhere."""
    wrong = _renumber(segmentation, lambda number: 6 - number)
    with pytest.raises(GeometryError, match="not on the grid of the source slices"):
        write_dicom_seg(wrong, tmp_path / "seg.dcm")
    with pytest.raises(GeometryError, match="not on the grid of the source slices"):
        write_rtstruct(wrong, tmp_path / "rt.dcm")


def test_frame_that_does_not_exist_is_named(tmp_path: Path, segmentation: Segmentation) -> None:
    """A frame number beyond the last is an error that says how many there are."""
    with pytest.raises(InputError, match=r"enhanced\.dcm has 5 frames, but frame 12 was segmented"):
        write_dicom_seg(_renumber(segmentation, lambda number: number + 10), tmp_path / "seg.dcm")


def test_multiframe_file_without_a_frame_number_is_refused(tmp_path: Path, segmentation: Segmentation) -> None:
    """Where it is not known which frame was segmented nothing is written."""
    with pytest.raises(InputError, match=r"5 frames, and it is not known which"):
        write_dicom_seg(_renumber(segmentation, lambda _: 0), tmp_path / "seg.dcm")


def test_headers_of_frames_are_those_of_single_slices(tmp_path: Path, segmentation: Segmentation) -> None:
    """Position, direction, pixel size and thickness come from the functional groups of the frame."""
    headers = read_headers(segmentation.provenance.source.files, segmentation.geometry)
    positions = np.array([part.ImagePositionPatient for part in headers.slices], float)
    assert np.allclose(positions, segmentation.geometry.index_to_world([[k, 0, 0] for k in range(5)]), atol=1e-4)
    sizes = np.array([[*part.PixelSpacing, part.SliceThickness] for part in headers.slices], float)
    assert np.allclose(sizes, [0.9, 0.7, 3.0], atol=1e-6)


def test_two_volumes_of_one_file_are_two_objects(tmp_path: Path, segmentation: Segmentation) -> None:
    """Phases of one multi-frame file share its bytes but not identity, so their results do not replace one another."""
    other = _renumber(segmentation, lambda number: number + 5)
    assert other.provenance.identity() != segmentation.provenance.identity()


def test_changed_or_lost_multiframe_file_is_named(tmp_path: Path, segmentation: Segmentation) -> None:
    """A file that is not what was segmented, or gone, is named."""
    path = tmp_path / "enhanced.dcm"
    path.write_bytes(path.read_bytes() + b"\0\0")
    with pytest.raises(InputError, match=r"enhanced\.dcm has changed"):
        write_rtstruct(segmentation, tmp_path / "rt.dcm")
    path.unlink()
    with pytest.raises(InputError, match=r"enhanced\.dcm cannot be read again"):
        write_dicom_seg(segmentation, tmp_path / "seg.dcm")
