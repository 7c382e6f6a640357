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

from effvit_med.errors import SettingsError
from effvit_med.transforms import cut_mirrored

PLACES = "places"
"""The entry with voxels of each structure: (n, 4) whole numbers, the structure and where along the three axes."""


class MarkPlacesd(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Keep for each structure some voxels of it, so that a patch around one is found without searching the case.

    Args:
        keys: the entry of the label map, (1, g0, g1, g2) class numbers or (structures, g0, g1, g2) of 0 and 1.
        classes: the number of classes, background included; higher values are no structures.
        most: how many voxels of each structure are kept; they are spread evenly over it.
    """

    def __init__(self, keys: KeysCollection, classes: int, most: int = 10_000) -> None:
        super().__init__(keys)
        self.classes = classes
        self.most = most

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries, with `PLACES` beside them."""
        result = dict(data)
        for key in self.key_iterator(result):
            label = torch.as_tensor(result[key])
            found = [self._pick(number, chosen) for number, chosen in self._structures(label)]
            result[PLACES] = torch.cat(found) if found else torch.zeros((0, 4), dtype=torch.int32)
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
    """Cut a patch with a margin around it; what lies outside the case is the case's own mirror image.

    So does the engine see it, and a structure that is mirrored is labelled as one. The patch itself lies within the
    case where that is large enough; a smaller case lies anywhere in the patch. Only the part that is cut out is read,
    so a case may lie in a file that is mapped into memory.

    Args:
        keys: entries of shape (channels, g0, g1, g2), prepared by `MarkPlacesd`.
        patch: its size.
        margin: how much more is cut on both sides of each axis.
        overhang: how far a patch may stand beyond the case at both ends of each axis; along the slices of a 2.5D
            network as many as it has neighbours, so that every slice can be the middle one.
        foreground_share: how often a patch has a voxel of a structure at its centre (as near as the case allows),
            each structure of the case as often as every other.

    Raises:
        SettingsError: if the share is not from 0 to 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch: Sequence[int],
        margin: Sequence[int] = (0, 0, 0),
        overhang: Sequence[int] = (0, 0, 0),
        foreground_share: float = 0.33,
    ) -> None:
        super().__init__(keys)
        if not 0 <= foreground_share <= 1:
            raise SettingsError(f"foreground_share is {foreground_share}; give a share from 0 to 1.")
        self.patch = tuple(patch)
        self.margin = tuple(margin)
        self.overhang = tuple(overhang)
        self.foreground_share = foreground_share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries cut to patch and margins."""
        result = dict(data)
        start = self._place(result[self.first_key(result)].shape[1:], torch.as_tensor(result.pop(PLACES)))
        for key in self.key_iterator(result):
            result[key] = self._cut(torch.as_tensor(result[key]), start)
        return result

    def _place(self, shape: Sequence[int], places: Tensor) -> list[int]:
        """The first voxel of the patch along each axis; below 0 where the case is smaller."""
        around = self.R.random_sample() < self.foreground_share and len(places) > 0
        limits = [
            sorted((-more, size - wide + more))
            for size, wide, more in zip(shape, self.patch, self.overhang, strict=True)
        ]
        free = [self.R.randint(low, high + 1) for low, high in limits]
        if not around:
            return free
        structures = torch.unique(places[:, 0])
        chosen = places[places[:, 0] == structures[self.R.randint(len(structures))]]
        centre = chosen[self.R.randint(len(chosen)), 1:].tolist()
        return [
            min(max(low, at - wide // 2), high) if size + 2 * more > wide else any_place
            for at, any_place, size, wide, more, (low, high) in zip(
                centre, free, shape, self.patch, self.overhang, limits, strict=True
            )
        ]

    def _cut(self, values: Tensor, start: Sequence[int]) -> Float[Tensor, "channels p0 p1 p2"]:
        starts = [first - more for first, more in zip(start, self.margin, strict=True)]
        stops = [first + wide + more for first, wide, more in zip(start, self.patch, self.margin, strict=True)]
        return cut_mirrored(values, starts, stops).to(torch.float32, copy=True)


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
