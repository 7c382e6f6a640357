"""Regions that belong together in an image: grown from where a reader points, or snapped to what a reader outlines.

All arrays are crops on one grid, distances are in mm. Nothing here knows labels or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]
Spacing = tuple[float, ...]


@dataclass(frozen=True)
class GrowthLimits:
    """How far and over what a region grows.

    Attributes:
        least_mm: a region may always grow this far.
        most_mm: and never farther, however alike the image is.
        reach: how far it grows in even tissue, in multiples of the free radius about the place that was pointed at.
        contrast: a difference of this many times the local scatter costs as much again as the way itself.
        barrier: a difference of this many times the local scatter is not crossed.
        doubt: how much farther it grows where the first result was a tie, as a share.
        smooth_mm: noise below this size is not an edge.
    """

    least_mm: float = 10.0
    most_mm: float = 30.0
    reach: float = 4.0
    contrast: float = 1.5
    barrier: float = 3.0
    doubt: float = 0.5
    smooth_mm: float = 1.2


@dataclass(frozen=True)
class Appearance:
    """What the tissue that was pointed at looks like.

    Attributes:
        centre: its usual value in the smoothed image.
        scatter: how far values lie from it by chance; above 0.
        rival: the usual value of the tissue it must be told from, or None.
    """

    centre: float
    scatter: float
    rival: float | None = None


def smooth(image: Image, spacing_mm: Spacing, size_mm: float) -> Image:
    """The image without details below a size.

    Args:
        image: finite values.
        spacing_mm: along each axis.
        size_mm: standard deviation of the Gaussian.
    """
    sigmas = [min(size_mm / step, 3.0) for step in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(image, sigmas, truncate=3.0), np.float32)


def measure_appearance(smoothed: Image, image: Image, near: Mask, rival: float | None = None) -> Appearance:
    """What the voxels of a mask look like, with a scatter that noise alone explains.

    Args:
        smoothed: the image without noise.
        image: as it is.
        near: about the place that was pointed at; at least one voxel.
        rival: usual value of the tissue it must be told from.
    """
    values = smoothed[near]
    centre = float(np.median(values))
    noise = 1.4826 * float(np.median(np.abs(image[near] - smoothed[near])))
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    step = float(np.ptp(smoothed)) * 1e-3
    return Appearance(centre, max(noise, spread, step, 1e-6), rival)


def grow_region(
    smoothed: Image,
    allowed: Mask,
    seeds: Mask,
    look: Appearance,
    spacing_mm: Spacing,
    limits: GrowthLimits,
    ease: npt.NDArray[np.float32] | None = None,
) -> Mask:
    """The voxels that belong to where somebody pointed: alike, connected, and not far.

    Args:
        smoothed: the image without noise.
        allowed: where the region may grow.
        seeds: where it starts; only allowed ones count.
        look: of the tissue.
        spacing_mm: along each axis.
        limits: how far.
        ease: how many times shorter the way counts at each voxel, or None.

    Returns:
        The region, which holds the allowed seeds. Its way from the seeds, with differences of the image counted as
        length, is at most `GrowthLimits.reach` times the radius that is free about them.
    """
    from skimage.graph import MCP_Geometric

    start = seeds & allowed
    if not start.any():
        return start
    difference = np.abs(smoothed - np.float32(look.centre)) / np.float32(look.scatter)
    alike = allowed & (difference <= limits.barrier)
    if look.rival is not None and abs(look.rival - look.centre) > 2 * look.scatter:
        rival = np.abs(smoothed - np.float32(look.rival)) / np.float32(look.scatter)
        alike &= difference <= rival  # on this side of the middle between the two
    start = start & alike if (start & alike).any() else start
    alike |= start
    longest = limits.reach * _free_radius(alike, start, spacing_mm)
    longest = min(max(longest, limits.least_mm), limits.most_mm)
    box = find_box(start, [int(longest / step) + 1 for step in spacing_mm])
    start, cost = start[box], 1.0 + np.square(difference[box] / np.float32(limits.contrast))
    near = ndimage.distance_transform_edt(~start, sampling=spacing_mm) <= longest
    if ease is not None:
        cost = np.maximum(cost / ease[box], 0.5)
    cost[~(alike[box] & near)] = -1.0  # never entered
    cost[start] = 0.5
    ways, _ = MCP_Geometric(cost.astype(np.float64), sampling=spacing_mm).find_costs(np.argwhere(start))
    region = np.zeros_like(allowed)
    region[box] = ways <= longest
    return region


def fill_pinholes(region: Mask, allowed: Mask, beside: Mask) -> Mask:
    """The region with the single voxels that noise has left out of it.

    Args:
        region: as it was grown.
        allowed: what may be filled.
        beside: what the region is joined with, such as the rest of the structure.

    Examples:
        >>> region = np.ones((3, 3, 3), bool)
        >>> region[1, 1, 1] = False
        >>> bool(fill_pinholes(region, np.ones_like(region), np.zeros_like(region)).all())
        True
    """
    if not region.any():
        return region
    box = find_box(region, [1] * region.ndim)
    whole = (region[box] | beside[box]).astype(np.int8)
    cross = ndimage.generate_binary_structure(whole.ndim, 1).astype(np.int8)
    votes = ndimage.convolve(whole, cross, mode="constant")
    filled = region.copy()
    filled[box] |= allowed[box] & (votes > 2 * whole.ndim - 2)
    return filled


def snap_outline(image: Image, inside: Mask, spacing_mm: Spacing, inwards_mm: float, outwards_mm: float) -> Mask:
    """The object that somebody outlined, with its border moved to the edges of the image nearby.

    Args:
        image: one slice, smoothed.
        inside: within the outline; at least one pixel.
        spacing_mm: along both axes.
        inwards_mm: how far the border may move in; never so far that nothing stays inside.
        outwards_mm: how far it may move out.
    """
    from skimage.segmentation import watershed

    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing_mm)[1:-1, 1:-1]
    markers = np.zeros(inside.shape, np.int32)
    markers[inside & (depth >= min(inwards_mm, 0.7 * float(depth.max())))] = 1
    if not inside.all():
        markers[ndimage.distance_transform_edt(~inside, sampling=spacing_mm) > outwards_mm] = 2
    if not (markers == 2).any():
        return inside
    steps = [ndimage.sobel(image, axis) / spacing_mm[axis] for axis in range(image.ndim)]
    return np.asarray(watershed(np.sqrt(sum(np.square(step) for step in steps)), markers) == 1)


def find_box(mask: Mask, margins: Sequence[int]) -> tuple[slice, ...]:
    """The smallest box around a mask, which must have at least one voxel, with a margin within the array."""
    box = []
    for axis, margin in enumerate(margins):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(hit[0]) - margin), int(hit[-1]) + 1 + margin))
    return tuple(box)


def _free_radius(free: Mask, seeds: Mask, spacing_mm: Spacing) -> float:
    """How far it is from the seeds to the nearest voxel that is not free; the median over (some of) the seeds."""
    walls = np.argwhere(~free & ndimage.binary_dilation(free))
    if not len(walls):
        return float("inf")
    places = np.argwhere(seeds)
    if len(places) > 64:
        places = places[np.linspace(0, len(places) - 1, 64).astype(int)]
    distances, _ = cKDTree(walls * np.asarray(spacing_mm)).query(places * np.asarray(spacing_mm))
    return float(np.median(distances))
