"""What every network but nnU-Net trains with: crops, augmentation, loss, learning rate, and when training ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.versus_sets import LabelledSet, PreparedCase

RECIPE = 2
"""Raised with every change of what networks train with, so that results of another recipe are not taken up."""

FOREGROUND_SHARE = 0.5
"""Of crops that are drawn around a voxel of some structure; each structure is as likely."""

WEIGHT_DECAY = 0.01
CLIPPED_NORM = 5.0
WARM_UP = 0.02
EMA_DECAY = 0.99

PATIENCE = 8
LEAST_GAIN = 0.002
COOL_DOWN = 0.25

DESCRIPTION = (
    "Crops of {patch} voxels, {batch} a step, half of them around a structure; rotation, scaling, {flips}noise, blur, "
    "brightness, contrast and gamma by MONAI; Dice plus cross-entropy without deep supervision; AdamW, weight decay "
    "0.01, gradients clipped at a norm of 5; an average of the weights (0.99) is scored."
)


def describe_recipe(labelled: LabelledSet) -> str:
    """A sentence for the report."""
    patch = " x ".join(str(size) for size in labelled.patch if size > 1)
    flips = "mirroring, " if labelled.flips else ""
    return DESCRIPTION.format(patch=patch, batch=labelled.batch, flips=flips)


def fit_learning_rate(done: float) -> float:
    """The share of the largest learning rate in a run of known length: a short rise, then a polynomial fall.

    Args:
        done: the share of the budget that is spent.

    Examples:
        >>> fit_learning_rate(0.0) < 0.1, round(fit_learning_rate(0.02), 2), fit_learning_rate(1.0)
        (True, 0.98, 0.0)
    """
    return min(1.0, (done + WARM_UP / 20) / WARM_UP) * float(max(0.0, 1 - done)) ** 0.9


@dataclass
class Plateau:
    """A run to convergence: the learning rate is held until the watched Dice gains no more, then falls to nothing.

    Attributes:
        limit_s: when it falls at the latest, so that the fall ends there.
        best: the best watched Dice so far.
        since: how many looks ago that was.
        falls_from_s: when the fall began; None while the rate is held.
        hit_limit: whether it began for the limit, not for a plateau.
    """

    limit_s: float
    best: float = 0.0
    since: int = 0
    falls_from_s: float | None = None
    hit_limit: bool = False

    def look(self, dice: float, spent_s: float) -> None:
        """Take up a watched Dice.

        Args:
            dice: mean over structures and cases.
            spent_s: when.
        """
        if dice >= self.best + LEAST_GAIN:
            self.best, self.since = dice, 0
        elif self.best > 0:
            self.since += 1
        if self.falls_from_s is None and self.since >= PATIENCE:
            self.falls_from_s = spent_s

    def learning_rate(self, spent_s: float) -> float:
        """The share of the largest learning rate; 0 when training is over."""
        latest = self.limit_s / (1 + COOL_DOWN)
        if self.falls_from_s is None and spent_s >= latest:
            self.falls_from_s, self.hit_limit = spent_s, True
        if self.falls_from_s is None:
            return min(1.0, (spent_s + 1) / (WARM_UP * self.limit_s + 1))
        return max(0.0, 1 - (spent_s - self.falls_from_s) / max(1e-9, COOL_DOWN * self.falls_from_s))


@dataclass
class Sampler:
    """Draws augmented crops; the same seed gives the same crops to every network.

    Attributes:
        labelled: the set.
        cases: to draw from.
        seed: of all that is drawn.
        generator: of places.
    """

    labelled: LabelledSet
    cases: Sequence[PreparedCase]
    seed: int
    generator: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._padded = [pad_to(case, self.labelled.patch) for case in self.cases]
        classes = range(1, len(self.labelled.structures) + 1)
        self._places = [[np.flatnonzero(labels == value) for value in classes] for _, labels in self._padded]
        self._augment = make_augmentation(self.labelled)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin anew at a step, as after an interruption.

        Args:
            step: the number of the next step.
        """
        self.generator = random.Random(self.seed * 1_000_003 + step)
        self._augment.set_random_state(seed=self.seed * 1009 + step)

    def draw(self) -> tuple[Tensor, Tensor]:
        """A batch: images (batch, 1, *space) and labels (batch, 1, *space)."""
        crops = [self._draw_crop() for _ in range(self.labelled.batch)]
        return torch.stack([crop["image"] for crop in crops]), torch.stack([crop["label"] for crop in crops])

    def _draw_crop(self) -> dict[str, Tensor]:
        number = self.generator.randrange(len(self._padded))
        values, labels = self._padded[number]
        limits = [size - edge for size, edge in zip(labels.shape, self.labelled.patch, strict=True)]
        corner = [self.generator.randint(0, limit) for limit in limits]
        shown = [places for places in self._places[number] if len(places)]
        if shown and self.generator.random() < FOREGROUND_SHARE:
            places = self.generator.choice(shown)
            centre = np.unravel_index(places[self.generator.randrange(len(places))], labels.shape)
            moved = zip(centre, self.labelled.patch, limits, strict=True)
            corner = [min(max(0, int(at) - edge // 2), limit) for at, edge, limit in moved]
        box = tuple(slice(at, at + edge) for at, edge in zip(corner, self.labelled.patch, strict=True))
        image, label = values[(slice(None), *box)], labels[box][None]
        if self.labelled.spatial_dims == 2:
            image, label = image[:, 0], label[:, 0]
        data = {"image": torch.from_numpy(image.copy()), "label": torch.from_numpy(label.astype(np.float32))}
        return {key: torch.as_tensor(value) for key, value in self._augment(data).items()}


def pad_to(case: PreparedCase, least: Sequence[int]) -> tuple[Any, Any]:
    """Image and labels of at least a size, both mirrored at the far ends.

    Args:
        case: prepared.
        least: the size.
    """
    missing = [(0, max(0, edge - size)) for edge, size in zip(least, case.labels.shape, strict=True)]
    return np.pad(case.values, [(0, 0), *missing], mode="symmetric"), np.pad(case.labels, missing, mode="symmetric")


def make_augmentation(labelled: LabelledSet) -> Any:
    """MONAI's random transforms, of about nnU-Net's strength."""
    from monai import transforms as mt

    dims = labelled.spatial_dims
    flips = [axis - (3 - dims) for axis in labelled.flips]
    return mt.Compose(
        [
            *(mt.RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in flips),
            mt.RandAffined(
                ["image", "label"],
                prob=0.4,
                rotate_range=[labelled.rotation] * (1 if dims == 2 else 3),
                scale_range=[0.25] * dims,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            mt.RandGaussianNoised("image", prob=0.15, std=0.3),
            mt.RandGaussianSmoothd("image", sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1), prob=0.15),
            mt.RandScaleIntensityd("image", factors=0.25, prob=0.15),
            mt.RandShiftIntensityd("image", offsets=0.25, prob=0.15),
            mt.RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=0.3, retain_stats=True),
        ]
    )


def make_loss() -> Any:
    """Dice plus cross-entropy."""
    from monai.losses import DiceCELoss

    return DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
