"""The shape of every structure of a label map in one sweep: parts, cavities and centre, on a grid of small cells.

Whether a structure lies in one piece is decided on cells of at most `CELL_MM`, so that a scan of 300 slices with a
hundred structures takes about a second. A cell belongs to a structure as soon as one of its voxels does: gaps and
cavities smaller than a cell do not count, and nothing that touches is taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.volume.pages import SLAB_BYTES, release_pages

CELL_MM = 2.5
"""Cells are as large as they can be below this: a gap or cavity that a person would notice is larger."""

SIZEABLE_SHARE = 0.01
"""A part is sizeable from this share of its structure on; smaller ones change no volume that anybody would notice."""

_LARGEST_FACTOR = 6  # 6 x 6 x 6 voxels of a cell can be counted in a byte
_TOUCHING = ndimage.generate_binary_structure(3, 3)

UnsignedArray = npt.NDArray[np.unsignedinteger]
_Index3 = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """The shape of one structure.

    Attributes:
        voxels: how many it has.
        centre: array index of its centre of mass, to half a cell.
        fragments: separate parts that hold at least `SIZEABLE_SHARE` of it; parts that touch at a corner are one.
        share_outside_largest: share of its voxels outside its largest part, in parts of any size.
        hole_share: volume of background that it encloses on all sides, as a share of its own.
    """

    voxels: int
    centre: tuple[float, float, float]
    fragments: int
    share_outside_largest: float
    hole_share: float


@dataclass(frozen=True)
class _Piece:
    """Part of a structure: how many of its voxels lie in each cell, from a first cell on."""

    start: _Index3
    counts: npt.NDArray[np.uint8]


def describe_shapes(labels: UnsignedArray, spacing_mm: Sequence[float]) -> dict[int, Shape]:
    """The shape of every label value that occurs.

    Args:
        labels: (a0, a1, a2), 0 for background; may lie in a file, of which a slab at a time is in memory.
        spacing_mm: of the three axes.

    Returns:
        One shape by label value.

    Examples:
        >>> labels = np.zeros((8, 16, 16), np.uint8)
        >>> labels[:, 2:6, 2:6] = labels[:, 10:12, 2:6] = 1
        >>> shape = describe_shapes(labels, (2.0, 2.0, 2.0))[1]
        >>> shape.voxels, shape.fragments, round(shape.share_outside_largest, 3), shape.hole_share
        (192, 2, 0.333, 0.0)
    """
    order = sorted(range(3), key=lambda axis: -abs(labels.strides[axis]))
    stack = labels.transpose(order)
    factors = [max(1, min(_LARGEST_FACTOR, int(CELL_MM / spacing_mm[axis] + 1e-6))) for axis in order]
    cells = [-(-size // factor) for size, factor in zip(stack.shape, factors, strict=True)]
    pieces: dict[int, list[_Piece]] = {}
    labelled = np.zeros(cells, np.uint8)
    depth = max(1, SLAB_BYTES // 2 * len(stack) // max(1, stack.nbytes) // factors[0]) * factors[0]
    for first in range(0, len(stack), depth):
        slab = stack[first : first + depth]
        for index, box in enumerate(ndimage.find_objects(slab)):
            if box is not None:
                piece = _count_cells(slab, box, index + 1, factors, first // factors[0])
                labelled[_place(piece, (0, 0, 0))] += piece.counts
                pieces.setdefault(index + 1, []).append(piece)
        release_pages(labels)
    full = factors[0] * factors[1] * factors[2]
    return {value: _describe(pieces[value], labelled, factors, full, order) for value in sorted(pieces)}


def _count_cells(slab: UnsignedArray, box: tuple[slice, ...], value: int, factors: list[int], above: int) -> _Piece:
    """One structure in one slab, counted by cell; ``above`` is how many layers of cells lie before the slab."""
    start = [part.start // factor for part, factor in zip(box, factors, strict=True)]
    counts: npt.NDArray[Any] = (
        slab[tuple(slice(s * f, part.stop) for s, f, part in zip(start, factors, box, strict=True))] == value
    ).view(np.uint8)
    for axis, factor in enumerate(factors):
        counts = _sum_blocks(counts, axis, factor)
    return _Piece((start[0] + above, start[1], start[2]), counts)


def _sum_blocks(counts: npt.NDArray[np.uint8], axis: int, factor: int) -> npt.NDArray[np.uint8]:
    """Sums of ``factor`` neighbours along an axis; the last block may be shorter."""
    if factor == 1:
        return counts
    along = np.moveaxis(counts, axis, 0)
    sums = along[::factor].copy()
    for step in range(1, factor):
        part = along[step::factor]
        sums[: len(part)] += part
    return np.moveaxis(sums, 0, axis)


def _place(piece: _Piece, origin: _Index3) -> tuple[slice, ...]:
    return tuple(slice(s - o, s - o + n) for s, o, n in zip(piece.start, origin, piece.counts.shape, strict=True))


def _describe(
    pieces: list[_Piece], labelled: npt.NDArray[np.uint8], factors: list[int], full: int, order: list[int]
) -> Shape:
    low = np.min([piece.start for piece in pieces], axis=0)
    high = np.max([np.add(piece.start, piece.counts.shape) for piece in pieces], axis=0)
    origin = (int(low[0]), int(low[1]), int(low[2]))
    counts = np.zeros(high - low, np.uint8)
    for piece in pieces:
        counts[_place(piece, origin)] += piece.counts
    voxels = int(counts.sum(dtype=np.int64))
    parts, found = ndimage.label(counts, _TOUCHING)
    sizes = np.bincount(parts.reshape(-1), weights=counts.reshape(-1), minlength=found + 1)[1:]
    around = labelled[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    centre = [0.0, 0.0, 0.0]
    for place, (axis, factor) in enumerate(zip(order, factors, strict=True)):
        others = tuple(each for each in range(3) if each != place)
        profile = counts.sum(axis=others, dtype=np.float64)
        cell = float((profile * np.arange(len(profile))).sum() / voxels) + origin[place]
        centre[axis] = (cell + 0.5) * factor - 0.5
    return Shape(
        voxels=voxels,
        centre=(centre[0], centre[1], centre[2]),
        fragments=max(1, int(np.count_nonzero(sizes >= SIZEABLE_SHARE * voxels))),
        share_outside_largest=1 - float(sizes.max()) / voxels,
        hole_share=_enclosed(counts, around, full) / voxels,
    )


def _enclosed(counts: npt.NDArray[np.uint8], labelled: npt.NDArray[np.uint8], full: int) -> int:
    """How many voxels without any label the structure encloses; other structures inside it are no holes."""
    empty, found = ndimage.label(np.pad(counts == 0, 1, constant_values=True))
    if found < 2:
        return 0
    holes = empty[1:-1, 1:-1, 1:-1] > 1  # the padding is the first part that the scan of the array meets
    return int(np.sum(full - labelled[holes].astype(np.int64)))
