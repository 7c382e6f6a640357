"""Changes of voxels: exact, reversible, and the same after a way through text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError, InputError
from effvit_med.volume.changes import VoxelChange


@st.composite
def edits(draw):
    """Labels, indices in any order with repetitions, and a value for each."""
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    top = 255 if dtype == np.uint8 else 65535
    size = draw(st.integers(1, 60))
    values = st.sampled_from([0, 1, 2, top])
    labels = np.array(draw(st.lists(values, min_size=size, max_size=size)), dtype).reshape(1, 1, size)
    flat = draw(st.lists(st.integers(0, size - 1), max_size=80))
    return (
        labels,
        np.array(flat, np.int64),
        np.array(draw(st.lists(values, min_size=len(flat), max_size=len(flat))), int),
    )


@given(edits())
def test_applying_a_change_is_assigning(edit) -> None:
    """The labels after a change are those that plain assignment in order gives."""
    labels, flat, after = edit
    wanted = labels.copy()
    for place, value in zip(flat, after, strict=True):
        wanted[0, 0, place] = value
    VoxelChange.of(labels, flat, after).apply(labels)
    assert np.array_equal(labels, wanted)


@given(edits())
def test_reverting_gives_the_labels_back(edit) -> None:
    """A change that is applied and reverted leaves nothing."""
    labels, flat, after = edit
    before = labels.copy()
    change = VoxelChange.of(labels, flat, after)
    change.apply(labels)
    change.revert(labels)
    assert np.array_equal(labels, before)


@given(edits())
def test_a_change_survives_text(edit) -> None:
    """Indices, values and their type come back exactly."""
    labels, flat, after = edit
    change = VoxelChange.of(labels, flat, after)
    again = VoxelChange.from_text(change.to_text())
    assert np.array_equal(again.flat, change.flat)
    assert np.array_equal(again.before, change.before)
    assert np.array_equal(again.after, change.after)
    assert again.before.dtype == again.after.dtype == labels.dtype


@given(edits())
def test_only_what_really_changes_is_kept(edit) -> None:
    """Each voxel of a change stands there once, in rising order, with two values that differ."""
    change = VoxelChange.of(*edit)
    assert (np.diff(change.flat) > 0).all()
    assert (change.before != change.after).all()


@given(edits(), st.data())
def test_a_damaged_text_is_an_error(edit, data) -> None:
    """A text with another letter, or cut short, is refused or still the same change; it is never another one."""
    text = VoxelChange.of(*edit).to_text()
    place = data.draw(st.integers(0, len(text) - 1))
    for damaged in (text[:place] + data.draw(st.sampled_from("Az9-")) + text[place + 1 :], text[:place]):
        try:
            again = VoxelChange.from_text(damaged)
        except InputError:
            continue
        assert again.to_text() == text


def test_a_large_change_is_small_as_text() -> None:
    """A ball of a quarter of a million voxels takes less than one byte for 100 of them."""
    grid = np.indices((90, 90, 90)) - 45
    labels = np.zeros((90, 90, 90), np.uint8)
    flat = np.flatnonzero((grid**2).sum(axis=0) < 40**2)
    change = VoxelChange.of(labels, flat, 3)
    assert len(change) > 250_000
    assert len(change.to_text()) < len(change) / 15


def test_a_change_of_other_labels_writes_nothing() -> None:
    """A change does not overwrite values that it does not start from."""
    labels = np.zeros((1, 1, 4), np.uint8)
    change = VoxelChange.of(labels, [1, 2], 5)
    labels[0, 0, 2] = 9
    with pytest.raises(GeometryError, match="does not fit"):
        change.apply(labels)
    assert labels.ravel().tolist() == [0, 0, 9, 0]


def test_a_view_is_refused() -> None:
    """Of a transposed array a row would be a copy, and the change would be lost."""
    with pytest.raises(GeometryError, match="not contiguous"):
        VoxelChange.of(np.zeros((2, 3, 4), np.uint8).transpose(2, 1, 0), [1], 1)


@pytest.mark.parametrize(("flat", "after"), [([-1], 1), ([24], 1), ([0.5], 1), ([0], 256), ([0], -1), ([0, 1], [1])])
def test_what_lies_outside_is_refused(flat, after) -> None:
    """Indices outside, broken indices, values that do not fit and unequal numbers are errors, not wrapped around."""
    with pytest.raises(GeometryError):
        VoxelChange.of(np.zeros((2, 3, 4), np.uint8), flat, after)
