"""Facts about volumes, segmentations and their provenance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import GeometryError
from effvit_med.volume import (
    Code,
    Finding,
    Geometry,
    Label,
    LabelTable,
    Provenance,
    Segmentation,
    Source,
    SourceFile,
    Step,
    Volume,
)

GRID = Geometry(np.eye(4), (2, 3, 4))
TABLE = LabelTable((Label(1, "liver", Code("10200004", "Liver")),))
SOURCE = Source("ct_1", "DICOM", (SourceFile(Path("/patients/Doe^Jane/1.dcm"), "ab", "1.2.3"),))
PROVENANCE = Provenance(
    bundle="b", bundle_version="1", weights_sha256="ff", settings={"overlap": 0.5}, versions={"effvit-med": "0.1"},
    device="cpu", started="2026-01-01T00:00:00+00:00", source=SOURCE, steps=(Step("read", 1.0),),
    findings=(Finding("SHEARED", "15 degrees"),),
)  # fmt: skip


def test_an_array_of_another_shape_is_refused() -> None:
    """A volume's array has the shape of its geometry."""
    with pytest.raises(GeometryError, match=r"\(2, 3\), its geometry \(2, 3, 4\)"):
        Volume(np.zeros((2, 3)), GRID)


def test_complex_values_are_refused() -> None:
    """A volume holds real numbers."""
    with pytest.raises(GeometryError, match="complex128"):
        Volume(np.zeros((2, 3, 4), complex), GRID)


def test_a_label_without_a_row_is_refused() -> None:
    """Each value in the labels stands in the table."""
    with pytest.raises(GeometryError, match=r"values \[7\] are not in the label table \[1\]"):
        Segmentation(np.full((2, 3, 4), 7, np.uint8), GRID, TABLE, PROVENANCE)


def test_signed_labels_are_refused() -> None:
    """Labels are uint8 or uint16."""
    with pytest.raises(GeometryError, match="int64"):
        Segmentation(np.zeros((2, 3, 4), np.int64), GRID, TABLE, PROVENANCE)


def test_the_record_is_json_without_folder_names() -> None:
    """The record can be written as JSON and names files without their folders, which may hold a patient's name."""
    text = json.dumps(PROVENANCE.to_dict())
    assert "1.dcm" in text
    assert "Doe" not in text


def test_identity_is_of_the_job_not_of_the_run() -> None:
    """Time, device and place do not change the identity; settings and input bytes do."""
    again = replace(PROVENANCE, started="2027-01-01", device="cuda:0", steps=())
    assert again.identity() == PROVENANCE.identity()
    assert replace(PROVENANCE, settings={"overlap": 0.25}).identity() != PROVENANCE.identity()
    other = replace(SOURCE, files=(SourceFile(Path("1.dcm"), "ac", "1.2.3"),))
    assert replace(PROVENANCE, source=other).identity() != PROVENANCE.identity()


@pytest.mark.parametrize("confidence", [np.zeros((2, 3, 5), np.uint8), np.zeros((2, 3, 4), np.float32)])
def test_confidence_of_another_shape_or_type_is_refused(confidence: np.ndarray) -> None:
    """A confidence map is uint8 and has the shape of the labels."""
    with pytest.raises(GeometryError, match=r"confidence has shape .* must be uint8 of the labels' shape \(2, 3, 4\)"):
        Segmentation(np.zeros((2, 3, 4), np.uint8), GRID, TABLE, PROVENANCE, confidence)


def test_another_record_keeps_the_confidence() -> None:
    """Labels and confidence stay when the record changes."""
    confidence = np.full((2, 3, 4), 9, np.uint8)
    segmentation = Segmentation(np.ones((2, 3, 4), np.uint8), GRID, TABLE, PROVENANCE, confidence)
    assert segmentation.with_provenance(replace(PROVENANCE, device="cuda:0")).confidence is confidence


def test_reorienting_takes_labels_confidence_and_place_along() -> None:
    """Every voxel keeps its label, its confidence and its point in the patient."""
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 2
    confidence = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plain = Segmentation(labels, Geometry(np.diag([3.0, 2.0, 1.0, 1.0]), (2, 3, 4)), TABLE, PROVENANCE, confidence)
    turned = plain.reoriented("IRP")
    assert turned.confidence is not None
    index = np.argwhere(turned.confidence == 17)[0]
    assert turned.geometry.index_to_world(index).tolist() == plain.geometry.index_to_world([1, 1, 1]).tolist()
    assert turned.labels[tuple(index)] == labels[1, 1, 1]
