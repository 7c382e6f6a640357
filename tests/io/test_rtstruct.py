"""RT structure sets: other programs fill the contours and get the labels back, wherever the slices lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from effvit_med.errors import GeometryError, InputError, OutputError
from effvit_med.io.dicom_seg import write_dicom_seg
from effvit_med.io.dicom_seg_headers import read_headers
from effvit_med.io.rtstruct import write_rtstruct
from effvit_med.io.rtstruct_check import check_contours
from effvit_med.volume import Geometry, LabelTable, Segmentation, Volume
from tests.geometries import geometries
from tests.io.independent import (
    ORIENTATIONS,
    draw_shapes,
    errors_of,
    make_grid,
    needs_dciodvfy,
    needs_plastimatch,
    read_with_plastimatch,
    sample,
)
from tests.io.source_series import FRAME_UID, TABLE, axial, change_file, random_labels, segment, write_series


def read_back(path: Path, segmentation: Segmentation) -> np.ndarray:
    """The labels that the standard's equation and matplotlib find in a file, slice by slice as it names them."""
    dataset = pydicom.dcmread(path)
    headers = [pydicom.dcmread(file.path, stop_before_pixels=True) for file in segmentation.provenance.source.files]
    slice_of = {str(header.SOPInstanceUID): k for k, header in enumerate(headers)}
    labels = np.zeros(segmentation.labels.shape, np.uint16)
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    for roi in dataset.ROIContourSequence:
        value = TABLE.by_name(names[int(roi.ReferencedROINumber)]).value
        for contour in roi.get("ContourSequence", []):
            k = slice_of[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            labels[k][_inside(points, headers[k])] = value
    return labels


def _inside(points: np.ndarray, header: pydicom.Dataset) -> np.ndarray:
    cosines = np.array(header.ImageOrientationPatient, float)
    between_rows, between_columns = map(float, header.PixelSpacing)
    offset = points - np.array(header.ImagePositionPatient, float)
    assert np.abs(offset @ np.cross(cosines[:3], cosines[3:])).max() < 0.002
    path = np.stack([offset @ cosines[3:] / between_rows, offset @ cosines[:3] / between_columns], axis=1)
    shape = (int(header.Rows), int(header.Columns))
    centres = np.indices(shape).reshape(2, -1).T
    return Outline(np.vstack([path, path[:1]]), closed=True).contains_points(centres).reshape(shape)


@needs_plastimatch
@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_plastimatch_gets_every_voxel_back(tmp_path: Path, name: str) -> None:
    """In every orientation and with non-square pixels another program finds ring, island, single voxels and line."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", make_grid(name))
    segmentation = segment(volume, draw_shapes(volume.geometry.shape))
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    masks = read_with_plastimatch(tmp_path / "rt.dcm", tmp_path / "series", tmp_path / "masks")
    for label in TABLE:
        found = sample(masks[label.name], volume.geometry) > 0
        assert np.array_equal(found, segmentation.labels == label.value), label.name


@needs_plastimatch
def test_plastimatch_gets_noise_back(tmp_path: Path) -> None:
    """Hundreds of holes, islands and voxels that touch at corners are no obstacle."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", make_grid("prone"))
    segmentation = segment(volume, random_labels(volume.geometry.shape, values=(0, 1, 1, 1, 1, 2)))
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    masks = read_with_plastimatch(tmp_path / "rt.dcm", tmp_path / "series", tmp_path / "masks")
    for name, value in (("liver", 1), ("kidney_left", 2)):
        assert np.array_equal(sample(masks[name], volume.geometry) > 0, segmentation.labels == value)


@given(geometry=geometries(), seed=st.integers(0, 99))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_any_source_geometry_keeps_every_voxel(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry, seed: int
) -> None:
    """Oblique, tilted, non-square or with uneven slices: contours lie on their slices and hold their voxels."""
    folder = tmp_path_factory.mktemp("series")
    geometry = Geometry(geometry.affine, geometry.shape, FRAME_UID, geometry.slice_offsets, 0)
    segmentation = segment(write_series(folder, geometry), random_labels(geometry.shape, seed))
    write_rtstruct(segmentation, folder / "rt.dcm")
    assert np.array_equal(read_back(folder / "rt.dcm", segmentation), segmentation.labels)


@needs_dciodvfy
def test_independent_checker_finds_no_error(tmp_path: Path) -> None:
    """The checker dciodvfy has nothing to complain about."""
    volume = write_series(tmp_path, axial())
    write_rtstruct(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")
    assert errors_of(tmp_path / "rt.dcm") == []


def test_numbers_are_short_and_have_three_decimals(tmp_path: Path) -> None:
    """No number is longer than the 16 characters of a decimal string, even far from the origin."""
    affine = axial().affine.copy()
    affine[:3, 3] += 123456.78901
    volume = write_series(tmp_path, Geometry(affine, axial().shape, FRAME_UID))
    write_rtstruct(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")
    for roi in pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence:
        for contour in roi.ContourSequence:
            numbers = contour.get_item("ContourData").value.decode().strip().split("\\")
            assert len(numbers) == 3 * contour.NumberOfContourPoints
            assert all(len(number) <= 16 and number[-4] == "." for number in numbers)


def test_every_reference_names_the_source(tmp_path: Path) -> None:
    """Study, series, frame of reference and every image are those of the source."""
    volume = write_series(tmp_path, axial())
    write_rtstruct(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert (frame.FrameOfReferenceUID, dataset.FrameOfReferenceUID) == (FRAME_UID, FRAME_UID)
    assert {roi.ReferencedFrameOfReferenceUID for roi in dataset.StructureSetROISequence} == {FRAME_UID}
    assert frame.RTReferencedStudySequence[0].ReferencedSOPInstanceUID == volume.source.study_instance_uid
    assert dataset.StudyInstanceUID == volume.source.study_instance_uid
    assert series.SeriesInstanceUID == volume.source.series_instance_uid
    found = [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence]
    assert found == [file.sop_instance_uid for file in volume.source.files]


def test_codes_sides_colours_and_tracking_are_there(tmp_path: Path) -> None:
    """Every ROI says what it is, on which side, in which colour, how it was made, and is tracked as in the SEG."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    dataset, seg = pydicom.dcmread(tmp_path / "rt.dcm"), pydicom.dcmread(tmp_path / "seg.dcm")
    tracked = {item.SegmentLabel: item.TrackingUID for item in seg.SegmentSequence}
    parts = zip(TABLE, dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence,
                strict=True)  # fmt: skip
    for label, roi, contours, observation in parts:
        code = observation.RTROIIdentificationCodeSequence[0]
        sides = [side.CodeValue for side in code.get("SegmentedPropertyTypeModifierCodeSequence", [])]
        assert (roi.ROIName, roi.ROINumber, roi.ROIGenerationAlgorithm) == (label.name, label.value, "AUTOMATIC")
        assert (roi.ReferencedFrameOfReferenceUID, roi.TrackingUID) == (FRAME_UID, tracked[label.name])
        assert (code.CodeValue, code.CodingSchemeDesignator) == (label.type.value, "SCT")
        assert sides == ([label.laterality.value] if label.laterality else [])
        assert tuple(contours.ROIDisplayColor) == label.colour
        assert {contour.ContourGeometricType for contour in contours.ContourSequence} == {"CLOSED_PLANAR"}


def test_file_says_what_made_it_and_not_to_use_it(tmp_path: Path) -> None:
    """Maker, versions, time and notice are ours; the set is not approved."""
    volume = write_series(tmp_path, axial())
    write_rtstruct(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert (dataset.Manufacturer, dataset.Modality, dataset.ApprovalStatus) == ("effvit-med", "RTSTRUCT", "UNAPPROVED")
    assert list(dataset.SoftwareVersions) == ["effvit-med 0.1.0", "torch 2.13.0"]
    assert "Not for clinical use" in dataset.StructureSetDescription
    assert (dataset.StructureSetDate, dataset.SeriesDescription) == ("20240501", "ct_organs 1.2.0")


def test_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    """Writing twice gives the same file, so that an archive stores it once."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    for name in ("one.dcm", "two.dcm"):
        write_rtstruct(segmentation, tmp_path / name)
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_other_labels_give_another_instance(tmp_path: Path) -> None:
    """Two different label maps of one run cannot replace one another in an archive."""
    volume = write_series(tmp_path, axial())
    uids = set()
    for seed in (0, 1):
        write_rtstruct(segment(volume, random_labels(volume.geometry.shape, seed)), tmp_path / "rt.dcm")
        uids.add(str(pydicom.dcmread(tmp_path / "rt.dcm").SOPInstanceUID))
    assert len(uids) == 2


@needs_dciodvfy
def test_empty_result_is_a_valid_file_with_one_roi_without_contours(tmp_path: Path) -> None:
    """Where nothing was found the file says so by an ROI that has no contour."""
    volume = write_series(tmp_path, axial())
    notes = write_rtstruct(segment(volume, np.zeros(volume.geometry.shape, np.uint8)), tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert any("No structure was found" in note for note in notes)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["liver"]
    assert "ContourSequence" not in dataset.ROIContourSequence[0]
    assert errors_of(tmp_path / "rt.dcm") == []


def test_absent_structure_has_no_roi_and_is_named(tmp_path: Path) -> None:
    """A structure that was not found is not in the file, and a note names it."""
    volume = write_series(tmp_path, axial())
    notes = write_rtstruct(segment(volume, random_labels(axial().shape, values=(0, 1, 7))), tmp_path / "rt.dcm")
    names = [roi.ROIName for roi in pydicom.dcmread(tmp_path / "rt.dcm").StructureSetROISequence]
    assert names == ["liver", "spleen"]
    assert notes == ("Not found and therefore without an ROI: kidney_left, kidney_right.",)


def test_other_frame_of_reference_is_refused(tmp_path: Path) -> None:
    """Equal numbers in another frame of reference are another place."""
    volume = write_series(tmp_path, axial())
    other = Volume(volume.array, Geometry(axial().affine, axial().shape, "1.2.3.4"), "CT", volume.source)
    with pytest.raises(GeometryError, match=r"the labels have 1\.2\.3\.4"):
        write_rtstruct(segment(other, random_labels(axial().shape)), tmp_path / "rt.dcm")


@pytest.mark.parametrize("shift_mm", [0.1, -3.0, 400.0])
def test_labels_off_the_source_grid_are_refused(tmp_path: Path, shift_mm: float) -> None:
    """Labels whose geometry lies elsewhere than the slices are never written."""
    volume = write_series(tmp_path, axial())
    affine = volume.geometry.affine.copy()
    affine[2, 3] += shift_mm
    moved = Volume(volume.array, Geometry(affine, volume.geometry.shape, FRAME_UID), "CT", volume.source)
    with pytest.raises(GeometryError, match="labels are not on the grid of the source slices"):
        write_rtstruct(segment(moved, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")
    assert not (tmp_path / "rt.dcm").exists()


def test_changed_source_is_refused_by_name(tmp_path: Path) -> None:
    """A source file that is not what was segmented is named."""
    volume = write_series(tmp_path, axial())
    change_file(volume.source.files[2].path, PatientID="other")
    with pytest.raises(InputError, match=r"slice002\.dcm has changed"):
        write_rtstruct(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "rt.dcm")


def test_labels_of_a_volume_without_dicom_are_refused(tmp_path: Path) -> None:
    """A structure set cannot be made without DICOM slices to refer to."""
    volume = Volume(np.zeros((2, 4, 4)), axial((2, 4, 4)))
    with pytest.raises(OutputError, match="A DICOM structure set refers to the DICOM slices"):
        write_rtstruct(segment(volume, np.zeros((2, 4, 4), np.uint8)), tmp_path / "rt.dcm")


def test_contours_that_leave_a_voxel_out_are_found(tmp_path: Path) -> None:
    """The check after writing finds a voxel that no contour holds, and one that a wrong contour holds."""
    volume = write_series(tmp_path, axial())
    labels = draw_shapes((6, 20, 24))[:5, :12, :10].copy()
    segmentation = segment(volume, labels)
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    headers = read_headers(volume.source.files, volume.geometry)
    check_contours(tmp_path / "rt.dcm", segmentation, headers)
    more, less = labels.copy(), labels.copy()
    more[0, 5, 5], less[0, 0, 0] = 2, 0
    with pytest.raises(OutputError, match="leave out 1 labelled voxels"):
        check_contours(tmp_path / "rt.dcm", segment(volume, more), headers)
    with pytest.raises(OutputError, match="contour of slice 0 holds voxels without its label"):
        check_contours(tmp_path / "rt.dcm", segment(volume, less), headers)


def test_contour_that_left_its_slice_is_found(tmp_path: Path) -> None:
    """The check after writing finds a contour that lies in the plane of the next slice."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = [float(x) + 3.0 * (i % 3 == 2) for i, x in enumerate(contour.ContourData)]
    dataset.save_as(tmp_path / "rt.dcm")
    with pytest.raises(GeometryError, match="lies 1 slices away"):
        check_contours(tmp_path / "rt.dcm", segmentation, read_headers(volume.source.files, volume.geometry))


def test_structures_that_overlap_are_each_whole(tmp_path: Path) -> None:
    """The contours of each hold what is there of it alone and with others."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", axial())
    labels = random_labels(volume.geometry.shape, values=(0, 1, 2, 3))
    rows = tuple(TABLE)[:2]
    assert [label.value for label in rows] == [1, 2]
    segmentation = segment(volume, labels, LabelTable(rows).with_sums({3}))
    write_rtstruct(segmentation, tmp_path / "rt.dcm")
    dataset = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [int(roi.ROINumber) for roi in dataset.StructureSetROISequence] == [1, 2]
    headers = [pydicom.dcmread(file.path, stop_before_pixels=True) for file in segmentation.provenance.source.files]
    slice_of = {str(header.SOPInstanceUID): k for k, header in enumerate(headers)}
    for roi in dataset.ROIContourSequence:
        found = np.zeros(labels.shape, bool)
        for contour in roi.ContourSequence:
            k = slice_of[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            found[k] |= _inside(np.array(contour.ContourData, float).reshape(-1, 3), headers[k])
        np.testing.assert_array_equal(found, labels & int(roi.ReferencedROINumber) > 0)
