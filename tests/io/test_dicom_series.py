"""Facts about `effvit_med.io.dicom_series`: which images make one volume."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from effvit_med.io.find import DicomSeries, Found, ReadOptions, find_cases
from effvit_med.io.read import read_case
from tests.io.dicom_cases import ROWS, make_series, pixels, save


def _find(folder: Path, *allow: str) -> Found:
    return find_cases(folder, ReadOptions(frozenset(allow)))  # type: ignore[arg-type]


def _series(found: Found) -> list[DicomSeries]:
    return [case for case in found.cases if isinstance(case, DicomSeries)]


def _copies(count: int, edit: Callable[[int, int, Dataset], None]) -> list[Dataset]:
    """The same stack several times as one series, each image with its own UID and instance number."""
    datasets = []
    for copy in range(count):
        for index, dataset in enumerate(make_series(4)):
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{copy}.{index + 1}"
            dataset.InstanceNumber = copy * 4 + index + 1
            dataset.PixelData = pixels(10 * copy + index).tobytes()
            edit(copy, index, dataset)
            datasets.append(dataset)
    return datasets


def test_two_series_are_two_cases(tmp_path: Path) -> None:
    """Images of two series in one folder never mix."""
    save(tmp_path, [*make_series(4, series=1), *make_series(5, series=2)])
    assert sorted(len(case.files) for case in _series(_find(tmp_path))) == [4, 5]


@pytest.mark.parametrize(("tag", "value"), [
    ("FrameOfReferenceUID", "1.2.3.4"), ("PixelSpacing", [0.5, 0.5]), ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
])  # fmt: skip
def test_images_of_another_grid_are_another_case(tmp_path: Path, tag: str, value: object) -> None:
    """One series UID with two frames of reference, pixel spacings or orientations makes two cases."""

    def change(index: int, dataset: Dataset) -> None:
        if index >= 3:
            setattr(dataset, tag, value)
            dataset.ImagePositionPatient = [2.0 * index, 0, 2.0 * index]  # a line along either normal
        if index >= 3 and tag != "ImageOrientationPatient":
            dataset.ImagePositionPatient = [0, 0, 2.0 * index]
        elif index >= 3:
            dataset.ImagePositionPatient = [-2.0 * index, 0, 0]

    save(tmp_path, make_series(6), edit=change)
    found = _find(tmp_path)
    assert found.refused == ()
    assert [len(case.files) for case in found.cases if isinstance(case, DicomSeries)] == [3, 3]
    assert len({case.case_id for case in found.cases}) == 2


def test_images_of_another_matrix_are_another_case(tmp_path: Path) -> None:
    """One series UID with two sizes of image makes two cases."""

    def crop(index: int, dataset: Dataset) -> None:
        if index >= 3:
            dataset.Rows = 4
            dataset.PixelData = pixels(index)[:4].tobytes()

    save(tmp_path, make_series(6), edit=crop)
    assert sorted(case.geometry.shape[1] for case in _series(_find(tmp_path))) == [4, ROWS]


def test_localizer_in_the_series_is_set_aside(tmp_path: Path) -> None:
    """A localizer image under the series' own UID is left out and listed."""

    def mark(index: int, dataset: Dataset) -> None:
        if index == 0:
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    save(tmp_path, make_series(6), edit=mark)
    found = _find(tmp_path)
    assert [len(case.files) for case in _series(found)] == [5]
    assert [(each.code, each.path.name) for each in found.set_aside] == [("LOCALIZER", "000.dcm")]


def test_copied_file_is_kept_once(tmp_path: Path) -> None:
    """The same file under two names is one slice, with a finding that names the copy."""
    paths = save(tmp_path, make_series(4))
    shutil.copy(paths[1], tmp_path / "copy.dcm")
    (case,) = _series(_find(tmp_path))
    assert case.geometry.shape[0] == 4
    assert [finding.code for finding in case.findings] == ["DUPLICATE_FILE"]
    assert "copy.dcm" in case.findings[0].message


def test_one_uid_with_two_images_is_refused(tmp_path: Path) -> None:
    """Two files with one SOP Instance UID and different pixels are a conflict, whatever is allowed."""
    datasets = make_series(4)
    save(tmp_path, datasets)
    datasets[1].PixelData = pixels(77).tobytes()
    save(tmp_path, [datasets[1]], ["other.dcm"])
    found = _find(tmp_path, "duplicates", "gaps", "irregular")
    assert [refusal.code for refusal in found.refused] == ["CONFLICTING_DUPLICATES"]
    assert "001.dcm, other.dcm" in found.refused[0].message


def test_equal_images_at_one_position_are_kept_once(tmp_path: Path) -> None:
    """Of two equal images at one position with their own UIDs one is kept, and the finding says where and which."""
    datasets = make_series(4)
    save(tmp_path, datasets)
    datasets[1].SOPInstanceUID = datasets[1].file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    save(tmp_path, [datasets[1]], ["again.dcm"])
    (case,) = _series(_find(tmp_path))
    (finding,) = case.findings
    assert finding.code == "DUPLICATE_POSITION"
    assert "102.00 mm" in finding.message
    assert "again.dcm" in finding.message
    assert np.array_equal(read_case(case).array, np.stack([pixels(index) for index in range(4)]))


def test_different_images_at_one_position_are_always_refused(tmp_path: Path) -> None:
    """Two different images at one place are a conflict that no allowance lifts; what differs is named."""
    datasets = make_series(4)
    extra = make_series(4)[1]
    extra.SOPInstanceUID = extra.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
    extra.PixelData, extra.EchoTime, extra.InstanceNumber = pixels(50).tobytes(), 30.0, 9
    save(tmp_path, [*datasets, extra])
    (refusal,) = _find(tmp_path, "duplicates").refused
    assert refusal.code == "CONFLICTING_DUPLICATES"
    assert "they differ in EchoTime" in refusal.message


@pytest.mark.parametrize(("tag", "values"), [
    ("TemporalPositionIdentifier", [1, 2, 10]), ("DiffusionBValue", [0.0, 50.0, 800.0]),
    ("EchoTime", [10.0, 30.0, 90.0]), ("AcquisitionNumber", [1, 2, 3]), ("TriggerTime", [0.0, 40.0, 80.0]),
])  # fmt: skip
def test_phases_are_split(tmp_path: Path, tag: str, values: list[float]) -> None:
    """Volumes that one attribute tells apart become a case each, never interleaved."""
    save(tmp_path, _copies(3, lambda copy, _, dataset: setattr(dataset, tag, values[copy])))
    cases = _series(_find(tmp_path))
    assert len({case.case_id for case in cases}) == 3
    first_values = set()
    for case in cases:
        (finding,) = case.findings
        assert finding.code == "SPLIT"
        assert f"told apart by {tag}" in finding.message
        volume = read_case(case)
        copy = int(volume.array[0, 0, 0]) // 800
        first_values.add(copy)
        assert np.array_equal(volume.array, np.stack([pixels(10 * copy + index) for index in range(4)]))
    assert first_values == {0, 1, 2}


def test_two_attributes_together_split(tmp_path: Path) -> None:
    """Echoes by phases, which no single attribute tells apart, become a case each."""

    def label(copy: int, _: int, dataset: Dataset) -> None:
        dataset.EchoTime, dataset.TemporalPositionIdentifier = 10.0 * (1 + copy % 2), copy // 2 + 1

    save(tmp_path, _copies(4, label))
    assert len(_series(_find(tmp_path))) == 4


def test_runs_of_instance_numbers_split(tmp_path: Path) -> None:
    """Where no attribute differs, instance numbers that run through the stack twice split it, as a finding says."""
    save(tmp_path, _copies(2, lambda *_: None))
    cases = _series(_find(tmp_path))
    assert len(cases) == 2
    assert all("InstanceNumber" in case.findings[0].message for case in cases)


def test_incomplete_phase_is_refused_alone(tmp_path: Path) -> None:
    """A phase that lacks a slice is refused, rather than made shorter; the complete phase is read."""
    datasets = _copies(2, lambda copy, _, dataset: setattr(dataset, "EchoTime", 10.0 * (copy + 1)))
    save(tmp_path, datasets[:-1])
    found = _find(tmp_path)
    assert [len(case.files) for case in _series(found)] == [4]
    assert [refusal.code for refusal in found.refused] == ["MISSING_SLICES"]
    assert "told apart by EchoTime; this is the one of 20.0. 1 of 4 slices" in found.refused[0].message


def test_incomplete_phase_can_be_allowed(tmp_path: Path) -> None:
    """With gaps allowed the phase without its last slice is a shorter volume, with a finding."""
    datasets = _copies(2, lambda copy, _, dataset: setattr(dataset, "EchoTime", 10.0 * (copy + 1)))
    save(tmp_path, datasets[:-1])
    cases = sorted(_series(_find(tmp_path, "gaps")), key=lambda case: len(case.files))
    assert [len(case.files) for case in cases] == [3, 4]
    assert [finding.code for finding in cases[0].findings] == ["SPLIT", "MISSING_SLICES"]


def test_overlapping_slabs_are_volumes(tmp_path: Path) -> None:
    """Two acquisitions that share some positions are two volumes of their own lengths."""
    datasets = [*make_series(places=[0, 2, 4, 6, 8]), *make_series(places=[6, 8, 10, 12])]
    for number, dataset in enumerate(datasets):
        dataset.AcquisitionNumber = 1 if number < 5 else 2
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.PixelData = pixels(number).tobytes()
    save(tmp_path, datasets)
    found = _find(tmp_path)
    assert sorted(len(case.files) for case in _series(found)) == [4, 5]
    assert found.refused == ()


def test_phases_of_a_heart_are_split_by_the_order_of_their_times(tmp_path: Path) -> None:
    """Phases whose trigger times differ from slice to slice are told apart by their order at each position."""

    def beat(copy: int, index: int, dataset: Dataset) -> None:
        dataset.TriggerTime = (10.0 + index) * (copy + 1)
        dataset.InstanceNumber = index * 3 + copy + 1

    save(tmp_path, _copies(3, beat))
    volumes = [read_case(case) for case in _series(_find(tmp_path))]
    expected = [np.stack([pixels(10 * copy + index) for index in range(4)]).tolist() for copy in range(3)]
    assert sorted(volume.array.tolist() for volume in volumes) == sorted(expected)


def test_images_with_their_own_frames_of_reference_are_one_stack(tmp_path: Path) -> None:
    """Some systems give each image a Frame of Reference of its own; the stack is read, and has none."""
    save(tmp_path, make_series(5), edit=lambda i, dataset: setattr(dataset, "FrameOfReferenceUID", f"1.2.{i + 1}"))
    (case,) = _series(_find(tmp_path))
    assert (case.geometry.shape[0], case.geometry.frame_of_reference_uid) == (5, "")
    assert [finding.code for finding in case.findings] == ["FRAMES_OF_REFERENCE"]


def test_jitter_of_pixel_spacing_is_one_grid(tmp_path: Path) -> None:
    """Pixel Spacings that differ in the fifth digit, also across a rounding, are one spacing."""
    spacings = [0.700049, 0.700051, 0.70002, 0.70006]
    save(tmp_path, make_series(4), edit=lambda i, dataset: setattr(dataset, "PixelSpacing", [spacings[i], 0.7]))
    (case,) = _series(_find(tmp_path))
    assert case.geometry.shape[0] == 4
    assert case.geometry.spacing_mm[1] == pytest.approx(0.70005, abs=1e-5)


def test_series_without_uid_are_told_apart_by_number(tmp_path: Path) -> None:
    """Images without Series Instance UID are grouped by study, series number, modality and description."""
    save(
        tmp_path,
        [*make_series(3, series=1), *make_series(4, series=2)],
        edit=lambda _, d: delattr(d, "SeriesInstanceUID"),
    )
    assert sorted(case.geometry.shape[0] for case in _series(_find(tmp_path))) == [3, 4]


def test_one_position_is_never_split(tmp_path: Path) -> None:
    """Images of one place at several times, as of a bolus monitor, are no volumes."""
    datasets = _copies(2, lambda copy, _, dataset: setattr(dataset, "AcquisitionNumber", copy))[::4]
    save(tmp_path, datasets)
    (refusal,) = _find(tmp_path).refused
    assert refusal.code == "CONFLICTING_DUPLICATES"


@pytest.mark.parametrize(("tag", "value", "code", "remedy"), [
    ("NumberOfFrames", 5, "NO_GEOMETRY", "Export"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "MOSAIC", "dcm2niix"),
])  # fmt: skip
def test_unsupported_kinds_are_refused(tmp_path: Path, tag: str, value: object, code: str, remedy: str) -> None:
    """Frames without places and mosaics are refused by their code, with what to do instead."""
    save(tmp_path, make_series(2), edit=lambda _, dataset: setattr(dataset, tag, value))
    (refusal,) = _find(tmp_path).refused
    assert refusal.code == code
    assert remedy in refusal.remedy


def test_image_without_pixels_refuses_the_series(tmp_path: Path) -> None:
    """A slice whose file ends before the pixels is not left out silently."""
    datasets = make_series(4)
    del datasets[3].PixelData
    save(tmp_path, datasets)
    (refusal,) = _find(tmp_path).refused
    assert (refusal.code, "003.dcm" in refusal.message) == ("UNREADABLE_PIXELS", True)


def test_case_names_are_safe_and_anonymous(tmp_path: Path) -> None:
    """A case name has modality, number and digest only, whatever the header says."""

    def attack(_: int, dataset: Dataset) -> None:
        dataset.SeriesDescription = "../../etc"
        dataset.Modality = "C_T"

    save(tmp_path, make_series(2), edit=attack)
    (case,) = _series(_find(tmp_path))
    assert re.fullmatch("CT_1_[0-9a-f]{8}", case.case_id)


def test_missing_modality_is_a_finding(tmp_path: Path) -> None:
    """A series without modality is read and says so."""
    save(tmp_path, make_series(2), edit=lambda _, dataset: delattr(dataset, "Modality"))
    (case,) = _series(_find(tmp_path))
    assert (case.modality, [finding.code for finding in case.findings]) == ("", ["NO_MODALITY"])


def test_no_message_names_the_patient(tmp_path: Path) -> None:
    """Neither refusals nor findings nor case names hold the patient's name or number."""
    save(tmp_path / "a", make_series(places=[0, 2, 4, 8]))
    save(tmp_path / "b", make_series(1, series=2))
    save(tmp_path / "c", make_series(3, series=3), edit=lambda _, dataset: delattr(dataset, "PixelSpacing"))
    assert "SECRET" not in repr(_find(tmp_path)).upper()
