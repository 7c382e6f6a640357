"""A made-up reviewer who always corrects the largest error first, and the ways in which a result is spoiled for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.review.refining import Refiner, cut_request, list_changes
from effvit_med.volume import Volume
from effvit_med.volume.prompts import Prompt

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Rng = np.random.Generator
Spacing = tuple[float, float, float]


def lose_end(labels: Labels, value: int, spacing_mm: Spacing, rng: Rng) -> Labels:
    """A fifth of a structure lost, beyond a plane of any direction."""
    places = np.argwhere(labels == value)
    direction = rng.normal(size=3)
    along = (places * spacing_mm) @ (direction / np.linalg.norm(direction))
    return _put(labels, places[along > np.quantile(along, 0.8)], 0)


def bite(labels: Labels, value: int, spacing_mm: Spacing, rng: Rng) -> Labels:
    """Three balls of 8 to 14 mm lost about the border."""
    spoiled = labels
    for _ in range(3):
        places = _ball(labels.shape, _pick_border(labels == value, rng), spacing_mm, rng.uniform(8, 14))
        spoiled = _put(spoiled, places[labels[tuple(places.T)] == value], 0)
    return spoiled


def leak(labels: Labels, value: int, spacing_mm: Spacing, rng: Rng) -> Labels:
    """Three balls of 6 to 12 mm about the border that are taken for the structure, whatever they are."""
    spoiled = labels
    for _ in range(3):
        places = _ball(labels.shape, _pick_border(labels == value, rng), spacing_mm, rng.uniform(6, 12))
        spoiled = _put(spoiled, places, value)
    return spoiled


def shift(labels: Labels, value: int, spacing_mm: Spacing, rng: Rng) -> Labels:
    """The structure moved by 4 mm in any direction: thin errors everywhere."""
    direction = rng.normal(size=3)
    steps = np.rint(4.0 * direction / np.linalg.norm(direction) / spacing_mm).astype(int)
    mine = labels == value
    moved = np.roll(mine, tuple(steps), axis=(0, 1, 2))
    spoiled = np.where(mine, 0, labels).astype(np.uint8)
    spoiled[moved & (spoiled == 0)] = value
    return spoiled


SPOILERS: dict[str, Callable[[Labels, int, Spacing, Rng], Labels]] = {
    "an end lost": lose_end,
    "bites": bite,
    "leaks": leak,
    "shifted 4 mm": shift,
}


def _put(labels: Labels, places: npt.NDArray[np.intp], value: int) -> Labels:
    changed = labels.copy()
    changed[tuple(places.T)] = value
    return changed


def _pick_border(mask: Mask, rng: Rng) -> npt.NDArray[np.intp]:
    border = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    return border[rng.integers(len(border))]


def _ball(shape: tuple[int, ...], centre: npt.ArrayLike, spacing_mm: Spacing, radius_mm: float) -> npt.NDArray[np.intp]:
    reach = [int(radius_mm / step) for step in spacing_mm]
    offsets = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1).reshape(-1, 3)
    offsets = offsets[np.linalg.norm(offsets * np.asarray(spacing_mm), axis=1) <= radius_mm]
    places = offsets + np.asarray(centre)
    return places[((places >= 0) & (places < shape)).all(axis=1)]


@dataclass(frozen=True)
class Error:
    """The largest error: where its middle is and how much room is about it.

    Attributes:
        index: the voxel farthest from the error's border.
        radius_mm: how far that is.
        missing: whether the structure is missing there, or too much.
    """

    index: tuple[int, int, int]
    radius_mm: float
    missing: bool


def find_largest_error(now: Mask, truth: Mask, spacing_mm: Spacing) -> Error | None:
    """The largest connected error between a structure and the truth; None if they are equal."""
    best: tuple[int, Mask, tuple[slice, ...], bool] | None = None
    for missing, wrong in ((True, truth & ~now), (False, now & ~truth)):
        parts, _ = ndimage.label(wrong)
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.size and (best is None or sizes.max() > best[0]):
            number = int(sizes.argmax()) + 1
            box = ndimage.find_objects(parts, number)[number - 1]
            best = (int(sizes.max()), parts[box] == number, box, missing)
    if best is None:
        return None
    _, part, box, missing = best
    depth = ndimage.distance_transform_edt(np.pad(part, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    middle = np.unravel_index(int(depth.argmax()), depth.shape)
    index = tuple(int(at + part.start) for at, part in zip(middle, box, strict=True))
    return Error(index, float(depth.max()), missing)  # type: ignore[arg-type]


def dice(now: Mask, truth: Mask) -> float:
    """The Dice coefficient of two masks."""
    return 2.0 * float((now & truth).sum()) / max(1.0, float(now.sum() + truth.sum()))


Correct = Callable[[Labels, Error, list[Prompt]], Labels]


def click_with(refiner: Refiner, volume: Volume) -> Correct:
    """A correction by a click and the refiner."""

    def correct(labels: Labels, _: Error, prompts: list[Prompt]) -> Labels:
        request, crop = cut_request(volume, labels, prompts)
        flat, after = list_changes(request, refiner.refine(request), crop, volume.geometry.shape)
        changed = labels.copy()
        changed.reshape(-1)[flat] = after
        return changed

    return correct


def brush_with(spacing_mm: Spacing, value: int, *, flat: bool) -> Correct:
    """A dab of the brush, as large as fits into the error: a disc in its slice, or a ball."""

    def correct(labels: Labels, error: Error, _: list[Prompt]) -> Labels:
        places = _ball(labels.shape, error.index, spacing_mm, error.radius_mm * 0.999)
        if flat:
            places = places[places[:, 0] == error.index[0]]
        mine = (labels[tuple(places.T)] == value) != error.missing
        return _put(labels, places[mine], value if error.missing else 0)

    return correct


def review(
    labels: Labels, truth: Labels, value: int, spacing_mm: Spacing, correct: Correct, clicks: int
) -> Iterator[float]:
    """Dice before the first correction and after each."""
    target = truth == value
    prompts: list[Prompt] = []
    yield dice(labels == value, target)
    for _ in range(clicks):
        error = find_largest_error(labels == value, target, spacing_mm)
        if error is not None:
            prompts.append(Prompt("point", value, error.missing, (error.index,)))
            labels = correct(labels, error, prompts)
        yield dice(labels == value, target)
