"""From prompts about one structure to the voxels that it should have: choose a view, ask, zoom out, keep what stands.

What a network answers is not simply taken: pieces that no prompt has spoken about stay as they were (`merge_answer`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from effvit_med.engine.prompting.merging import Before, Mask, Values, merge_answer, spread_answer
from effvit_med.engine.prompting.speaking import Speaker
from effvit_med.engine.prompting.views import Box, Outlook, View, cut_view, make_view, touches
from effvit_med.errors import CancelledError
from effvit_med.transforms import Intensity, scale_intensity
from effvit_med.volume.prompts import Prompt

Cancelled = Callable[[], bool]
REACH = 128
"""How far from a prompt a structure so far is looked for, in voxels, to choose a block that shows both."""


VIEW_INTENSITY = Intensity("percentile", 0.5, 99.5)
"""How each view is scaled, as the samples were that the networks learnt from."""

NEARER = 0.7
"""A nearer view is worth its time if its voxels are at most so large, as a share of the voxels of the view before."""


@dataclass
class FeatureCache:
    """What was encoded, by view; the oldest goes when there is too much of it.

    Attributes:
        most_bytes: of all features together; the newest stays whatever its size.
    """

    most_bytes: int = 512 * 2**20
    _kept: OrderedDict[Any, tuple[Any, int]] = field(default_factory=OrderedDict)

    @property
    def bytes(self) -> int:
        """What is kept now."""
        return sum(size for _, size in self._kept.values())

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept under a key, made where it is not there.

        Args:
            key: of a view.
            make: gives the features.
        """
        if key not in self._kept:
            features = make()
            self._kept[key] = features, _count_bytes(features)
            while len(self._kept) > 1 and self.bytes > self.most_bytes:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def __contains__(self, key: Any) -> bool:
        return key in self._kept


def _count_bytes(features: Any) -> int:
    if isinstance(features, torch.Tensor):
        return features.numel() * features.element_size()
    return sum(map(_count_bytes, features)) if isinstance(features, list | tuple) else 0


@dataclass(frozen=True, eq=False)
class Answer:
    """What a structure should be in a part of the scan.

    Attributes:
        mask: in ``box``.
        box: where it lies.
        view: what was looked at in the end.
        views: how many were looked at.
        encoded: how many of them had to be encoded.
    """

    mask: Mask
    box: Box
    view: View
    views: int
    encoded: int

    def to_dict(self) -> dict[str, Any]:
        """What the record says of it."""
        step = [round(each, 3) for each in self.view.step]
        return {"views": self.views, "encoded": self.encoded, "view": list(self.view.shape), "step": step}


@dataclass
class Answerer:
    """A scan and a network that is asked about it.

    Attributes:
        array: the scan.
        speaker: the network.
        cache: of features.
        clip: values that are cut off before a view is normalised, such as those of a CT window; None for none.
        outlook: how far it looks; the usual for the network where left out.
    """

    array: npt.NDArray[np.generic]
    speaker: Speaker
    cache: FeatureCache = field(default_factory=FeatureCache)
    clip: tuple[float, float] | None = None
    outlook: Outlook | None = None

    def answer(
        self,
        prompts: Sequence[Prompt],
        before: Before,
        flat: int | None = None,
        cancelled: Cancelled | None = None,
        *,
        known: Sequence[View] = (),
        keep: bool = True,
    ) -> Answer:
        """What a structure should be after the newest prompt.

        The first view is the finest of those that earlier prompts led to if it shows this one and the mask so far with
        some room, else one about both. Of a point or scribble alone nobody knows how large a thing it means: an
        overview is asked first, then nearer views as long as the answer is small in them. Where an answer reaches a
        border beyond which the scan goes on, a larger view is asked, coarser if it must be.

        Args:
            prompts: about this structure, oldest first, in indices of the scan.
            before: the structure so far, part by part.
            flat: the axis across which a network that sees slices looks; the newest prompt tells which slice.
            cancelled: asked before each view.
            known: what earlier prompts about this structure led to: the view of each answer.
            keep: whether what the newest prompt does not speak about stays (`merge_answer`).

        Raises:
            CancelledError: if ``cancelled`` said so; nothing was changed.
        """
        outlook = self.outlook or self.speaker.outlook
        shape = self.array.shape
        box, is_measured = _extent_of(prompts[-1], before, shape, flat)
        centre, extent = _make_room(box, outlook, shape, flat, outlook.least if is_measured else outlook.overview)
        largest = (outlook.finest,) * 3
        view = _choose_known(known, box, shape, flat) or make_view(centre, extent, shape, largest, flat)
        views = encoded = 0
        nears = not is_measured
        while True:
            if cancelled and cancelled():
                raise CancelledError("The answer to a prompt was cancelled; nothing has changed.")
            cached = self._key(view, flat) in self.cache
            views, encoded = views + 1, encoded + (not cached)
            logits, earlier = self._ask(view, prompts, before, flat)
            whole = all(step * count >= size - 1e-6 for step, count, size in _sides(view, shape, flat))
            if not whole and touches(logits > 0, view, shape, flat):
                nears = False
                extent = [outlook.growth * step * count for step, count in zip(view.step, view.shape, strict=True)]
                view = make_view(centre, extent, shape, largest, flat)
                continue
            nearer = _come_nearer(view, logits > 0, box, outlook, shape, flat) if nears else None
            if nearer is None or max(nearer.step) > NEARER * max(view.step):
                break
            view = nearer
        if keep:
            mask, covered = merge_answer(logits, view, earlier, before, prompts, outlook.evidence, shape, flat)
        else:
            mask, covered = spread_answer(logits, view, shape)
        return Answer(mask, covered, view, views, encoded)

    def _key(self, view: View, flat: int | None) -> Any:
        return view, flat, self.clip

    def _ask(self, view: View, prompts: Sequence[Prompt], before: Before, flat: int | None) -> tuple[Values, Values]:
        """The logits on a view, and the structure so far there, from 0 to 1."""
        features = self.cache.get(self._key(view, flat), lambda: self._encode(view, flat))
        seen = [mine for prompt in prompts if (mine := _in_view(prompt, view, flat)) is not None]
        box = view.box(self.array.shape)
        start = tuple(at - part.start for at, part in zip(view.start, box, strict=True))
        earlier = cut_view(before(box), View(start, view.step, view.shape))
        turned = _to_front(earlier, flat)
        return _from_front(self.speaker.answer(features, seen, turned, turned.shape), flat), earlier

    def _encode(self, view: View, flat: int | None) -> Any:
        values = cut_view(self.array, view, slices=self.speaker.neighbours, flat=flat or 0)
        if self.clip is not None:
            values = np.clip(values, *self.clip)
        scaled = scale_intensity(torch.from_numpy(np.nan_to_num(values)), VIEW_INTENSITY).numpy()
        return self.speaker.encode(_to_front(scaled, flat))


Extent = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _come_nearer(
    view: View, answer: Mask, box: Extent, outlook: Outlook, shape: Sequence[int], flat: int | None
) -> View:
    """A view about what was found where somebody pointed, or half as wide about the place if that is nothing."""
    low, high = box
    parts, _ = ndimage.label(answer)
    corners = [np.rint((corner - view.start) / view.step).astype(int) for corner in (low, high)]
    first, last = (np.clip(corner, 0, np.asarray(view.shape) - 1) for corner in corners)
    pointed = parts[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))]
    places = np.argwhere(np.isin(parts, np.unique(pointed[pointed > 0])))
    if len(places):
        found = np.asarray(view.start) + np.stack([places.min(axis=0), places.max(axis=0)]) * view.step
        centre, extent = _make_room((found[0], found[1]), outlook, shape, flat, outlook.least)
    else:
        centre, extent = (
            ((low + high) / 2).tolist(),
            [step * count / 2 for step, count in zip(view.step, view.shape, strict=True)],
        )
        extent = [max(each, outlook.least) for each in extent]
    return make_view(centre, extent, shape, (outlook.finest,) * 3, flat)


def _extent_of(newest: Prompt, before: Before, shape: Sequence[int], flat: int | None) -> tuple[Extent, bool]:
    """The lowest and the highest index of the newest prompt and of the structure so far: in its slice, or near it.

    Returns:
        Both, and whether they say something of the structure's size: there is a mask, or a box or lasso.
    """
    vertices = np.asarray(newest.index)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    if flat is not None:
        low[flat] = high[flat] = min(max(0, round(vertices[0, flat])), shape[flat] - 1)
    parts = [
        slice(int(a), int(a) + 1)
        if axis == flat
        else slice(max(0, int(a) - REACH), min(size, int(b) + REACH + 1))
        if flat is None
        else slice(0, size)
        for axis, (a, b, size) in enumerate(zip(low, high, shape, strict=True))
    ]
    near = before((parts[0], parts[1], parts[2]))
    hits = [np.flatnonzero(near.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    if len(hits[0]):
        offset = [part.start for part in parts]
        low = np.minimum(low, [hit[0] + start for hit, start in zip(hits, offset, strict=True)])
        high = np.maximum(high, [hit[-1] + start for hit, start in zip(hits, offset, strict=True)])
    return (low, high), bool(len(hits[0])) or newest.axis is not None


def _make_room(
    box: Extent, outlook: Outlook, shape: Sequence[int], flat: int | None, least: int
) -> tuple[list[float], list[float]]:
    """Middle and size of a view that shows a box with room about it, as much along each axis."""
    low, high = box
    extent = np.full(3, max(outlook.roomy * float((high - low + 1).max()), least))
    if flat is not None:
        extent[flat] = 1
    return ((low + high) / 2).tolist(), np.minimum(extent, shape).tolist()


def _choose_known(known: Sequence[View], box: Extent, shape: Sequence[int], flat: int | None) -> View | None:
    fits = [view for view in known if all(_shows(view, corner, shape, flat) for corner in box)]
    return min(fits, key=lambda view: max(view.step), default=None)


def _shows(view: View, index: npt.NDArray[np.float64], shape: Sequence[int], flat: int | None) -> bool:
    """Whether a view shows a place, and an eighth of its own size about it unless the scan ends before."""
    rows = enumerate(zip(index, view.start, view.step, view.shape, shape, strict=True))
    for axis, (at, start, step, count, size) in rows:
        room = 0.0 if axis == flat else step * count / 8
        low, high = max(at - room, -0.5), min(at + room, size - 0.5)
        if low < start - step / 2 - 1e-6 or high > start + step * (count - 0.5) + 1e-6:
            return False
    return True


def _sides(view: View, shape: Sequence[int], flat: int | None) -> list[tuple[float, int, int]]:
    rows = zip(view.step, view.shape, shape, strict=True)
    return [row for axis, row in enumerate(rows) if axis != flat]


def _in_view(prompt: Prompt, view: View, flat: int | None) -> Prompt | None:
    """A prompt in indices of a view whose flat axis comes first; None if it says nothing about that slice."""
    vertices = (np.asarray(prompt.index) - view.start) / view.step
    order = [0, 1, 2]
    axis = prompt.axis
    if flat is not None:
        if axis not in (None, flat):
            return None  # drawn across another axis: in this slice it is a line
        near = np.abs(vertices[:, flat]) <= 0.5
        if not near.any() or (axis is not None and not near.all()):
            return None
        vertices = vertices[near]
        vertices[:, flat] = 0.0
        order = [flat, *(each for each in order if each != flat)]
    places = tuple((float(a), float(b), float(c)) for a, b, c in vertices[:, order])
    return Prompt(prompt.kind, prompt.value, prompt.adds, places, None if axis is None else order.index(axis))


def _to_front(values: npt.NDArray[Any], flat: int | None) -> npt.NDArray[Any]:
    return values if not flat else np.ascontiguousarray(np.moveaxis(values, flat, 0))


def _from_front(values: npt.NDArray[Any], flat: int | None) -> npt.NDArray[Any]:
    return values if not flat else np.ascontiguousarray(np.moveaxis(values, 0, flat))
