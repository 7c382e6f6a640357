"""Acceptance cases 25 to 27: valid files that say all they must, whatever the result and the source, and no more."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from benchmarks.seg_readback import check_conformance, read_back, sort_complaints
from effvit_med.engine import Job, Segmenter, Settings, segment_input
from effvit_med.engine.contract import open_model
from effvit_med.io import SegOptions, write_dicom_seg, write_dicom_sr, write_nifti, write_nrrd, write_rtstruct
from effvit_med.volume import Code, Label, LabelTable, Segmentation
from effvit_med.volume.measurements import measure
from tests.acceptance.judging import (
    assert_labels_true,
    need_program,
    open_image,
    read_with_dcmqi,
    run_program,
)
from tests.acceptance.series import Ids, Stack, label_at, save_stack, store, value_at
from tests.acceptance.test_geometry import read_one
from tests.acceptance.test_geometry_outputs import Written, write_seg
from tests.acceptance.threshold import threshold, write_threshold_bundle

TYPES: tuple[Any, ...] = ("binary", "labelmap", "fractional")
STACK = Stack(spacing_mm=(0.9, 1.3), size=(50, 44))


def errors_of(path: Path, uids: set[str] | None = None) -> int:
    """How many errors dciodvfy finds in a file, but for those about a UID of the source."""
    command = [need_program("dciodvfy"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return sort_complaints(done.stdout + done.stderr, uids or set(), is_labelmap=False).errors


@pytest.mark.parametrize("kind", TYPES)
def test_case_25_seg_is_valid(kind: Any, tmp_path: Path) -> None:
    """Dciodvfy finds no error in any type of SEG, but for its two complaints about LABELMAP, which it does not know."""
    need_program("dciodvfy")
    done = write_seg(tmp_path, STACK, options=SegOptions(segmentation_type=kind))
    found = check_conformance(done.seg, done.segmentation)
    assert found is not None
    assert found.errors == 0
    assert found.known == (2 if kind == "labelmap" else 0)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_case_25_seg_is_voxel_equal(kind: Any, tmp_path: Path) -> None:
    """Dcmqi finds each structure voxel by voxel."""
    done = write_seg(tmp_path, STACK, options=SegOptions(segmentation_type=kind))
    assert pydicom.dcmread(done.seg).SegmentationType == kind.upper()
    assert_labels_true(read_with_dcmqi(done.seg, tmp_path / "dcmqi"), STACK)


def test_case_25_fractional_is_voxel_equal(tmp_path: Path) -> None:
    """Dcmqi finds each structure of a FRACTIONAL file where its values are not 0."""
    done = write_seg(tmp_path, STACK, options=SegOptions(segmentation_type="fractional"))
    assert pydicom.dcmread(done.seg).SegmentationType == "FRACTIONAL"
    folder = tmp_path / "dcmqi"
    folder.mkdir()
    run_program(need_program("segimage2itkimage"), "--inputDICOM", done.seg, "--outputDirectory", folder, "-t", "nrrd")
    truth = label_at(STACK.world())
    for value, path in enumerate(sorted(folder.glob("*.nrrd")), start=1):
        assert np.array_equal(open_image(path).at(STACK.world()) > 0, truth == value)


@pytest.mark.parametrize("kind", TYPES)
def test_case_25_seg_refers_to_its_source(kind: Any, tmp_path: Path) -> None:
    """Study, frame of reference and every slice of the source are those of the source, and the series is a new one."""
    done = write_seg(tmp_path, STACK, options=SegOptions(segmentation_type=kind))
    seg = pydicom.dcmread(done.seg)
    source = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(done.folder.iterdir())]
    assert seg.StudyInstanceUID == source[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == source[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source[0].SeriesInstanceUID != seg.SeriesInstanceUID
    named = [(item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence]
    assert sorted(named) == sorted((each.SOPClassUID, each.SOPInstanceUID) for each in source)
    if kind != "fractional":
        assert read_back(done.seg, done.segmentation).is_right


@pytest.mark.parametrize("kind", TYPES)
def test_case_25_codes_and_side(kind: Any, tmp_path: Path) -> None:
    """Each segment has its codes, the left kidney its side, both an algorithm, and the file is not for clinical use."""
    seg = pydicom.dcmread(write_seg(tmp_path, STACK, options=SegOptions(segmentation_type=kind)).seg)
    found = {}
    for item in seg.SegmentSequence:
        if item.get("SegmentNumber", 0) == 0:
            continue
        (code,) = item.SegmentedPropertyTypeCodeSequence
        sides = code.get("SegmentedPropertyTypeModifierCodeSequence", [])
        found[item.SegmentLabel] = (code.CodeValue, code.CodingSchemeDesignator, [each.CodeMeaning for each in sides])
        assert item.SegmentAlgorithmType == "AUTOMATIC"
    assert found == {"liver": ("10200004", "SCT", []), "kidney_left": ("64033007", "SCT", ["Left"])}
    assert "clinical" in seg.ContentDescription.lower()


def _report(done: Written, folder: Path) -> Path:
    path = folder / "out.sr.dcm"
    write_dicom_sr(done.segmentation, measure(done.volume, done.segmentation), done.seg, path)
    return path


def test_case_25_tracking_is_the_same_in_the_report(tmp_path: Path) -> None:
    """Each structure has one Tracking UID in the SEG, and dcmqi finds the same in the report, which names the SEG."""
    done = write_seg(tmp_path, STACK)
    seg = pydicom.dcmread(done.seg)
    report = _report(done, tmp_path)
    run_program(need_program("tid1500reader"), "--inputDICOM", report, "--outputMetadata", tmp_path / "sr.json")
    groups = json.loads((tmp_path / "sr.json").read_text(encoding="utf-8"))["Measurements"]
    theirs = {int(group["ReferencedSegment"]): group["TrackingUniqueIdentifier"] for group in groups}
    assert theirs == {int(item.SegmentNumber): item.TrackingUID for item in seg.SegmentSequence}
    assert {group["segmentationSOPInstanceUID"] for group in groups} == {seg.SOPInstanceUID}


def test_case_25_report_and_structure_set_are_valid(tmp_path: Path) -> None:
    """Dciodvfy finds no error in the report and in the structure set of a binary segmentation."""
    done = write_seg(tmp_path, STACK)
    write_rtstruct(done.segmentation, tmp_path / "out.rt.dcm")
    assert errors_of(_report(done, tmp_path)) == 0
    assert errors_of(tmp_path / "out.rt.dcm") == 0


@pytest.mark.parametrize("kind", TYPES)
def test_case_25_the_same_result_gives_the_same_file(kind: Any, tmp_path: Path) -> None:
    """Written again, a SEG has the same UIDs and bytes, so that it replaces the first in an archive."""
    done = write_seg(tmp_path, STACK, options=SegOptions(segmentation_type=kind))
    write_dicom_seg(done.segmentation, tmp_path / "again.dcm", SegOptions(segmentation_type=kind))
    assert (tmp_path / "again.dcm").read_bytes() == done.seg.read_bytes()


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    bundle = write_threshold_bundle(tmp_path_factory.mktemp("model") / "bundle")
    return Segmenter(open_model(bundle), Settings(device="cpu"))


def save_without(folder: Path, gone: Callable[[np.ndarray], np.ndarray], ids: Ids | None = None) -> Path:
    """A stack with the background's value where a structure is left out."""

    def edit(index: int, dataset: Dataset) -> None:
        world = STACK.plane_world(STACK.places_mm[index])
        labels = label_at(world)
        plain = value_at(world) - np.where(labels == 1, 1500, 0) + np.where(labels == 2, 1500, 0)
        store(dataset, np.rint(np.where(gone(labels), plain, value_at(world))), np.int16)

    return save_stack(folder, STACK, ids, edit)


ALL: tuple[Any, ...] = ("dicom-seg", "rtstruct", "nifti", "nrrd", "dicom-sr")


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_case_26_an_empty_result(kind: Any, segmenter: Segmenter, tmp_path: Path) -> None:
    """Nothing found: every kind of file is there and valid, readers find no voxel, and the record says so."""
    save_without(tmp_path / "in", lambda labels: labels > 0)
    job = Job(output_types=ALL, seg=SegOptions(segmentation_type=kind))
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, job).cases
    assert case.status == "segmented"
    said = " ".join(finding.message for finding in case.findings)
    assert "No structure was found" in said
    assert set(ALL) - {"dicom-sr"} <= set(case.outputs)
    assert "dicom-sr" not in case.outputs  # a report has at least one measurement
    assert "DICOM SR" in said
    assert all(row.reason for row in case.measurements)
    assert not read_with_dcmqi(case.outputs["dicom-seg"], tmp_path / "dcmqi").array.any()
    assert not open_image(case.outputs["nifti"]).array.any()
    assert not open_image(case.outputs["nrrd"]).array.any()
    for name in ("rtstruct", "dicom-seg") if kind == "binary" else ("rtstruct",):
        assert errors_of(case.outputs[name]) == 0, name


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_case_26_an_absent_structure(kind: Any, segmenter: Segmenter, tmp_path: Path) -> None:
    """Without a liver the kidney keeps its name, colour and voxels, and the table says that the liver was not found."""
    save_without(tmp_path / "in", lambda labels: labels == 1)
    job = Job(output_types=ALL, seg=SegOptions(segmentation_type=kind))
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, job).cases
    seg = pydicom.dcmread(case.outputs["dicom-seg"])
    assert [item.SegmentLabel for item in seg.SegmentSequence if item.SegmentNumber] == ["kidney_left"]
    found = read_with_dcmqi(case.outputs["dicom-seg"], tmp_path / "dcmqi").at(STACK.world())
    assert np.array_equal(found > 0, label_at(STACK.world()) == 2)
    rows = {row.structure: row for row in case.measurements}
    assert rows["liver"].voxels is None
    assert "not found" in rows["liver"].reason
    assert rows["kidney_left"].volume_ml == pytest.approx(STACK.volume_ml(2))


def _many(count: int, folder: Path) -> Segmentation:
    """A segmentation of many structures, a few voxels each."""
    stack = Stack(size=(30, 32), places_mm=(0.0, 2.0, 4.0, 6.0))
    volume = read_one(save_stack(folder / "in", stack))
    labels = (np.arange(volume.array.size) // 12 % (count + 1)).astype(np.uint16).reshape(volume.array.shape)
    table = LabelTable(tuple(Label(n, f"part_{n:03d}", Code("85756007", "Tissue")) for n in range(1, count + 1)))
    return Segmentation(labels, volume.geometry, table, threshold(volume).provenance)


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_case_26_three_hundred_labels(kind: Any, tmp_path: Path) -> None:
    """300 structures need 16 bits: SEG, NIfTI and NRRD have each of them, read back by dcmqi and SimpleITK."""
    segmentation = _many(300, tmp_path)
    index = np.stack(np.indices(segmentation.labels.shape), axis=-1).astype(float)
    world = index @ segmentation.geometry.affine[:3, :3].T + segmentation.geometry.affine[:3, 3]
    write_dicom_seg(segmentation, tmp_path / "out.seg.dcm", SegOptions(segmentation_type=kind))
    assert (
        len([item for item in pydicom.dcmread(tmp_path / "out.seg.dcm").SegmentSequence if item.SegmentNumber]) == 300
    )
    found = read_with_dcmqi(tmp_path / "out.seg.dcm", tmp_path / "dcmqi")
    assert np.array_equal(found.at(world), segmentation.labels)
    for name, write in (("out.nii.gz", write_nifti), ("out.seg.nrrd", write_nrrd)):
        write(segmentation, tmp_path / name)
        assert np.array_equal(open_image(tmp_path / name).at(world), segmentation.labels)


SECRETS = ("SECRET", "Secret", "Zoë", "19610203", "quiet garden")


def edit_deidentified(index: int, dataset: Dataset) -> None:
    """What de-identified files look like: much is gone or not valid, and someone left a comment."""
    del dataset.PatientBirthDate, dataset.AccessionNumber, dataset.SliceThickness, dataset.StudyID
    del dataset.ReferringPhysicianName
    with pydicom.config.disable_value_validation():
        dataset.PatientName = "SECRET^Zoë=山田^太郎"
        dataset.PatientSex, dataset.StudyDate, dataset.StudyTime = "X", "20260230", ""
    dataset.PatientComments = "SECRET lives by the quiet garden"
    dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "by hand"


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_case_27edit_deidentified_source(tmp_path: Path) -> None:
    """Absent and invalid headers of the source are mended in the copies: SEG, report and structure set are valid."""
    done = write_seg(tmp_path, STACK, edit_deidentified)
    write_rtstruct(done.segmentation, tmp_path / "out.rt.dcm")
    for path in (done.seg, _report(done, tmp_path), tmp_path / "out.rt.dcm"):
        assert errors_of(path) == 0, path.name
        found = pydicom.dcmread(path)
        assert str(found.PatientName) == "SECRET^Zoë=山田^太郎"
        assert found.PatientID == "SECRET-ID-1"
        assert "quiet garden" not in str(found)
    assert_labels_true(read_with_dcmqi(done.seg, tmp_path / "dcmqi"), STACK)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_case_27_nothing_of_the_patient_in_logs_and_names(
    segmenter: Segmenter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No name, id, date or comment of the patient is in a log, a file name, or a file that is not DICOM."""
    caplog.set_level(logging.DEBUG)
    save_stack(tmp_path / "in", STACK, edit=edit_deidentified)
    segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job(output_types=ALL))
    assert not [secret for secret in SECRETS if secret in caplog.text]
    for path in (tmp_path / "out").rglob("*"):
        assert not [secret for secret in SECRETS if secret in path.name]
        if path.is_file() and not path.name.endswith(".dcm"):
            content = path.read_bytes()
            assert not [secret for secret in SECRETS if secret.encode() in content], path.name
