"""Colour tables: a line for each label, with value, name and colour."""

from __future__ import annotations

from pathlib import Path

from effvit_med.io import write_slicer_colours, write_snap_labels
from effvit_med.volume import Code, Label, LabelTable

TABLE = LabelTable(
    (Label(2, 'left "big" lung', Code("1", "Lung"), colour=(1, 20, 255)), Label(300, "rib", Code("2", "Rib")))
)


def test_slicer_table_has_value_name_and_colour(tmp_path: Path) -> None:
    """Names have no spaces, since 3D Slicer splits a line at them; background is clear."""
    write_slicer_colours(TABLE, tmp_path / "a.ctbl")
    lines = [line for line in (tmp_path / "a.ctbl").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["0 background 0 0 0 0", '2 left_"big"_lung 1 20 255 255', "300 rib 255 0 0 255"]


def test_snap_labels_have_eight_columns(tmp_path: Path) -> None:
    """Index, colour, opacity, two flags and a name in quotes."""
    write_snap_labels(TABLE, tmp_path / "a.txt")
    lines = [line for line in (tmp_path / "a.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[1:] == ["2 1 20 255 1 1 1 \"left 'big' lung\"", '300 255 0 0 1 1 1 "rib"']


def test_both_say_not_to_use_them(tmp_path: Path) -> None:
    """The first line is the notice."""
    write_slicer_colours(TABLE, tmp_path / "a.ctbl")
    write_snap_labels(TABLE, tmp_path / "a.txt")
    for name in ("a.ctbl", "a.txt"):
        assert (tmp_path / name).read_text().startswith("# Research use only. Not for clinical use.\n")
