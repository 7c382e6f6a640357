"""Facts about `effvit_med.engine.batch`: from a path to a folder of results."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from effvit_med.engine import Job, Segmenter, Settings, read_model, results, segment_input, stages
from effvit_med.errors import CancelledError, InputError, OutputError
from effvit_med.io import ReadOptions
from effvit_med.volume import Volume


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(read_model(tiny_bundle), Settings(device="cpu"))


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_series_gives_all_outputs(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A DICOM series becomes SEG, NIfTI, tables, picture and record in a folder of its own."""
    result = segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job())
    (case,) = result.cases
    assert result.exit_code == 0
    assert _files(tmp_path / case.case_id) == {
        "segmentation.seg.dcm", "segmentation.nii.gz", "segmentation.labels.json", "segmentation.ctbl",
        "segmentation.itksnap.txt", "measurements.csv",
        "measurements.json", "overlay.png", "record.json",
    }  # fmt: skip
    assert all(path.is_file() for path in case.outputs.values())


def test_nothing_but_whole_cases_lies_in_the_output(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """No temporary file or folder is left behind."""
    segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job(output_types=("nifti",)))
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") or "part" in path.name]


def test_the_record_lists_the_outputs_with_their_hashes(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path
) -> None:
    """record.json names each file with its SHA-256, every input file with its own, and is not for clinical use."""
    (case,) = segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job()).cases
    record = json.loads(case.outputs["record"].read_text(encoding="utf-8"))
    text = json.dumps(record)
    assert "Not for clinical use" in text
    assert len(record["source"]["files"]) == len(list((sample_data / "ct_nonsquare").glob("*")))
    assert all(len(file["sha256"]) == 64 for file in record["source"]["files"])
    assert {"segmentation.seg.dcm", "overlay.png"} <= {Path(name).name for name in _values(record["outputs"])}


def _values(node: object) -> list[str]:
    if isinstance(node, dict):
        return [text for value in node.values() for text in _values(value)]
    if isinstance(node, list):
        return [text for value in node for text in _values(value)]
    return [str(node)]


def test_a_missing_slice_is_refused_and_named(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A series with a gap is refused with exit code 3, and the message says what to do."""
    result = segment_input(sample_data / "ct_missing_slice", tmp_path, segmenter, Job())
    assert result.exit_code == 3
    assert result.cases[0].code == "MISSING_SLICES"
    assert "gaps" in result.cases[0].message
    assert not _files(tmp_path)


def test_a_missing_slice_is_segmented_when_asked(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """With the remedy the series is segmented, and the record keeps the finding."""
    job = Job(read=ReadOptions(allow=frozenset({"gaps"})))
    result = segment_input(sample_data / "ct_missing_slice", tmp_path, segmenter, job)
    assert result.exit_code == 0
    assert "MISSING_SLICES" in {finding.code for finding in result.cases[0].findings}
    assert "dicom-seg" in result.cases[0].outputs


def test_one_refused_case_does_not_stop_the_others(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A folder with a good and a refused series gives the good one and exit code 3."""
    source = tmp_path / "in"
    for name in ("ct_nonsquare", "ct_missing_slice"):
        shutil.copytree(sample_data / name, source / name)
    result = segment_input(source, tmp_path / "out", segmenter, Job())
    assert sorted(case.status for case in result.cases) == ["refused", "segmented"]
    assert result.exit_code == 3


def _spoil(source: Path, target: Path, **values: object) -> None:
    """Copy a series, with attributes of its first file changed."""
    shutil.copytree(source, target)
    path = min(target.iterdir())
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def test_a_series_that_cannot_be_a_dicom_seg_still_gives_nifti(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path
) -> None:
    """Slices of two studies in one series: no DICOM SEG, said in the findings, and all the rest."""
    _spoil(sample_data / "ct_nonsquare", tmp_path / "in", StudyInstanceUID="1.2.3")
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert case.status == "segmented"
    assert "SLICES_OF_SEVERAL_STUDIES" in {finding.code for finding in case.findings}
    assert "nifti" in case.outputs
    assert "dicom-seg" not in case.outputs


def test_a_fault_of_one_case_does_not_stop_the_others(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When one case cannot be written for a reason of its own, the next is segmented, and the exit code is 1."""
    source = tmp_path / "in"
    for name in ("ct_nonsquare", "ct_tilted"):
        shutil.copytree(sample_data / name, source / name)
    write, calls = results.write_dicom_seg, []

    def fail_once(*arguments: object) -> tuple[str, ...]:
        calls.append(arguments)
        if len(calls) == 1:
            raise OutputError("These headers cannot be used.")
        return write(*arguments)

    monkeypatch.setattr(results, "write_dicom_seg", fail_once)
    result = segment_input(source, tmp_path / "out", segmenter, Job())
    assert [case.status for case in result.cases] == ["failed", "segmented"]
    assert result.exit_code == 1


def test_input_without_permission_does_not_stop_the_others(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case whose file may not be read fails alone; only an output that cannot be written stops every case."""
    source = tmp_path / "in"
    for name in ("ct_nonsquare", "ct_tilted"):
        shutil.copytree(sample_data / name, source / name)
    read, calls = stages.read_case, []

    def deny_once(case: object, options: object = None) -> Volume:
        calls.append(case)
        if len(calls) == 1:
            raise InputError("This file may not be read.") from PermissionError(errno.EACCES, "denied")
        return read(case, options)

    monkeypatch.setattr(stages, "read_case", deny_once)
    result = segment_input(source, tmp_path / "out", segmenter, Job())
    assert [case.status for case in result.cases] == ["failed", "segmented"]


def test_a_dicom_seg_of_a_nifti_file_is_refused(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A DICOM SEG needs DICOM headers; the message says so."""
    result = segment_input(sample_data / "nifti" / "ct.nii.gz", tmp_path, segmenter, Job(output_types=("dicom-seg",)))
    assert result.cases[0].code == "NO_DICOM_SOURCE"


def test_what_lies_in_the_output_folder_stays(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A second run replaces its own files and leaves the user's notes alone."""
    job = Job(output_types=("nifti",))
    (case,) = segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, job).cases
    note = tmp_path / case.case_id / "notes.txt"
    note.write_text("mine")
    segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, job)
    assert note.read_text() == "mine"


def test_results_of_other_input_are_not_written_over(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """Another patient's file of the same name is refused, and the first one's results stay."""
    job = Job(output_types=("nifti",))
    for name, source in (("a", "nifti/ct.nii.gz"), ("b", "truth/ct_nonsquare.nii.gz")):
        (tmp_path / name).mkdir()
        shutil.copy(sample_data / source, tmp_path / name / "ct.nii.gz")
    (first,) = segment_input(tmp_path / "a", tmp_path / "out", segmenter, job).cases
    before = first.outputs["nifti"].read_bytes()
    (second,) = segment_input(tmp_path / "b", tmp_path / "out", segmenter, job).cases
    assert second.code == "OUTPUT_TAKEN"
    assert first.outputs["nifti"].read_bytes() == before


def test_files_of_an_earlier_run_do_not_stay_beside_the_new(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path
) -> None:
    """A run without DICOM SEG removes the DICOM SEG of the run before it: the folder is one result."""
    segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job())
    (case,) = segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job(output_types=("nifti",))).cases
    assert not (tmp_path / case.case_id / "segmentation.seg.dcm").exists()


def test_a_damaged_file_beside_a_series_is_a_finding(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """An end slice without bytes may have shortened the scan, and the case says so."""
    shutil.copytree(sample_data / "ct_nonsquare", tmp_path / "in")
    places = {pydicom.dcmread(path).ImagePositionPatient[2]: path for path in (tmp_path / "in").iterdir()}
    places[max(places)].write_bytes(b"")
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job(output_types=("nifti",))).cases
    assert "DAMAGED_FILES_BESIDE" in {finding.code for finding in case.findings}


def test_a_case_says_where_it_lies_below_the_input(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """Two patients' files of one name can be told apart by their place."""
    for patient in ("p1", "p2"):
        (tmp_path / "in" / patient).mkdir(parents=True)
        shutil.copy(sample_data / "nifti" / "ct.nii.gz", tmp_path / "in" / patient)
    cases = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job(output_types=("nifti",))).cases
    assert sorted(case.input for case in cases) == ["p1/ct.nii.gz", "p2/ct.nii.gz"]


def test_a_tilted_scan_says_that_its_nifti_is_sheared(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """Programs that refuse sheared NIfTI files are warned of."""
    (case,) = segment_input(sample_data / "ct_tilted", tmp_path, segmenter, Job()).cases
    assert "NIFTI_SHEARED" in {finding.code for finding in case.findings}


def test_an_empty_folder_is_an_error(segmenter: Segmenter, tmp_path: Path) -> None:
    """Nothing to segment is an error that names the folder."""
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="in"):
        segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job())


def test_an_output_that_is_a_file_is_an_error(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A file where the output folder should be is named."""
    blocked = tmp_path / "out"
    blocked.write_text("")
    with pytest.raises(OutputError, match="out"):
        segment_input(sample_data / "ct_nonsquare", blocked, segmenter, Job())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_leaves_nothing_half_written(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """When the disk is full the run stops with one clear error, and no file is left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("this machine does not let tests mount a small disk")
    try:
        with pytest.raises(OutputError, match=r"disk is full|No space left"):
            segment_input(sample_data / "ct_nonsquare", disk, segmenter, Job())
        assert not list(disk.rglob("*"))
    finally:
        os.system(f"umount {disk}")


def test_stopping_leaves_nothing_half_written(segmenter: Segmenter, sample_data: Path, tmp_path: Path) -> None:
    """A run that is stopped in its first case leaves an empty output folder."""
    with pytest.raises(CancelledError):
        segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job(), cancelled=lambda: True)
    assert not list(tmp_path.iterdir())


def test_the_confidence_is_written_where_it_is_asked_for(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path
) -> None:
    """As NIfTI on the grid of the labels, with a value for every voxel; not otherwise."""
    source = sample_data / "ct_nonsquare"
    (plain,) = segment_input(source, tmp_path / "plain", segmenter, Job()).cases
    (case,) = segment_input(source, tmp_path / "sure", segmenter, Job(confidence=True)).cases
    assert "confidence" not in plain.outputs
    labels, confidence = (nibabel.load(case.outputs[kind]) for kind in ("nifti", "confidence"))
    assert confidence.shape == labels.shape
    assert np.array_equal(confidence.affine, labels.affine)
    assert len(np.unique(np.asarray(confidence.dataobj))) > 10


def test_the_record_has_wall_and_processor_seconds_of_every_step(
    segmenter: Segmenter, sample_data: Path, tmp_path: Path
) -> None:
    """Reading, preparing, network, labels and each file that is written, in the order in which they were done."""
    (case,) = segment_input(sample_data / "ct_nonsquare", tmp_path, segmenter, Job()).cases
    steps = json.loads(case.outputs["record"].read_text())["steps"]
    names = [step["name"] for step in steps if step["name"] != "load model"]
    assert names == [
        "read", "prepare", "network", "stitch", "label", "check", "measure", "judge", "write dicom-seg",
        "write nifti", "write tables", "write overlay",
    ]  # fmt: skip
    assert all(step["cpu_seconds"] >= 0 and step["seconds"] >= 0 for step in steps)
    assert {step["name"]: step["cpu_seconds"] for step in steps} == pytest.approx(dict(case.cpu_seconds), abs=0.001)
