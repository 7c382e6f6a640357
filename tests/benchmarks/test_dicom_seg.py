"""From folders to rows: what is written, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.dicom_seg import Refused, Written, check_input, choose_labels, find_inputs, to_markdown
from effvit_med.engine import read_model
from effvit_med.io import ReadOptions

BLOBS = choose_labels("blobs", read_model())


@pytest.fixture(name="rows", scope="module")
def _rows(sample_data: Path) -> list[Written]:
    """The series with a missing slice, which is the smallest, read in spite of it."""
    rows = list(check_input(sample_data / "ct_missing_slice", ReadOptions(frozenset({"gaps"})), BLOBS))
    assert all(isinstance(row, Written) for row in rows)
    return rows


def test_series_is_written_in_both_kinds_and_right(rows: list[Written]) -> None:
    """A series gives one row a kind, and both files are right."""
    assert [row.kind for row in rows] == ["binary", "labelmap"]
    assert all(row.found.is_right and row.found.labelled_voxels > 0 for row in rows)


def test_refused_series_is_listed_with_its_code(sample_data: Path) -> None:
    """Without leave for gaps, the series with a missing slice is refused, and no folder of the machine is named."""
    rows = list(check_input(sample_data / "ct_missing_slice", ReadOptions(), BLOBS))
    assert [row.code for row in rows if isinstance(row, Refused)] == ["MISSING_SLICES"]
    assert str(sample_data) not in repr(rows)


def test_folder_without_images_is_listed(tmp_path: Path) -> None:
    """A folder that holds no image is one row, not an error."""
    (tmp_path / "readme.txt").write_text("no image")
    rows = list(check_input(tmp_path, ReadOptions(), BLOBS))
    assert [(row.folder, row.code) for row in rows if isinstance(row, Refused)] == [(tmp_path.name, "NO_IMAGES")]
    assert str(tmp_path) not in repr(rows)


def test_each_folder_below_is_an_input(tmp_path: Path) -> None:
    """A folder of folders is several inputs, a folder of files is one."""
    assert find_inputs(tmp_path) == [tmp_path]
    (tmp_path / "b").mkdir()
    (tmp_path / "a").mkdir()
    assert find_inputs(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_wrong_file_is_told_in_the_first_sentence(rows: list[Written]) -> None:
    """One wrong voxel in one file makes the verdict."""
    assert "All 2 files are right" in to_markdown(rows, [], "data", "blobs")
    wrong = replace(rows[0], found=replace(rows[0].found, wrong_voxels=1))
    assert "1 of 2 files are wrong" in to_markdown([wrong, rows[1]], [], "data", "blobs")


def test_refused_series_stand_in_a_table_of_their_own(rows: list[Written]) -> None:
    """Code and reason are shown; a bar in the reason breaks no table."""
    text = to_markdown(rows, [Refused("folder", "case", "CODE", "a | b")], "data", "blobs")
    assert "| folder | case | CODE | a / b |" in text
