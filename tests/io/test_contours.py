"""Outlines of planes: filled, they give the plane back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline

from effvit_med.io.contours import fill_outlines, trace_outlines

planes = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


def fill_with_matplotlib(paths: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The same question asked of another program."""
    centres = np.indices(shape).reshape(2, -1).T
    inside = [Outline(np.vstack([path, path[:1]]), closed=True).contains_points(centres) for path in paths]
    return np.any(inside, axis=0).reshape(shape) if inside else np.zeros(shape, bool)


@given(planes)
def test_filling_the_outlines_gives_the_plane_back(plane: np.ndarray) -> None:
    """Whatever the plane: pieces, holes, islands in holes, voxels that touch at corners."""
    assert np.array_equal(fill_outlines(trace_outlines(plane), plane.shape), plane)


@given(planes)
def test_another_program_fills_the_outlines_in_the_same_way(plane: np.ndarray) -> None:
    """Holes are reached by channels that no filling rule takes for an area."""
    assert np.array_equal(fill_with_matplotlib(trace_outlines(plane), plane.shape), plane)


@given(planes, st.floats(-0.1, 0.1), st.floats(-0.1, 0.1), st.floats(0.98, 1.02))
def test_rounding_does_not_cut_a_hole_off(plane: np.ndarray, down: float, right: float, scale: float) -> None:
    """Channels and outlines stay a good part of a pixel away from all centres."""
    middle = np.array(plane.shape) / 2
    paths = [(path - middle) * [scale, 1 / scale] + middle + [down, right] for path in trace_outlines(plane)]
    assert np.array_equal(fill_outlines(paths, plane.shape), plane)


@given(planes)
def test_every_connected_piece_is_one_path_and_points_are_not_repeated(plane: np.ndarray) -> None:
    """A path has at least four points and no two equal ones in a row."""
    for path in trace_outlines(plane):
        assert len(path) >= 4
        assert (np.abs(path - np.roll(path, 1, axis=0)).sum(axis=1) > 0).all()


@given(planes)
def test_first_and_last_point_differ_in_row_and_column(plane: np.ndarray) -> None:
    """No program takes the last point for a repeated first one, in whatever plane of the patient."""
    for path in trace_outlines(plane):
        assert (path[0] != path[-1]).all()


def test_a_square_with_a_hole_is_one_path_of_few_points() -> None:
    """The hole is joined to the square, and straight sides have no points between their ends."""
    plane = np.zeros((20, 20), bool)
    plane[2:18, 2:18] = True
    plane[8:12, 8:12] = False
    (path,) = trace_outlines(plane)
    assert len(path) == 8 + 8 + 4
    assert np.array_equal(fill_outlines([path], plane.shape), plane)


def test_nothing_has_no_outline() -> None:
    """An empty plane gives no path, and no path an empty plane."""
    assert trace_outlines(np.zeros((3, 4), bool)) == []
    assert not fill_outlines([], (3, 4)).any()


@pytest.mark.parametrize("start", [-3.0, 2.0])
def test_a_path_beyond_the_plane_is_cut_off(start: float) -> None:
    """What lies outside of the plane is left out."""
    path = np.array([[start, start], [start, start + 5], [start + 5, start + 5], [start + 5, start]])
    whole = np.zeros((5, 5), bool)
    first, last = max(0, int(start)), min(5, int(start) + 5)
    whole[first:last, first:last] = True
    found = fill_outlines([path + 0.25 - 0.5], (5, 5))
    assert np.array_equal(found, whole)
