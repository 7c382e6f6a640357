"""Scores of many cases in one figure, and two models against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import SettingsError
from effvit_med.evaluation.metrics import StructureScore
from effvit_med.evaluation.statistics import compare, mean_interval, summarise
from tests.evaluation.parts import score


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_the_mean_lies_within_its_interval(values: list[float]) -> None:
    """And the interval within the range of the values."""
    interval = mean_interval(values)
    assert min(values) - 1e-12 <= interval.low <= interval.high <= max(values) + 1e-12
    assert interval.minimum - 1e-12 <= interval.mean <= interval.maximum + 1e-12


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    """Of 200 samples of 30 from a skewed distribution, near 95 % of the intervals hold its mean."""
    drawn = np.random.default_rng(1).beta(8, 2, (200, 30))
    held = [interval.low <= 0.8 <= interval.high for interval in map(mean_interval, drawn.tolist())]
    assert 0.88 <= np.mean(held) <= 0.99


def test_one_case_has_no_interval() -> None:
    """A mean of one case is known, its spread is not."""
    interval = mean_interval([0.5])
    assert interval.mean == 0.5
    assert math.isnan(interval.low)
    assert math.isnan(interval.sd)


def test_of_no_case_nothing_is_known() -> None:
    """All figures are NaN, and the count says why."""
    interval = mean_interval([])
    assert interval.cases == 0
    assert math.isnan(interval.mean)


def test_missed_structures_lower_the_mean_and_absent_ones_do_not() -> None:
    """0.9 and a missed one make 0.45; a case without the structure counts only as such."""
    scores = {
        "a": [score(dice=0.9)],
        "b": [score(dice=0.0, found_ml=0.0)],
        "c": [score(dice=None, reference_ml=0.0, found_ml=2.0)],
        "d": [score(dice=None, reference_ml=0.0, found_ml=0.0)],
    }
    (row,) = summarise(scores)
    assert (row.cases, row.shown, row.missed, row.false_alarms) == (4, 2, 1, 1)
    assert row.metrics["dice"].mean == pytest.approx(0.45)


def _models(differences: list[float]) -> tuple[dict[str, list[StructureScore]], dict[str, list[StructureScore]]]:
    first = {str(k): [score(dice=0.5)] for k in range(len(differences))}
    return first, {str(k): [score(dice=0.5 + d)] for k, d in enumerate(differences)}


def test_a_better_second_model_has_a_positive_difference_and_a_small_p() -> None:
    """Twelve cases, all better."""
    row = compare(*_models([0.01 + k / 1000 for k in range(12)]))[0]
    assert row.difference == pytest.approx(0.0155)
    assert 0 < row.low < row.high
    assert row.p_permutation < 0.01
    assert row.p_wilcoxon < 0.01
    assert (row.better, row.worse) == (12, 0)


def test_models_that_win_in_turn_do_not_differ() -> None:
    """Six cases better, six as much worse: no difference and a large p."""
    row = compare(*_models([0.02, -0.02] * 6))[0]
    assert row.difference == pytest.approx(0)
    assert row.p_permutation > 0.5


def test_the_same_model_twice_has_no_difference_at_all() -> None:
    """No p can be given by ranks where nothing differs."""
    row = compare(*_models([0.0] * 5))[0]
    assert (row.difference, row.p_permutation) == (0, 1)
    assert math.isnan(row.p_wilcoxon)


def test_only_cases_that_both_have_are_compared() -> None:
    """And structures that both have a number for; the mean over structures comes last."""
    first = {"a": [score("head", 0.8), score("tail", None, 0.0)], "b": [score("head", 0.7)]}
    second = {"a": [score("head", 0.9), score("tail", 0.3)], "c": [score("head", 0.1)]}
    rows = compare(first, second)
    assert [(row.structure, row.cases) for row in rows] == [("head", 1), ("mean", 1)]
    assert rows[0].difference == pytest.approx(0.1)


def test_models_without_a_case_in_common_are_refused() -> None:
    """There is nothing to compare."""
    with pytest.raises(SettingsError, match="no case in common"):
        compare({"a": [score()]}, {"b": [score()]})
