"""Facts about `effvit_med.transforms.axes`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.transforms.axes import AxisWeights, axis_weights

lines = st.tuples(st.integers(1, 40), st.integers(1, 60), st.floats(0.2, 5.0), st.floats(-3, 3), st.booleans())


def _weights(line: tuple[int, int, float, float, bool]) -> AxisWeights:
    size, count, step, start, backwards = line
    index = start + step * np.arange(count)
    return axis_weights(index[::-1] if backwards else index, size)


@given(lines)
def test_interpolation_weights_are_an_average(line) -> None:
    """The weights of a voxel are not negative and sum to one."""
    weights = _weights(line).weights
    assert (weights >= 0).all()
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-5)


@given(lines)
def test_weights_stand_on_nodes_that_are_there(line) -> None:
    """No weight lies outside the axis."""
    found = _weights(line)
    assert found.first.min() >= 0
    assert found.first.max() + found.weights.shape[1] <= line[0]


@given(st.integers(2, 60), st.integers(2, 60), st.floats(0.2, 5.0))
def test_a_straight_line_stays_where_it_is(size: int, count: int, step: float) -> None:
    """Away from the ends, a node's own index, resampled, is the index asked for, also where values are averaged."""
    index = step * np.arange(count)
    found = axis_weights(index, size)
    nodes = np.arange(found.weights.shape[1])
    result = (found.weights * (found.first[:, None] + nodes)).sum(axis=1)
    inside = (index >= step) & (index <= size - 1 - step)
    assert np.allclose(result[inside], index[inside], atol=1e-4)


@given(st.integers(1000, 4000), st.floats(0.2, 4.0))
def test_the_number_of_weights_does_not_grow_with_the_axis(size: int, step: float) -> None:
    """Time per voxel is the same for short and for long axes."""
    taps = axis_weights(step * np.arange(50), 200).weights.shape[1]
    assert axis_weights(step * np.arange(int(size / step)), size).weights.shape[1] <= taps + 1


@given(lines, st.integers(0, 59), st.integers(1, 60))
def test_the_reach_holds_every_node_that_is_needed(line, start: int, count: int) -> None:
    """A part of the voxels needs no node outside its reach."""
    found = _weights(line)
    start = min(start, len(found) - 1)
    voxels = slice(start, min(start + count, len(found)))
    reach = found.reach(voxels)
    part = found.part(voxels).shifted(reach.start)
    assert part.first.min() >= 0
    assert part.first.max() + part.weights.shape[1] <= reach.stop - reach.start
