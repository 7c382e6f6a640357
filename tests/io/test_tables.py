"""Measurements in files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.io.tables import write_measurements_csv, write_measurements_json
from effvit_med.volume import Volume
from effvit_med.volume.measurements import Measurement, measure
from tests.io.source_series import axial, segment


@pytest.fixture(name="made")
def _made() -> tuple[tuple[Measurement, ...], object]:
    """Liver and left kidney of known size; the right kidney and the spleen are not there."""
    geometry = axial((5, 10, 10), (3.0, 0.9, 0.7))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1:3, 2:6, 2:7] = 1
    labels[4, 7, 8] = 2
    volume = Volume(np.full(geometry.shape, 55), geometry, "CT")
    segmentation = segment(volume, labels)
    return measure(volume, segmentation), segmentation.provenance


def test_csv_has_a_row_for_every_structure_and_empty_cells_for_the_unknown(tmp_path: Path, made: tuple) -> None:
    """Found structures have numbers, the others empty cells and a reason."""
    write_measurements_csv(made[0], tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["structure"] for row in rows] == ["liver", "kidney_left", "kidney_right", "spleen"]
    liver, left, right, _ = rows
    assert (liver["voxels"], liver["volume_ml"], liver["intensity_mean"]) == ("40", "0.076", "55.0")
    assert (liver["intensity_unit"], liver["cut_by_field_of_view"], liver["reason"]) == ("HU", "false", "")
    assert (left["laterality_meaning"], left["laterality_value"], liver["laterality_value"]) == ("Left", "7771000", "")
    assert (left["code_value"], left["code_scheme"], left["cut_by_field_of_view"]) == ("64033007", "SCT", "true")
    assert [right[name] for name in ("voxels", "volume_ml", "intensity_mean", "intensity_sd")] == [""] * 4
    assert right["reason"] == "not found by the model"


def test_confidence_is_a_column_or_a_reason(tmp_path: Path, made: tuple) -> None:
    """Where there is a confidence map the mean stands in the table, else why there is none."""
    geometry = axial((5, 10, 10), (3.0, 0.9, 0.7))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[1:3] = 1
    volume = Volume(labels, geometry, "CT")
    certain = replace(segment(volume, labels), confidence=np.full(geometry.shape, 51, np.uint8))
    for name, rows in (("with", measure(volume, certain)), ("without", made[0])):
        write_measurements_csv(rows, tmp_path / f"{name}.csv")
    found = {}
    for name in ("with", "without"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            rows = [(row["mean_confidence"], row["confidence_reason"]) for row in csv.DictReader(stream)]
        found[name] = rows
    assert found["with"][:2] == [("0.2", ""), ("", "not found by the model")]
    assert found["without"][0] == ("", "the segmentation has no confidence map")


def test_csv_of_nothing_has_a_header(tmp_path: Path) -> None:
    """An empty table still names its columns."""
    write_measurements_csv((), tmp_path / "m.csv")
    lines = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("structure,label_value,code_value,")


def test_json_holds_the_same_rows_with_notice_and_identity(tmp_path: Path, made: tuple) -> None:
    """JSON has null for the unknown, the notice, and the identity of the run."""
    measurements, provenance = made
    write_measurements_json(measurements, tmp_path / "m.json", provenance)
    content = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert content["notice"] == "Research use only. Not for clinical use."
    assert content["identity"] == provenance.identity()
    assert content["measurements"][0]["volume_ml"] == 0.076
    assert content["measurements"][2]["volume_ml"] is None
    write_measurements_csv(measurements, tmp_path / "m.csv")
    header = (tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()[0]
    assert list(content["measurements"][0]) == header.split(",")
