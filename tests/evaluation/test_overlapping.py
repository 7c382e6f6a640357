"""Cases in which a voxel may have several structures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import GeometryError, InputError
from effvit_med.evaluation.overlapping import read_overlapping
from effvit_med.evaluation.pairs import find_references
from effvit_med.evaluation.run import EvaluationOptions, evaluate
from effvit_med.volume import Label, LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from tests.evaluation.parts import block, write_labels

SHAPE = (8, 8, 8)
HEART, CHAMBER = block(SHAPE, (1, 7), (1, 7), (1, 7)), block(SHAPE, (3, 8), (3, 5), (3, 5))
TABLE = LabelTable((Label(1, "heart", ANATOMICAL_STRUCTURE), Label(2, "chamber", ANATOMICAL_STRUCTURE)))


def _write_list(folder: Path) -> Path:
    """A data set of one case with a map a structure."""
    maps = {"heart": "maps/c1_heart.nii.gz", "chamber": "maps/c1_chamber.nii.gz"}
    write_labels(folder / maps["heart"], HEART * 255)
    write_labels(folder / maps["chamber"], CHAMBER)
    rows = [{"image": "images/c1.nii.gz", "label": maps}]
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": {"1": "heart", "2": "chamber"}, "training": rows}), encoding="utf-8")
    return path


def test_a_map_a_structure_is_scored_against_sums(tmp_path: Path) -> None:
    """Each structure whole, by the list alone."""
    listed = _write_list(tmp_path / "set")
    write_labels(tmp_path / "ours" / "c1.nii.gz", HEART + 2 * np.roll(CHAMBER, 1, 1))
    result = evaluate(find_references(listed), tmp_path / "ours")
    scores = {row.structure: row.dice for row in result.scores["c1"]}
    assert scores == {"heart": 1.0, "chamber": pytest.approx(0.5)}
    assert result.options.overlaps


def test_sums_are_scored_against_sums_where_somebody_says_so(tmp_path: Path) -> None:
    """A data set with one map a case, and the option."""
    listed = _write_list(tmp_path / "set")
    document = json.loads(listed.read_text(encoding="utf-8"))
    document["training"] = [{"image": "images/c1.nii.gz", "label": "maps/c1.nii.gz"}]
    listed.write_text(json.dumps(document), encoding="utf-8")
    write_labels(tmp_path / "set" / "maps" / "c1.nii.gz", HEART + 2 * CHAMBER)
    write_labels(tmp_path / "ours" / "c1.nii.gz", HEART)
    plain = evaluate(find_references(listed), tmp_path / "ours")
    assert "3" in plain.unscored["c1"]
    result = evaluate(find_references(listed), tmp_path / "ours", EvaluationOptions(overlaps=True))
    assert {row.structure: row.dice for row in result.scores["c1"]} == {"heart": 1.0, "chamber": 0.0}


def test_a_structure_without_a_map_is_not_taken_for_absent(tmp_path: Path) -> None:
    """Unless the case says that it was annotated; then what is found of it is a false alarm."""
    listed = _write_list(tmp_path / "set")
    document = json.loads(listed.read_text(encoding="utf-8"))
    del document["training"][0]["label"]["chamber"]
    listed.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(InputError, match=r"c1 has no map of \['chamber'\]"):
        find_references(listed)
    document["training"][0]["annotated"] = ["heart", "chamber"]
    listed.write_text(json.dumps(document), encoding="utf-8")
    write_labels(tmp_path / "ours" / "c1.nii.gz", HEART + 2 * CHAMBER)
    scores = evaluate(find_references(listed), tmp_path / "ours").scores["c1"]
    assert [(row.structure, row.is_false_alarm) for row in scores] == [("heart", False), ("chamber", True)]


def test_values_that_cannot_be_told_from_sums_are_refused(tmp_path: Path) -> None:
    """3 as a structure of its own beside 1 and 2."""
    path = write_labels(tmp_path / "a.nii.gz", HEART)
    table = LabelTable((*TABLE, Label(3, "fat", ANATOMICAL_STRUCTURE)))
    with pytest.raises(InputError, match=r"\[3\]"):
        read_overlapping(path, path, table)


def test_a_map_of_another_size_is_refused(tmp_path: Path) -> None:
    """Nothing is put where it does not belong."""
    maps = {
        "heart": write_labels(tmp_path / "h.nii.gz", HEART),
        "chamber": write_labels(tmp_path / "c.nii.gz", CHAMBER[1:]),
    }
    with pytest.raises(GeometryError):
        read_overlapping(maps, maps["heart"], TABLE)


def test_a_map_of_nothing_that_is_known_is_refused(tmp_path: Path) -> None:
    """With the names that there are."""
    path = write_labels(tmp_path / "h.nii.gz", HEART)
    with pytest.raises(InputError, match=r"liver.*heart"):
        read_overlapping({"liver": path}, path, TABLE)
