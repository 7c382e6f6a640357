"""Facts about `effvit_med.transforms.drawing`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.transforms.drawing import OLDER, draw_ball, draw_prompts
from effvit_med.volume.prompts import Prompt

SHAPE = (6, 30, 40)


def test_a_scribble_is_drawn_without_gaps() -> None:
    """The voxels of a slanted line touch one another."""
    drawn = draw_ball(Prompt("scribble", 1, True, ((2, 5, 5), (9, 50, 40))), (20, 60, 60), (2.0, 1.0, 1.0), 0.0)
    places = np.argwhere(drawn)
    steps = np.abs(np.diff(places[np.argsort(places[:, 1], kind="stable")], axis=0)).max()
    assert steps == 1


@given(st.tuples(st.floats(-3, 9), st.floats(-5, 35), st.floats(-5, 45)), st.booleans())
def test_a_point_is_drawn_about_its_place_alone(index: tuple[float, float, float], adds: bool) -> None:
    """All that is drawn lies within the radius of the nearest voxel, in the map of what it says."""
    maps = draw_prompts([Prompt("point", 1, adds, (index,))], SHAPE, (1, 3, 3))
    assert not maps[1 if adds else 0].any()
    assert not maps[2].any()
    away = (np.argwhere(maps[0 if adds else 1]) - np.rint(index)) / (1, 3, 3)
    assert (np.linalg.norm(away, axis=1) <= 1).all()
    inside = all(0 <= round(at) < size for at, size in zip(index, SHAPE, strict=True))
    assert inside == bool(len(away))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("adds", [True, False])
def test_a_box_fills_its_slice(axis: int, adds: bool) -> None:
    """Inside of it the third map is 1 or -1, in that slice only."""
    corners = np.array([[1.0, 4.0, 5.0], [4.0, 20.0, 30.0]])
    corners[:, axis] = 3
    maps = draw_prompts([Prompt("box", 1, adds, tuple(map(tuple, corners)), axis)], SHAPE, (1, 3, 3))  # type: ignore[arg-type]
    expected = np.zeros(SHAPE)
    low, high = corners.astype(int)
    expected[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))] = 1 if adds else -1
    np.testing.assert_array_equal(maps[2], expected)


def test_what_is_said_later_stands_over_what_was_said_before() -> None:
    """A place has one meaning, and the newest prompt is drawn more strongly than those before it."""
    first, then = (Prompt("point", 1, adds, ((2, 10, at),)) for adds, at in ((True, 10), (False, 12)))
    adds, removes, _ = draw_prompts([first, then], SHAPE, (1, 3, 3))
    assert not ((adds > 0) & (removes > 0)).any()
    assert removes[2, 10, 11] == 1
    assert adds[2, 10, 8] == pytest.approx(OLDER)


def test_a_box_outside_the_grid_is_not_drawn() -> None:
    """Of a crop that does not reach its slice nothing is marked."""
    box = Prompt("box", 1, True, ((9, 4, 5), (9, 20, 30)), 0)
    assert not draw_prompts([box], SHAPE, (1, 3, 3)).any()
