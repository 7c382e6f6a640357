"""Facts about `effvit_med.engine.tiling`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.engine.tiling import Tiling, blending_lines, blending_weight, fit_window, padded_size, place_windows
from effvit_med.errors import SettingsError

sizes = st.tuples(*[st.integers(1, 40)] * 3)
strides = st.tuples(*[st.sampled_from([1, 2, 4])] * 3)


@st.composite
def tilings(draw) -> tuple[tuple[int, int, int], Tiling, tuple[int, int, int]]:
    """A padded shape, a tiling whose window is a multiple of the stride, and the stride."""
    stride = draw(strides)
    window = tuple(step * draw(st.integers(1, 6)) for step in stride)
    shape = padded_size(draw(sizes), window, stride)
    return shape, Tiling(window, draw(st.floats(0, 0.9))), stride


@given(tilings())
def test_every_voxel_is_covered_and_no_window_leaves_the_grid(drawn) -> None:
    """The windows cover the grid, lie inside it and start at multiples of the stride."""
    shape, tiling, stride = drawn
    covered = np.zeros(shape, bool)
    for start in place_windows(shape, tiling, stride):
        assert all(begin % step == 0 for begin, step in zip(start, stride, strict=True))
        assert all(b + w <= n for b, w, n in zip(start, tiling.window, shape, strict=True))
        covered[tuple(slice(b, b + w) for b, w in zip(start, tiling.window, strict=True))] = True
    assert covered.all()


@given(tilings())
def test_neighbours_share_at_least_the_overlap(drawn) -> None:
    """No step between windows is longer than the window less its overlap, rounded up to the stride."""
    shape, tiling, stride = drawn
    starts = place_windows(shape, tiling, stride)
    for axis in range(3):
        steps = np.diff(sorted({start[axis] for start in starts}))
        allowed = max(stride[axis], int(tiling.window[axis] * (1 - tiling.overlap))) + stride[axis] - 1
        assert (steps <= allowed).all()


@given(tilings())
def test_windows_come_in_order_along_the_slab_axis(drawn) -> None:
    """Axis 0 never goes back, so that finished slabs can be given away."""
    shape, tiling, stride = drawn
    firsts = [start[0] for start in place_windows(shape, tiling, stride)]
    assert firsts == sorted(firsts)


def test_the_weight_is_highest_in_the_middle_and_never_nought() -> None:
    """The middle of a window counts most; a corner still counts."""
    weight = blending_weight((9, 9, 9))
    assert float(weight[4, 4, 4]) == pytest.approx(1.0)
    assert weight.argmax() == torch.tensor(9**3 // 2)
    assert float(weight.min()) > 0


def test_slices_of_a_2d_network_count_alike() -> None:
    """Along a flat axis the weight does not change."""
    weight = blending_weight((5, 9, 9), flat_axes=(0,))
    assert torch.equal(weight[0], weight[4])


def test_a_window_off_the_stride_is_refused() -> None:
    """A window of 6 cannot be cut into blocks of 4."""
    with pytest.raises(SettingsError, match=r"\(6, 8, 8\) must be a multiple.*\(4, 4, 4\)"):
        padded_size((10, 10, 10), (6, 8, 8), (4, 4, 4))


@pytest.mark.parametrize(("window", "overlap"), [((0, 8, 8), 0.5), ((8, 8, 8), 0.95), ((8, 8, 8), -0.1)])
def test_a_wrong_tiling_is_refused(window, overlap: float) -> None:
    """The error shows the value."""
    with pytest.raises(
        SettingsError, match=str(overlap if window[0] else window).replace("(", r"\(").replace(")", r"\)")
    ):
        Tiling(window, overlap)


@given(tilings(), st.booleans())
def test_the_shares_of_all_windows_sum_to_one(drawn, flat: bool) -> None:
    """At every voxel of an axis the windows' shares are above 0 and sum to 1."""
    shape, tiling, stride = drawn
    for axis in range(3):
        size, window = shape[axis] // stride[axis], tiling.window[axis] // stride[axis]
        starts = sorted({start[axis] // stride[axis] for start in place_windows(shape, tiling, stride)})
        total = np.zeros(size)
        for start, line in blending_lines(size, starts, window, flat=flat).items():
            assert (line > 0).all()
            total[start : start + window] += line.numpy()
        assert np.allclose(total, 1, atol=1e-6)


def test_the_middle_of_a_window_counts_more_than_its_end() -> None:
    """Where two windows overlap, each rules in its own half."""
    lines = blending_lines(12, [0, 4], 8)
    assert (lines[0][4:6] > lines[4][0:2]).all()
    assert (lines[0][6:8] < lines[4][2:4]).all()


@given(shape=sizes, step=strides, more=st.tuples(*[st.integers(1, 6)] * 3))
def test_a_fitted_window_is_no_larger_than_needed(shape, step, more) -> None:
    """It holds the grid rounded up to whole steps, or is the window itself where the grid is larger."""
    window = tuple(each * factor for each, factor in zip(step, more, strict=True))
    fitted = fit_window(window, shape, step)
    for size, wanted, length, each in zip(fitted, window, shape, step, strict=True):
        assert size % each == 0
        assert size == wanted if length >= wanted else length <= size < length + each
