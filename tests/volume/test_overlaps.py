"""Facts about structures that overlap: label maps of sums, their tables and what is measured in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import RefusedError
from effvit_med.review import ReviewSession
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.counts import find_values
from effvit_med.volume.measurements import measure
from effvit_med.volume.overlaps import each_structure
from tests.geometries import geometries

TABLE = LabelTable(tuple(Label(value, f"organ_{value}", Code("1", "Organ")) for value in (1, 2, 4)))
MADE = Provenance("example", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")


def _overlapping(labels: np.ndarray, geometry: Geometry, confidence: np.ndarray | None = None) -> Segmentation:
    return Segmentation(labels, geometry, TABLE.with_sums(find_values(labels)), MADE, confidence)


@given(st.sets(st.integers(0, 7)))
def test_a_table_has_a_row_for_each_sum_that_occurs(values: set[int]) -> None:
    """Beside the structures, which keep theirs; each row knows its members, and comes back from plain values."""
    table = TABLE.with_sums(values)
    assert {label.value for label in table} == {1, 2, 4} | values - {0}
    for label in table:
        assert label.members == (() if label in TABLE else tuple(each for each in (1, 2, 4) if label.value & each))
    assert table.structures == TABLE.labels
    assert LabelTable.from_dicts(table.to_dicts()) == table


def test_a_value_that_is_no_sum_stays_unknown() -> None:
    """The segmentation then refuses it, as it does any value without a row."""
    assert len(TABLE.with_sums({9})) == 3


def test_a_plain_table_says_nothing_of_members() -> None:
    """What was written before there were any is written the same."""
    assert all("members" not in row for row in TABLE.to_dicts())


@given(geometry=geometries(), seed=st.integers(0, 999))
def test_what_overlaps_is_measured_for_each(geometry: Geometry, seed: int) -> None:
    """Every number of a structure equals that of the structure measured alone."""
    rng = np.random.default_rng(seed)
    scan = Volume(rng.integers(-1000, 3000, geometry.shape), geometry, "CT")
    labels = rng.choice([0, 1, 2, 3, 6, 7], geometry.shape).astype(np.uint8)
    confidence = rng.integers(0, 256, geometry.shape).astype(np.uint8)
    rows = measure(scan, _overlapping(labels, geometry, confidence))
    assert [row.structure for row in rows] == ["organ_1", "organ_2", "organ_4"]
    for row in rows:
        alone = np.where(labels & row.value, row.value, 0).astype(np.uint8)
        rows_alone = measure(scan, _overlapping(alone, geometry, confidence))
        wanted = next(each for each in rows_alone if each.value == row.value)
        for name, value in vars(wanted).items():
            found = getattr(row, name)
            assert found == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), name


@given(seed=st.integers(0, 999))
def test_each_structure_can_be_taken_alone(seed: int) -> None:
    """One map a structure, with all its voxels."""
    labels = np.random.default_rng(seed).integers(0, 8, (3, 4, 5)).astype(np.uint8)
    table = TABLE.with_sums(find_values(labels))
    for label, alone in each_structure(labels, table):
        assert (alone == np.where(labels & label.value, label.value, 0)).all()
        assert alone.dtype == np.uint8


def test_a_review_of_what_overlaps_is_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    geometry = Geometry(np.eye(4), (2, 4, 4))
    with pytest.raises(RefusedError, match="OVERLAPPING_STRUCTURES: Structures of this result overlap"):
        ReviewSession.start(tmp_path / "review", _overlapping(np.full((2, 4, 4), 3, np.uint8), geometry), {})
    assert not (tmp_path / "review").exists()


def test_a_value_beyond_the_type_of_the_labels_is_nowhere() -> None:
    """A ninth structure that no voxel of an 8-bit map can have."""
    table = LabelTable(tuple(Label(1 << i, f"organ_{i}", Code("1", "Organ")) for i in range(9))).with_sums({3})
    found = {label.value: int(alone.sum()) for label, alone in each_structure(np.full((2, 2, 2), 3, np.uint8), table)}
    assert found == {1: 8, 2: 16, **{1 << i: 0 for i in range(2, 9)}}
