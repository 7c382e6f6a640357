"""Random label maps of no patient: blobs, nested organs, tubes, sheets and supervoxels, in 2D and 3D alike.

What they have in common with anatomy is what an interactive network needs: smooth borders, parts inside of parts,
neighbours that touch, things that are thin. All functions draw from the generator they are given and from nothing else.

Source:
    The idea of learning from random shapes: Hoffmann et al., SynthMorph (arXiv 2004.10282), and Billot et al., SynthSeg
    (arXiv 2107.09559); for prompts: Wong et al., ScribblePrompt (arXiv 2312.07381). The shapes here are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

Shape = tuple[int, ...]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]
Rng = np.random.Generator

MOST_LABELS = 24

BODY_SHARE = 0.2
"""How often everything but the background lies in one large organ, as in a head."""


def draw_field(shape: Shape, detail: float, rng: Rng) -> Field:
    """A smooth random field of mean 0 and standard deviation about 1.

    Args:
        shape: of the field.
        detail: size of its bumps in voxels; it is drawn coarsely and interpolated, so that large ones cost little.
        rng: what is drawn from.

    Examples:
        >>> draw_field((40, 33), 8, np.random.default_rng(0)).shape
        (40, 33)
    """
    coarse = [max(2, round(size / max(detail, 1.0)) + 2) for size in shape]
    noise = rng.standard_normal(coarse).astype(np.float32)
    steps = [(few - 1) / max(1, many - 1) for few, many in zip(coarse, shape, strict=True)]
    field = noise
    for axis, (step, many, few) in enumerate(zip(steps, shape, coarse, strict=True)):
        field = _interpolate(field, axis, np.arange(many, dtype=np.float64) * step, few)
    return field / max(float(field.std()), 1e-6)


def _interpolate(field: Field, axis: int, places: npt.NDArray[np.float64], few: int) -> Field:
    """Cubic (Catmull-Rom) along one axis."""
    base = np.clip(np.floor(places).astype(int), 0, few - 2)
    t = (places - base).astype(np.float32)
    weights = (
        -0.5 * t**3 + t**2 - 0.5 * t,
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        0.5 * t**3 - 0.5 * t**2,
    )
    along = [1] * field.ndim
    along[axis] = len(places)
    parts = (
        np.take(field, np.clip(base + offset, 0, few - 1), axis=axis) * weight.reshape(along)
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
    )
    return np.asarray(sum(parts), np.float32)


def draw_organ(shape: Shape, rng: Rng, *, large: bool | None = None) -> Field:
    """How deep a place lies in a random organ: above 0 inside, 1 at most; an ellipsoid with a bent border.

    Args:
        shape: of the grid.
        rng: what is drawn from.
        large: whether it fills much of the image, as a head does, or a liver; drawn where None.
    """
    dims, size = len(shape), np.asarray(shape, np.float64)
    if large is None:
        large = rng.uniform() < 0.25
    scale = (rng.uniform(0.2, 0.5) if large else np.exp(rng.uniform(np.log(0.04), np.log(0.45)))) * float(size.min())
    radii = np.maximum(1.5, scale * np.exp(rng.uniform(-0.5, 0.5, dims)))
    centre = rng.uniform(0.05, 0.95, dims) * size
    turn = np.linalg.qr(rng.standard_normal((dims, dims)))[0]
    away = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"), -1) - centre
    squared = np.square((away @ turn) / radii).sum(-1)
    power = rng.uniform(0.8, 1.3)
    bent = rng.uniform(0, 0.5) * draw_field(shape, float(radii.mean()) * rng.uniform(0.3, 1.2), rng)
    return (1 - squared**power + bent).astype(np.float32)


def draw_tube(shape: Shape, rng: Rng, branches: int | None = None) -> Mask:
    """A bent tube, sometimes with branches: a vessel, a bowel, a nerve.

    Args:
        shape: of the grid.
        rng: what is drawn from.
        branches: how many pieces beside the first; drawn where None.
    """
    dims, size = len(shape), np.asarray(shape, np.float64)
    if branches is None:  # a third are trees
        branches = int(rng.integers(6, 16) if rng.uniform() < 0.33 else rng.integers(0, 6))
    radius = float(np.exp(rng.uniform(np.log(0.7), np.log(max(1.5, 0.06 * size.min())))))
    starts = [rng.uniform(0, 1, dims) * (size - 1)]
    depth = np.full(shape, np.inf, np.float32)
    for number in range(branches + 1):
        start = starts[int(rng.integers(len(starts)))]
        path = _walk(start, size, rng)
        here = max(0.6, radius * (0.7 ** min(number, 3)) * rng.uniform(0.8, 1.1))
        starts.extend(path[:: max(1, len(path) // 4)])
        depth = np.minimum(depth, _distance_to(path, shape) / np.float32(here))
    return depth <= 1


def _walk(start: npt.NDArray[np.float64], size: npt.NDArray[np.float64], rng: Rng) -> npt.NDArray[np.float64]:
    """Steps of a voxel whose direction changes slowly, until they leave the grid or are as long as it is wide."""
    dims, length = len(size), int(size.max() * rng.uniform(0.3, 1.2))
    direction = rng.standard_normal(dims)
    bends = np.cumsum(rng.standard_normal((length, dims)) * rng.uniform(0.02, 0.15), axis=0)
    steps = direction / np.linalg.norm(direction) + bends
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    path = start + np.concatenate([np.zeros((1, dims)), np.cumsum(steps, axis=0)])
    inside = ((path >= 0) & (path <= size - 1)).all(axis=1)
    last = int(np.argmin(inside)) if not inside.all() else len(path)
    return path[: max(2, last)]


def _distance_to(path: npt.NDArray[np.float64], shape: Shape) -> Field:
    far = np.ones(shape, bool)
    places = np.rint(path).astype(int)
    places = places[((places >= 0) & (places < shape)).all(axis=1)]
    if not len(places):
        return np.full(shape, np.inf, np.float32)
    far[tuple(places.T)] = False
    return np.asarray(ndimage.distance_transform_edt(far), np.float32)


def draw_sheet(shape: Shape, rng: Rng) -> Mask:
    """A thin bent sheet, in 2D a band: a fascia, a cortex, a wall.

    Args:
        shape: of the grid.
        rng: what is drawn from.
    """
    field = draw_field(shape, min(shape) * rng.uniform(0.3, 1.0), rng)
    slope = np.sqrt(sum(np.square(each) for each in np.gradient(field))) + np.float32(1e-3)
    return np.asarray(np.abs(field - rng.uniform(-0.7, 0.7)) / slope <= rng.uniform(0.7, max(1.0, 0.03 * min(shape))))


def draw_parts(shape: Shape, count: int, rng: Rng) -> Labels:
    """Everything divided into so many parts with smooth borders, 0 to count - 1: supervoxels.

    Args:
        shape: of the grid.
        count: at least 1.
        rng: what is drawn from.
    """
    detail = min(shape) * rng.uniform(0.1, 0.5)
    best = np.full(shape, -np.inf, np.float32)
    labels = np.zeros(shape, np.uint8)
    for value in range(count):
        field = draw_field(shape, detail, rng)
        labels[field > best] = value
        best = np.maximum(best, field)
    return labels


def draw_scene(shape: Shape, rng: Rng) -> Labels:
    """A label map with a background of supervoxels and, over it, organs, organs in organs, tubes, sheets and cells.

    Args:
        shape: of the grid, two or three axes; sizes of at least 8.
        rng: what is drawn from.

    Returns:
        Values below `MOST_LABELS`; which of them are there is random, and none means anything.

    Examples:
        >>> scene = draw_scene((64, 64), np.random.default_rng(3))
        >>> scene.shape, scene.dtype.name, 1 < len(np.unique(scene)) <= MOST_LABELS
        ((64, 64), 'uint8', True)
    """
    labels = draw_parts(shape, int(rng.integers(1, 6)), rng)
    value = int(labels.max()) + 1
    within = np.ones(shape, bool)
    if rng.uniform() < BODY_SHARE:
        within = draw_organ(shape, rng, large=True) > 0
        labels[within] = value
        value += 1
    for _ in range(int(rng.integers(1, 6))):
        kind = rng.choice(5, p=[0.5, 0.18, 0.15, 0.07, 0.1])
        masks: Sequence[Mask] = _SHAPES[int(kind)](shape, rng)
        for mask in masks:
            if value < MOST_LABELS:
                labels[mask & within] = value
                value += 1
    return labels


def _organs(shape: Shape, rng: Rng) -> list[Mask]:
    """An organ, and often what lies inside of it (a lumen, a core, a few spots) or a thin wall about it."""
    depth = draw_organ(shape, rng)
    masks = [depth > 0]
    kind = rng.uniform()
    if kind < 0.3:
        masks.append(depth > rng.uniform(0.15, 0.7))
    elif kind < 0.45:
        masks.append(
            (depth > 0) & (draw_field(shape, min(shape) * rng.uniform(0.03, 0.2), rng) > rng.uniform(0.3, 1.3))
        )
    elif kind < 0.55:
        masks.append((depth > 0) & draw_tube(shape, rng))
    elif kind < 0.65:
        inside = ndimage.distance_transform_edt(masks[0])
        masks.append(inside > rng.uniform(1.5, max(2.0, 0.05 * min(shape))))
    return masks


def _cells(shape: Shape, rng: Rng) -> list[Mask]:
    """Many small things of a kind, bare or each within a wall."""
    spots = draw_field(shape, max(3.0, min(shape) * rng.uniform(0.03, 0.12)), rng)
    border = rng.uniform(0.8, 1.6)
    walled = rng.uniform() < 0.4
    return [spots > border, spots > border + rng.uniform(0.3, 0.9)] if walled else [spots > border]


def draw_packed(shape: Shape, rng: Rng) -> list[Mask]:
    """Cells that fill a region side by side, with a wall between any two: what holds them, then their insides.

    Args:
        shape: of the grid.
        rng: what is drawn from.
    """
    dims, size = len(shape), np.asarray(shape, np.float64)
    width = float(np.exp(rng.uniform(np.log(6.0), np.log(max(8.0, 0.3 * size.min())))))
    count = int(np.clip(size.prod() / width**dims, 4, 400))
    places = rng.uniform(-0.05, 1.05, (count, dims)) * size
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), -1)
    grid += 0.15 * width * np.stack([draw_field(shape, width, rng) for _ in range(dims)], -1)
    away = cKDTree(places).query(grid.reshape(-1, dims), 2)[0].reshape(*shape, 2)
    wall = rng.uniform(1.2, max(1.6, 0.3 * width))
    whole = draw_organ(shape, rng) > 0 if rng.uniform() < 0.5 else np.ones(shape, bool)
    return [whole, whole & (away[..., 1] - away[..., 0] > wall)]


_SHAPES: tuple[Callable[[Shape, Rng], list[Mask]], ...] = (
    _organs,
    lambda shape, rng: [draw_tube(shape, rng)],
    _cells,
    lambda shape, rng: [draw_sheet(shape, rng)],
    draw_packed,
)
