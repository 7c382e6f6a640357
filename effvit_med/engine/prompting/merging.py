"""What of a network's answer is taken: pieces that no prompt has spoken about stay as they were.

Which pieces those are is decided on the view, where the network has looked; the scan's own voxels are then gone through
a few rows at a time, so that an answer about all of a long scan takes no more memory than its mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.engine.prompting.views import Box, View, spread_rows
from effvit_med.transforms.drawing import draw_prompts, find_voxels
from effvit_med.volume.changes import LabelArray
from effvit_med.volume.prompts import Prompt

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]
Before = Callable[[Box], Mask]
"""Called as before(box): the structure so far in a part of the scan; so nobody makes a mask of all of it."""

SLAB_VOXELS = 1 << 22
"""Of the scan that are gone through at once, unless a single row of slices has more."""


def spread_answer(logits: Values, view: View, shape: Sequence[int]) -> tuple[Mask, Box]:
    """The voxels of the scan that an answer says are in, and where they belong.

    Args:
        logits: of the view's shape, above 0 inside.
        view: what was looked at.
        shape: of the scan.
    """
    box = view.box(shape)
    mask = np.empty([part.stop - part.start for part in box], bool)
    for rows in _slabs(mask.shape):
        np.greater(spread_rows(logits, view, box, rows), 0, out=mask[rows])
    return mask, box


def merge_answer(
    logits: Values,
    view: View,
    earlier: Values,
    before: Before,
    prompts: Sequence[Prompt],
    evidence: float,
    shape: Sequence[int],
    flat: int | None,
) -> tuple[Mask, Box]:
    """The voxels that a structure has after an answer, and where they belong.

    Every connected piece in which the answer differs from the structure so far is taken if it comes within reach of the
    newest prompt and changes in the direction that the prompt names, and with it what moves the other way right at its
    border; other pieces stay as they were. Where points and scribbles lie, the latest of them is right.

    Args:
        logits: of the view's shape.
        view: what was looked at.
        earlier: the structure so far on the view, from 0 to 1.
        before: the structure so far in parts of the scan.
        prompts: in indices of the scan, oldest first.
        evidence: how far the newest prompt reaches, in voxels of the view.
        shape: of the scan.
        flat: the axis across which only one slice is looked at; None for a block.
    """
    mask, box = spread_answer(logits, view, shape)
    if (earlier > 0).any():
        taken = _find_taken(logits > 0, earlier >= 0.5, _on_view(prompts[-1], view), evidence, flat)
        if max(view.step) > 1:
            taken = _with_border(taken, (logits > 0) != (earlier >= 0.5), flat)
        places = [
            np.clip(np.rint((np.arange(part.start, part.stop) - start) / step).astype(int), 0, count - 1)
            for part, start, step, count in zip(box, view.start, view.step, view.shape, strict=True)
        ]
        for rows in _slabs(mask.shape):
            mine = slice(box[0].start + rows.start, box[0].start + rows.stop)
            stays = ~taken[np.ix_(places[0][rows], *places[1:])]
            np.copyto(mask[rows], before((mine, *box[1:])), where=stays)
    for prompt in prompts:
        if prompt.axis is None:
            inner = find_voxels(prompt.moved([-part.start for part in box]), mask.shape)
            mask[tuple(inner.T)] = prompt.adds
    return mask, box


def find_change(
    labels: LabelArray, mask: Mask, box: Box, value: int, locked: Collection[int] = ()
) -> tuple[npt.NDArray[np.int64], LabelArray]:
    """The voxels of a label array that change where a structure gets a mask: flat indices, and the values to have.

    Slice by slice, since the index arrays of all that changes together can be larger than the scan.

    Args:
        labels: of the scan; they stay as they are.
        mask: where the structure is to be, in the box.
        box: the only part in which something changes.
        value: of the structure.
        locked: values of structures that keep their voxels.
    """
    places, values = [np.zeros(0, np.int64)], [np.zeros(0, labels.dtype)]
    for number, wanted in enumerate(mask, box[0].start):
        here = labels[number][box[1:]]
        changes = wanted != (here == value)
        if locked:
            changes &= ~np.isin(here, list(locked))
        rows, columns = np.nonzero(changes)
        if len(rows):
            index = (np.int64(number), rows + box[1].start, columns + box[2].start)
            places.append(np.asarray(np.ravel_multi_index(index, labels.shape), np.int64))
            values.append(np.where(wanted[rows, columns], value, 0).astype(labels.dtype))
    return np.concatenate(places), np.concatenate(values)


def _slabs(shape: Sequence[int]) -> list[slice]:
    rows = max(1, SLAB_VOXELS // max(1, math.prod(shape[1:])))
    return [slice(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows)]


def _on_view(prompt: Prompt, view: View) -> Prompt:
    """A prompt in indices of the view."""
    places = (np.asarray(prompt.index) - view.start) / view.step
    return Prompt(prompt.kind, prompt.value, prompt.adds, tuple(map(tuple, places.tolist())), prompt.axis)


def _find_taken(wanted: Mask, before: Mask, newest: Prompt, evidence: float, flat: int | None) -> Mask:
    """Where the answer is taken, on the view."""
    radius = [0.0 if axis == flat else 1.0 for axis in range(3)]
    place = (draw_prompts([newest], wanted.shape, radius) != 0).any(axis=0)
    change, other = wanted & ~before, before & ~wanted
    if not newest.adds:
        change, other = other, change
    parts, _ = ndimage.label(change)
    reached = parts[ndimage.distance_transform_edt(~place) <= evidence] if place.any() else parts[:0]
    taken = np.isin(parts, np.unique(reached)) & change
    about = _grow(taken | place, 2, flat)
    return np.asarray(taken | (other & about) | place)


def _with_border(taken: Mask, changes: Mask, flat: int | None) -> Mask:
    """And the voxels right beside, where a coarse view cannot tell whether finer ones change; no change that stays."""
    return np.asarray(taken | (_grow(taken, 1, flat) & ~changes))


def _grow(mask: Mask, voxels: int, flat: int | None) -> Mask:
    """The mask and all so near it along every axis; a filter by axis takes a quarter of a dilation's time."""
    sizes = [1 if axis == flat else 2 * voxels + 1 for axis in range(3)]
    return np.asarray(ndimage.maximum_filter(mask.view(np.uint8), sizes, mode="constant")).astype(bool)
