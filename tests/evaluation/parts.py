"""Label maps to score, in memory and on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.evaluation.metrics import StructureScore
from effvit_med.io import write_volume
from effvit_med.io.itk_images import as_segmentation
from effvit_med.volume import Geometry, Label, LabelTable, Segmentation, Volume
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

TABLE = LabelTable((Label(1, "head", ANATOMICAL_STRUCTURE), Label(2, "tail", ANATOMICAL_STRUCTURE)))


def grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Geometry:
    """A grid with axes along those of the patient."""
    return Geometry(np.diag([*spacing_mm, 1.0]), shape)


def labelled(
    labels: npt.NDArray[np.integer],
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    table: LabelTable | None = TABLE,
) -> Segmentation:
    """Labels on a grid."""
    return as_segmentation(Volume(labels, grid(labels.shape, spacing_mm)), labels, table)


def block(shape: tuple[int, int, int], *ranges: tuple[int, int], value: int = 1) -> npt.NDArray[np.uint8]:
    """Labels with one box in them."""
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(*ends) for ends in ranges)] = value
    return labels


def write_labels(
    path: Path, labels: npt.NDArray[np.integer], spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Path:
    """Labels as NIfTI without a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(labels, grid(labels.shape, spacing_mm)), path)
    return path


def score(
    structure: str = "head", dice: float | None = 0.9, reference_ml: float = 1.0, found_ml: float = 1.0
) -> StructureScore:
    """A score with a Dice and nothing else of interest."""
    return StructureScore(structure, 1, reference_ml, found_ml, dice, dice, 1.0, 0.5)
