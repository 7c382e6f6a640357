"""The shapes: signs, distances and boxes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.training.phantom_shapes import STRAIGHT, Capsule, Column, Ellipsoid, HalfSpace, rotation
from effvit_med.training.phantom_solids import Difference, Intersection, Offset, Stack, Union

BALL = Ellipsoid((1.0, 2.0, 3.0), (10.0, 10.0, 10.0))
OTHER = Ellipsoid((9.0, 2.0, 3.0), (6.0, 7.0, 8.0), (10.0, 20.0, 30.0))
numbers = st.floats(-25.0, 25.0)
points = st.tuples(numbers, numbers, numbers).map(lambda p: tuple(np.array([v]) for v in p))


@given(points)
def test_ball_distance(p: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """The distance to a ball is exact."""
    expected = np.sqrt((p[0] - 1.0) ** 2 + (p[1] - 2.0) ** 2 + (p[2] - 3.0) ** 2) - 10.0
    np.testing.assert_allclose(BALL.distance(*p), expected, atol=1e-4)


def test_centre_of_an_ellipsoid_is_inside() -> None:
    """The centre itself, where the formula is 0 by 0, lies inside by a radius."""
    distance = OTHER.distance(np.array([9.0]), np.array([2.0]), np.array([3.0]))
    np.testing.assert_allclose(distance, [-8.0], rtol=1e-4)


@given(points)
def test_solids_agree_with_logic(p: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Union, intersection and difference hold the points that or, and, and-not hold."""
    a, b = BALL.distance(*p)[0] < 0.0, OTHER.distance(*p)[0] < 0.0
    assert (Union((BALL, OTHER)).distance(*p)[0] < 0.0) == (a or b)
    assert (Intersection((BALL, OTHER)).distance(*p)[0] < 0.0) == (a and b)
    if abs(OTHER.distance(*p)[0]) > 1e-9:
        assert (Difference(BALL, OTHER).distance(*p)[0] < 0.0) == (a and not b)


@given(points)
def test_blending_only_adds_to_a_union(p: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A melted union holds the plain one, and its box holds it."""
    melted = Union((BALL, OTHER), blend_mm=6.0)
    distance = melted.distance(*p)[0]
    assert distance <= Union((BALL, OTHER)).distance(*p)[0]
    if distance < 0.0:
        low, high = melted.bounds
        assert all(a <= v[0] <= b for a, v, b in zip(low, p, high, strict=True))


def test_turned_ellipsoid_box_is_tight() -> None:
    """A long ellipsoid turned by 90 degrees about z is long along y."""
    low, high = Ellipsoid((0.0, 0.0, 0.0), (30.0, 5.0, 6.0), (0.0, 0.0, 90.0)).bounds
    np.testing.assert_allclose([low, high], [[-5.0, -30.0, -6.0], [5.0, 30.0, 6.0]], atol=1e-9)


def test_rotation_is_proper() -> None:
    """A rotation keeps lengths and handedness."""
    turn = rotation((12.0, -33.0, 71.0))
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) > 0.999


def test_capsule_narrows() -> None:
    """The radius of a capsule goes from one end to the other."""
    tube = Capsule((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (4.0, 2.0))
    x, y, z = np.array([0.0, 5.0, 10.0]), np.full(3, 5.0), np.zeros(3)
    np.testing.assert_allclose(tube.distance(x, y, z), [1.0, 2.0, 3.0])


def test_column_ends() -> None:
    """A column ends at its heights and is as wide as its radii."""
    column = Column(STRAIGHT, (8.0, 5.0), (-10.0, 20.0))
    x, y, z = np.array([7.9, 8.1, 0.0, 0.0]), np.array([0.0, 0.0, 4.9, 0.0]), np.array([0.0, 0.0, 19.9, 20.1])
    assert (column.distance(x, y, z) < 0.0).tolist() == [True, False, True, False]


def test_stack_repeats() -> None:
    """A stacked ball is found at every pitch and not between."""
    stack = Stack(Ellipsoid((0.0, 0.0, 0.0), (5.0, 5.0, 5.0)), 30.0, (-100.0, 100.0), phase_mm=4.0)
    z = np.array([-26.0, 4.0, 19.0, 34.0])
    assert (stack.distance(np.zeros(4), np.zeros(4), z) < 0.0).tolist() == [True, True, False, True]


def test_half_space_knows_its_axis() -> None:
    """A plane across an axis limits the box on the right side."""
    assert HalfSpace((0.0, -2.0, 0.0), 10.0).bounds[0][1] == -5.0
    assert HalfSpace((0.0, 0.0, 1.0), 7.0).bounds[1][2] == 7.0


def test_offset_grows() -> None:
    """A grown ball reaches further by the growth."""
    np.testing.assert_allclose(Offset(BALL, 2.5).distance(*(np.array([v]) for v in (14.0, 2.0, 3.0))), [0.5])
