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

from effvit_med.engine.prompting.framing import (
    Extent,
    choose_known,
    come_nearer,
    find_pointed,
    find_structure,
    is_outgrown,
    join,
    list_scales,
    make_room,
    shows_all,
)
from effvit_med.engine.prompting.merging import Before, Mask, Values, merge_answer, spread_answer
from effvit_med.engine.prompting.speaking import Speaker
from effvit_med.engine.prompting.views import Box, Outlook, View, cut_view, make_view, touches
from effvit_med.errors import CancelledError
from effvit_med.transforms import Intensity, scale_intensity
from effvit_med.volume.prompts import Prompt

Cancelled = Callable[[], bool]
VIEW_INTENSITY = Intensity("percentile", 0.5, 99.5)
"""How each view is scaled, as the samples were that the networks learnt from."""

NEARER = 0.7
"""A nearer view is worth its time if its voxels are at most so large, as a share of the voxels of the view before."""


AS_GOOD = 0.05
"""How much less may be expected of a nearer view: finer borders are worth it."""

CUT_OFF = 0.2
"""What is taken off where an answer reaches the border of its view."""


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
        overview is asked first, then nearer views as long as the answer is small in them; a network that judges itself
        is asked at several scales, and the best counts. Where a prompt adds so far away that the mask so far is of
        another size (`is_outgrown`), such a network is asked in this way again, and is not told of that mask. Where an
        answer reaches a border beyond which the scan goes on, a larger view is asked, coarser if it must be.

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
        pointed = find_pointed(prompts[-1], shape, flat)
        so_far = find_structure(pointed, before, shape, flat)
        anew = so_far is not None and self.speaker.judges and is_outgrown(prompts[-1], pointed, so_far)
        asking = _Asking(self, prompts, before, flat, cancelled, anew)
        is_measured = (so_far is not None or prompts[-1].axis is not None) and not anew
        box = join(pointed, so_far)
        centre, extent = make_room(box, outlook, shape, flat, outlook.least if is_measured else outlook.overview)
        largest = (outlook.finest,) * 3
        view = make_view(centre, extent, shape, largest, flat)
        if not anew:
            view = choose_known(known, box, shape, flat) or view
        nears = not is_measured and not self.speaker.judges
        if self.speaker.judges and not is_measured:
            view = asking.choose_scale(box, view, outlook)
        while True:
            logits, _, earlier = asking.ask(view)
            if asking.reaches_border(view, logits):
                nears = False
                extent = [outlook.growth * step * count for step, count in zip(view.step, view.shape, strict=True)]
                view = make_view(centre, extent, shape, largest, flat)
                continue
            nearer = come_nearer(view, logits > 0, box, outlook, shape, flat) if nears else None
            if nearer is None or max(nearer.step) > NEARER * max(view.step):
                break
            view = nearer
        if keep:
            mask, covered = merge_answer(logits, view, earlier, before, prompts, outlook.evidence, shape, flat)
        else:
            mask, covered = spread_answer(logits, view, shape)
        return Answer(mask, covered, view, len(asking.said), asking.encoded)

    def knows(self, view: View, flat: int | None) -> bool:
        """Whether the features of a view are there.

        Args:
            view: what to look at.
            flat: the axis across which slices lie.
        """
        return self._key(view, flat) in self.cache

    def _key(self, view: View, flat: int | None) -> Any:
        return view, flat, self.clip

    def ask(
        self, view: View, prompts: Sequence[Prompt], before: Before, flat: int | None, *, anew: bool = False
    ) -> tuple[Values, float | None, Values]:
        """The logits on a view, the Dice that is expected of them, and the structure so far there, from 0 to 1.

        Args:
            view: what to look at.
            prompts: about the structure.
            before: the structure so far, part by part.
            flat: the axis across which slices lie.
            anew: whether the network is told nothing of the structure so far.
        """
        features = self.cache.get(self._key(view, flat), lambda: self._encode(view, flat))
        seen = [mine for prompt in prompts if (mine := _in_view(prompt, view, flat)) is not None]
        box = view.box(self.array.shape)
        start = tuple(at - part.start for at, part in zip(view.start, box, strict=True))
        earlier = cut_view(before(box), View(start, view.step, view.shape))
        turned = _to_front(np.zeros_like(earlier) if anew else earlier, flat)
        logits, score = self.speaker.answer(features, seen, turned, turned.shape)
        return _from_front(logits, flat), score, earlier

    def _encode(self, view: View, flat: int | None) -> Any:
        values = cut_view(self.array, view, slices=self.speaker.neighbours, flat=flat or 0)
        if self.clip is not None:
            values = np.clip(values, *self.clip)
        scaled = scale_intensity(torch.from_numpy(np.nan_to_num(values)), VIEW_INTENSITY).numpy()
        return self.speaker.encode(_to_front(scaled, flat))


@dataclass
class _Asking:
    """One prompt being answered: what was asked for it, each view once.

    Attributes:
        anew: whether the network is told nothing of the structure so far.
        said: logits, expected Dice and the structure so far, by view.
        encoded: how many views had to be encoded.
    """

    answerer: Answerer
    prompts: Sequence[Prompt]
    before: Before
    flat: int | None
    cancelled: Cancelled | None
    anew: bool
    said: dict[View, tuple[Values, float | None, Values]] = field(default_factory=dict)
    encoded: int = 0

    def ask(self, view: View) -> tuple[Values, float | None, Values]:
        """What is said of a view.

        Raises:
            CancelledError: if somebody said so.
        """
        if self.cancelled and self.cancelled():
            raise CancelledError("The answer to a prompt was cancelled; nothing has changed.")
        if view not in self.said:
            self.encoded += not self.answerer.knows(view, self.flat)
            self.said[view] = self.answerer.ask(view, self.prompts, self.before, self.flat, anew=self.anew)
        return self.said[view]

    def reaches_border(self, view: View, logits: Values) -> bool:
        """Whether what was found may go on beyond the view."""
        shape = self.answerer.array.shape
        return not shows_all(view, shape, self.flat) and touches(logits > 0, view, shape, self.flat)

    def choose_scale(self, box: Extent, overview: View, outlook: Outlook) -> View:
        """The view in which the best answer is expected: of ever nearer ones, then of what was found in the best.

        Args:
            box: about the prompt.
            overview: the widest.
            outlook: of the network.
        """
        shape = self.answerer.array.shape
        best = max(list_scales(box, overview, outlook, shape, self.flat), key=self._expect)
        nearer = come_nearer(best, self.ask(best)[0] > 0, box, outlook, shape, self.flat)
        finer = max(nearer.step) <= NEARER * max(best.step)
        return nearer if finer and self._expect(nearer) > self._expect(best) - AS_GOOD else best

    def _expect(self, view: View) -> float:
        """Dice expected on a view; less where the answer goes on beyond it."""
        logits, score, _ = self.ask(view)
        return (score or 0.0) - CUT_OFF * self.reaches_border(view, logits)


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
