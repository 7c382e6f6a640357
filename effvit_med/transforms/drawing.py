"""Prompts as pictures: the voxels that a point, scribble, box or lasso covers, and the maps that a network is given.

All shapes are those of the grid that the prompts' indices belong to; what lies outside it is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from effvit_med.volume.prompts import Prompt

Mask = npt.NDArray[np.bool_]

OLDER = 0.7
"""What a prompt that is not the newest is drawn with; the newest has 1."""


RADIUS_VOXELS = 3.0
"""Of the dot that a point makes on the maps of a promptable network, and half the width of a scribble: in training and
in use alike."""


def draw_prompts(prompts: Sequence[Prompt], shape: Sequence[int], radius: Sequence[float]) -> npt.NDArray[np.float32]:
    """The maps of prompts about one structure, without the mask so far.

    Args:
        prompts: oldest first; the last is the newest.
        shape: of the grid, three axes.
        radius: of the dot that a point makes and half the width of a scribble, in voxels along each axis.

    Returns:
        (3, *shape): where points and scribbles add, where they remove, and 1 inside of boxes and lassos that add, -1
        inside of those that remove. What was said later stands over what was said before.

    Examples:
        >>> click = Prompt("point", 1, True, ((0, 4, 4),))
        >>> maps = draw_prompts([click], (1, 9, 9), (0, 2, 2))
        >>> maps.shape, float(maps[0].max()), int(maps[0].sum()), float(maps[1].max())
        ((3, 1, 9, 9), 1.0, 13, 0.0)
    """
    maps = np.zeros((3, *shape), np.float32)
    for number, prompt in enumerate(prompts, 1):
        strength = 1.0 if number == len(prompts) else OLDER
        if prompt.axis is None:
            places = draw_ball(prompt, shape, [1 / max(each, 1e-6) for each in radius], 1.0)
            mine, other = (0, 1) if prompt.adds else (1, 0)
            maps[mine][places], maps[other][places] = strength, 0.0
            continue
        where = slice_of(prompt, shape)
        if where is not None:
            flat = tuple(size for axis, size in enumerate(shape) if axis != prompt.axis)
            maps[2][where][draw_outline(prompt, flat)] = strength if prompt.adds else -strength
    return maps


def slice_of(prompt: Prompt, shape: Sequence[int]) -> tuple[slice | int, ...] | None:
    """Where the slice of a box or lasso lies in an array; None outside of it.

    Args:
        prompt: a box or lasso.
        shape: of the array.
    """
    axis, number = prompt.axis, prompt.slice_number
    if axis is None or number is None or not 0 <= number < shape[axis]:
        return None
    return (*(slice(None),) * axis, number)


def draw_ball(prompt: Prompt, shape: Sequence[int], spacing_mm: Sequence[float], radius_mm: float) -> Mask:
    """The voxels within a radius of a point, or of the line of a scribble; of each at least the nearest voxel.

    Args:
        prompt: its vertices outside the grid are left out.
        shape: of the grid.
        spacing_mm: along each axis.
        radius_mm: 0 for the nearest voxels alone.
    """
    drawn, spacing = np.zeros(shape, bool), np.asarray(spacing_mm)
    centres = find_voxels(prompt, shape)
    ranges = [np.arange(-reach, reach + 1) for reach in np.floor(radius_mm / spacing).astype(int)]
    offsets = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
    offsets = offsets[np.linalg.norm(offsets * spacing, axis=1) <= radius_mm]
    places = (centres[:, None] + offsets[None]).reshape(-1, 3)
    places = places[((places >= 0) & (places < shape)).all(axis=1)]
    drawn[tuple(places.T)] = True
    return drawn


def find_voxels(prompt: Prompt, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """The voxels nearest to a point or to the line of a scribble, (n, 3).

    Args:
        prompt: its vertices outside the grid are left out.
        shape: of the grid.
    """
    centres = np.unique(np.rint(trace_path(prompt)).astype(np.int64), axis=0)
    return np.asarray(centres[((centres >= 0) & (centres < shape)).all(axis=1)])


def trace_path(prompt: Prompt) -> npt.NDArray[np.float64]:
    """The points of a prompt; of a scribble also those between, no farther apart than half a voxel, (n, 3)."""
    vertices = np.asarray(prompt.index)
    if prompt.kind != "scribble":
        return vertices
    parts = [vertices[:1]]
    for start, stop in itertools.pairwise(vertices):
        count = max(1, int(np.ceil(2 * np.abs(stop - start).max())))
        parts.append(start + (stop - start) * np.linspace(0, 1, count + 1)[1:, None])
    return np.concatenate(parts)


def draw_outline(prompt: Prompt, shape: tuple[int, ...]) -> Mask:
    """The pixels of its slice whose centre lies within a box or lasso.

    Args:
        prompt: a box or lasso.
        shape: of the slice.
    """
    from skimage.draw import polygon2mask

    flat = np.asarray([[at for axis, at in enumerate(vertex) if axis != prompt.axis] for vertex in prompt.index])
    if prompt.kind == "box":
        low, high = flat.min(axis=0), flat.max(axis=0)
        inside = [(np.arange(size) >= a) & (np.arange(size) <= b) for size, a, b in zip(shape, low, high, strict=True)]
        return np.logical_and.outer(inside[0], inside[1])
    return np.asarray(polygon2mask(shape, flat), bool)
