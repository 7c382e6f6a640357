"""Facts about `effvit_med.io.dicom_slices`: what positions are accepted and where voxels then lie."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from effvit_med.io.find import DicomSeries, ReadOptions, RefusedCase, find_cases
from effvit_med.io.read import read_case
from tests.io.dicom_cases import AXIAL, COLUMNS, ORIGIN, ROWS, SPACING, make_series, orientations, pixels, save


def _only_case(folder: Path, *allow: str) -> DicomSeries:
    found = find_cases(folder, ReadOptions(frozenset(allow)))  # type: ignore[arg-type]
    assert (len(found.cases), found.refused) == (1, ())
    return found.cases[0]  # type: ignore[return-value]


def _only_refusal(folder: Path, *allow: str) -> RefusedCase:
    found = find_cases(folder, ReadOptions(frozenset(allow)))  # type: ignore[arg-type]
    assert (len(found.refused), found.cases) == (1, ())
    return found.refused[0]


def _codes(case: DicomSeries) -> list[str]:
    return [finding.code for finding in case.findings]


@pytest.mark.parametrize("orientation", orientations(), ids=str)
@pytest.mark.parametrize("direction", [1, -1])
def test_voxel_lies_where_the_standard_says(tmp_path: Path, orientation: tuple[float, ...], direction: int) -> None:
    """In each of 48 stackings, every stored value is found at its world point by equation C.7.6.2.1-1."""
    datasets = make_series(4, 2.5 * direction, orientation)
    save(tmp_path, datasets)
    volume = read_case(_only_case(tmp_path))
    row_direction, column_direction = np.array(orientation[:3]), np.array(orientation[3:])
    for index, (row, column) in enumerate([(0, 0), (ROWS - 1, 2), (3, COLUMNS - 1), (5, 5)]):
        position = np.array(datasets[index].ImagePositionPatient, dtype=float)
        world = position + row_direction * SPACING[1] * column + column_direction * SPACING[0] * row
        place = np.rint(volume.geometry.world_to_index(world)).astype(int)
        assert np.allclose(volume.geometry.index_to_world(place), world, atol=1e-5)
        assert volume.array[tuple(place)] == pixels(index)[row, column]


@given(order=st.permutations(range(6)), numbers=st.permutations(range(6)))
def test_order_of_files_and_instance_numbers_makes_no_difference(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], numbers: list[int]
) -> None:
    """A series with shuffled file names and instance numbers gives the same volume and case name."""
    datasets = make_series()
    plain, shuffled = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("shuffled")
    save(plain, datasets)

    def renumber(index: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = numbers[index] + 1

    save(shuffled, datasets, [f"{place}.x" for place in order], renumber)
    one, other = read_case(_only_case(plain)), read_case(_only_case(shuffled))
    assert np.array_equal(one.array, other.array)
    assert one.geometry == other.geometry
    assert one.source is not None
    assert other.source is not None
    assert one.source.case_id == other.source.case_id


def test_axes_are_slice_row_column(tmp_path: Path) -> None:
    """Affine columns are the step between slices, down the rows and along the columns, each with its spacing."""
    save(tmp_path, make_series(3, 2.5))
    geometry = _only_case(tmp_path).geometry
    assert geometry.shape == (3, ROWS, COLUMNS)
    assert geometry.spacing_mm == pytest.approx((2.5, 0.9, 0.7))
    assert geometry.orientation == "SPL"
    assert geometry.affine[:3, 3].tolist() == list(ORIGIN)


def test_positions_win_over_thickness(tmp_path: Path) -> None:
    """A wrong Slice Thickness and Spacing Between Slices change nothing."""

    def lie(_: int, dataset: Dataset) -> None:
        dataset.SliceThickness, dataset.SpacingBetweenSlices = 7.0, 5.0

    save(tmp_path, make_series(), edit=lie)
    assert _only_case(tmp_path).geometry.spacing_mm[0] == pytest.approx(2.0)


def test_missing_slice_is_refused_by_name(tmp_path: Path) -> None:
    """A gap of two steps is refused with the positions and files on both sides."""
    save(tmp_path, make_series(places=[0, 2, 4, 8, 10]))
    refusal = _only_refusal(tmp_path, "irregular", "duplicates")
    assert refusal.code == "MISSING_SLICES"
    assert "1 slice is missing: 1 between 002.dcm at 104.00 mm and 003.dcm at 108.00 mm" in refusal.message
    assert "allow gaps" in refusal.remedy


@pytest.mark.parametrize("places", [[0, 5, 15], [0, 10, 15], [0, 5, 10, 20], [0, 2, 8, 10, 12, 14, 18, 20]])
def test_gaps_are_gaps_wherever_they_are(tmp_path: Path, places: list[float]) -> None:
    """A gap at either end, among few slices, or twice is a gap and not irregular spacing."""
    save(tmp_path, make_series(places=places))
    assert _only_refusal(tmp_path).code == "MISSING_SLICES"


def test_allowed_gap_keeps_true_places(tmp_path: Path) -> None:
    """With gaps allowed each slice stays where it was scanned, and the gap is a finding."""
    save(tmp_path, make_series(places=[0, 2, 4, 8, 10]))
    case = _only_case(tmp_path, "gaps")
    assert case.geometry.slice_offsets == pytest.approx((0, 1, 2, 4, 5))
    assert case.geometry.index_to_world([3, 0, 0])[2] == pytest.approx(108.0)
    assert _codes(case) == ["MISSING_SLICES"]


def test_irregular_spacing_is_a_finding_by_name(tmp_path: Path) -> None:
    """A distance that is no multiple of the others is reported with the file where it stands."""
    save(tmp_path, make_series(places=[0, 2, 4, 6, 9, 11]))
    (finding,) = _only_case(tmp_path).findings
    assert finding.code == "IRREGULAR_SPACING"
    assert "3 mm before 004.dcm at 109.00 mm" in finding.message


def test_thicker_slices_are_no_gaps(tmp_path: Path) -> None:
    """Where the slices become as thick as the steps between them, wide steps are irregular and miss nothing."""
    places = [0.0, 2, 4, 6, 9, 13, 17, 21]
    series = make_series(places=places)
    save(tmp_path, series, edit=lambda i, dataset: setattr(dataset, "SliceThickness", 2.0 if i < 4 else 4.0))
    case = _only_case(tmp_path)
    assert _codes(case) == ["IRREGULAR_SPACING"]
    found = [case.geometry.index_to_world([index, 0, 0])[2] - ORIGIN[2] for index in range(8)]
    assert found == pytest.approx(places)


def test_overlapping_thick_slices_still_show_a_gap(tmp_path: Path) -> None:
    """A missing slice of slices twice as thick as their distance is missing, though its neighbours touch."""
    series = make_series(places=[0, 2, 4, 8, 10])
    save(tmp_path, series, edit=lambda _, dataset: setattr(dataset, "SliceThickness", 4.0))
    assert _only_refusal(tmp_path).code == "MISSING_SLICES"


def test_extra_slice_is_irregular_not_a_gap(tmp_path: Path) -> None:
    """One slice halfway between two others does not make all the others look like gaps."""
    save(tmp_path, make_series(places=[0, 2, 4, 5, 6, 8, 10]))
    assert _codes(_only_case(tmp_path)) == ["IRREGULAR_SPACING"]


def test_slow_drift_is_irregular(tmp_path: Path) -> None:
    """Steps that change by 5 % halfway add up to more than the tolerance."""
    places = np.concatenate([np.arange(20) * 2.0, 38 + 2.1 * np.arange(1, 20)])
    save(tmp_path, make_series(places=places.tolist()))
    assert _codes(_only_case(tmp_path)) == ["IRREGULAR_SPACING"]


def test_slice_off_the_grid_by_four_percent_is_irregular(tmp_path: Path) -> None:
    """One slice that lies 0.28 mm off a grid of 7 mm is beyond the tolerance of 2 %."""
    save(tmp_path, make_series(places=[0, 7.28, 14, 21]))
    assert _codes(_only_case(tmp_path)) == ["IRREGULAR_SPACING"]


def test_irregular_spacing_keeps_true_places(tmp_path: Path) -> None:
    """With irregular spacing each slice stays where it was scanned."""
    places = [0, 2, 4, 6, 9, 14]
    save(tmp_path, make_series(places=places))
    geometry = _only_case(tmp_path).geometry
    found = [geometry.index_to_world([index, 0, 0])[2] - ORIGIN[2] for index in range(6)]
    assert found == pytest.approx(places)


@given(st.lists(st.floats(-0.035, 0.035), min_size=8, max_size=8))
def test_rounded_positions_are_regular(tmp_path_factory: pytest.TempPathFactory, jitter: list[float]) -> None:
    """Positions within 2 % of a 7 mm step, ends included, make a regular grid close to them all."""
    folder = tmp_path_factory.mktemp("jitter")
    places = [index * 7.0 + error for index, error in enumerate(jitter)]
    save(folder, make_series(places=places))
    geometry = _only_case(folder).geometry
    assert geometry.is_regular
    found = [geometry.index_to_world([index, 0, 0])[2] - ORIGIN[2] for index in range(8)]
    assert found == pytest.approx(places, abs=0.14)


def test_jitter_is_a_finding(tmp_path: Path) -> None:
    """Positions clearly off the grid, but within tolerance, are reported."""
    save(tmp_path, make_series(places=[0, 7.07, 14, 21]))
    assert _codes(_only_case(tmp_path)) == ["SPACING_JITTER"]


@given(degrees=st.floats(-30, 30).filter(lambda degrees: abs(degrees) > 0.2))
def test_gantry_tilt_is_kept(tmp_path_factory: pytest.TempPathFactory, degrees: float) -> None:
    """A stack that shifts sideways evenly is sheared by its tilt, and each slice starts at its own position."""
    folder = tmp_path_factory.mktemp("tilt")
    datasets = make_series(5, 3.0)

    def tilt(index: int, dataset: Dataset) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, round(float(y) + 3.0 * index * np.tan(np.radians(degrees)), 6), z]

    save(folder, datasets, edit=tilt)
    case = _only_case(folder)
    assert _codes(case) == ["SHEARED"]
    said = re.search(r"by ([\d.]+) degrees", case.findings[0].message)
    assert said is not None
    assert float(said[1]) == pytest.approx(abs(degrees), abs=0.051)
    assert case.geometry.shear_degrees == pytest.approx(abs(degrees), abs=1e-3)
    starts = case.geometry.index_to_world([[index, 0, 0] for index in range(5)])
    assert np.allclose(starts, [dataset.ImagePositionPatient for dataset in datasets], atol=1e-5)


@pytest.mark.parametrize("odd", [0, 2, 5])
def test_slice_beside_the_line_is_refused_by_name(tmp_path: Path, odd: int) -> None:
    """One slice shifted sideways by 3 mm is named, also where it is the first or last."""

    def shift(index: int, dataset: Dataset) -> None:
        if index == odd:
            dataset.ImagePositionPatient[0] += 3.0

    save(tmp_path, make_series(), edit=shift)
    refusal = _only_refusal(tmp_path, "gaps", "irregular", "duplicates")
    assert refusal.code == "NOT_ONE_LINE"
    assert f"00{odd}.dcm" in refusal.message
    assert "3.00 mm" in refusal.message


def test_turned_slice_is_refused_by_name(tmp_path: Path) -> None:
    """One slice turned by 1 degree does not belong to the stack."""
    c, s = np.cos(np.radians(1)), np.sin(np.radians(1))

    def turn(index: int, dataset: Dataset) -> None:
        if index == 3:
            dataset.ImageOrientationPatient = [round(float(value), 9) for value in (c, s, 0, -s, c, 0)]

    save(tmp_path, make_series(), edit=turn)
    refusal = _only_refusal(tmp_path)
    assert (refusal.code, "003.dcm" in refusal.message) == ("MIXED_ORIENTATION", True)


def test_orientation_jitter_is_accepted(tmp_path: Path) -> None:
    """Direction cosines that differ by 2e-5 from slice to slice are one orientation."""

    def jitter(index: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [1, 2e-5 * (index % 2), 0, 0, 1, 2e-5 * (index % 3)]

    save(tmp_path, make_series(), edit=jitter)
    assert _only_case(tmp_path).geometry.shape == (6, ROWS, COLUMNS)


def test_oblique_orientation_is_accepted(tmp_path: Path) -> None:
    """A double oblique stack of right angles is not sheared."""
    a, b = np.radians(17), np.radians(-23)
    row = np.array([np.cos(a), np.sin(a), 0])
    column = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    save(tmp_path, make_series(orientation=[round(float(value), 10) for value in (*row, *column)]))
    case = _only_case(tmp_path)
    assert case.findings == ()
    assert case.geometry.shear_degrees < 0.01


@pytest.mark.parametrize("orientation", [[0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0]])
def test_orientation_that_is_no_rotation_is_refused(tmp_path: Path, orientation: list[float]) -> None:
    """Directions that are zero, parallel or too long make no geometry."""

    def break_orientation(_: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = orientation

    save(tmp_path, make_series(), edit=break_orientation)
    assert _only_refusal(tmp_path).code == "BAD_GEOMETRY"


@pytest.mark.parametrize("spacing", [[0, 0], [-1, 1]])
def test_spacing_that_is_not_positive_is_refused(tmp_path: Path, spacing: list[float]) -> None:
    """A zero or negative pixel spacing is refused with its value."""

    def break_spacing(_: int, dataset: Dataset) -> None:
        dataset.PixelSpacing = spacing

    save(tmp_path, make_series(), edit=break_spacing)
    refusal = _only_refusal(tmp_path)
    assert (refusal.code, str(float(spacing[0])) in refusal.message) == ("BAD_GEOMETRY", True)


@pytest.mark.parametrize(("tag", "code"), [
    ("ImagePositionPatient", "NO_GEOMETRY"), ("ImageOrientationPatient", "NO_GEOMETRY"), ("PixelSpacing", "NO_SPACING"),
])  # fmt: skip
def test_series_without_geometry_is_refused(tmp_path: Path, tag: str, code: str) -> None:
    """Without position, orientation or pixel spacing nothing is guessed."""
    save(tmp_path, make_series(), edit=lambda _, dataset: delattr(dataset, tag))
    assert _only_refusal(tmp_path).code == code


def test_single_slice_takes_its_thickness(tmp_path: Path) -> None:
    """One slice makes a volume one Slice Thickness thick."""
    save(tmp_path, make_series(1))
    case = _only_case(tmp_path)
    assert case.geometry.spacing_mm == pytest.approx((2.0, 0.9, 0.7))
    assert _codes(case) == ["SINGLE_SLICE"]


def test_single_slice_without_thickness_is_a_guess(tmp_path: Path) -> None:
    """One slice without thickness is taken as 1 mm, and says so."""
    save(tmp_path, make_series(1, orientation=AXIAL), edit=lambda _, dataset: delattr(dataset, "SliceThickness"))
    case = _only_case(tmp_path)
    assert case.geometry.spacing_mm[0] == 1.0
    assert _codes(case) == ["SINGLE_SLICE", "NO_THICKNESS"]
