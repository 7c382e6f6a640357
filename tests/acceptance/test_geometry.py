"""Acceptance cases 1 to 11: every voxel of every series lies where the files say."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from effvit_med.io import DicomSeries, Found, ReadOptions, open_input, read_case
from effvit_med.volume import Volume
from tests.acceptance.judging import assert_true
from tests.acceptance.series import Stack, make_series, save, save_stack, turned

ORIENTATIONS = {
    "prone": (-1, 0, 0, 0, -1, 0),
    "decubitus": (0, 1, 0, -1, 0, 0),
    "row_flip": (1, 0, 0, 0, -1, 0),
    "column_flip": (-1, 0, 0, 0, 1, 0),
    "transposed": (0, 1, 0, 1, 0, 0),
    "transposed_flipped": (0, -1, 0, -1, 0, 0),
    "decubitus_right": (0, -1, 0, 1, 0, 0),
}
CORONAL = {f"coronal{a:+d}{c:+d}": (a, 0, 0, 0, 0, c) for a, c in itertools.product((1, -1), repeat=2)}
SAGITTAL = {f"sagittal{a:+d}{c:+d}": (0, a, 0, 0, 0, c) for a, c in itertools.product((1, -1), repeat=2)}


def read_one(folder: Path, options: ReadOptions | None = None) -> Volume:
    """The only volume of a folder."""
    with open_input(folder, options) as found:
        (case,) = found.cases
        assert not found.refused
        return read_case(case, options)


def codes_of(volume: Volume) -> set[str]:
    """The codes of what the reader noticed."""
    assert volume.source is not None
    return {finding.code for finding in volume.source.findings}


def refused_codes(folder: Path, options: ReadOptions | None = None) -> list[str]:
    """The codes of the refusals of a folder that gives no case; refusals may also come with the pixels."""
    with open_input(folder, options) as found:
        assert not found.cases
        return [each.code for each in found.refused]


def test_case_01_order_of_names_and_numbers_does_not_matter(tmp_path: Path) -> None:
    """An axial series under random names without extension, numbered from the other end, is right."""
    stack = Stack(spacing_mm=(0.9, 0.7))
    names = [f"IM{number:05d}" for number in random.Random(3).sample(range(99999), len(stack.places_mm))]

    def edit(index: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = len(stack.places_mm) - index

    save(tmp_path / "in", make_series(stack, edit=edit), names)
    assert_true(read_one(tmp_path / "in"), stack)


@pytest.mark.parametrize("down", [False, True], ids=["head_first", "feet_first"])
@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_case_02_patient_positions(name: str, down: bool, tmp_path: Path) -> None:
    """Prone, decubitus, flipped and transposed images, stored head first or feet first, are right."""
    stack = Stack(ORIENTATIONS[name], spacing_mm=(0.9, 1.3))

    def edit(index: int, dataset: Dataset) -> None:
        dataset.PatientPosition = "FFP" if down else "HFP"
        dataset.InstanceNumber = len(stack.places_mm) - index if down else index + 1

    assert_true(read_one(save_stack(tmp_path / "in", stack, edit=edit)), stack)


@pytest.mark.parametrize("size", [(36, 36), (30, 42)], ids=["square", "oblong"])
@pytest.mark.parametrize("name", sorted(CORONAL | SAGITTAL))
def test_case_03_coronal_and_sagittal(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Coronal and sagittal images in each of their four flips, square and oblong, are right."""
    stack = Stack((CORONAL | SAGITTAL)[name], size=size)
    assert_true(read_one(save_stack(tmp_path / "in", stack)), stack)


@pytest.mark.parametrize("degrees", [(17, -23, 11), (40, 0, 0), (0, 40, 0), (-130, 25, 100)], ids=str)
def test_case_04_oblique(degrees: tuple[float, ...], tmp_path: Path) -> None:
    """Doubly oblique series, and those turned by 40 degrees, are right."""
    stack = Stack(turned(degrees), spacing_mm=(0.9, 1.2))
    assert_true(read_one(save_stack(tmp_path / "in", stack)), stack)


@pytest.mark.parametrize("spacing_mm", [(0.9, 0.7), (0.7, 0.9)], ids=str)
def test_case_05_pixels_that_are_not_square(spacing_mm: tuple[float, float], tmp_path: Path) -> None:
    """Rows 0.9 mm apart and columns 0.7 mm apart are not exchanged."""
    stack = Stack(spacing_mm=spacing_mm, size=(60, 64))
    volume = read_one(save_stack(tmp_path / "in", stack))
    assert_true(volume, stack)
    assert volume.geometry.spacing_mm == pytest.approx((2.0, *spacing_mm))


@pytest.mark.parametrize("degrees", [15, -18.5], ids=str)
def test_case_06_gantry_tilt(degrees: float, tmp_path: Path) -> None:
    """A tilted series keeps the true place of every slice, and the tilt is a finding."""
    stack = Stack(tilt_degrees=degrees)
    volume = read_one(save_stack(tmp_path / "in", stack))
    assert "SHEARED" in codes_of(volume)
    assert volume.geometry.shear_degrees == pytest.approx(abs(degrees), abs=0.01)
    assert_true(volume, stack)


def test_case_07_a_missing_slice_is_refused(tmp_path: Path) -> None:
    """Without one slice in the middle the series is refused as MISSING_SLICES, and the remedy names the option."""
    folder = save_stack(tmp_path / "in", Stack().without(7))
    with open_input(folder) as found:
        (refused,) = found.refused
        assert not found.cases
    assert refused.code == "MISSING_SLICES"
    assert "gaps" in refused.remedy


@pytest.mark.parametrize("gone", [(7,), (1,), (4, 5, 11)], ids=str)
def test_case_07_a_missing_slice_is_accepted_when_asked(gone: tuple[int, ...], tmp_path: Path) -> None:
    """Where gaps are allowed the slices that are there lie at their true places, and the finding stays."""
    stack = Stack().without(*gone)
    volume = read_one(save_stack(tmp_path / "in", stack), ReadOptions(allow=frozenset({"gaps"})))
    assert "MISSING_SLICES" in codes_of(volume)
    assert_true(volume, stack)


IRREGULAR = Stack(places_mm=tuple(np.cumsum([-15.0, *[2.0] * 7, *[5.0] * 3])))


def test_case_08_irregular_spacing(tmp_path: Path) -> None:
    """Slices 2 mm and then 5 mm apart are read at their true places, with the finding IRREGULAR_SPACING."""
    volume = read_one(save_stack(tmp_path / "in", IRREGULAR))
    assert "IRREGULAR_SPACING" in codes_of(volume)
    assert_true(volume, IRREGULAR)


def test_case_08_volume_by_true_thickness(tmp_path: Path) -> None:
    """The voxels of irregular slices have the volume of half the way to both neighbours."""
    volume = read_one(save_stack(tmp_path / "in", IRREGULAR))
    thickness = volume.geometry.voxel_volumes_mm3() / (1.5 * 1.5)
    assert np.allclose(thickness, [2, 2, 2, 2, 2, 2, 2, 3.5, 5, 5, 5])


@pytest.mark.parametrize("keyword", ["SliceThickness", "SpacingBetweenSlices"])
@pytest.mark.parametrize("value", [5.0, 0.1, 0.0, -2.0, None], ids=str)
def test_case_09_positions_win(keyword: str, value: float | None, tmp_path: Path) -> None:
    """Whatever Slice Thickness and Spacing Between Slices say, the positions decide."""
    stack = Stack()

    def edit(index: int, dataset: Dataset) -> None:
        setattr(dataset, keyword, value)

    volume = read_one(save_stack(tmp_path / "in", stack, edit=edit))
    assert volume.geometry.spacing_mm[0] == pytest.approx(2.0)
    assert_true(volume, stack)


@pytest.mark.parametrize("jitter_mm", [0.002, 0.01])
def test_case_10_rounding_of_headers(jitter_mm: float, tmp_path: Path) -> None:
    """Direction cosines 2e-5 off and positions up to 0.01 mm off are accepted, without a refusal."""
    stack = Stack(turned((5, 8, -3)))
    draw = np.random.default_rng(5)

    def edit(index: int, dataset: Dataset) -> None:
        cosines = np.array(stack.orientation) + draw.uniform(-2e-5, 2e-5, 6)
        dataset.ImageOrientationPatient = [f"{value:.6f}" for value in cosines]
        place = stack.position(stack.places_mm[index]) + draw.uniform(-jitter_mm, jitter_mm, 3)
        dataset.ImagePositionPatient = [f"{value:.3f}" for value in place]

    assert_true(read_one(save_stack(tmp_path / "in", stack, edit=edit)), stack, off_mm=2 * jitter_mm + 0.005)


def test_case_11_a_single_slice(tmp_path: Path) -> None:
    """One slice is a volume of one slice as thick as its header says, with the finding SINGLE_SLICE."""
    stack = replace(Stack(), places_mm=(2.0,))
    volume = read_one(save_stack(tmp_path / "in", stack))
    assert "SINGLE_SLICE" in codes_of(volume)
    assert volume.geometry.spacing_mm[0] == pytest.approx(2.0)
    assert_true(volume, stack)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_case_11_no_place_in_the_patient(keyword: str, tmp_path: Path) -> None:
    """Without position or orientation nothing is guessed: NO_GEOMETRY."""

    def edit(index: int, dataset: Dataset) -> None:
        delattr(dataset, keyword)

    assert set(refused_codes(save_stack(tmp_path / "in", Stack(), edit=edit))) == {"NO_GEOMETRY"}


def only_series(found: Found) -> list[DicomSeries]:
    """The cases, all of them DICOM."""
    return [case for case in found.cases if isinstance(case, DicomSeries)]
