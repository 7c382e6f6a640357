"""Dice, volume errors, intervals and verdicts."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import (
    TARGETS,
    TRAINED_ON,
    Score,
    compare_labels,
    draw_scans,
    parse_seeds,
    summarise,
    to_markdown,
)
from effvit_med.engine import read_model
from effvit_med.training.phantom import STRUCTURES
from effvit_med.volume import Code, Label, LabelTable

TABLE = LabelTable((Label(1, "liver", Code("10200004", "Liver")), Label(2, "spleen", Code("78961009", "Spleen"))))


def score(dice: float | None, found: int = 110, exact: int = 100) -> Score:
    """One scan of the liver."""
    return Score(0, "liver", exact, found, dice)


def test_dice_of_known_masks() -> None:
    """Of 4 and 6 voxels 3 are shared: Dice is 6/10, and the volume is 50 % too large."""
    exact, found = np.zeros((2, 10)), np.zeros((2, 10))
    exact[0, :4] = 1
    found[0, 1:7] = 1
    liver = compare_labels(found, exact, TABLE, 7)[0]
    assert (liver.seed, liver.structure, liver.exact_voxels, liver.found_voxels) == (7, "liver", 4, 6)
    assert liver.dice == pytest.approx(0.6)
    assert liver.volume_error_percent == pytest.approx(50)


def test_dice_of_swapped_structures_is_zero() -> None:
    """A voxel with the label of another structure is wrong, not half right."""
    exact = np.array([[1, 1, 2, 2]])
    assert [each.dice for each in compare_labels(3 - exact, exact, TABLE, 0)] == [0, 0]


def test_labels_of_another_shape_are_an_error() -> None:
    """Labels that would be broadcast over each other are not compared."""
    with pytest.raises(ValueError, match=r"shape \(1, 4\), the truth \(2, 4\)"):
        compare_labels(np.zeros((1, 4)), np.zeros((2, 4)), TABLE, 0)


def test_absent_structures_are_left_out_and_counted() -> None:
    """A scan without the structure changes no mean; a voxel found there is a false alarm."""
    summary = summarise([score(0.9), score(0.7), score(None, found=5, exact=0), score(None, 0, 0)], "liver")
    assert (summary.scans, summary.absent, summary.false_alarms) == (2, 2, 1)
    assert summary.mean == pytest.approx(0.8)
    assert summary.minimum == 0.7
    assert summary.volume_error_percent == pytest.approx(10)


def test_errors_of_both_signs_cancel_only_in_the_signed_mean() -> None:
    """Too much here and too little there is no small error."""
    summary = summarise([score(0.9, found=120), score(0.9, found=80)], "liver")
    assert summary.volume_error_percent == pytest.approx(0)
    assert summary.volume_error_abs_percent == pytest.approx(20)


def test_structure_that_no_scan_shows_has_no_figures() -> None:
    """Nothing measured is NaN, never 0 or 1, and its target does not hold."""
    summary = summarise([score(None, 0, 0)], "liver")
    assert math.isnan(summary.mean)
    assert summary.holds is False


def test_every_structure_has_a_target() -> None:
    """The names of the targets are those of the phantom and of the shipped model."""
    assert set(TARGETS) == set(STRUCTURES.values()) - {"background"} == {label.name for label in read_model().labels}


def test_trained_seeds_are_those_of_the_config() -> None:
    """The seeds that must not be scored are those that training reads."""
    text = (Path(__file__).parents[2] / "configs" / "train.yaml").read_text(encoding="utf-8")
    ranges = re.findall(r"range\((\d+), (\d+)\)", next(line for line in text.split("\n") if "datalist:" in line))
    assert len(ranges) == 2
    assert set(TRAINED_ON) == {seed for first, stop in ranges for seed in range(int(first), int(stop))}


@pytest.mark.parametrize("text", ["990:1001", "505:510", "5:5"])
def test_trained_or_no_seeds_are_refused(text: str) -> None:
    """A score on a scan that was trained on would be a lie."""
    with pytest.raises(ValueError, match=r"were used in training|names no seeds"):
        parse_seeds(text)


def test_scan_and_truth_share_a_grid() -> None:
    """The exact labels lie on the voxels of the image."""
    seed, image, exact = next(draw_scans([3]))
    assert seed == 3
    assert image.geometry.max_distance_mm(exact.geometry) == 0
    assert set(np.unique(exact.array).tolist()) <= {0, *STRUCTURES}


@pytest.mark.parametrize(("dice", "words"), [(0.96, "All targets hold"), (0.94, "Targets missed: liver")])
def test_verdict_is_honest_either_way(dice: float, words: str) -> None:
    """A mean below its target is said to be missed."""
    assert words in to_markdown([summarise([score(dice), score(dice)], "liver")], 2, "a model")
