"""A made-up reader: points, scribbles, boxes and lassos at what is wrong, as carelessly as people do.

All masks have three axes; one of a single slice has a first axis of 1. Indices are those of the mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.volume.prompts import Index, Kind, Prompt

Mask = npt.NDArray[np.bool_]
Rng = np.random.Generator


@dataclass(frozen=True)
class Error:
    """The largest connected piece in which a mask differs from the truth.

    Attributes:
        piece: the voxels, within ``box``.
        box: where ``piece`` lies.
        missing: whether the object is missing there, or too much.
    """

    piece: Mask
    box: tuple[slice, ...]
    missing: bool


@dataclass(frozen=True)
class Habits:
    """How a reader points.

    Attributes:
        first: how often the first prompt of an object is of each kind.
        later: how often a correction is; boxes and lassos only add.
        depth: a point lies where the error is at least this share of its greatest depth; 1 for its very middle.
        box_slack: how far each side of a box lies from the object's, as a share of its size at most.
        lasso_slack: how far a lasso strays from the outline, as a share of the object's radius.
    """

    first: tuple[tuple[Kind, float], ...] = (("point", 0.6), ("box", 0.2), ("scribble", 0.12), ("lasso", 0.08))
    later: tuple[tuple[Kind, float], ...] = (("point", 0.75), ("scribble", 0.2), ("lasso", 0.05))
    depth: float = 0.5
    box_slack: float = 0.08
    lasso_slack: float = 0.12


#: One who always clicks into the middle of the largest error: for measuring.
EXACT = Habits(first=(("point", 1.0),), later=(("point", 1.0),), depth=1.0, box_slack=0.0, lasso_slack=0.0)


def find_largest_error(now: Mask, truth: Mask, spacing_mm: Sequence[float] = (1, 1, 1)) -> Error | None:
    """The piece to correct first; None if both are equal.

    Pieces are compared by volume, but of a piece only one voxel thick a tenth counts: borders that differ by a voxel
    are nothing to click at.

    Args:
        now: the mask.
        truth: what it should be.
        spacing_mm: along each axis.
    """
    best: tuple[float, Error] | None = None
    for missing, wrong in ((True, truth & ~now), (False, now & ~truth)):
        parts, count = ndimage.label(wrong)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())
        for number in np.argsort(sizes[1:])[::-1][:3] + 1:
            piece, box = _cut_out(parts == number)
            thick = depth_of(piece, spacing_mm).max() > 1.5 * min(spacing_mm)
            weight = float(sizes[number]) * (1.0 if thick else 0.1)
            if best is None or weight > best[0]:
                best = weight, Error(piece, box, missing)
    return best[1] if best else None


def _cut_out(mask: Mask) -> tuple[Mask, tuple[slice, ...]]:
    """A mask within its own box, which `scipy.ndimage.find_objects` would look for of a thousand pieces at once."""
    axes = range(mask.ndim)
    hits = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    box = tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
    return mask[box], box


def depth_of(piece: Mask, spacing_mm: Sequence[float] = (1, 1, 1)) -> npt.NDArray[np.float64]:
    """How far each voxel of a piece lies from its border; along an axis of a single voxel there is no border.

    Args:
        piece: a mask.
        spacing_mm: along each axis.
    """
    margins = [(int(size > 1),) * 2 for size in piece.shape]
    inner = tuple(slice(before, before + size) for (before, _), size in zip(margins, piece.shape, strict=True))
    flat = tuple(0 if size == 1 else slice(None) for size in piece.shape)
    wide = np.pad(piece, margins)
    kept = [step for step, size in zip(spacing_mm, piece.shape, strict=True) if size > 1]
    depth = np.zeros(wide.shape)
    if kept:
        depth[flat] = ndimage.distance_transform_edt(wide[flat], sampling=kept)
    else:
        depth[wide] = 1.0
    return np.asarray(depth[inner])


def point_at(now: Mask, truth: Mask, habits: Habits, rng: Rng, value: int = 1) -> Prompt | None:
    """The next prompt of somebody who sees a mask and knows the truth; None if there is nothing to correct.

    Args:
        now: the mask; empty before the first prompt.
        truth: what it should be.
        habits: how to point.
        rng: what is drawn from.
        value: of the structure.
    """
    error = find_largest_error(now, truth)
    if error is None:
        return None
    is_first = not now.any()
    kinds, weights = zip(*(habits.first if is_first else habits.later), strict=True)
    kind = str(rng.choice(kinds, p=np.asarray(weights) / sum(weights)))
    adds = error.missing
    if kind in ("box", "lasso") and adds:
        whole = truth if is_first else _in_place(error, truth.shape)
        return (draw_box if kind == "box" else draw_lasso)(whole, habits, rng, value)
    places = pick_line(error, rng) if kind == "scribble" else [pick_place(error, habits.depth, rng)]
    return Prompt("scribble" if len(places) > 1 else "point", value, adds, tuple(places))


def _in_place(error: Error, shape: Sequence[int]) -> Mask:
    mask = np.zeros(shape, bool)
    mask[error.box] = error.piece
    return mask


def pick_place(error: Error, depth: float, rng: Rng) -> Index:
    """A voxel well inside of an error.

    Args:
        error: what to point at.
        depth: as in `Habits`.
        rng: what is drawn from.
    """
    depths = depth_of(error.piece)
    deep = np.argwhere(depths >= depth * depths.max() - 1e-9)
    place = deep[len(deep) // 2] if depth >= 1 else deep[rng.integers(len(deep))]
    return _index(place, error.box)


def pick_line(error: Error, rng: Rng) -> list[Index]:
    """A line along the middle of an error in one of its slices: where it is deepest, from end to end.

    Args:
        error: what to scribble over.
        rng: what is drawn from.
    """
    depths = depth_of(error.piece)
    number = int(np.unravel_index(int(depths.argmax()), depths.shape)[0])
    places = np.argwhere(error.piece[number])
    centred = places - places.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    along = centred @ axes[0]
    start, stop = np.sort(rng.uniform(0.05, 0.95, 2))
    cuts = np.quantile(along, np.linspace(start, max(stop, start + 0.2), int(rng.integers(3, 6))).clip(0, 1))
    line: list[Index] = []
    for low, high in itertools.pairwise(cuts):
        here = places[(along >= low) & (along <= high)]
        if len(here):
            deepest = here[depths[number][tuple(here.T)].argmax()]
            line.append(_index((number, *deepest), error.box))
    return list(dict.fromkeys(line)) or [pick_place(error, 0.5, rng)]


def draw_box(whole: Mask, habits: Habits, rng: Rng, value: int = 1) -> Prompt:
    """A box about an object in the slice where it is largest.

    Args:
        whole: the object; not empty.
        habits: how exactly.
        rng: what is drawn from.
        value: of the structure.
    """
    number = _largest_slice(whole)
    places = np.argwhere(whole[number])
    low, high = places.min(axis=0).astype(float), places.max(axis=0).astype(float)
    slack = habits.box_slack * (high - low + 1)
    low, high = low - rng.uniform(-0.4, 1, 2) * slack, high + rng.uniform(-0.4, 1, 2) * slack
    last = np.asarray(whole.shape[1:]) - 1.0
    low, high = np.clip(low, 0, last), np.clip(high, 0, last)
    return Prompt("box", value, True, ((number, *low), (number, *high)), 0)


def draw_lasso(whole: Mask, habits: Habits, rng: Rng, value: int = 1) -> Prompt:
    """A careless outline of the largest piece of an object in the slice where it is largest.

    Args:
        whole: the object; not empty.
        habits: how exactly.
        rng: what is drawn from.
        value: of the structure.
    """
    from skimage.measure import find_contours

    number = _largest_slice(whole)
    outlines = find_contours(np.pad(whole[number], 1).astype(float), 0.5)
    outline = max(outlines, key=len) - 1
    few = outline[np.linspace(0, len(outline) - 1, min(24, max(4, len(outline) // 3)), endpoint=False).astype(int)]
    radius = float(np.sqrt(max(1, whole[number].sum()) / np.pi))
    stray = rng.normal(0, habits.lasso_slack * radius / 2, few.shape)
    smooth = (stray + np.roll(stray, 1, axis=0)) / 2
    few = np.clip(few + smooth, 0, np.asarray(whole.shape[1:]) - 1.0)
    return Prompt("lasso", value, True, tuple((float(number), float(a), float(b)) for a, b in few), 0)


def _largest_slice(whole: Mask) -> int:
    return int(whole.reshape(whole.shape[0], -1).sum(axis=1).argmax())


def _index(place: Sequence[int] | npt.NDArray[np.intp], box: tuple[slice, ...]) -> Index:
    a, b, c = (float(at + part.start) for at, part in zip(place, box, strict=True))
    return a, b, c
