"""Facts about `effvit_med.engine.prompting.merging`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from effvit_med.engine.prompting import merging
from effvit_med.engine.prompting.merging import merge_answer
from effvit_med.engine.prompting.views import View, cut_view, make_view
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click

SHAPE = (1, 60, 70)
BLOCK = (40, 48, 56)


def _masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=SHAPE), (0, 5, 5)) for _ in range(2)]
    return fields[0] > 0.01, fields[1] > 0.01


@given(st.integers(0, 5000), st.integers(0, 59), st.integers(0, 69), st.booleans(), st.sampled_from([5, 15, 40]))
@settings(max_examples=60, deadline=None)
def test_what_is_far_from_new_evidence_stays(seed: int, row: int, column: int, adds: bool, evidence: float) -> None:
    """A piece that changes either touches the reach of the newest prompt or stays exactly as it was."""
    wanted, before = _masks(seed)
    newest = click(row, column, adds=adds, number=0)
    result = _merge(wanted, before, [newest], evidence)
    away = np.linalg.norm(np.indices(SHAPE)[1:] - np.array([row, column])[:, None, None, None], axis=0)
    pieces, count = ndimage.label((wanted & ~before) if adds else (before & ~wanted))
    for number in range(1, count + 1):
        piece = pieces == number
        if away[piece].min() > evidence + 2:
            changed = (result != before) & piece
            assert not ndimage.binary_erosion(changed, np.ones((1, 3, 3))).any() or away[changed].min() < evidence + 8
    assert result[0, row, column] == adds


@given(st.integers(0, 5000), st.integers(0, 59), st.integers(0, 69))
@settings(max_examples=30, deadline=None)
def test_a_prompt_that_adds_takes_nothing_far_away(seed: int, row: int, column: int) -> None:
    """Voxels that were in and lie beyond its reach are in still."""
    wanted, before = _masks(seed)
    result = _merge(wanted, before, [click(row, column, number=0)], 10)
    lost = before & ~result
    near = ndimage.binary_dilation((wanted & ~before), np.ones((1, 5, 5)), iterations=2)
    near[0, max(0, row - 5) : row + 6, max(0, column - 5) : column + 6] = True
    assert not (lost & ~near).any()


def test_earlier_points_stay_obeyed() -> None:
    """The latest of those that lie on one voxel is right, whatever the answer."""
    wanted = np.ones(SHAPE, bool)
    said = [click(10, 10, adds=False, number=0), click(30, 30, number=0)]
    result = _merge(wanted, np.zeros(SHAPE, bool), said, 40)
    assert not result[0, 10, 10]
    assert result[0, 30, 30]


def _merge(wanted: np.ndarray, before: np.ndarray, prompts: Sequence[Prompt], evidence: float) -> np.ndarray:
    """What becomes of an answer on a view of the whole slice."""
    view = View((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), SHAPE)
    logits = np.where(wanted, 4.0, -4.0).astype(np.float32)
    earlier = before.astype(np.float32)
    return merge_answer(logits, view, earlier, lambda part: before[part], prompts, evidence, SHAPE, 0)[0]


def _blob(centre: Sequence[int], radius: float) -> np.ndarray:
    away = np.linalg.norm(np.moveaxis(np.indices(BLOCK), 0, -1) - np.asarray(centre), axis=-1)
    return radius - away.astype(np.float32)


def _merge_coarse(wanted: np.ndarray, before: np.ndarray, newest: Prompt, evidence: float) -> np.ndarray:
    """Of a block seen whole with two and a half voxels in one; `wanted` is above 0 inside."""
    view = make_view((20, 24, 28), BLOCK, BLOCK, (16, 20, 24), None)
    logits = cut_view(wanted, view)
    earlier = cut_view(before, view)
    return merge_answer(logits, view, earlier, lambda part: before[part], [newest], evidence, BLOCK, None)[0]


def test_of_a_coarse_view_what_is_far_keeps_each_voxel() -> None:
    """A click adds one ball; the other one, which the view shows coarsely, does not even change along its border."""
    there, new = _blob((20, 24, 12), 8.3), _blob((20, 24, 44), 7)
    rough = (there > 0) & (np.indices(BLOCK).sum(0) % 2 == 0)  # no view shows this
    before = (there > 2) | rough
    result = _merge_coarse(np.maximum(there, new), before, Prompt("point", 1, True, ((20, 24, 44),)), 3)
    near = np.indices(BLOCK)[2] > 32
    np.testing.assert_array_equal(result[~near], before[~near])
    assert (2 * (result & near & (new > 0)).sum()) / ((result & near).sum() + (new > 0).sum()) > 0.9


def test_of_a_coarse_view_what_a_click_means_has_smooth_borders() -> None:
    """Where the ball grows about the click its border is that of the answer, not of coarse voxels."""
    small, large = _blob((20, 24, 28), 5), _blob((20, 24, 28), 13)
    result = _merge_coarse(large, small > 0, Prompt("point", 1, True, ((20, 24, 36),)), 20)
    assert (result != (large > 0)).mean() < 0.01
    assert 2 * (result & (large > 0)).sum() / (result.sum() + (large > 0).sum()) > 0.97


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_slabs_do_not_show(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same mask, however few rows are gone through at once."""
    before, wanted = _blob((14, 20, 20), 9) > 0, np.maximum(_blob((22, 26, 30), 11), _blob((4, 4, 4), 4))
    newest = Prompt("point", 1, True, ((24, 26, 30),))
    whole = _merge_coarse(wanted, before, newest, 12)
    monkeypatch.setattr(merging, "SLAB_VOXELS", rows * BLOCK[1] * BLOCK[2])
    np.testing.assert_array_equal(_merge_coarse(wanted, before, newest, 12), whole)
