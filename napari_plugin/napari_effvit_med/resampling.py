"""A scan of other directions, made anew for the picture only: straight in the frame of what is shown already."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import RefusedError
from effvit_med.volume import Geometry
from napari_effvit_med.layers import DisplayFrame

MOST_VOXELS = 2**30
_SLAB_VOXELS = 2**21


def straight_geometry(geometry: Geometry, frame: DisplayFrame) -> Geometry:
    """The smallest grid that is straight in a frame, holds all of another, and has its spacing.

    Args:
        geometry: the grid to hold.
        frame: where the new one is straight.
    """
    shown = frame.to_shown(geometry.corners_world())
    low, high = shown.min(axis=0), shown.max(axis=0)
    unturned = np.eye(4)
    unturned[:3, :3] = frame.rotation.T
    steps = np.array(Geometry(unturned @ geometry.affine, geometry.shape).reoriented("IPL").spacing_mm)
    count = np.maximum(1, np.ceil((high - low) / steps - 1e-6)).astype(int)
    start = (low + high) / 2 - steps * (count - 1) / 2
    ends = frame.to_world(np.vstack([start, start + np.diag(steps)]))
    affine = np.eye(4)
    affine[:3, :3] = (ends[1:] - ends[0]).T
    affine[:3, 3] = ends[0]
    return Geometry(affine, (int(count[0]), int(count[1]), int(count[2])), geometry.frame_of_reference_uid)


def resample_into(
    array: npt.NDArray[Any], geometry: Geometry, frame: DisplayFrame, *, nearest: bool = False
) -> tuple[npt.NDArray[Any], Geometry]:
    """Values on a grid that is straight in a frame.

    Args:
        array: values on ``geometry``.
        geometry: where they lie.
        frame: where the result is straight.
        nearest: take the nearest voxel (labels) instead of a mean of eight; outside is 0 instead of the smallest value.

    Returns:
        The values, and where they lie.

    Raises:
        RefusedError: ``TOO_LARGE``, if the grid would have more than 2**30 voxels.
    """
    from scipy import ndimage

    target = straight_geometry(geometry, frame)
    voxels = int(np.prod(target.shape, dtype=np.int64))
    if voxels > MOST_VOXELS:
        message = f"Shown straight, the scan would have {target.shape} voxels."
        raise RefusedError("TOO_LARGE", message, "Open it in a viewer of its own.")
    result = np.empty(target.shape, array.dtype)
    outside = 0 if nearest else array.min()
    rows, columns = np.arange(target.shape[1]), np.arange(target.shape[2])
    slab = max(1, _SLAB_VOXELS // (target.shape[1] * target.shape[2]))
    for begin in range(0, target.shape[0], slab):
        slices = np.arange(begin, min(begin + slab, target.shape[0]))
        index = np.stack(np.meshgrid(slices, rows, columns, indexing="ij"), axis=-1)
        source = geometry.world_to_index(target.index_to_world(index))
        places = np.moveaxis(source, -1, 0)
        part = ndimage.map_coordinates(
            array, places, order=0 if nearest else 1, mode="nearest", output=array.dtype, prefilter=False
        )
        inside = ((source > -0.5) & (source < np.array(geometry.shape) - 0.5)).all(axis=-1)
        result[slices] = np.where(inside, part, outside)
    return result, target
