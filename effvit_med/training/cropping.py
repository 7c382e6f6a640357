"""Where a patch is cut from a prepared case: as often as asked around a structure, with room for turning it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor
from torch.nn import functional

from effvit_med.errors import SettingsError

PLACES = "places"
"""The entry with voxels of each structure: (n, 4) whole numbers, the structure and where along the three axes."""

AIR = "air"
"""The entry with what lies outside a prepared image."""


class MarkPlacesd(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Keep for each structure some voxels of it, so that a patch around one is found without searching the case.

    Args:
        keys: the entry of the label map, (1, g0, g1, g2) class numbers or (structures, g0, g1, g2) of 0 and 1.
        classes: the number of classes, background included; higher values are no structures.
        image_key: the entry of the image, whose smallest value is kept.
        most: how many voxels of each structure are kept; they are spread evenly over it.
    """

    def __init__(self, keys: KeysCollection, classes: int, image_key: str = "image", most: int = 10_000) -> None:
        super().__init__(keys)
        self.classes = classes
        self.image_key = image_key
        self.most = most

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries, with `PLACES` and `AIR` beside them."""
        result = dict(data)
        for key in self.key_iterator(result):
            label = torch.as_tensor(result[key])
            found = [self._pick(number, chosen) for number, chosen in self._structures(label)]
            result[PLACES] = torch.cat(found) if found else torch.zeros((0, 4), dtype=torch.int32)
        result[AIR] = float(result[self.image_key].min())
        return result

    def _structures(self, label: Tensor) -> list[tuple[int, Tensor]]:
        if len(label) > 1:
            return [(number, channel == 1) for number, channel in enumerate(label, start=1)]
        present = [int(value) for value in torch.unique(label).tolist() if 0 < value < self.classes]
        return [(value, label[0] == value) for value in present]

    def _pick(self, number: int, chosen: Tensor) -> Tensor:
        where = chosen.nonzero()
        if len(where) > self.most:
            where = where[torch.linspace(0, len(where) - 1, self.most).long()]
        return torch.cat([torch.full((len(where), 1), number), where], dim=1).to(torch.int32)


class RandPatchd(MapTransform, Randomizable):  # type: ignore[misc]
    """Cut a patch with a margin around it; what lies outside the case is air and background.

    The patch itself lies within the case where that is large enough; a smaller case lies anywhere in the patch. Only
    the part that is cut out is read, so a case may lie in a file that is mapped into memory.

    Args:
        keys: entries of shape (channels, g0, g1, g2), prepared by `MarkPlacesd`.
        patch: its size.
        margin: how much more is cut on both sides of each axis.
        foreground_share: how often a patch has a voxel of a structure at its centre (as near as the case allows),
            each structure of the case as often as every other.
        label_key: the entry that is padded with background, not air.

    Raises:
        SettingsError: if the share is not from 0 to 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch: Sequence[int],
        margin: Sequence[int] = (0, 0, 0),
        foreground_share: float = 0.33,
        label_key: str = "label",
    ) -> None:
        super().__init__(keys)
        if not 0 <= foreground_share <= 1:
            raise SettingsError(f"foreground_share is {foreground_share}; give a share from 0 to 1.")
        self.patch = tuple(patch)
        self.margin = tuple(margin)
        self.foreground_share = foreground_share
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries cut to patch and margins."""
        result = dict(data)
        places, air = result.pop(PLACES), result.pop(AIR)
        start = self._place(result[self.first_key(result)].shape[1:], torch.as_tensor(places))
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key])
            result[key] = self._cut(values, start, 0.0 if key == self.label_key else float(air))
        return result

    def _place(self, shape: Sequence[int], places: Tensor) -> list[int]:
        """The first voxel of the patch along each axis; below 0 where the case is smaller."""
        around = self.R.random_sample() < self.foreground_share and len(places) > 0
        free = [self.R.randint(min(0, size - wide), max(0, size - wide) + 1) for size, wide in self._sizes(shape)]
        if not around:
            return free
        structures = torch.unique(places[:, 0])
        chosen = places[places[:, 0] == structures[self.R.randint(len(structures))]]
        centre = chosen[self.R.randint(len(chosen)), 1:].tolist()
        starts = []
        for at, any_place, (size, wide) in zip(centre, free, self._sizes(shape), strict=True):
            starts.append(min(max(0, at - wide // 2), size - wide) if size > wide else any_place)
        return starts

    def _sizes(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        return list(zip(shape, self.patch, strict=True))

    def _cut(self, values: Tensor, start: Sequence[int], fill: float) -> Float[Tensor, "channels p0 p1 p2"]:
        inside: list[slice] = [slice(None)]
        pad: list[int] = []
        for first, (size, wide), more in zip(start, self._sizes(values.shape[1:]), self.margin, strict=True):
            low, high = first - more, first + wide + more
            inside.append(slice(max(0, low), max(0, min(size, high))))
            pad = [max(0, -low), max(0, high - size), *pad]
        part = values[tuple(inside)].float()
        return functional.pad(part, pad, value=fill) if any(pad) else part.clone()


def patch_margin(
    patch: Sequence[int], rotate_range: Sequence[float], scale_range: Sequence[float]
) -> tuple[int, int, int]:
    """How much more than a patch must be cut on each side, so that turned and scaled it still lies within.

    Args:
        patch: its size.
        rotate_range: the largest angle about each axis in radians.
        scale_range: the largest change of scale along each axis: 0.4 takes in up to 1.4 times as much.

    Examples:
        >>> patch_margin((40, 56, 40), (0, 0, 0), (0.25, 0.25, 0.25))
        (5, 7, 5)
        >>> patch_margin((1, 64, 64), (0.5, 0, 0), (0, 0, 0))
        (0, 12, 12)
    """
    reach = np.array(patch, dtype=np.float64)
    wide = reach.copy()
    for axis, angle in enumerate(rotate_range):
        one, other = (each for each in range(3) if each != axis)
        turned = [_widest(wide[one], wide[other], abs(angle)), _widest(wide[other], wide[one], abs(angle))]
        wide[one], wide[other] = turned
    wide *= 1 + np.abs(np.array(scale_range, dtype=np.float64))
    margins = [max(0, math.ceil((width - size) / 2 - 1e-9)) for width, size in zip(wide, reach, strict=True)]
    return margins[0], margins[1], margins[2]


def _widest(along: float, across: float, angle: float) -> float:
    """The widest that a rectangle gets along an axis while it turns up to an angle."""
    best = min(angle, math.atan2(across, along))
    return along * math.cos(best) + across * math.sin(best)
