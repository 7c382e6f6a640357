"""Labels of a runtime beside those of another and beside exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy import TRAINED_ON
from benchmarks.engine_runtimes import CALIBRATED_ON, UNSEEN, compare
from effvit_med.engine import read_model
from effvit_med.engine.quantisation import ReferenceCase
from effvit_med.volume import Geometry, Volume


def test_agreement_counts_voxels_and_dice_is_against_exact_labels() -> None:
    """One of 4 marked voxels differs from the reference, which itself misses one of 4 exact ones."""
    exact = np.zeros((1, 2, 5), np.uint8)
    exact[0, 0, :4] = 1
    reference = exact.copy()
    reference[0, 0, 3] = 0
    found = exact.copy()
    volume = Volume(np.zeros((1, 2, 5), np.int16), Geometry(np.eye(4), (1, 2, 5)), "CT")
    row = compare([found], [reference], [ReferenceCase("x", volume, exact)], read_model())
    assert row["agreement"] == pytest.approx(0.9)
    assert row["agreement_marked"] == pytest.approx(0.75)
    assert row["dice"] == {"liver": 1.0}


def test_no_case_was_trained_or_calibrated_on() -> None:
    """The phantoms of the table are apart from those of training and of INT8."""
    assert not {*UNSEEN, CALIBRATED_ON} & set(TRAINED_ON)
    assert CALIBRATED_ON not in UNSEEN
