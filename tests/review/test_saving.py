"""What a review leaves behind: the labels as they are, marked as edited where they were, and nothing rejected."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name

from effvit_med.errors import GeometryError, InputError, OutputError, SettingsError
from effvit_med.io import SegOptions, write_dicom_seg
from effvit_med.io.nifti import read_nifti
from effvit_med.review import ReviewSession, save_review
from effvit_med.review.saving import REVIEW_FILES
from effvit_med.volume import Volume
from tests.io.independent import errors_of, read_with_dcmqi
from tests.io.source_series import LEFT, LIVER, RIGHT, SPLEEN, axial, random_labels, segment, write_series

BOTH = ("dicom-seg", "nifti")


@pytest.fixture(name="volume")
def _volume(tmp_path: Path) -> Volume:
    (tmp_path / "scan").mkdir()
    return write_series(tmp_path / "scan", axial())


@pytest.fixture(name="automatic")
def _automatic(volume: Volume, tmp_path: Path) -> Path:
    """The automatic result as a file."""
    path = tmp_path / "automatic.seg.dcm"
    write_dicom_seg(segment(volume, random_labels(volume.geometry.shape)), path)
    return path


@pytest.fixture(name="session")
def _session(volume: Volume, tmp_path: Path):
    """A review in which the liver was edited, the spleen accepted and the left kidney rejected."""
    automatic = segment(volume, random_labels(volume.geometry.shape))
    with ReviewSession.start(tmp_path / "review", automatic, {}) as session:
        session.apply(np.flatnonzero(session.labels == 0)[200:260], LIVER.value, kind="click", value=LIVER.value)
        session.set_state(SPLEEN.value, "accepted")
        session.set_state(LEFT.value, "rejected")
        yield session


def read_seg(path: Path, volume: Volume) -> dict[str, np.ndarray]:
    """The voxels of each segment, as another library reads them."""
    seg = hd.seg.segread(path)
    uids = [file.sop_instance_uid for file in volume.source.files]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    names = [seg.get_segment_description(number).SegmentLabel for number in seg.segment_numbers]
    return {name: pixels[..., column] > 0 for column, name in enumerate(names)}


def test_the_seg_holds_the_labels_as_they_are(session, volume, tmp_path) -> None:
    """Edited and accepted structures are there voxel for voxel; the rejected one is not."""
    saved = save_review(session, volume, tmp_path / "out", BOTH)
    segments = read_seg(saved.files["dicom-seg"], volume)
    assert set(segments) == {"liver", "kidney_right", "spleen"}
    for name, voxels in segments.items():
        assert np.array_equal(voxels, session.labels == session.table.by_name(name).value)


def test_edited_structures_are_semiautomatic(session, volume, tmp_path) -> None:
    """The algorithm type says of each structure whether a person changed it."""
    saved = save_review(session, volume, tmp_path / "out", ["dicom-seg"])
    types = {s.SegmentLabel: s.SegmentAlgorithmType for s in pydicom.dcmread(saved.files["dicom-seg"]).SegmentSequence}
    assert types == {"liver": "SEMIAUTOMATIC", "kidney_right": "AUTOMATIC", "spleen": "AUTOMATIC"}


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_the_predecessor_is_named(session, volume, automatic, tmp_path, kind) -> None:
    """The new object has UIDs of its own and refers to the automatic one, and a validator has nothing against it."""
    seg = SegOptions(segmentation_type=kind)
    saved = save_review(session, volume, tmp_path / "out", ["dicom-seg"], seg=seg, predecessor=automatic)
    before, after = pydicom.dcmread(automatic), pydicom.dcmread(saved.files["dicom-seg"])
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.SourceImageSequence[-1].ReferencedSOPInstanceUID == before.SOPInstanceUID
    series = after.ReferencedSeriesSequence[-1]
    assert series.SeriesInstanceUID == before.SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    if kind == "binary":
        assert errors_of(saved.files["dicom-seg"]) == errors_of(automatic)
        images = read_with_dcmqi(saved.files["dicom-seg"], tmp_path / "dcmqi")
        found = sum(int((sitk.GetArrayFromImage(image) > 0).sum()) for image in images)
        assert found == np.isin(session.labels, [LIVER.value, SPLEEN.value, RIGHT.value]).sum()


def test_a_review_without_edits_is_another_object(volume, automatic, tmp_path) -> None:
    """Also where a person only agreed, the file has UIDs of its own; saved twice, it is the same file."""
    made = segment(volume, random_labels(volume.geometry.shape))
    seg = SegOptions()
    with ReviewSession.start(tmp_path / "review", made, {}) as session:
        session.set_state(LIVER.value, "accepted")
        first = save_review(session, volume, tmp_path / "out", ["dicom-seg"], seg=seg).files["dicom-seg"].read_bytes()
        path = save_review(session, volume, tmp_path / "out", ["dicom-seg"], seg=seg).files["dicom-seg"]
    assert path.read_bytes() == first
    assert pydicom.dcmread(path).SOPInstanceUID != pydicom.dcmread(automatic).SOPInstanceUID


def test_the_nifti_holds_the_same_labels(session, volume, tmp_path) -> None:
    """The label values of the NIfTI file are those of the session, without the rejected structure."""
    saved = save_review(session, volume, tmp_path / "out", ["nifti"])
    read = read_nifti(saved.files["nifti"]).reoriented(volume.geometry.orientation)
    wanted = np.where(session.labels == LEFT.value, 0, session.labels)
    assert np.array_equal(read.array, wanted)
    rows = json.loads(saved.files["labels"].read_text())["labels"]
    assert [row["name"] for row in rows] == ["liver", "kidney_right", "spleen"]


def test_measurements_are_of_the_reviewed_labels(session, volume, tmp_path) -> None:
    """The table has a row per structure that is not rejected, with the volume that the session says."""
    saved = save_review(session, volume, tmp_path / "out", ["nifti"])
    rows = list(csv.DictReader(saved.files["measurements-csv"].read_text().splitlines()))
    assert [row["structure"] for row in rows] == ["liver", "kidney_right", "spleen"]
    assert float(rows[0]["volume_ml"]) == pytest.approx(session.volumes_ml()[LIVER.value], abs=1e-3)


def test_the_record_has_every_structure_and_file(session, volume, tmp_path) -> None:
    """Also the rejected structure stands in the record, and each file with its digest."""
    saved = save_review(session, volume, tmp_path / "out", BOTH)
    record = json.loads(saved.files["record"].read_text())
    assert {row["name"]: row["state"] for row in record["structures"]} == {
        "liver": "edited",
        "kidney_left": "rejected",
        "kidney_right": "unseen",
        "spleen": "accepted",
    }
    assert set(record["outputs"]) == set(REVIEW_FILES) - {"record"}
    assert record["notice"].startswith("Research use only")


def test_a_saving_that_fails_costs_nothing_of_the_one_before(session, volume, tmp_path, monkeypatch) -> None:
    """Where the disk is full in the middle, the files of the earlier saving are as they were."""
    before = save_review(session, volume, tmp_path / "out", BOTH).files
    content = {path: path.read_bytes() for kind, path in before.items() if kind != "record"}
    session.reset(LIVER.value)

    def refuse(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr("effvit_med.review.saving.write_dicom_seg", refuse)
    with pytest.raises(OutputError, match="the disk is full"):
        save_review(session, volume, tmp_path / "out", BOTH)
    assert {path: path.read_bytes() for path in content} == content


def test_saving_again_leaves_nothing_old(session, volume, tmp_path) -> None:
    """A file of an earlier saving that was not asked for this time goes; files of others stay."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "segmentation.seg.dcm").write_text("automatic")
    save_review(session, volume, tmp_path / "out", BOTH)
    save_review(session, volume, tmp_path / "out", ["nifti"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == set(REVIEW_FILES.values()) - {"reviewed.seg.dcm"} | {"segmentation.seg.dcm"}


def test_it_works_after_a_restart(session, volume, tmp_path) -> None:
    """The journal knows no folders: the scan says where the slices lie. What was not changed is the same object."""
    now = session.labels.copy()
    before = save_review(session, volume, tmp_path / "out", ["dicom-seg"]).files["dicom-seg"].read_bytes()
    session.close()
    with ReviewSession.resume(tmp_path / "review") as again:
        saved = save_review(again, volume, tmp_path / "out", ["dicom-seg"])
    assert saved.files["dicom-seg"].read_bytes() == before
    assert np.array_equal(read_seg(saved.files["dicom-seg"], volume)["liver"], now == LIVER.value)


def test_mistakes_are_errors_before_anything_is_written(session, volume, automatic, tmp_path) -> None:
    """Another type, scan or predecessor is refused, and what was saved before stays."""
    save_review(session, volume, tmp_path / "out", ["nifti"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    shifted = volume.geometry.affine.copy()
    shifted[0, 3] += 0.5
    moved = replace(volume, geometry=replace(volume.geometry, affine=shifted))
    other = replace(volume, source=replace(volume.source, files=volume.source.files[::-1]))
    memory = replace(volume, source=None)
    stranger = tmp_path / "stranger.dcm"
    dataset = pydicom.dcmread(automatic)
    dataset.StudyInstanceUID = "1.2.3"
    dataset.save_as(stranger)
    for scan, types, predecessor, error in (
        (volume, ["rtstruct"], None, SettingsError),
        (moved, BOTH, None, GeometryError),
        (other, BOTH, None, OutputError),
        (memory, BOTH, None, OutputError),
        (volume, BOTH, volume.source.files[0].path, InputError),
        (volume, BOTH, tmp_path / "none.dcm", InputError),
        (volume, BOTH, stranger, OutputError),
    ):
        with pytest.raises(error):
            save_review(session, scan, tmp_path / "out", types, predecessor=predecessor)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_unequal_slices_go_into_a_seg_only(tmp_path) -> None:
    """NIfTI cannot hold slices at unequal distances: that is said before anything is written."""
    geometry = replace(axial(), slice_offsets=(0.0, 1.0, 2.0, 3.5, 5.0))
    (tmp_path / "scan").mkdir()
    volume = write_series(tmp_path / "scan", geometry)
    with ReviewSession.start(tmp_path / "review", segment(volume, random_labels(geometry.shape)), {}) as session:
        session.apply([300, 301, 302, 303], SPLEEN.value, kind="click", value=SPLEEN.value)
        with pytest.raises(OutputError, match="unequal distances"):
            save_review(session, volume, tmp_path / "out", BOTH)
        assert not (tmp_path / "out").exists()
        path = save_review(session, volume, tmp_path / "out", ["dicom-seg"]).files["dicom-seg"]
        assert np.array_equal(read_seg(path, volume)["spleen"], session.labels == SPLEEN.value)
