"""Facts about `effvit_med.volume.counts`: the quick pass counts what a slow one counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.volume.counts import count_values, digest_labels, find_labelled, find_values


@st.composite
def label_maps(draw: st.DrawFn) -> np.ndarray:
    """Sparse or dense labels of either type, turned, mirrored or cut out of a larger map."""
    kind = draw(st.sampled_from([np.uint8, np.uint16]))
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    labels = rng.choice(
        [0, 1, 2, np.iinfo(kind).max], shape, p=draw(st.sampled_from([(0.97, 0.01, 0.01, 0.01), (0.25,) * 4]))
    )
    labels = labels.astype(kind).transpose(draw(st.permutations(range(3))))
    return labels[:: draw(st.sampled_from([1, -1])), :, draw(st.integers(0, labels.shape[2] - 1)) :]


@given(labels=label_maps(), axis=st.integers(0, 2))
def test_counts_are_those_of_every_plane(labels: np.ndarray, axis: int) -> None:
    """Each row of the table is the histogram of its plane, background included."""
    counts = count_values(labels, axis)
    for row, plane in zip(counts, np.moveaxis(labels, axis, 0), strict=True):
        assert row.tolist() == np.bincount(plane.ravel(), minlength=counts.shape[1]).tolist()


@given(labels=label_maps())
def test_values_are_those_that_occur(labels: np.ndarray) -> None:
    """The set is that of all values but 0, in any memory layout."""
    assert find_values(labels) == set(np.unique(labels).tolist()) - {0}


@given(labels=label_maps())
def test_no_label_lies_outside_the_groups(labels: np.ndarray) -> None:
    """All labelled voxels of a plane lie in the groups that are found."""
    plane = np.ascontiguousarray(labels[0])
    where, size = find_labelled(plane)
    rest = plane.reshape(-1, size).copy()
    rest[where] = 0
    assert not rest.any()


@pytest.mark.parametrize("size", [3, 300])
def test_the_table_has_the_columns_that_are_asked_for(size: int) -> None:
    """A table for 300 values has as many columns, one for 3 as many as the labels need."""
    labels = np.full((2, 3, 3), 7, np.uint8)
    assert count_values(labels, size=size).shape == (2, max(8, size))


@given(labels=label_maps(), place=st.integers(0, 10**6))
def test_the_digest_is_of_the_labels_alone(labels: np.ndarray, place: int) -> None:
    """Memory layout and alignment make no difference; any changed voxel does."""
    unaligned = np.frombuffer(b"-" + labels.tobytes(), labels.dtype.newbyteorder("="), offset=1).reshape(labels.shape)
    assert digest_labels(labels) == digest_labels(labels.copy(order="F")) == digest_labels(unaligned)
    changed = labels.copy()
    changed.reshape(-1)[place % labels.size] ^= 1
    assert digest_labels(changed) != digest_labels(labels)
