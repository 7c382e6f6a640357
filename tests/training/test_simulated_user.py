"""Facts about `effvit_med.training.simulated_user`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.training.simulated_user import (
    EXACT,
    Habits,
    depth_of,
    draw_box,
    draw_lasso,
    find_largest_error,
    point_at,
)
from effvit_med.training.synthetic_shapes import draw_organ
from effvit_med.transforms.drawing import draw_outline

SHAPES = [(1, 60, 70), (20, 40, 36)]
seeds = st.integers(0, 10_000)


def _organ(shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    depth = draw_organ(shape[1:] if shape[0] == 1 else shape, rng).reshape(shape)
    return depth > np.quantile(depth, 0.9)


def test_the_largest_thick_error_comes_first() -> None:
    """A border that is wrong by a voxel all around is less than a hole of fewer voxels."""
    truth = np.zeros((1, 80, 80), bool)
    truth[0, 10:70, 10:70] = True
    now = truth.copy()
    now[0, 9] = now[0, 70] = True
    now[0, :, 9] = now[0, :, 70] = True
    now[0, 30:38, 30:38] = False
    error = find_largest_error(now, truth)
    assert error is not None
    assert error.missing
    assert error.box == (slice(0, 1), slice(30, 38), slice(30, 38))


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_every_point_and_scribble_begins_on_an_error(shape: tuple[int, ...], seed: int) -> None:
    """What is said of the first vertex is true: missing where it adds, too much where it removes."""
    rng = np.random.default_rng(seed)
    truth, now = _organ(shape, seed), _organ(shape, seed + 1)
    prompt = point_at(now, truth, Habits(later=(("point", 0.5), ("scribble", 0.5))), rng)
    assert prompt is not None
    place = tuple(int(at) for at in prompt.index[0])
    assert (truth & ~now if prompt.adds else now & ~truth)[place]


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_an_exact_reader_clicks_where_an_error_is_deepest(shape: tuple[int, ...], seed: int) -> None:
    """No voxel of the piece is farther from its border."""
    truth = _organ(shape, seed)
    prompt = point_at(np.zeros(shape, bool), truth, EXACT, np.random.default_rng(0))
    error = find_largest_error(np.zeros(shape, bool), truth)
    assert prompt is not None
    assert error is not None
    depth = np.zeros(shape)
    depth[error.box] = depth_of(error.piece)
    assert depth[tuple(int(at) for at in prompt.index[0])] == depth.max()


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_a_box_without_slack_is_the_objects_own(shape: tuple[int, ...], seed: int) -> None:
    """Nothing of the object in that slice lies outside, and each side touches it."""
    whole = _organ(shape, seed)
    box = draw_box(whole, EXACT, np.random.default_rng(seed))
    drawn = draw_outline(box, shape[1:])
    mine = whole[box.slice_number]
    assert not (mine & ~drawn).any()
    for axis in (0, 1):
        assert (np.flatnonzero(drawn.any(axis=axis))[[0, -1]] == np.flatnonzero(mine.any(axis=axis))[[0, -1]]).all()


@given(seed=seeds)
@settings(max_examples=25, deadline=None)
def test_a_lasso_is_about_the_object(seed: int) -> None:
    """However carelessly, most of what it encloses is the object and most of the object is enclosed."""
    y, x = np.mgrid[:80, :80]
    whole = (((y - 40) / 24) ** 2 + ((x - 38) / 15) ** 2 < 1)[None]
    lasso = draw_lasso(whole, Habits(), np.random.default_rng(seed))
    drawn = draw_outline(lasso, (80, 80))
    overlap = 2 * (drawn & whole[0]).sum() / (drawn.sum() + whole.sum())
    assert 0.75 < overlap <= 1


def test_nothing_is_said_of_what_is_right() -> None:
    """Both masks equal: no prompt."""
    truth = _organ(SHAPES[0], 1)
    assert point_at(truth, truth, Habits(), np.random.default_rng(0)) is None


def test_a_single_slice_has_no_border_across() -> None:
    """The depth of a voxel in a flat mask is that within the slice."""
    flat = np.ones((1, 21, 21), bool)
    assert depth_of(flat)[0, 10, 10] == 11
    assert depth_of(np.ones((1, 1, 1), bool)).tolist() == [[[1.0]]]
