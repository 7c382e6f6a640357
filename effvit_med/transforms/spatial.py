"""The grids between a scan and its labels: what the network sees, and where its output lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from effvit_med.volume import Geometry
from effvit_med.volume.geometry import SHEAR_TOLERANCE_DEGREES


def network_grid(
    geometry: Geometry, orientation: str | None, spacing_mm: tuple[float | None, float | None, float | None]
) -> Geometry:
    """The right-angled regular grid on which a network sees a scan.

    It has the scan's own directions (for a tilted scan: its in-plane directions and their normal), brought into the
    orientation, covers the scan to its outer voxel edges and is centred on it.

    Args:
        geometry: the scan's.
        orientation: three letters such as ``"SPL"``, or None to keep the scan's axes.
        spacing_mm: the spacing along each axis of the result; None keeps that axis of the scan as it is: exactly, or
            for a tilted scan its spacing, along the normal for the slices.

    Returns:
        The grid.

    Raises:
        GeometryError: if the letters do not name three different patient axes.
    """
    scan = geometry if orientation is None else geometry.reoriented(orientation)
    directions, steps = scan.directions.copy(), np.array(scan.spacing_mm)
    sheared = scan.shear_degrees > SHEAR_TOLERANCE_DEGREES
    if sheared:
        directions = _square_directions(scan)
        steps = np.abs((directions * scan.affine[:3, :3]).sum(axis=0))  # between slices: along their normal
    local = np.linalg.solve(directions, scan.corners_world().T)  # (axis, corner), mm along each direction
    low, high = local.min(axis=1), local.max(axis=1)
    affine, shape, offsets = np.eye(4), [1, 1, 1], None
    start = np.linalg.solve(directions, scan.affine[:3, 3])
    for axis, spacing in enumerate(spacing_mm):
        step = float(steps[axis]) if spacing is None else spacing
        if spacing is None and not sheared:
            shape[axis] = scan.shape[axis]
            offsets = scan.slice_offsets if axis == scan.slice_axis else offsets
        else:
            shape[axis] = max(1, int(np.ceil((high[axis] - low[axis]) / step - 1e-6)))
            start[axis] = (low[axis] + high[axis]) / 2 - (shape[axis] - 1) / 2 * step
        affine[:3, axis] = directions[:, axis] * step
    affine[:3, 3] = directions @ start
    sizes = (shape[0], shape[1], shape[2])
    return Geometry(affine, sizes, geometry.frame_of_reference_uid, offsets, scan.slice_axis)


def strided_grid(grid: Geometry, stride: tuple[int, int, int]) -> Geometry:
    """The grid of a network's output that has one value for each block of ``stride`` voxels of its input."""
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ ((np.array(stride) - 1) / 2)
    affine[:3, :3] *= np.array(stride)
    shape = tuple(-(-size // step) for size, step in zip(grid.shape, stride, strict=True))
    offsets, step = grid.slice_offsets, stride[grid.slice_axis]
    if offsets is not None:
        blocks = [offsets[first : first + step] for first in range(0, len(offsets), step)]
        offsets = tuple((float(np.mean(block)) - (step - 1) / 2) / step for block in blocks)
    return replace(grid, affine=affine, shape=(shape[0], shape[1], shape[2]), slice_offsets=offsets)


def _square_directions(scan: Geometry) -> npt.NDArray[np.float64]:
    """The in-plane directions of a tilted scan and their normal, which takes the place of the slice direction."""
    directions = scan.directions.copy()
    first, second = (axis for axis in range(3) if axis != scan.slice_axis)
    normal = np.cross(directions[:, first], directions[:, second])
    normal /= np.linalg.norm(normal)
    normal *= np.sign(normal @ directions[:, scan.slice_axis])
    directions[:, scan.slice_axis] = normal
    return directions


def thinned_grid(source: Geometry, target: Geometry) -> Geometry:
    """The source's own grid, made coarser where the target is coarser.

    A tilted scan is averaged on this grid before points are sampled from it.
    """
    coarse = float(np.median(target.spacing_mm))
    affine, shape = source.affine.copy(), list(source.shape)
    for axis in range(3):
        irregular = axis == source.slice_axis and not source.is_regular
        if not irregular and source.spacing_mm[axis] < coarse and source.shape[axis] > 1:
            shape[axis] = max(2, int(np.ceil(source.shape[axis] * source.spacing_mm[axis] / coarse)))
            factor = source.shape[axis] / shape[axis]
            affine[:3, 3] += source.affine[:3, axis] * (factor - 1) / 2
            affine[:3, axis] *= factor
    return replace(source, affine=affine, shape=(shape[0], shape[1], shape[2]))
