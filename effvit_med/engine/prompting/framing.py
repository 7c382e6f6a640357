"""Which part of a scan to look at: about what was pointed at, with room, nearer or wider; without asking anybody."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.engine.prompting.merging import Before, Mask
from effvit_med.engine.prompting.views import Outlook, View, make_view
from effvit_med.volume.prompts import Prompt

REACH = 128
"""How far from a prompt a structure so far is looked for, in voxels, to choose a block that shows both."""

SCALE = 2.5
"""From one view to the next nearer, where a network that judges itself says at which scale an object is."""

Extent = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""The lowest and the highest array index of something."""


def come_nearer(
    view: View, answer: Mask, box: Extent, outlook: Outlook, shape: Sequence[int], flat: int | None
) -> View:
    """A view about what was found where somebody pointed, or half as wide about the place if that is nothing.

    Args:
        view: what was looked at.
        answer: what was found there, of the view's shape.
        box: where somebody pointed.
        outlook: of the network.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    low, high = box
    parts, _ = ndimage.label(answer)
    corners = [np.rint((corner - view.start) / view.step).astype(int) for corner in (low, high)]
    first, last = (np.clip(corner, 0, np.asarray(view.shape) - 1) for corner in corners)
    pointed = parts[tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))]
    places = np.argwhere(np.isin(parts, np.unique(pointed[pointed > 0])))
    if len(places):
        found = np.asarray(view.start) + np.stack([places.min(axis=0), places.max(axis=0)]) * view.step
        centre, extent = make_room((found[0], found[1]), outlook, shape, flat, outlook.least)
    else:
        centre, extent = (
            ((low + high) / 2).tolist(),
            [step * count / 2 for step, count in zip(view.step, view.shape, strict=True)],
        )
        extent = [max(each, outlook.least) for each in extent]
    return make_view(centre, extent, shape, (outlook.finest,) * 3, flat)


def find_extent(newest: Prompt, before: Before, shape: Sequence[int], flat: int | None) -> tuple[Extent, bool]:
    """The lowest and the highest index of the newest prompt and of the structure so far: in its slice, or near it.

    Args:
        newest: the prompt.
        before: the structure so far, part by part.
        shape: of the scan.
        flat: the axis across which slices lie.

    Returns:
        Both, and whether they say something of the structure's size: there is a mask, or a box or lasso.
    """
    vertices = np.asarray(newest.index)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    if flat is not None:
        low[flat] = high[flat] = min(max(0, round(vertices[0, flat])), shape[flat] - 1)
    parts = [
        slice(int(a), int(a) + 1)
        if axis == flat
        else slice(max(0, int(a) - REACH), min(size, int(b) + REACH + 1))
        if flat is None
        else slice(0, size)
        for axis, (a, b, size) in enumerate(zip(low, high, shape, strict=True))
    ]
    near = before((parts[0], parts[1], parts[2]))
    hits = [np.flatnonzero(near.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    if len(hits[0]):
        offset = [part.start for part in parts]
        low = np.minimum(low, [hit[0] + start for hit, start in zip(hits, offset, strict=True)])
        high = np.maximum(high, [hit[-1] + start for hit, start in zip(hits, offset, strict=True)])
    return (low, high), bool(len(hits[0])) or newest.axis is not None


def make_room(
    box: Extent, outlook: Outlook, shape: Sequence[int], flat: int | None, least: int
) -> tuple[list[float], list[float]]:
    """Middle and size of a view that shows a box with room about it, as much along each axis.

    Args:
        box: what to show.
        outlook: of the network.
        shape: of the scan.
        flat: the axis across which slices lie.
        least: fewest voxels of the scan along an axis.
    """
    low, high = box
    extent = np.full(3, max(outlook.roomy * float((high - low + 1).max()), least))
    if flat is not None:
        extent[flat] = 1
    return ((low + high) / 2).tolist(), np.minimum(extent, shape).tolist()


def choose_known(known: Sequence[View], box: Extent, shape: Sequence[int], flat: int | None) -> View | None:
    """The finest of the views of earlier prompts that shows a box with room; None if none does.

    Args:
        known: the views.
        box: what to show.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    fits = [view for view in known if all(_shows(view, corner, shape, flat) for corner in box)]
    return min(fits, key=lambda view: max(view.step), default=None)


def _shows(view: View, index: npt.NDArray[np.float64], shape: Sequence[int], flat: int | None) -> bool:
    """Whether a view shows a place, and an eighth of its own size about it unless the scan ends before."""
    rows = enumerate(zip(index, view.start, view.step, view.shape, shape, strict=True))
    for axis, (at, start, step, count, size) in rows:
        room = 0.0 if axis == flat else step * count / 8
        low, high = max(at - room, -0.5), min(at + room, size - 0.5)
        if low < start - step / 2 - 1e-6 or high > start + step * (count - 0.5) + 1e-6:
            return False
    return True


def shows_all(view: View, shape: Sequence[int], flat: int | None) -> bool:
    """Whether a view shows the whole scan, or all of a slice.

    Args:
        view: what was looked at.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    rows = enumerate(zip(view.step, view.shape, shape, strict=True))
    return all(step * count >= size - 1e-6 for axis, (step, count, size) in rows if axis != flat)


def list_scales(box: Extent, overview: View, outlook: Outlook, shape: Sequence[int], flat: int | None) -> list[View]:
    """Views about a place, the widest first and each `SCALE` times nearer than the one before.

    Args:
        box: the place.
        overview: the widest.
        outlook: of the network.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    views, centre = [overview], ((box[0] + box[1]) / 2).tolist()
    extent = max(step * count for step, count in zip(overview.step, overview.shape, strict=True))
    while (extent := extent / SCALE) > outlook.least / SCALE:
        sizes = [1.0 if axis == flat else max(extent, outlook.least) for axis in range(3)]
        view = make_view(centre, sizes, shape, (outlook.finest,) * 3, flat)
        if (view.step, view.shape) != (views[-1].step, views[-1].shape):
            views.append(view)
    return views
