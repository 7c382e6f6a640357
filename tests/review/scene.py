"""Small automatic results to review."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Source, SourceFile
from effvit_med.volume.volume import Finding

LIVER, KIDNEY, SPLEEN = 1, 2, 7
TABLE = LabelTable(
    (
        Label(LIVER, "liver", Code("10200004", "Liver")),
        Label(KIDNEY, "kidney", Code("64033007", "Kidney")),
        Label(SPLEEN, "spleen", Code("78961009", "Spleen")),
    )
)
SHAPE = (4, 6, 8)
MADE = Provenance(
    "demo",
    "1.2",
    "ab" * 32,
    {"window": (8, 8, 8), "mirror": True},
    {"effvit-med": "0.1.0"},
    "cpu",
    "2024-01-01T10:00:00+01:00",
    Source("CT_1", "DICOM", (SourceFile(Path("folder/a.dcm"), "cd" * 32, "1.2.3"),), "1.2", "1.3"),
    findings=(Finding("NO_MODALITY", "A finding."),),
)


def make_automatic(dtype: type = np.uint8, *, seed: int = 0, unequal: bool = False) -> Segmentation:
    """Random labels on a small grid, with a confidence."""
    draw = np.random.default_rng(seed)
    affine = np.diag([3.0, 0.5, 2.0, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry(affine, SHAPE, "1.4", (0.0, 1.0, 2.5, 3.0) if unequal else None)
    labels = draw.choice([0, 0, 0, LIVER, KIDNEY, SPLEEN], SHAPE).astype(dtype)
    return Segmentation(labels, geometry, TABLE, MADE, draw.integers(0, 256, SHAPE, np.uint8))
