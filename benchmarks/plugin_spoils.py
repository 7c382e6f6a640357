"""Where labels are spoiled, so that the clicks of a sitting have something to mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

RADII_MM = (8.0, 14.0)
"""Of the balls that are lost or added."""


@dataclass(frozen=True)
class Spoil:
    """A ball that was spoiled.

    Attributes:
        value: of the structure.
        missing: whether it was taken from the structure, or given to it.
        index: its middle.
        flat: its voxels, in C order.
    """

    value: int
    missing: bool
    index: tuple[int, int, int]
    flat: npt.NDArray[np.int64]


def draw_spoils(
    labels: npt.NDArray[np.unsignedinteger], spacing_mm: Sequence[float], count: int, seed: int = 0
) -> Iterator[Spoil]:
    """Balls about borders of structures, in turns taken from a structure and given to it.

    Args:
        labels: as they should be.
        spacing_mm: along each axis.
        count: how many.
        seed: of where they lie.
    """
    draw, spacing = np.random.default_rng(seed), np.asarray(spacing_mm)
    sizes = np.bincount(labels.reshape(-1))
    borders: dict[int, npt.NDArray[np.intp]] = {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None and sizes[number] > 500:
            mine = labels[box] == number
            borders[number] = np.argwhere(mine & ~ndimage.binary_erosion(mine)) + [part.start for part in box]
    values = sorted(borders)
    for number in range(count):
        value, missing = values[number % len(values)], (number // len(values)) % 2 == 0
        centre = borders[value][draw.integers(len(borders[value]))]
        reach = (draw.uniform(*RADII_MM) / spacing).astype(int)
        offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
        places = centre + offsets[((offsets / np.maximum(reach, 1)) ** 2).sum(axis=1) <= 1]
        places = places[((places >= 0) & (places < labels.shape)).all(axis=1)]
        flat = np.ravel_multi_index(tuple(places.T), labels.shape).astype(np.int64)
        flat = flat[(labels.reshape(-1)[flat] == value) == missing]
        wrong = np.stack(np.unravel_index(flat, labels.shape), axis=1)
        nearest = wrong[np.linalg.norm(wrong - wrong.mean(axis=0), axis=1).argmin()]
        yield Spoil(value, missing, (int(nearest[0]), int(nearest[1]), int(nearest[2])), flat)
