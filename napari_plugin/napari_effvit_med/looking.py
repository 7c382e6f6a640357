"""Where the viewer looks: the slice and the part of it that show a place. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

CLOSEST_MM = 150.0
"""What is looked at is shown with so much around it, at least."""

_MARGIN = 2.0


def look_at(viewer: Any, layer: Any, index: npt.ArrayLike, corners: npt.ArrayLike) -> None:
    """Go to the slice of a place and bring what holds it into the middle.

    Args:
        viewer: napari's viewer or its model.
        layer: whose voxels are meant.
        index: (3,) the place, of the layer's data.
        corners: (2, 3) of what holds it.
    """
    place = np.asarray(layer.data_to_world(np.asarray(index, dtype=float)), dtype=float)
    more = viewer.dims.ndim - 3
    viewer.dims.set_point(range(more, more + 3), place.tolist())  # at once: every call slices all layers anew
    ends = np.stack([layer.data_to_world(corner) for corner in np.asarray(corners, dtype=float)])
    shown = [axis - more for axis in viewer.dims.displayed]
    if min(shown) < 0:  # something else than space is shown
        return
    camera = camera_of(viewer)
    camera.center = tuple(place[axis] for axis in shown) if len(shown) == 3 else (0.0, *(place[axis] for axis in shown))
    extent_mm = max(CLOSEST_MM, _MARGIN * float(np.ptp(ends, axis=0)[shown].max()))
    size = canvas_size(viewer)
    if size:
        camera.zoom = min(size) / extent_mm


def slider_axis(viewer: Any) -> int:
    """The axis of a scan that the slider moves along, also beside a layer of more axes; the first in three dimensions.

    Args:
        viewer: napari's viewer or its model.
    """
    return max(0, int(viewer.dims.order[-3]) - (int(viewer.dims.ndim) - 3))


def camera_of(viewer: Any) -> Any:
    """The camera; it has another place since napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def canvas_size(viewer: Any) -> tuple[int, int] | None:
    """Height and width of the canvas in pixels; None where napari does not tell (before 0.9)."""
    size = getattr(getattr(viewer, "canvas", None), "size", None)
    return (int(size[0]), int(size[1])) if size is not None and min(size) > 0 else None


def find_middle(
    labels: npt.NDArray[np.unsignedinteger], axis: int, value: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Where to look for a structure: the middle of the slice that has most voxels of it.

    Args:
        labels: of three axes.
        axis: along which the slices lie.
        value: of the structure.

    Returns:
        The index, and the first and last corner of what holds the structure in that slice; None if there is none.

    Examples:
        >>> labels = np.zeros((3, 4, 5), np.uint8)
        >>> labels[1, 2:, :] = 7
        >>> index, corners = find_middle(labels, 0, 7)
        >>> index.tolist(), corners.tolist(), find_middle(labels, 1, 8)
        ([1, 2, 2], [[1, 2, 0], [1, 3, 4]], None)
    """
    counts = np.zeros(labels.shape[axis], np.int64)
    for number, plane in enumerate(labels):
        if axis == 0:
            counts[number] = np.count_nonzero(plane == value)
        else:
            counts += np.count_nonzero(plane == value, axis=1 if axis == 1 else 0)
    if not counts.any():
        return None
    number = int(counts.argmax())
    places = np.argwhere(labels.take(number, axis) == value)
    ends = np.stack([places.mean(axis=0).astype(np.int64), places.min(axis=0), places.max(axis=0)])
    found = np.insert(ends, axis, number, axis=1)
    return found[0], found[1:]
