"""What confidence and verdicts are worth."""

from __future__ import annotations

import numpy as np
import pytest

from effvit_med.errors import GeometryError, SettingsError
from effvit_med.evaluation.calibration import JudgedCase, Reliability, check_verdicts, measure_reliability
from tests.evaluation.parts import block, labelled

SHAPE = (20, 20, 20)


def _confidence(p: np.ndarray) -> np.ndarray:
    """What the engine writes for a probability of the larger of two classes."""
    return np.rint(255 * (2 * p - 1)).astype(np.uint8)


def test_a_network_that_is_right_as_often_as_it_says_has_no_error() -> None:
    """Labels drawn with the claimed probability: the expected error is near 0."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, SHAPE)
    ours = np.ones(SHAPE, np.uint8)
    truth = np.where(rng.random(SHAPE) < p, 1, 2).astype(np.uint8)
    reliability = measure_reliability(labelled(truth), labelled(ours), _confidence(p))
    assert int(reliability.voxels.sum()) == 8000
    assert reliability.expected_error < 0.03


def test_a_network_that_is_always_sure_and_half_the_time_wrong_has_an_error_of_a_half() -> None:
    """It claims 1 and is right in 0.5."""
    ours = np.ones(SHAPE, np.uint8)
    truth = ours.copy()
    truth[:10] = 2
    reliability = measure_reliability(labelled(truth), labelled(ours), np.full(SHAPE, 255, np.uint8))
    assert reliability.expected_error == pytest.approx(0.5)
    assert reliability.rows() == [(0.95, 1.0, 8000, 1.0, 0.5)]


def test_voxels_far_from_all_labels_do_not_count() -> None:
    """A box of one voxel and what lies within 2 mm of it: 33 voxels of a ball."""
    one = labelled(block(SHAPE, (10, 11), (10, 11), (10, 11)))
    assert int(measure_reliability(one, one, np.zeros(SHAPE, np.uint8), near_mm=2).voxels.sum()) == 33


def test_where_nothing_is_labelled_nothing_is_counted() -> None:
    """An empty case adds nothing."""
    empty = labelled(np.zeros(SHAPE, np.uint8))
    assert measure_reliability(empty, empty, np.zeros(SHAPE, np.uint8)).rows() == []


def test_parts_add_up() -> None:
    """Two cases together are as one with the voxels of both."""
    one = labelled(block(SHAPE, (5, 10), (5, 10), (5, 10)))
    part = measure_reliability(one, one, np.full(SHAPE, 100, np.uint8))
    both = part + part + Reliability.empty()
    assert both.expected_error == pytest.approx(part.expected_error)
    assert int(both.voxels.sum()) == 2 * int(part.voxels.sum())


def test_other_shapes_are_refused() -> None:
    """A confidence map belongs to its labels."""
    one = labelled(np.zeros(SHAPE, np.uint8))
    with pytest.raises(GeometryError, match="one shape"):
        measure_reliability(one, one, np.zeros((2, 2, 2), np.uint8))


def test_verdicts_are_held_against_dice() -> None:
    """Two bad cases of which one was passed, three good ones of which one was not."""
    rows = [("a", 0.5, "review"), ("b", 0.6, "pass"), ("c", 0.9, "pass"), ("d", 0.95, "pass"), ("e", 0.9, "fail")]
    check = check_verdicts([JudgedCase(name, dice, verdict, dice) for name, dice, verdict in rows])  # type: ignore[arg-type]
    assert (check.cases, check.bad, check.caught) == (5, 2, 0.5)
    assert check.spared == pytest.approx(2 / 3)
    assert check.confidence_auc == 1.0
    assert check.counts == {"pass": 3, "review": 1, "fail": 1}
    assert check.mean_dice["review"] == 0.5


def test_confidence_that_says_the_opposite_has_an_area_of_zero() -> None:
    """The surer, the worse."""
    cases = [JudgedCase(str(k), dice, None, 1 - dice) for k, dice in enumerate((0.1, 0.5, 0.85, 0.9))]
    check = check_verdicts(cases)
    assert check.confidence_auc == 0.0
    assert (check.cases, check.caught, check.spared) == (0, None, None)


@pytest.mark.parametrize("low_dice", [0.0, 1.0])
def test_an_impossible_limit_is_refused(low_dice: float) -> None:
    """No case, or every case, would be bad."""
    with pytest.raises(SettingsError, match="low_dice"):
        check_verdicts([], low_dice)


def test_ignored_voxels_say_nothing_of_the_confidence() -> None:
    """Neither as right nor as wrong, nor as a label that others are near to."""
    truth = np.ones(SHAPE, np.uint8)
    truth[10:] = 2
    reliability = measure_reliability(
        labelled(truth), labelled(np.ones(SHAPE, np.uint8)), np.full(SHAPE, 255, np.uint8), ignore=(2,)
    )
    assert reliability.rows() == [(0.95, 1.0, 4000, 1.0, 1.0)]
