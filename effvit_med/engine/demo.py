"""How well the demonstration did, against the phantom's exact labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from effvit_med.engine.stages import CaseResult
from effvit_med.errors import GeometryError
from effvit_med.io import read_nifti

TOLERANCE_MM = 0.01


def score_demo(case: CaseResult, truth: Path) -> dict[str, float]:
    """The Dice coefficient of each structure of a segmented case.

    Args:
        case: a segmented case with a NIfTI output.
        truth: NIfTI file with exact labels on the same grid.

    Returns:
        2 |A and B| / (|A| + |B|) by structure name; NaN where neither has a voxel.

    Raises:
        InputError: if a file cannot be read.
        GeometryError: if the two grids are not the same.
    """
    found, exact = (read_nifti(path).reoriented("SPL") for path in (case.outputs["nifti"], truth))
    distance_mm = found.geometry.max_distance_mm(exact.geometry)
    if distance_mm > TOLERANCE_MM:
        raise GeometryError(f"{truth} lies {distance_mm} mm away from {case.outputs['nifti']}.")
    scores = {}
    for row in case.measurements:
        a, b = found.array == row.value, exact.array == row.value
        total = np.count_nonzero(a) + np.count_nonzero(b)
        scores[row.structure] = 2 * np.count_nonzero(a & b) / total if total else float("nan")
    return scores
