"""What scanners and archives do to series beyond the rules, each as a small series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from effvit_med.io.find import DicomSeries, Found, ReadOptions, find_cases
from tests.io.dicom_cases import AXIAL, ORIGIN, SPACING, make_series, make_slice, save
from tests.io.test_dicom_series import _copies


def _find(folder: Path, datasets: list[Dataset]) -> Found:
    save(folder, datasets)
    return find_cases(folder, ReadOptions())


def _shapes(found: Found) -> list[int]:
    return sorted(case.geometry.shape[0] for case in found.cases if isinstance(case, DicomSeries))


@pytest.mark.parametrize(
    ("tag", "values"), [("ConvolutionKernel", ("B30f", "B70f")), ("EchoTime", (10, 90)), ("DiffusionBValue", (0, 800))]
)
def test_contrasts_whose_slices_interleave_are_not_one_volume(
    tmp_path: Path, tag: str, values: tuple[object, object]
) -> None:
    """Slices of one contrast halfway between those of another would pass for one finer stack."""
    datasets = make_series(8)
    for index, dataset in enumerate(datasets):
        setattr(dataset, tag, values[index % 2])
    found = _find(tmp_path, datasets)
    assert _shapes(found) == [4, 4]
    assert {round(case.geometry.spacing_mm[0], 6) for case in found.cases if isinstance(case, DicomSeries)} == {4.0}


def test_packages_of_one_contrast_stay_one_volume(tmp_path: Path) -> None:
    """Odd and even slices of two acquisitions are one stack: nothing in the image differs."""
    datasets = make_series(8)
    for index, dataset in enumerate(datasets):
        dataset.AcquisitionNumber = index % 2 + 1
    assert _shapes(_find(tmp_path, datasets)) == [8]


def test_directions_of_few_digits_do_not_change_the_spacing(tmp_path: Path) -> None:
    """Cosines of length 0.9996 are unit vectors that were rounded; Pixel Spacing holds as it stands."""
    rounded = tuple(0.9996 * value for value in AXIAL)
    (case,) = _find(tmp_path, make_series(4, orientation=rounded)).cases
    assert isinstance(case, DicomSeries)
    np.testing.assert_allclose(case.geometry.spacing_mm[1:], SPACING, rtol=1e-12)
    assert case.geometry.shear_degrees < 1e-6


def test_stacks_turned_by_little_are_stacks_of_their_own(tmp_path: Path) -> None:
    """Slices through two disks of a spine, two degrees apart, are two cases and none is refused."""
    datasets = []
    for stack, degrees in enumerate((4.0, 6.0)):
        angle = np.radians(degrees)
        down = (0.0, np.cos(angle), np.sin(angle))
        normal = np.cross((1.0, 0.0, 0.0), down)
        for index in range(4):
            place = np.array(ORIGIN) + (40 * stack + 4 * index) * normal
            datasets.append(make_slice(4 * stack + index, place, (1.0, 0.0, 0.0, *down)))
    found = _find(tmp_path, datasets)
    assert (_shapes(found), found.refused) == ([4, 4], ())


def test_a_last_volume_that_was_stopped_does_not_refuse_the_others(tmp_path: Path) -> None:
    """Three whole time points and one slice of a fourth: three cases, and the fourth is refused alone."""

    def edit(copy: int, index: int, dataset: Dataset) -> None:
        dataset.TemporalPositionIdentifier = copy + 1

    found = _find(tmp_path, _copies(4, edit)[:13])
    assert _shapes(found) == [4, 4, 4]
    assert [refused.code for refused in found.refused] == ["MISSING_SLICES"]


def test_fewer_thicker_slices_are_not_missing_ones(tmp_path: Path) -> None:
    """A thick and a thin reconstruction of one series: both are whole."""
    thin, thick = make_series(13, step=1.0), make_series(5, step=3.0)
    for number, dataset in enumerate(thick):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.9.{number + 1}"
        dataset.SliceThickness, dataset.ConvolutionKernel, dataset.InstanceNumber = 3.0, "B30f", 101 + number
        dataset.PixelData = (np.frombuffer(dataset.PixelData, np.int16) + 500).tobytes()
    for dataset in thin:
        dataset.SliceThickness, dataset.ConvolutionKernel = 1.0, "B70f"
    found = _find(tmp_path, [*thin, *thick])
    assert (_shapes(found), found.refused) == ([5, 13], ())


@pytest.mark.parametrize("spelling", ["{}.", "+{}.0", "{}.0e+00"])
def test_times_in_any_spelling_of_numbers_tell_phases_apart(tmp_path: Path, spelling: str) -> None:
    """Trigger times that differ from slice to slice, as one phase after another is taken at each."""

    def edit(copy: int, index: int, dataset: Dataset) -> None:
        dataset.TriggerTime = spelling.format(100 * copy + 3 * index + 1)
        dataset.InstanceNumber = 3 * index + copy + 1

    assert _shapes(_find(tmp_path, _copies(3, edit))) == [4, 4, 4]


def test_a_grid_of_united_imaging_is_no_slice(tmp_path: Path) -> None:
    """Many slices in one image, which the private header counts, are refused instead of read as one large slice."""
    (dataset,) = make_series(1)
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x50, "DS", "4")
    assert [refused.code for refused in _find(tmp_path, [dataset]).refused] == ["MOSAIC"]


@pytest.mark.parametrize("tag", ["ContrastBolusAgent", "SequenceName", "ConvolutionKernel"])
def test_no_message_holds_what_a_person_typed(tmp_path: Path, tag: str) -> None:
    """Volumes that differ in a text are numbered; only numbers and words of the standard are told."""

    def edit(copy: int, index: int, dataset: Dataset) -> None:
        setattr(dataset, tag, f"SECRET {copy}")

    found = _find(tmp_path, _copies(2, edit))
    assert _shapes(found) == [4, 4]
    messages = " ".join(finding.message for case in found.cases for finding in case.findings)
    assert "told apart by" in messages
    assert "SECRET" not in messages


def test_spectra_are_no_damaged_images(tmp_path: Path) -> None:
    """MR Spectroscopy Storage has no Rows and Columns; it is set aside as no image."""
    (dataset,) = make_series(1)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.2"
    del dataset.Rows, dataset.Columns, dataset.PixelData
    assert [aside.code for aside in _find(tmp_path, [dataset]).set_aside] == ["NOT_AN_IMAGE"]


def test_a_projection_is_not_sent_for_a_position(tmp_path: Path) -> None:
    """A radiograph has no place in the patient: the remedy does not ask for one."""
    (dataset,) = make_series(1)
    dataset.Modality = "DX"
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    (refused,) = _find(tmp_path, [dataset]).refused
    assert refused.code == "NO_GEOMETRY"
    assert "projection" in refused.remedy
