"""What a promptable network learns from: an image, one object in it, and a mask that may be spoiled already.

The transforms make it of nothing (`DrawScened`) or of a case with a label map (`PickObjectd` alone), so the same
training learns from random shapes and from scans.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import MapTransform, Randomizable, Transform
from scipy import ndimage

from effvit_med.training.synthetic_images import draw_image
from effvit_med.training.synthetic_shapes import Rng, draw_field, draw_scene

Mask = npt.NDArray[np.bool_]

LEAST_VOXELS = 6

PIECE_SHARE = 0.85
"""How often any other object is one connected piece, as somebody means who points at a place. Where half of the objects
were all pieces of a label, scattered over the image, a network learnt to find little of anything large."""

COMPACT_SHARE = 0.8
"""How often an object is chosen for being compact, as what people segment mostly is: of a random scene's labels many
are what other shapes have left over of a background."""

CUT_WEIGHT = 0.3
"""How much less often a piece is chosen then that the image's border cuts off."""

LEAST_CONTRAST = 0.5
"""Of an object that is learnt from, see `measure_contrast`: where nothing is to be seen, only discs are learnt."""

MOST_TRIES = 4
"""Objects of a random scene that are looked at for one that is seen."""

FILLED_SHARE = 0.25
"""How often a random object is meant with all that lies inside of it, as a head is; of a scan the labels say it."""

MERGED_SHARE = 0.2
"""How often two labels that touch are one object, as a wall and what is inside of it."""


class DrawScened(Randomizable, Transform):  # type: ignore[misc]  # MONAI is not typed
    """Put a random image and its label map into a case, unless it has an image already.

    Args:
        patch: size of both; two or three axes.
    """

    def __init__(self, patch: Sequence[int]) -> None:
        self.patch = tuple(patch)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with ``image`` and ``label``, (1, *patch) each."""
        if "image" in data:
            return dict(data)
        rng = start_generator(self.R)
        labels = draw_scene(self.patch, rng)
        return {
            **data,
            "image": torch.from_numpy(draw_image(labels, rng))[None],
            "label": torch.from_numpy(labels)[None],
        }


class PickObjectd(Randomizable, MapTransform):  # type: ignore[misc]
    """Choose one object of a label map, and for some cases a mask of it that an automatic result could have been.

    Most objects are one connected piece, and compact (`COMPACT_SHARE`); the others a piece of any label, or a whole
    label, now and then of two labels that touch. The label map goes.

    Args:
        keys: the entry of the label map, (1, *space); 0 is an object like any other only where ``background`` is true.
        spoiled_share: how often there is a mask already.
        background: whether what is 0 can be chosen of random shapes; of a scan it never is.
        image_key: the entry of the image, in which an object among random shapes must be seen.
    """

    def __init__(
        self, keys: Any = "label", spoiled_share: float = 0.25, *, background: bool = True, image_key: str = "image"
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.spoiled_share = spoiled_share
        self.background = background

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with ``truth`` and ``before``, of the label map's size, 0 and 1, in its place."""
        rng = start_generator(self.R)
        result = dict(data)
        labels = np.asarray(result.pop(self.keys[0]))[0]
        drawn = result.pop("image_file", None) is None  # names of files go: in a batch all samples have the same keys
        result.pop("label_file", None)
        image = np.asarray(result[self.image_key])[0]
        truth = pick_object(labels, rng, background=self.background and drawn)
        for _ in range(MOST_TRIES * drawn):
            if measure_contrast(image, truth) >= LEAST_CONTRAST:
                break
            truth = pick_object(labels, rng, background=self.background)
        before = np.zeros_like(truth)
        if rng.uniform() < self.spoiled_share:
            before = spoil(truth, labels, rng)
        for name, mask in (("truth", truth), ("before", before)):
            result[name] = torch.from_numpy(mask)[None].float()
        return result


def pick_object(labels: npt.NDArray[Any], rng: Rng, *, background: bool = True) -> Mask:
    """One object of a label map; empty only where there is none of a few voxels.

    Args:
        labels: of two or three axes.
        rng: what is drawn from.
        background: whether what is 0 can be chosen.
    """
    sizes = np.bincount(labels.ravel().astype(np.int64))
    values = np.flatnonzero(sizes >= LEAST_VOXELS)
    values = values[(values > 0) | background]
    if len(values) > 1 and background:  # what fills most of the image is seldom what somebody means
        values = values[sizes[values] < 0.6 * labels.size] if (sizes[values] < 0.6 * labels.size).any() else values
    if not len(values):
        return np.zeros(labels.shape, bool)
    if rng.uniform() < COMPACT_SHARE:
        mask = _pick_compact(labels, values, rng)
    else:
        mask = _pick_label(labels, values, rng, background=background)
    if background and rng.uniform() < FILLED_SHARE:
        mask = np.asarray(ndimage.binary_fill_holes(mask))
    return mask


def _pick_compact(labels: npt.NDArray[Any], values: npt.NDArray[np.intp], rng: Rng) -> Mask:
    """A connected piece of any label, the sooner the larger it is, the more of its box it fills, and if it is whole."""
    found: list[tuple[Mask, float]] = []
    for value in values:
        parts, _ = ndimage.label(labels == value)
        sizes = np.bincount(parts.ravel())[1:]
        sizes = np.where(sizes >= LEAST_VOXELS, sizes, 0)
        if sizes.any():
            number = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
            box = ndimage.find_objects(parts)[number]
            edges = np.asarray([part.stop - part.start for part in box], np.float64)
            whole = all(part.start > 0 and part.stop < size for part, size in zip(box, labels.shape, strict=True))
            weight = float(edges.mean()) * float(sizes[number]) / edges.prod() * (1.0 if whole else CUT_WEIGHT)
            found.append((np.asarray(parts == number + 1), weight))
    if not found:
        return np.asarray(labels == rng.choice(values))
    weights = np.asarray([weight for _, weight in found])
    return found[int(rng.choice(len(found), p=weights / weights.sum()))][0]


def _pick_label(labels: npt.NDArray[Any], values: npt.NDArray[np.intp], rng: Rng, *, background: bool) -> Mask:
    """A label or one piece of it, now and then with another label that touches it."""
    mask = np.asarray(labels == rng.choice(values))
    if rng.uniform() < MERGED_SHARE:
        border = ndimage.binary_dilation(mask) & ~mask
        beside = [each for each in np.unique(labels[border]) if each > 0 or background]
        if beside:
            mask |= labels == rng.choice(beside)
    if rng.uniform() < PIECE_SHARE:
        parts, count = ndimage.label(mask)
        if count > 1:
            sizes = np.bincount(parts.ravel())[1:]
            weights = np.where(sizes >= LEAST_VOXELS, np.sqrt(sizes), 0.0)
            if weights.any():
                mask = np.asarray(parts == 1 + rng.choice(count, p=weights / weights.sum()))
    return mask


def measure_contrast(image: npt.NDArray[np.floating], mask: Mask) -> float:
    """How well an object is seen: how far it, or its border, is from what is right outside, in standard deviations.

    Args:
        image: of two or three axes.
        mask: the object; 0 where it has no voxel, or fills everything.

    Examples:
        >>> image = np.tile(np.arange(12.0) > 5, (12, 1)) + np.indices((12, 12)).sum(axis=0) % 2 / 10
        >>> round(measure_contrast(image, np.tile(np.arange(12) > 5, (12, 1)))), measure_contrast(image, image > 9)
        (20, 0.0)
    """
    outside = ndimage.binary_dilation(mask, iterations=3) & ~mask
    if not outside.any():
        return 0.0
    border = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
    spread = float(np.sqrt((image[mask].var() + image[outside].var()) / 2)) + 1e-3
    here = float(image[outside].mean())
    return max(abs(float(image[mask].mean()) - here), abs(float(image[border].mean()) - here)) / spread


def spoil(truth: Mask, labels: npt.NDArray[Any], rng: Rng) -> Mask:
    """A mask as an automatic result could have it: moved, too small, too large, with bites and leaks.

    Args:
        truth: the object.
        labels: what is beside it, for leaks.
        rng: what is drawn from.
    """
    kind = int(rng.integers(5))
    size = max(1.0, float(truth.sum()) ** (1 / truth.ndim))
    if kind == 0:
        return np.asarray(np.roll(truth, tuple(rng.integers(-3, 4, truth.ndim)), axis=tuple(range(truth.ndim))))
    if kind == 1:
        return np.asarray(ndimage.binary_erosion(truth, iterations=int(rng.integers(1, 3))))
    if kind == 2:
        return np.asarray(ndimage.binary_dilation(truth, iterations=int(rng.integers(1, 4))))
    field = draw_field(truth.shape, size * rng.uniform(0.3, 1.0), rng)
    if kind == 3:
        return np.asarray(truth & (field < rng.uniform(0.2, 1.2)))
    beside = ndimage.binary_dilation(truth, iterations=int(rng.integers(2, 7)))
    values = np.unique(labels[beside & ~truth])
    leak = np.isin(labels, rng.choice(values, max(1, len(values) // 2))) if len(values) else np.zeros_like(truth)
    return np.asarray(truth | (leak & beside & (field > 0)))


def start_generator(state: np.random.RandomState) -> Rng:
    """A generator of numpy's newer kind for one sample.

    Args:
        state: MONAI's, from which its seed is drawn.
    """
    return np.random.Generator(np.random.PCG64(int(state.randint(2**31 - 1))))
