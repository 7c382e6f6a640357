"""Volumes and intensities under the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.geometries import geometries

TABLE = LabelTable(tuple(Label(value, f"organ_{value}", Code("1", "Organ")) for value in (1, 2, 5)))
MADE = Provenance("example", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")


def pair(array: np.ndarray, labels: np.ndarray, geometry: Geometry, modality: str = "CT") -> tuple:
    """A scan with labels on it."""
    return Volume(array, geometry, modality), Segmentation(labels.astype(np.uint8), geometry, TABLE, MADE)


@given(geometry=geometries(), seed=st.integers(0, 999))
def test_numbers_are_those_of_the_voxels(geometry: Geometry, seed: int) -> None:
    """Count, volume, mean, SD and range equal a direct computation, for every geometry and slice axis."""
    rng = np.random.default_rng(seed)
    geometry = geometry.permuted(rng.permutation(3).tolist())
    array = rng.integers(-1000, 3000, geometry.shape)
    labels = rng.choice([0, 1, 2, 5], geometry.shape)
    shape = [1, 1, 1]
    shape[geometry.slice_axis] = -1
    voxel_mm3 = np.broadcast_to(geometry.voxel_volumes_mm3().reshape(shape), geometry.shape)
    for row in measure(*pair(array, labels, geometry)):
        inside = labels == row.value
        if not inside.any():
            assert (row.voxels, row.volume_ml, row.mean) == (None, None, None)
            continue
        values = array[inside].astype(float)
        assert row.voxels == inside.sum()
        assert row.volume_ml == pytest.approx(voxel_mm3[inside].sum() / 1000)
        assert (row.mean, row.sd) == (pytest.approx(values.mean()), pytest.approx(values.std(), abs=1e-9))
        assert (row.minimum, row.maximum) == (values.min(), values.max())


def test_irregular_slices_count_with_their_true_thickness() -> None:
    """A voxel of a slice that owns 4 mm weighs twice one that owns 2 mm."""
    geometry = Geometry(np.diag([2.0, 10.0, 10.0, 1.0]), (4, 8, 8), "", (0.0, 1.0, 2.0, 5.0))
    thin, thick = np.zeros((4, 8, 8)), np.zeros((4, 8, 8))
    thin[1, 4, 4], thick[2, 4, 4] = 1, 1
    volumes = [measure(*pair(labels, labels, geometry))[0].volume_ml for labels in (thin, thick)]
    assert volumes == [pytest.approx(0.2), pytest.approx(0.4)]


def test_structure_that_is_not_there_has_no_numbers_but_a_reason() -> None:
    """Not found is told in words; it is never a volume of 0."""
    geometry = Geometry(np.eye(4), (3, 4, 4))
    row = measure(*pair(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), geometry))[1]
    assert row.structure == "organ_2"
    assert {row.voxels, row.volume_ml, row.mean, row.sd, row.minimum, row.maximum} == {None}
    assert (row.reason, row.cut_by_field_of_view) == ("not found by the model", False)


@pytest.mark.parametrize("index", [(0, 2, 2), (4, 2, 2), (2, 0, 2), (2, 4, 2), (2, 2, 0), (2, 2, 4)])
def test_structure_at_any_border_is_marked_as_cut(index: tuple[int, int, int]) -> None:
    """A voxel in the outermost layer of any side marks its structure, and only that one."""
    labels = np.zeros((5, 5, 5))
    labels[2, 2, 2] = 1
    labels[index] = 5
    rows = measure(*pair(labels, labels, Geometry(np.eye(4), (5, 5, 5))))
    assert [row.cut_by_field_of_view for row in rows] == [False, False, True]


def test_spread_of_large_values_keeps_its_digits() -> None:
    """Small differences on top of 1e8 give the right SD: sums of squares are not subtracted."""
    array = 1e8 + np.tile([0.0, 1.0], 32).reshape(4, 4, 4)
    labels = np.ones((4, 4, 4))
    assert measure(*pair(array, labels, Geometry(np.eye(4), (4, 4, 4))))[0].sd == pytest.approx(0.5, rel=1e-6)


def test_values_that_are_no_numbers_leave_the_volume_and_say_so() -> None:
    """One NaN takes the intensities of its structure only."""
    array, labels = np.zeros((3, 4, 4)), np.zeros((3, 4, 4))
    labels[1, 1, 1:3], labels[1, 2, 2] = 1, 2
    array[1, 1, 1] = np.nan
    first, second, _ = measure(*pair(array, labels, Geometry(np.eye(4), (3, 4, 4))))
    assert (first.voxels, first.mean, first.reason) == (
        2,
        None,
        "some values under the structure are not finite numbers",
    )
    assert (second.mean, second.reason) == (0.0, "")


@pytest.mark.parametrize(("modality", "unit"), [("CT", "HU"), ("MR", ""), ("", "")])
def test_only_ct_has_a_unit(modality: str, unit: str) -> None:
    """Hounsfield units are claimed for CT alone."""
    ones = np.ones((2, 2, 2))
    assert {row.unit for row in measure(*pair(ones, ones, Geometry(np.eye(4), (2, 2, 2)), modality))} == {unit}


def test_labels_on_another_grid_are_refused() -> None:
    """A shift of half a voxel is told with its distance."""
    volume, _ = pair(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), Geometry(np.eye(4), (2, 2, 2)))
    affine = np.eye(4)
    affine[0, 3] = 0.5
    _, segmentation = pair(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), Geometry(affine, (2, 2, 2)))
    with pytest.raises(GeometryError, match=r"up to 0\.5 mm away"):
        measure(volume, segmentation)


@given(seed=st.integers(0, 99), axis=st.integers(0, 2))
def test_confidence_is_the_mean_over_the_structure(seed: int, axis: int) -> None:
    """The mean is that of the voxels of the structure, from 0 to 1; of one that is not there there is none."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(np.eye(4), (4, 5, 16), slice_axis=axis)
    labels = rng.choice([0, 1, 5], geometry.shape).astype(np.uint8)
    confidence = rng.integers(0, 256, geometry.shape).astype(np.uint8)
    segmentation = Segmentation(labels, geometry, TABLE, MADE, confidence)
    first, absent, last = measure(Volume(labels, geometry, "CT"), segmentation)
    assert first.mean_confidence == pytest.approx(confidence[labels == 1].mean() / 255)
    assert last.mean_confidence == pytest.approx(confidence[labels == 5].mean() / 255)
    assert (first.confidence_reason, absent.mean_confidence) == ("", None)
    assert absent.confidence_reason == "not found by the model"


def test_without_a_confidence_map_there_is_a_reason() -> None:
    """No map gives no number, and says so."""
    ones = np.ones((2, 2, 2))
    row = measure(*pair(ones, ones, Geometry(np.eye(4), (2, 2, 2))))[0]
    assert (row.mean_confidence, row.confidence_reason) == (None, "the segmentation has no confidence map")


def test_a_scan_in_a_file_is_measured_like_one_in_memory(tmp_path: Path) -> None:
    """Giving back pages during the sweep changes no number."""
    rng = np.random.default_rng(1)
    array, labels = rng.integers(-1000, 3000, (40, 512, 512), dtype=np.int16), np.zeros((40, 512, 512), np.uint8)
    labels[3:37, 100:300, 50:400] = rng.choice(np.array([1, 2, 5], np.uint8), (34, 200, 350))
    array.tofile(tmp_path / "scan")
    mapped = np.memmap(tmp_path / "scan", np.int16, "r", shape=array.shape)
    geometry = Geometry(np.eye(4), array.shape)
    assert measure(*pair(mapped, labels, geometry)) == measure(*pair(array, labels, geometry))
