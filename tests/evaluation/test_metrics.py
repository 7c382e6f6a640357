"""What one segmentation is worth against its reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.evaluation.metrics import NOT_FOUND, NOT_IN_REFERENCE, UNEVEN_GRID, score_case
from effvit_med.volume import Geometry, Label, LabelTable, Segmentation
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from tests.evaluation.parts import TABLE, block, labelled

SHAPE = (12, 14, 10)
BOX = block(SHAPE, (2, 8), (3, 9), (2, 7))


def test_two_slabs_have_the_published_scores() -> None:
    """The case of two slabs, one voxel of 2 mm apart, in the tests of the surface-distance library of DeepMind."""
    truth, ours = (block((100, 100, 100), (0, end), (0, 100), (0, 100)) for end in (50, 51))
    score = score_case(labelled(truth, (2, 1, 1)), labelled(ours, (2, 1, 1)))[0]
    assert score.nsd == pytest.approx(0.836, abs=5e-4)
    assert score.dice == pytest.approx(0.990, abs=5e-4)


def test_two_voxels_have_the_published_scores() -> None:
    """The case of single voxels 2 mm apart in the same tests."""
    truth, ours = (block((128, 128, 128), (50, 51), (60, 61), (at, at + 1)) for at in (70, 72))
    score = score_case(labelled(truth, (3, 2, 1)), labelled(ours, (3, 2, 1)))[0]
    assert score.nsd == pytest.approx(0.5)
    assert (score.hd95_mm, score.dice) == (2.0, 0.0)


def test_a_perfect_segmentation_has_perfect_scores() -> None:
    """Dice and surface Dice 1, distances 0, no volume error."""
    score = score_case(labelled(BOX), labelled(BOX.copy()))[0]
    assert (score.dice, score.nsd, score.hd95_mm, score.assd_mm, score.volume_error_ml) == (1, 1, 0, 0, 0)


@given(st.sampled_from([(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (0.5, 2.0, 1.0)]), st.integers(0, 2))
def test_a_shift_by_one_voxel_is_as_far_as_the_voxel_is_long(spacing_mm: tuple[float, float, float], axis: int) -> None:
    """The 95th percentile of the distances of a shifted box is the spacing along the shift."""
    score = score_case(labelled(BOX, spacing_mm), labelled(np.roll(BOX, 1, axis), spacing_mm), tolerance_mm=0.1)[0]
    assert score.hd95_mm == pytest.approx(spacing_mm[axis])


@given(*(arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 2)) for _ in range(2)))
def test_scores_do_not_depend_on_which_of_the_two_is_the_reference(one: np.ndarray, other: np.ndarray) -> None:
    """Dice, surface Dice and distances are symmetric wherever both have the structure."""
    there, back = score_case(labelled(one), labelled(other)), score_case(labelled(other), labelled(one))
    for a, b in zip(there, back, strict=True):
        if a.reference_ml and a.found_ml:
            assert (a.dice, a.nsd, a.hd95_mm) == pytest.approx((b.dice, b.nsd, b.hd95_mm))
            assert a.assd_mm == pytest.approx(b.assd_mm)


@given(*(arrays(np.uint8, (5, 6, 4), elements=st.integers(0, 2)) for _ in range(2)))
def test_dice_is_twice_the_overlap_over_the_sum(one: np.ndarray, other: np.ndarray) -> None:
    """Counted in another way."""
    for score in score_case(labelled(one), labelled(other)):
        a, b = one == score.value, other == score.value
        if a.any():
            assert score.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_what_the_reference_does_not_show_has_no_scores() -> None:
    """A structure found where there is none is a false alarm and has no Dice."""
    score = score_case(labelled(BOX), labelled(BOX * 2))[1]
    assert (score.dice, score.nsd, score.hd95_mm, score.reason) == (None, None, None, NOT_IN_REFERENCE)
    assert score.is_false_alarm
    assert score.volume_error_percent is None


def test_what_was_not_found_counts_as_zero() -> None:
    """A missed structure has Dice and surface Dice 0, and no distance."""
    score = score_case(labelled(BOX), labelled(BOX * 0))[0]
    assert (score.dice, score.nsd, score.hd95_mm, score.reason) == (0, 0, None, NOT_FOUND)
    assert score.is_missed
    assert score.volume_error_percent == -100


def test_volumes_are_in_millilitres() -> None:
    """Six by six by five voxels of 2 by 1 by 1 mm."""
    score = score_case(labelled(BOX, (2, 1, 1)), labelled(BOX, (2, 1, 1)))[0]
    assert score.reference_ml == pytest.approx(6 * 6 * 5 * 2 / 1000)


def test_voxels_of_an_ignored_value_count_as_background_in_both() -> None:
    """What lies where nothing is said is neither right nor wrong."""
    truth = BOX.copy()
    truth[8:10, 3:9, 2:7] = 2
    ours = block(SHAPE, (2, 10), (3, 9), (2, 7))
    (score,) = score_case(labelled(truth), labelled(ours), ignore=(2,))
    assert (score.structure, score.dice) == ("head", 1.0)


def test_an_image_of_one_slice_has_lines_for_surfaces() -> None:
    """A square shifted by one pixel of 3 mm: no surface above and below the slice."""
    truth, ours = block((1, 20, 20), (0, 1), (5, 10), (5, 10)), block((1, 20, 20), (0, 1), (6, 11), (5, 10))
    score = score_case(labelled(truth, (9, 3, 3)), labelled(ours, (9, 3, 3)), tolerance_mm=1)[0]
    assert score.hd95_mm == 3.0
    assert score.nsd is not None
    assert 0.2 < score.nsd < 0.8


def test_other_grids_are_refused() -> None:
    """Scores are made on the reference's own grid: nothing is resampled silently."""
    with pytest.raises(GeometryError, match="mm apart"):
        score_case(labelled(BOX), labelled(BOX, (1, 1, 1.1)))


@pytest.mark.parametrize("tolerance_mm", [0, -1, float("inf"), float("nan")])
def test_an_impossible_tolerance_is_refused(tolerance_mm: float) -> None:
    """A surface Dice needs a distance above 0."""
    with pytest.raises(SettingsError, match="tolerance_mm"):
        score_case(labelled(BOX), labelled(BOX), tolerance_mm)


def test_unequal_slices_have_volume_and_dice_but_no_distance() -> None:
    """Where slices lie unequally far apart, distances along the axis are none."""
    geometry = Geometry(np.eye(4), SHAPE, slice_offsets=(*range(11), 15.0), slice_axis=0)
    plain = labelled(BOX)
    uneven = Segmentation(plain.labels, geometry, TABLE, plain.provenance)
    score = score_case(uneven, replace(uneven))[0]
    assert (score.dice, score.hd95_mm, score.reason) == (1.0, None, UNEVEN_GRID)


def test_structures_that_overlap_are_scored_whole() -> None:
    """Where both lie counts for each; what the sums are called does not matter."""
    rows = LabelTable((Label(1, "a", ANATOMICAL_STRUCTURE), Label(2, "b", ANATOMICAL_STRUCTURE))).with_sums({3})
    a, b = block(SHAPE, (2, 8), (3, 9), (2, 7)), block(SHAPE, (5, 11), (3, 9), (2, 7), value=2)
    scores = score_case(labelled(a + b, table=rows), labelled(a + np.roll(b, 1, 1), table=rows))
    assert [(score.structure, score.dice) for score in scores] == [("a", 1.0), ("b", pytest.approx(5 / 6))]


def test_a_map_that_knows_nothing_of_overlap_is_not_scored_against_one_that_does() -> None:
    """3 is a sum in one, and a structure of its own in the other."""
    rows = (Label(1, "a", ANATOMICAL_STRUCTURE), Label(2, "b", ANATOMICAL_STRUCTURE))
    both = np.full((4, 4, 4), 3, np.uint8)
    alone = labelled(both, table=LabelTable((*rows, Label(3, "c", ANATOMICAL_STRUCTURE))))
    with pytest.raises(InputError, match="overlap in one"):
        score_case(labelled(both, table=LabelTable(rows).with_sums({3})), alone)
