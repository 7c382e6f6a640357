"""DICOM segmentations: the right voxels at the right place with the right meaning, from sources of every kind."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from effvit_med.errors import GeometryError, InputError, OutputError
from effvit_med.io.dicom_seg import SegOptions, write_dicom_seg
from effvit_med.io.dicom_seg_check import check_positions, check_voxels
from effvit_med.io.dicom_seg_headers import read_headers
from effvit_med.volume import Code, Geometry, Label, LabelTable, Segmentation, Volume
from tests.geometries import geometries
from tests.io.source_series import (
    FRAME_UID,
    LEFT,
    LIVER,
    SPLEEN,
    TABLE,
    axial,
    change_file,
    random_labels,
    segment,
    write_series,
)

pytestmark = pytest.mark.filterwarnings("ignore:The number of bytes of compressed pixel data")  # of tiny frames
KINDS = ["binary", "labelmap"]


def read_back(path: Path, segmentation: Segmentation) -> np.ndarray:
    """The label values that another program reads on each source slice."""
    seg = hd.seg.segread(path)
    uids = [file.sop_instance_uid for file in segmentation.provenance.source.files]
    if seg.segmentation_type.value == "LABELMAP":  # its values are the label values
        return seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    labels = np.zeros(pixels.shape[:3], np.uint16)
    for column, number in enumerate(seg.segment_numbers):
        name = seg.get_segment_description(number).SegmentLabel
        labels[pixels[..., column] > 0] = segmentation.table.by_name(name).value
    return labels


def points_of_file(path: Path, value_of: dict[str, int]) -> set[tuple[float, ...]]:
    """Every labelled voxel of a file as (x, y, z, value), rounded to 0.02 mm, from the standard's equation alone."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    values = {int(item.SegmentNumber): value_of.get(item.SegmentLabel, 0) for item in dataset.SegmentSequence}
    points = set()
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, group in zip(pixels, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        holder = group if "SegmentIdentificationSequence" in group else shared
        for row, column in np.argwhere(frame):
            world = corner + cosines[:3] * column_mm * column + cosines[3:] * row_mm * row
            if dataset.SegmentationType == "BINARY":
                number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            else:
                number = frame[row, column]
            points.add((*np.round(world / 0.02).tolist(), values[int(number)]))
    return points


def points_of_labels(segmentation: Segmentation) -> set[tuple[float, ...]]:
    """Every labelled voxel of a segmentation as (x, y, z, value), rounded to 0.02 mm."""
    index = np.argwhere(segmentation.labels)
    world = np.round(segmentation.geometry.index_to_world(index) / 0.02)
    return {(*point, int(segmentation.labels[tuple(i)])) for point, i in zip(world.tolist(), index, strict=True)}


def same_points(first: set[tuple[float, ...]], second: set[tuple[float, ...]]) -> bool:
    """Whether two point sets agree, one step of rounding apart at most."""
    one, two = np.array(sorted(first)), np.array(sorted(second))
    if one.shape != two.shape:
        return False
    distance = np.abs(one[:, None, :3] - two[None, :, :3]).max(axis=2) <= 1
    return bool((distance & (one[:, None, 3] == two[None, :, 3])).any(axis=1).all())


@given(geometry=geometries(), seed=st.integers(0, 99), kind=st.sampled_from(KINDS))
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_any_source_geometry_keeps_every_voxel_and_place(
    tmp_path_factory: pytest.TempPathFactory, geometry: Geometry, seed: int, kind: str
) -> None:
    """Prone, oblique, tilted, non-square or with uneven slices: each voxel is read at its own world point."""
    assume(geometry.shape[1] * geometry.shape[2] >= 8)  # highdicom 0.28 packs fewer pixels wrongly; we refuse them
    folder = tmp_path_factory.mktemp("series")
    geometry = right_angled_rows(geometry)
    volume = write_series(folder, geometry)
    segmentation = segment(volume, random_labels(geometry.shape, seed))
    write_dicom_seg(segmentation, folder / "seg.dcm", SegOptions(kind))
    assert np.array_equal(read_back(folder / "seg.dcm", segmentation), segmentation.labels)
    values = {label.name: label.value for label in TABLE}
    assert same_points(points_of_file(folder / "seg.dcm", values), points_of_labels(segmentation))


def right_angled_rows(geometry: Geometry) -> Geometry:
    """The geometry with slices along axis 0, as a DICOM series has them."""
    return Geometry(geometry.affine, geometry.shape, FRAME_UID, geometry.slice_offsets, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_regular_series_is_read_as_one_volume_in_place(tmp_path: Path, kind: str) -> None:
    """The volume reader of highdicom finds the labels on the source grid."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    target = hd.VolumeGeometry(
        affine=volume.geometry.affine, spatial_shape=volume.geometry.shape, coordinate_system="PATIENT",
        frame_of_reference_uid=FRAME_UID,
    )  # fmt: skip
    found = seg.get_volume(combine_segments=True, relabel=True).match_geometry(target, tol=1e-2)
    relabelled = np.searchsorted([0, 1, 2, 3, 7], segmentation.labels)
    assert np.array_equal(found.array, relabelled)


@pytest.mark.parametrize("kind", KINDS)
def test_oblique_with_six_digits_is_written(tmp_path: Path, kind: str) -> None:
    """Positions and cosines rounded to 6 decimals, as scanners write them, are no obstacle."""
    geometry = oblique(axial((4, 9, 11)))
    volume = write_series(tmp_path, geometry, digits=6)
    segmentation = segment(volume, random_labels(geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    assert np.array_equal(read_back(tmp_path / "seg.dcm", segmentation), segmentation.labels)


def oblique(geometry: Geometry) -> Geometry:
    """The geometry turned by 17 degrees about x and 23 about z."""
    a, b = np.radians([17.0, 23.0])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3] = about_z @ about_x @ geometry.affine[:3]
    return Geometry(affine, geometry.shape, FRAME_UID)


def test_directions_that_are_no_unit_vectors_are_made_exact(tmp_path: Path) -> None:
    """A viewer multiplies pixel spacing by the directions: cosines of length 0.9996 would shrink the labels."""

    def shorten(k: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [round(0.9996 * float(value), 6) for value in dataset.ImageOrientationPatient]

    volume = write_series(tmp_path, axial(), shorten)
    notes = write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "out.dcm")
    shared = pydicom.dcmread(tmp_path / "out.dcm").SharedFunctionalGroupsSequence[0]
    assert [float(x) for x in shared.PlaneOrientationSequence[0].ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    assert any("unit vectors" in note for note in notes)


def test_jitter_of_directions_is_levelled_and_told(tmp_path: Path) -> None:
    """Orientations that differ by 2e-5 between slices become one, with a note."""

    def jitter(k: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1.0 - 2e-10 * k, 2e-5 * k / 4, 0.0, -2e-5 * k / 4, 1.0, 0.0]

    volume = write_series(tmp_path, axial(), jitter)
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    assert any("ImageOrientationPatient differs" in note for note in notes)
    assert np.array_equal(read_back(tmp_path / "seg.dcm", segmentation), segmentation.labels)


@pytest.mark.parametrize("kind", KINDS)
def test_tilted_source_is_written_and_the_user_warned(tmp_path: Path, kind: str) -> None:
    """Frames of a gantry-tilted series lie on the slices, and a note says that viewers may differ."""
    affine = axial().affine.copy()
    affine[1, 0] = 3.0 * np.tan(np.radians(15))
    volume = write_series(tmp_path, Geometry(affine, (5, 8, 8), FRAME_UID))
    segmentation = segment(volume, random_labels((5, 8, 8)))
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    assert any("tilted" in note for note in notes)
    assert np.array_equal(read_back(tmp_path / "seg.dcm", segmentation), segmentation.labels)


def test_wrong_slice_distance_in_the_header_is_not_copied(tmp_path: Path) -> None:
    """Where SpacingBetweenSlices contradicts the positions, the positions win and it is told."""
    volume = write_series(tmp_path, axial(), lambda k, dataset: setattr(dataset, "SpacingBetweenSlices", "5.0"))
    notes = write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    measures = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SpacingBetweenSlices == pytest.approx(3.0)
    assert any("SpacingBetweenSlices says 5 mm, the positions say 3 mm" in note for note in notes)


MISSING = [
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "Modality", "SliceThickness", "PositionReferenceIndicator",
    "SpecificCharacterSet", "Manufacturer",
]  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_missing_attribute_is_no_obstacle(tmp_path: Path, name: str) -> None:
    """A de-identified source without an attribute still gives a valid file, with a note where one was needed."""
    volume = write_series(tmp_path, axial(), lambda k, dataset: delattr(dataset, name))
    notes = write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentationType == "BINARY"
    silent = {"PositionReferenceIndicator", "SpecificCharacterSet", "Manufacturer"}
    assert name in silent or any(name in note for note in notes)
    assert errors_of(tmp_path / "seg.dcm") == []


def test_everything_missing_at_once_is_no_obstacle(tmp_path: Path) -> None:
    """All of these attributes may be missing together."""

    def strip(k: int, dataset: Dataset) -> None:
        for name in MISSING:
            delattr(dataset, name)

    volume = write_series(tmp_path, axial(), strip)
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    assert errors_of(tmp_path / "seg.dcm") == []


INVALID = [
    ("PatientSex", "X"), ("PatientBirthDate", "20260230"), ("StudyDate", "2024-05-01"), ("StudyTime", "256161"),
    ("PatientAge", "50"), ("StudyDescription", "x" * 80), ("SliceThickness", "thin"), ("SliceThickness", "-1"),
    ("PatientWeight", "heavy"), ("PatientID", "P" * 80), ("AccessionNumber", "A" * 20), ("Modality", "computed x-ray"),
    ("SpacingBetweenSlices", "far"), ("TimezoneOffsetFromUTC", "noon"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_invalid_value_is_no_obstacle(tmp_path: Path, name: str, value: str) -> None:
    """A value that breaks the rules of DICOM is left out of the copy, and the result is a valid file."""

    def spoil(k: int, dataset: Dataset) -> None:
        tag = pydicom.tag.Tag(name)
        kind = pydicom.datadict.dictionary_VR(tag)
        padded = value.encode() + b" " * (len(value) % 2)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(padded), padded, 0, False, True)

    volume = write_series(tmp_path, axial(), spoil)
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(strip_free_text=False))
    assert name in ("SpacingBetweenSlices", "TimezoneOffsetFromUTC") or any(name in note for note in notes)
    assert not any(value in note for note in notes if len(value) > 2)
    assert errors_of(tmp_path / "seg.dcm") == []


def test_missing_frame_of_reference_is_made_from_the_series(tmp_path: Path) -> None:
    """A source without a frame of reference gets one that is the same for every run."""
    geometry = Geometry(axial().affine, (3, 8, 8))
    volume = write_series(tmp_path, geometry, lambda k, dataset: delattr(dataset, "FrameOfReferenceUID"))
    segmentation = segment(volume, random_labels(geometry.shape))
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    assert any("FrameOfReferenceUID" in note for note in notes)
    assert pydicom.dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID.startswith("2.25.")


@pytest.mark.parametrize("uid", ["1.2.111.10008.2.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.12.2"])
def test_class_of_the_source_that_highdicom_cannot_build_on_is_referred_to(tmp_path: Path, uid: str) -> None:
    """An unknown or unusual SOP class is no obstacle, and every reference names it as it is."""
    volume = write_series(tmp_path, axial(), lambda k, dataset: setattr(dataset, "SOPClassUID", uid))
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    classes = [element.value for element in dataset.iterall() if element.keyword == "ReferencedSOPClassUID"]
    assert len(classes) == 2 * 5 + int(dataset.NumberOfFrames)
    assert set(classes) == {uid}


def test_lists_of_numbers_are_no_reason_to_complain(tmp_path: Path) -> None:
    """A valid header gives no note."""

    def add(k: int, dataset: Dataset) -> None:
        dataset.AcquisitionMatrix, dataset.EthnicGroup, dataset.PatientAge = [80, 0, 0, 80], "none", "050Y"

    volume = write_series(tmp_path, axial(), add)
    assert write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm") == ()


def test_source_uids_that_break_the_rules_are_kept(tmp_path: Path) -> None:
    """A source whose UIDs have leading zeros is referred to by them, since the archive knows it by them."""

    def spoil(k: int, dataset: Dataset) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.SOPInstanceUID = f"1.2.3.00{k}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = write_series(tmp_path, axial(), spoil)
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    assert write_dicom_seg(segmentation, tmp_path / "seg.dcm") == ()
    assert b"1.2.3.003" in (tmp_path / "seg.dcm").read_bytes()


def test_names_in_other_scripts_survive(tmp_path: Path) -> None:
    """A name in an old Japanese character set arrives as Unicode."""

    def rename(k: int, dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName = "Yamada^Tarou=山田^太郎"

    volume = write_series(tmp_path, axial(), rename)
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (str(dataset.PatientName), dataset.SpecificCharacterSet) == ("Yamada^Tarou=山田^太郎", "ISO_IR 192")


def test_free_text_can_be_left_out(tmp_path: Path) -> None:
    """Comments on the patient stay behind unless they are asked for; the patient's name stays."""

    def comment(k: int, dataset: Dataset) -> None:
        dataset.PatientComments, dataset.StudyDescription = "lives next door", "secret history"
        dataset.InstitutionName = "Village hospital"

    volume = write_series(tmp_path, axial(), comment)
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "all.dcm", SegOptions(strip_free_text=False))
    write_dicom_seg(segmentation, tmp_path / "less.dcm")
    texts = [b"lives next door", b"secret history", b"Village hospital"]
    assert [text in (tmp_path / "all.dcm").read_bytes() for text in texts] == [True] * 3
    assert [text in (tmp_path / "less.dcm").read_bytes() for text in texts] == [False] * 3
    assert str(pydicom.dcmread(tmp_path / "less.dcm").PatientName) == "Doe^Jane"


@pytest.mark.parametrize("kind", KINDS)
def test_codes_and_sides_are_read_back(tmp_path: Path, kind: str) -> None:
    """Type, category, side, colour, tracking and algorithm of every segment survive."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    for number, label in zip(seg.segment_numbers, TABLE, strict=True):
        item = seg.get_segment_description(number)
        type_item = item.SegmentedPropertyTypeCodeSequence[0]
        sides = type_item.get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert item.SegmentLabel == label.name
        assert (type_item.CodeValue, type_item.CodeMeaning) == (label.type.value, label.type.meaning)
        assert item.segmented_property_category.value == label.category.value
        assert [side.CodeValue for side in sides] == ([label.laterality.value] if label.laterality else [])
        colour = hd.color.CIELabColor.from_dicom_value(tuple(item.RecommendedDisplayCIELabValue)).to_rgb()
        assert np.abs(np.subtract(colour, label.colour)).max() <= 1
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (item.SegmentAlgorithmType, algorithm.AlgorithmName) == ("AUTOMATIC", "ct_organs")
        assert "weights_sha256=" + "a" * 64 in algorithm.AlgorithmParameters
        assert item.TrackingUID.startswith("2.25.")


def test_segment_numbers_run_on_in_binary_and_are_label_values_in_labelmap(tmp_path: Path) -> None:
    """Labels 1 and 7 are segments 1 and 2 of a binary file, 1 and 7 of a labelmap."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape, values=(0, 1, 7)))
    numbers = {}
    for kind in KINDS:
        notes = write_dicom_seg(segmentation, tmp_path / f"{kind}.dcm", SegOptions(kind))
        numbers[kind] = list(hd.seg.segread(tmp_path / f"{kind}.dcm").segment_numbers)
        assert any("kidney_left, kidney_right" in note for note in notes)
    assert numbers == {"binary": [1, 2], "labelmap": [1, 7]}


def test_more_than_255_labels_fit(tmp_path: Path) -> None:
    """A label value of 300 survives in a 16-bit labelmap and as a binary segment."""
    table = LabelTable((LIVER, Label(300, "rib", Code("113197003", "Rib"))))
    volume = write_series(tmp_path, axial())
    labels = random_labels(volume.geometry.shape, values=(0, 1)).astype(np.uint16) * 300
    labels[2, :3] = 1
    segmentation = segment(volume, labels, table)
    for kind in KINDS:
        write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
        assert np.array_equal(read_back(tmp_path / "seg.dcm", segmentation), labels)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_result_is_a_valid_file_with_one_empty_segment(tmp_path: Path, kind: str) -> None:
    """Where nothing was found the file says so and holds no labelled voxel."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, np.zeros(volume.geometry.shape, np.uint8))
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert any("No structure was found" in note for note in notes)
    assert not dataset.pixel_array.any()
    assert "No structure found" in dataset.ContentDescription
    assert list(hd.seg.segread(tmp_path / "seg.dcm").segment_numbers) == [1]
    assert kind == "labelmap" or errors_of(tmp_path / "seg.dcm") == []


@pytest.mark.parametrize("kind", KINDS)
def test_same_result_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    """Writing twice gives the same UIDs and the same file, so that an archive stores it once."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    for name in ("one.dcm", "two.dcm"):
        write_dicom_seg(segmentation, tmp_path / name, SegOptions(kind))
    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_two_kinds_share_tracking_but_not_instance_uids(tmp_path: Path) -> None:
    """Binary and labelmap of one run are two series whose segments track the same thing."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    files = {}
    for kind in KINDS:
        write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
        files[kind] = pydicom.dcmread(tmp_path / "seg.dcm")
    one, two = files["binary"], files["labelmap"]
    tracked = [{item.SegmentLabel: item.get("TrackingUID") for item in file.SegmentSequence} for file in (one, two)]
    assert one.SOPInstanceUID != two.SOPInstanceUID
    assert one.SeriesInstanceUID != two.SeriesInstanceUID
    assert {name: tracked[1][name] for name in tracked[0]} == tracked[0]


def test_file_says_what_made_it_and_not_to_use_it(tmp_path: Path) -> None:
    """Study, frame of reference and references are the source's; maker, times and notice are ours."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(series_number=77))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.StudyInstanceUID == volume.source.study_instance_uid
    assert dataset.FrameOfReferenceUID == FRAME_UID
    referenced = dataset.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == volume.source.series_instance_uid
    assert {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence} == {
        file.sop_instance_uid for file in volume.source.files
    }
    assert (dataset.Manufacturer, dataset.SeriesNumber) == ("effvit-med", 77)
    assert (dataset.SeriesDescription, dataset.SeriesDate) == ("ct_organs 1.2.0", "20240501")
    assert list(dataset.SoftwareVersions) == ["effvit-med 0.1.0", "torch 2.13.0"]
    assert "Not for clinical use" in dataset.ContentDescription
    makers = [item.Manufacturer for item in dataset.ContributingEquipmentSequence]
    assert "effvit-med" in makers


def errors_of(path: Path) -> list[str]:
    """The complaints of an independent checker of DICOM files, or none where it is not installed."""
    if shutil.which("dciodvfy") is None:
        return []
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_independent_checker_finds_no_error_in_binary(tmp_path: Path) -> None:
    """The checker dciodvfy has nothing to complain about in a binary file."""
    volume = write_series(tmp_path, axial())
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    assert errors_of(tmp_path / "seg.dcm") == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_independent_checker_knows_only_two_complaints_about_labelmap(tmp_path: Path) -> None:
    """The dciodvfy of 2022 does not know the label map object; it complains of that and of segment number 0 only."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions("labelmap"))
    unknown = [
        line
        for line in errors_of(tmp_path / "seg.dcm")
        if "Information Object Not found" not in line and "SegmentNumber" not in line
    ]
    assert unknown == []


def test_changed_source_is_refused_by_name(tmp_path: Path) -> None:
    """A source file that is not what was segmented is named."""
    volume = write_series(tmp_path, axial())
    change_file(volume.source.files[2].path, PatientID="other")
    with pytest.raises(InputError, match=r"slice002\.dcm has changed"):
        write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_lost_source_is_refused_by_name(tmp_path: Path) -> None:
    """A source file that is gone is named."""
    volume = write_series(tmp_path, axial())
    volume.source.files[1].path.unlink()
    with pytest.raises(InputError, match=r"slice001\.dcm cannot be read again"):
        write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")


def test_labels_of_a_volume_without_dicom_are_refused(tmp_path: Path) -> None:
    """A DICOM segmentation cannot be made without DICOM slices to refer to."""
    volume = Volume(np.zeros((2, 4, 4)), axial((2, 4, 4)))
    with pytest.raises(OutputError, match=r"made in memory; segment a DICOM series, or write NIfTI"):
        write_dicom_seg(segment(volume, np.zeros((2, 4, 4), np.uint8)), tmp_path / "seg.dcm")


@pytest.mark.parametrize("shift_mm", [0.1, -3.0, 400.0])
def test_labels_off_the_source_grid_are_refused(tmp_path: Path, shift_mm: float) -> None:
    """Labels whose geometry lies elsewhere than the slices are never written."""
    volume = write_series(tmp_path, axial())
    affine = volume.geometry.affine.copy()
    affine[2, 3] += shift_mm
    moved = Volume(volume.array, Geometry(affine, volume.geometry.shape, FRAME_UID), "CT", volume.source)
    with pytest.raises(GeometryError, match="labels are not on the grid of the source slices"):
        write_dicom_seg(segment(moved, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_flipped_labels_are_refused(tmp_path: Path) -> None:
    """Labels in another orientation than the slices are never written, even where the shape is the same."""
    volume = write_series(tmp_path, axial((5, 8, 8)))
    flipped = Volume(volume.array, volume.geometry.flipped(2), "CT", volume.source)
    with pytest.raises(GeometryError, match="not on the grid"):
        write_dicom_seg(segment(flipped, random_labels((5, 8, 8))), tmp_path / "seg.dcm")


def test_other_frame_of_reference_is_refused(tmp_path: Path) -> None:
    """Equal numbers in another frame of reference are another place."""
    volume = write_series(tmp_path, axial())
    other = Volume(volume.array, Geometry(axial().affine, axial().shape, "1.2.3.4"), "CT", volume.source)
    with pytest.raises(GeometryError, match=r"frame of reference 1\.2\.826.*the labels have 1\.2\.3\.4"):
        write_dicom_seg(segment(other, random_labels(axial().shape)), tmp_path / "seg.dcm")


def test_swapped_pixel_spacing_is_refused(tmp_path: Path) -> None:
    """A geometry with row and column spacing exchanged fails the check at the far corner."""
    volume = write_series(tmp_path, axial((3, 10, 10), (3.0, 0.9, 0.7)))
    swapped = Volume(volume.array, axial((3, 10, 10), (3.0, 0.7, 0.9)), "CT", volume.source)
    with pytest.raises(GeometryError, match="first to the last voxel"):
        write_dicom_seg(segment(swapped, random_labels((3, 10, 10))), tmp_path / "seg.dcm")


def test_cropped_labels_are_refused(tmp_path: Path) -> None:
    """Fewer slices than source files are refused with the numbers."""
    volume = write_series(tmp_path, axial())
    cropped = Volume(volume.array[:4], axial((4, 12, 10)), "CT", volume.source)
    with pytest.raises(OutputError, match="5 files, 4 slices"):
        write_dicom_seg(segment(cropped, random_labels((4, 12, 10))), tmp_path / "seg.dcm")


@pytest.mark.parametrize("kind", KINDS)
def test_file_with_one_wrong_voxel_is_not_kept(tmp_path: Path, kind: str) -> None:
    """The check after writing finds a single changed voxel."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    headers = read_headers(volume.source.files, volume.geometry)
    slices = check_positions(dataset, volume.geometry, headers)
    values = [1, 2, 3, 7] if kind == "binary" else []
    check_voxels(dataset, segmentation, slices, values)
    changed = segmentation.labels.copy()
    changed[3, 4, 5] = 2 if changed[3, 4, 5] != 2 else 1
    with pytest.raises(OutputError, match="frame of slice 3 differs"):
        check_voxels(dataset, segment(volume, changed), slices, values)


def test_labels_without_a_frame_are_found(tmp_path: Path) -> None:
    """The check after writing finds labels on a slice that has no frame."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    slices = check_positions(dataset, volume.geometry, read_headers(volume.source.files, volume.geometry))
    changed = segmentation.labels.copy()
    changed[0, 0, 0] = 1
    with pytest.raises(OutputError, match=r"holds \d+ labelled voxels of \d+"):
        check_voxels(dataset, segment(volume, changed), slices, [1, 2, 3, 7])


def test_frame_moved_after_building_is_found(tmp_path: Path) -> None:
    """The check before writing finds a frame that does not lie on its source slice."""
    volume = write_series(tmp_path, axial())
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0].ImagePositionPatient[0] += 0.02
    with pytest.raises(GeometryError, match=r"frame 3 lies at .* its source slice"):
        check_positions(dataset, volume.geometry, read_headers(volume.source.files, volume.geometry))


def test_positions_that_the_reader_straightened_are_accepted(tmp_path: Path) -> None:
    """A slice 0.03 mm off the regular grid is written where it is, on the label grid that the reader made."""

    def shake(k: int, dataset: Dataset) -> None:
        dataset.ImagePositionPatient[2] += 0.03 * (k == 2)

    volume = write_series(tmp_path, axial(), shake)
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), tmp_path / "seg.dcm")
    frames = pydicom.dcmread(tmp_path / "seg.dcm").PerFrameFunctionalGroupsSequence
    heights = {float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames}
    assert heights == {33.0, 36.03, 39.0, 42.0}


def test_unknown_kind_is_refused() -> None:
    """A kind that DICOM does not know is named with those that can be written."""
    with pytest.raises(OutputError, match="'surface'; choose one of binary, labelmap, fractional, auto"):
        SegOptions("surface")


def test_single_slice_is_written(tmp_path: Path) -> None:
    """One slice is a valid series."""
    volume = write_series(tmp_path, axial((1, 8, 9)))
    segmentation = segment(volume, random_labels((1, 8, 9)))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    assert np.array_equal(read_back(tmp_path / "seg.dcm", segmentation), segmentation.labels)


def test_long_names_are_cut_to_what_dicom_allows(tmp_path: Path) -> None:
    """A name of 100 letters and a backslash do not spoil the file."""
    table = LabelTable((Label(1, "x" * 100, Code("1", "m" * 100, "99TEST")), LEFT, SPLEEN))
    volume = write_series(tmp_path, axial())
    write_dicom_seg(segment(volume, random_labels(axial().shape, values=(0, 1)), table), tmp_path / "seg.dcm")
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence[0].SegmentLabel == "x" * 64


@pytest.mark.parametrize("kind", ["binary", "labelmap", "auto"])
def test_structures_that_overlap_keep_all_their_voxels(kind: str, tmp_path: Path) -> None:
    """Another program reads each structure whole; the file says that they overlap, and why it is binary."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", axial())
    labels = random_labels(volume.geometry.shape, values=(0, 1, 2, 3, 6))
    table = LabelTable(tuple(Label(value, f"s{value}", Code("1", "Organ")) for value in (1, 2, 4))).with_sums({3, 6})
    segmentation = segment(volume, labels, table)
    notes = write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    uids = [file.sop_instance_uid for file in segmentation.provenance.source.files]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert [seg.get_segment_description(number).SegmentLabel for number in seg.segment_numbers] == ["s1", "s2", "s4"]
    assert seg.SegmentsOverlap == "YES"
    for column, value in enumerate((1, 2, 4)):
        assert np.array_equal(pixels[..., column] > 0, labels & value > 0)
    assert any("overlap, so the file is binary" in note for note in notes) == (kind != "binary")
