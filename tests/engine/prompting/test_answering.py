"""Facts about `effvit_med.engine.prompting.answering` and `carrying`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from effvit_med.engine.prompting.answering import Answerer, FeatureCache
from effvit_med.engine.prompting.carrying import StopRule, carry
from effvit_med.engine.prompting.speaking import Said
from effvit_med.engine.prompting.views import Outlook
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click


class Threshold:
    """A speaker that takes what is bright and hangs together with the newest point: right where contrast is all."""

    spatial_dims, neighbours, judges = 2, 0, False
    outlook = Outlook(finest=128, least=64, overview=4096)

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, values: np.ndarray) -> Any:
        """The image itself."""
        self.encoded += 1
        return values

    def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
        """The bright piece under the newest point."""
        parts, _ = ndimage.label(encoded > 0)
        place = tuple(round(at) for at in prompts[-1].index[0])
        piece = (parts == parts[place]) & (parts > 0)
        return Said(np.where(piece, 5.0, -5.0).astype(np.float32).reshape(shape))


def _nothing(box: Any) -> np.ndarray:
    return np.zeros([part.stop - part.start for part in box], bool)


def test_an_object_larger_than_the_view_is_seen_whole() -> None:
    """From a small mask on, views grow until the object fits or the scan ends, coarser where they must be."""
    image = np.zeros((1, 400, 400), np.float32)
    image[0, 50:350, 60:340] = 1
    begun = np.zeros(image.shape, bool)
    begun[0, 78:84, 88:94] = True
    answer = Answerer(image, Threshold()).answer([click(80, 90, number=0)], lambda box: begun[box], 0)
    found = begun.copy()
    found[answer.box] = answer.mask
    assert answer.views == 4
    assert max(answer.view.shape) == 128
    overlap = 2 * (found & (image > 0)).sum() / (found.sum() + (image > 0).sum())
    assert overlap > 0.98


def test_a_small_object_is_looked_at_nearer() -> None:
    """After an overview of the slice, as fine as the scan; the second prompt needs nothing new."""
    image = np.zeros((1, 400, 400), np.float32)
    image[0, 180:220, 180:230] = 1
    speaker = Threshold()
    answerer = Answerer(image, speaker)
    first = answerer.answer([click(200, 200, number=0)], _nothing, 0)
    before = np.zeros(image.shape, bool)
    before[first.box] = first.mask
    prompts = [click(200, 200, number=0), click(201, 200, number=0)]
    second = answerer.answer(prompts, lambda box: before[box], 0, known=[first.view])
    assert (first.views, first.encoded, second.encoded, speaker.encoded) == (2, 2, 0, 2)
    assert first.view.step == (1.0, 1.0, 1.0)
    assert (before == (image > 0)).all()


def test_a_place_where_nothing_is_found_is_looked_at_nearer_all_the_same() -> None:
    """What an overview is too coarse for is there in the end."""
    image = np.zeros((1, 1600, 1600), np.float32)
    image[0, 798:806, 801:809] = 1
    answer = Answerer(image, Threshold()).answer([click(802, 805, number=0)], _nothing, 0)
    found = np.zeros(image.shape, bool)
    found[answer.box] = answer.mask
    assert (found == (image > 0)).all()


@pytest.mark.parametrize("flat", [0, 1, 2])
def test_slices_lie_across_any_axis(flat: int) -> None:
    """The answer is the same wherever the scan's slices lie."""
    plane = np.zeros((60, 50), np.float32)
    plane[10:30, 15:40] = 1
    image = np.repeat(np.expand_dims(plane, flat), 5, axis=flat)
    index = [20.0, 30.0]
    index.insert(flat, 2.0)
    answer = Answerer(image, Threshold()).answer([Prompt("point", 1, True, (tuple(index),))], _nothing, flat)
    found = np.zeros(image.shape, bool)
    found[answer.box] = answer.mask
    expected = np.zeros(image.shape, bool)
    where: list[Any] = [slice(None)] * 3
    where[flat] = 2
    expected[tuple(where)] = plane > 0
    np.testing.assert_array_equal(found, expected)


class Judging(Threshold):
    """One that expects most of itself where the object fills a tenth of the view."""

    judges = True

    def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
        """The bright piece, and what is expected."""
        logits = super().answer(encoded, prompts, before, shape).logits
        return Said(logits, 1 - abs(float((logits > 0).mean()) - 0.1))


@pytest.mark.parametrize(("half", "views"), [(6, 3), (30, 4), (150, 3)])
def test_a_network_that_judges_itself_is_asked_at_several_scales(half: int, views: int) -> None:
    """The best expectation counts, whatever the size of the object; the next prompt stays there."""
    image = np.zeros((1, 800, 800), np.float32)
    image[0, 400 - half : 400 + half, 400 - half : 400 + half] = 1
    speaker = Judging()
    answerer = Answerer(image, speaker)
    answer = answerer.answer([click(400, 400, number=0)], _nothing, 0)
    found = np.zeros(image.shape, bool)
    found[answer.box] = answer.mask
    assert 2 * (found & (image > 0)).sum() / (found.sum() + (image > 0).sum()) > 0.92
    assert answer.views == answer.encoded == speaker.encoded == views
    more = answerer.answer([click(401, 402, number=0)], lambda box: found[box], 0, known=[answer.view])
    assert (more.view, more.encoded) == (answer.view, 0)


def test_a_far_click_makes_a_judging_network_think_anew() -> None:
    """It is not told of the speck that was found at first; what was found stays, and the next click knows of all."""
    told: list[bool] = []

    class Anchored(Judging):
        def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
            told.append(bool(before.any()))
            return super().answer(encoded, prompts, before, shape)

    image = np.zeros((1, 400, 400), np.float32)
    image[0, 100:300, 80:320] = 1
    now = np.zeros(image.shape, bool)
    now[0, 150:156, 150:156] = True
    answerer = Answerer(image, Anchored())
    prompts = [click(152, 152, number=0), click(250, 250, number=0)]
    answer = answerer.answer(prompts, lambda box: now[box], 0)
    assert not any(told)
    now[answer.box] = answer.mask
    assert 2 * (now & (image > 0)).sum() / (now.sum() + (image > 0).sum()) > 0.92
    answerer.answer([*prompts, click(110, 90, number=0)], lambda box: now[box], 0, known=[answer.view])
    assert told[-1]


def test_what_goes_on_beyond_its_view_is_expected_to_be_worse() -> None:
    """So that a large object is not taken for the part of it that a near view shows, however sure the network is."""

    class Sure(Judging):
        def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
            return Said(super().answer(encoded, prompts, before, shape).logits, 0.9)

    image = np.zeros((1, 800, 800), np.float32)
    image[0, 200:600, 150:700] = 1
    answer = Answerer(image, Sure()).answer([click(400, 400, number=0)], _nothing, 0)
    assert answer.mask.sum() > 0.97 * image.sum()
    assert answer.views <= 4


def test_an_object_is_carried_to_its_ends() -> None:
    """A cone that ends in both directions, beside something else that begins where it ends."""
    image = np.zeros((30, 64, 64), np.float32)
    y, x = np.mgrid[:64, :64]
    for number in range(8, 22):
        image[number] = (y - 32) ** 2 + (x - 32) ** 2 < (4 + number / 2) ** 2
    image[22:, 30:34, 5:60] = 1
    answerer = Answerer(image, Threshold())
    first = image > 0
    first[np.arange(30) != 15] = False
    carried = carry(answerer, lambda box: first[box], [click(32, 32, number=15)], 15, 0)
    assert sorted(carried.answers) == [number for number in range(8, 22) if number != 15]
    assert carried.ended[-1] == (7, "nothing is left")
    assert carried.ended[1][0] == 22
    assert "overlap" in carried.ended[1][1] or "voxels after" in carried.ended[1][1]


def test_a_mask_that_goes_on_over_nothing_is_ended() -> None:
    """A network that says the same in every slice is believed no further than the image looks alike."""

    class Stubborn(Threshold):
        def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
            return Said(np.where(before > 0.5, 5.0, -5.0).astype(np.float32).reshape(shape))

    image = np.random.default_rng(0).normal(0, 3, (20, 40, 40)).astype(np.float32)
    image[4:15, 10:30, 10:30] += 60 + np.arange(11)[:, None, None]  # a little brighter from slice to slice
    first = np.zeros(image.shape, bool)
    first[9, 10:30, 10:30] = True
    carried = carry(Answerer(image, Stubborn()), lambda box: first[box], [click(20, 20, number=9)], 9, 0)
    assert sorted(carried.answers) == [number for number in range(4, 15) if number != 9]
    assert all("its mean value would be" in why for _, why in carried.ended.values())


def test_a_slice_with_prompts_of_its_own_is_left_alone() -> None:
    """The way ends there, whatever the image shows."""
    image = np.zeros((9, 40, 40), np.float32)
    image[:, 10:30, 10:30] = 1
    first = image > 0
    first[np.arange(9) != 4] = False
    prompts = [click(20, 20, number=4), click(12, 12, number=6, adds=False)]
    carried = carry(Answerer(image, Threshold()), lambda box: first[box], prompts, 4, 0, StopRule(slices=3))
    assert sorted(carried.answers) == [1, 2, 3, 5]
    assert carried.ended == {-1: (1, "as far as was asked"), 1: (6, "it has prompts of its own")}


def test_the_cache_forgets_the_oldest() -> None:
    """The newest is kept even if it alone is too large."""
    import torch

    cache = FeatureCache(most_bytes=100)
    for key in range(3):
        cache.get(key, lambda: [torch.zeros(10)])
    assert (0 in cache, 1 in cache, 2 in cache, cache.bytes) == (False, True, True, 80)
    cache.get("large", lambda: [torch.zeros(1000)])
    assert (2 in cache, "large" in cache) == (False, True)
