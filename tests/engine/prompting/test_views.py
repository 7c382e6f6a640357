"""Facts about `effvit_med.engine.prompting.views`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.engine.prompting.views import cut_view, make_view, spread_rows, touches

SHAPE = (9, 50, 64)
places = st.tuples(st.floats(-2, 10), st.floats(-5, 60), st.floats(-5, 70))
extents = st.tuples(st.integers(1, 12), st.integers(2, 80), st.integers(2, 80))
limits = st.tuples(st.integers(1, 12), st.integers(2, 40), st.integers(2, 40))


@given(places, extents, limits, st.sampled_from([None, 0]))
def test_a_view_lies_within_the_scan(centre, extent, largest, flat) -> None:
    """All of it is inside, it is no larger than allowed, and it covers what was asked for, if there is so much."""
    view = make_view(centre, extent, SHAPE, largest, flat)
    for axis, (start, step, count) in enumerate(zip(view.start, view.step, view.shape, strict=True)):
        assert start - step / 2 >= -0.5 - 1e-6
        assert start + step * (count - 0.5) <= SHAPE[axis] - 0.5 + 1e-6
        if axis != flat:
            assert count <= largest[axis]
            assert step * count == pytest.approx(min(extent[axis], SHAPE[axis]))
    if all(0 <= at <= size - 1 for at, size in zip(centre, SHAPE, strict=True)) and min(extent[1:]) > 2:
        box = view.box(SHAPE)
        assert all(part.start - 1 <= at <= part.stop for at, part in zip(centre, box, strict=True))


@given(places, extents)
@settings(deadline=None)
def test_a_view_as_fine_as_the_scan_is_a_cut(centre, extent) -> None:
    """No value is interpolated, and going back puts each where it was."""
    array = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    view = make_view(centre, extent, SHAPE, SHAPE, None)
    values = cut_view(array, view)
    np.testing.assert_array_equal(values, array[view.box(SHAPE)])
    box = view.box(SHAPE)
    back = spread_rows(values, view, box, slice(0, box[0].stop - box[0].start))
    np.testing.assert_array_equal(back, array[box])


@given(places, extents, limits)
@settings(deadline=None, max_examples=50)
def test_a_ramp_comes_back_as_a_ramp(centre, extent, largest) -> None:
    """Values that rise evenly are right on the view and, away from its border, on the scan again."""
    ramp = np.indices(SHAPE).sum(0).astype(np.float32)
    view = make_view(centre, extent, SHAPE, largest, None)
    values = cut_view(ramp, view)
    wanted = sum(
        np.reshape(start + step * np.arange(count), [-1 if axis == other else 1 for other in range(3)])
        for axis, (start, step, count) in enumerate(zip(view.start, view.step, view.shape, strict=True))
    )
    inner = tuple(slice(1, -1) if count > 2 else slice(None) for count in view.shape)
    if all(step == 1 or count > 2 for step, count in zip(view.step, view.shape, strict=True)):
        np.testing.assert_allclose(values[inner], wanted[inner], atol=1e-2)
    box = view.box(SHAPE)
    back = spread_rows(values, view, box, slice(0, box[0].stop - box[0].start))
    assert back.shape == tuple(part.stop - part.start for part in box)


def test_neighbours_beyond_the_scan_are_the_last_slice() -> None:
    """Of a flat view at the end, with two neighbours on each side."""
    array = np.arange(9, dtype=np.float32)[:, None, None] * np.ones(SHAPE, np.float32)
    view = make_view((8, 20, 20), (1, 10, 10), SHAPE, (1, 10, 10), 0)
    assert cut_view(array, view, slices=2, flat=0)[:, 0, 0].tolist() == [6, 7, 8, 8, 8]


def test_a_long_part_is_not_distorted() -> None:
    """A view of 800 x 400 pixels at most 200 wide has steps of 4 along both axes."""
    view = make_view((0, 400, 200), (1, 800, 400), (1, 800, 400), (200, 200, 200), 0)
    assert (view.shape, view.step) == ((1, 200, 100), (1.0, 4.0, 4.0))


def test_few_thick_slices_are_all_seen() -> None:
    """Of 12 slices of 512 x 512 none is left out, however coarse the other axes are."""
    view = make_view((6, 256, 256), (12, 512, 512), (12, 512, 512), (64, 64, 64), None)
    assert (view.shape, view.step) == ((12, 64, 64), (1.0, 8.0, 8.0))


def test_an_object_at_the_scans_own_border_does_not_touch() -> None:
    """There is nothing to zoom out to; at an inner border there is."""
    view = make_view((4, 10, 10), (9, 20, 20), SHAPE, SHAPE, None)
    mask = np.zeros(view.shape, bool)
    mask[:, 0, :10] = True
    assert view.box(SHAPE)[1].start == 0
    assert not touches(mask, view, SHAPE, None)
    mask[:, -1] = True
    assert touches(mask, view, SHAPE, None)
