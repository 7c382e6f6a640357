"""From a slice to its neighbours: an object that is outlined in one is looked for in the next, until it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.engine.prompting.answering import Answer, Answerer, Cancelled
from effvit_med.engine.prompting.merging import Before
from effvit_med.engine.prompting.views import Box
from effvit_med.volume.prompts import Prompt

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.generic]


@dataclass(frozen=True)
class StopRule:
    """When an object has ended.

    Attributes:
        overlap: Dice with the slice before, below which the answer is another object.
        growth: how many times larger or smaller than in the slice before an object may be.
        grey: how far the mean value inside may be from that in the slice before, in standard deviations of the values
            there; a mask that goes on where nothing is to be seen any more ends by it.
        least: fewest voxels of an object in a slice.
        slices: how many slices in one direction at most.
    """

    overlap: float = 0.5
    growth: float = 2.0
    grey: float = 2.0
    least: int = 6
    slices: int = 512

    def why_stop(self, before: Mask, now: Mask) -> str:
        """Why an object does not go on; empty if it does.

        Args:
            before: in the slice before.
            now: in this slice.

        Examples:
            >>> StopRule(least=2).why_stop(np.ones((4, 4), bool), np.zeros((4, 4), bool))
            'nothing is left'
        """
        sizes = int(before.sum()), int(now.sum())
        if sizes[1] < self.least:
            return "nothing is left"
        if max(sizes) > self.growth * min(sizes):
            return f"it would have {sizes[1]} voxels after {sizes[0]}"
        dice = 2 * int((before & now).sum()) / max(1, sum(sizes))
        return f"it would overlap the slice before by a Dice of {dice:.2f} only" if dice < self.overlap else ""

    def why_unlike(self, before: Values, now: Values, spread: float) -> str:
        """Why what is inside is not what was inside in the slice before; empty if it could be.

        Args:
            before: values of the voxels of the object in the slice before.
            now: in this slice.
            spread: standard deviation of all values of the slice; a tenth of it is always allowed.

        Examples:
            >>> StopRule().why_unlike(np.array([99.0, 101.0]), np.array([1.0, 2.0]), 40.0)
            'its mean value would be 1.5 after 100'
            >>> StopRule().why_unlike(np.array([99.0, 101.0]), np.array([96.0, 97.0]), 40.0)
            ''
        """
        if not before.size or not now.size:
            return ""
        means = float(before.mean()), float(now.mean())
        if abs(means[1] - means[0]) <= self.grey * max(float(before.std()), 0.1 * spread):
            return ""
        return f"its mean value would be {means[1]:.3g} after {means[0]:.3g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Carried:
    """What was found in the neighbours of a slice.

    Attributes:
        answers: by slice number, in the order in which they were found.
        ended: for each direction, -1 and 1, in which slice it ended and why.
    """

    answers: dict[int, Answer]
    ended: dict[int, tuple[int, str]]


def carry(
    answerer: Answerer,
    before: Before,
    prompts: Sequence[Prompt],
    start: int,
    flat: int,
    rule: StopRule | None = None,
    cancelled: Cancelled | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Carried:
    """Look for an object in the neighbours of a slice, in both directions.

    In each slice the object of the slice before is the mask so far, and a point where it is deepest the prompt. A slice
    that a reader has pointed at is not touched and ends the way; so does what `StopRule` says.

    Args:
        answerer: the scan and a network that sees slices.
        before: the object so far, part by part; it is taken from slice ``start``.
        prompts: of the reader about this structure.
        start: number of the slice.
        flat: the axis across which it lies.
        rule: when to stop.
        cancelled: asked before each slice.
        progress: told ``slices``, how many are done, and how many there could be.

    Raises:
        CancelledError: if ``cancelled`` said so; nothing was changed.
    """
    rule = rule or StopRule()
    shape = answerer.array.shape
    spoken = {round(vertex[flat]) for prompt in prompts for vertex in prompt.index}
    answers: dict[int, Answer] = {}
    ended: dict[int, tuple[int, str]] = {}
    value = prompts[-1].value if prompts else 1
    for direction in (-1, 1):
        now = before(_slice_box(start, flat, shape))
        number, why = start, ""
        for _ in range(rule.slices):
            number += direction
            if not 0 <= number < shape[flat]:
                why = "the scan ends"
            elif number in spoken:
                why = "it has prompts of its own"
            elif not now.any():
                why = "nothing is left"
            if why:
                break
            point = find_deepest(now, number, flat, value)
            answer = answerer.answer([point], partial(cut_slice, now, flat), flat, cancelled, keep=False)
            following = now.copy()
            following[_in_slice(answer.box, flat)] = answer.mask
            here, there = (answerer.array[_slice_box(each, flat, shape)] for each in (number, number - direction))
            why = rule.why_stop(now, following) or rule.why_unlike(there[now], here[following], float(here.std()))
            if why:
                break
            answers[number], now = answer, following
            if progress:
                progress("slices", len(answers), shape[flat] - 1)
        ended[direction] = number, why or "as far as was asked"
    return Carried(answers, ended)


def _slice_box(number: int, flat: int, shape: Sequence[int]) -> Box:
    parts = [slice(number, number + 1) if axis == flat else slice(0, shape[axis]) for axis in range(3)]
    return parts[0], parts[1], parts[2]


def _in_slice(box: Box, flat: int) -> Box:
    """A part of the scan as a part of one of its slices."""
    parts = [slice(0, 1) if axis == flat else part for axis, part in enumerate(box)]
    return parts[0], parts[1], parts[2]


def cut_slice(mask: Mask, flat: int, box: Box) -> Mask:
    """A part of the only slice that there is, as if it were a part of the scan.

    Args:
        mask: the slice, of length 1 along ``flat``.
        flat: the axis across which it lies.
        box: part of the scan.
    """
    return mask[_in_slice(box, flat)]


def find_deepest(mask: Mask, number: int, flat: int, value: int) -> Prompt:
    """A point where an object in a slice is deepest.

    Args:
        mask: the slice, of length 1 along ``flat``.
        number: of the slice.
        flat: the axis across which it lies.
        value: of the structure.
    """
    depth = ndimage.distance_transform_edt(np.pad(mask.squeeze(flat), 1))[1:-1, 1:-1]
    place = [float(at) for at in np.unravel_index(int(depth.argmax()), depth.shape)]
    place.insert(flat, float(number))
    return Prompt("point", value, True, ((place[0], place[1], place[2]),))
