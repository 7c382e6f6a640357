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


def find_pointed(newest: Prompt, shape: Sequence[int], flat: int | None) -> Extent:
    """Where a prompt lies.

    Args:
        newest: the prompt.
        shape: of the scan.
        flat: the axis across which slices lie; then it is the slice in which the prompt begins.
    """
    vertices = np.asarray(newest.index)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    if flat is not None:
        low[flat] = high[flat] = min(max(0, round(vertices[0, flat])), shape[flat] - 1)
    return low, high


def find_structure(pointed: Extent, before: Before, shape: Sequence[int], flat: int | None) -> Extent | None:
    """Where the structure so far lies: in the slice of a prompt, or near it; None if it is not there.

    Args:
        pointed: where the prompt lies.
        before: the structure so far, part by part.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    low, high = pointed
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
    if not len(hits[0]):
        return None
    first, last = ([hit[at] + part.start for hit, part in zip(hits, parts, strict=True)] for at in (0, -1))
    return np.asarray(first, np.float64), np.asarray(last, np.float64)


def join(pointed: Extent, so_far: Extent | None) -> Extent:
    """What holds both.

    Args:
        pointed: where a prompt lies.
        so_far: where the structure so far lies; None if there is none.
    """
    if so_far is None:
        return pointed
    return np.minimum(pointed[0], so_far[0]), np.maximum(pointed[1], so_far[1])


def is_outgrown(newest: Prompt, pointed: Extent, so_far: Extent) -> bool:
    """Whether a prompt says that a structure has another size than was found: it adds, farther away than that is wide.

    Args:
        newest: the prompt.
        pointed: where it lies.
        so_far: where the structure so far lies.

    Examples:
        >>> found = np.zeros(3), np.array([0.0, 9.0, 7.0])
        >>> far, near = (Prompt("point", 1, True, ((0.0, at, 3.0),)) for at in (25.0, 14.0))
        >>> [is_outgrown(each, find_pointed(each, (1, 90, 90), 0), found) for each in (far, near)]
        [True, False]
    """
    gap = np.maximum(0.0, np.maximum(pointed[0] - so_far[1], so_far[0] - pointed[1])).max()
    return newest.adds and newest.axis is None and bool(gap > (so_far[1] - so_far[0] + 1).max())


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
    """Views that show a place with room, the widest first and each `SCALE` times nearer than the one before.

    Args:
        box: the place.
        overview: the widest.
        outlook: of the network.
        shape: of the scan.
        flat: the axis across which slices lie.
    """
    views, (centre, room) = [overview], make_room(box, outlook, shape, flat, 1)
    extent = max(step * count for step, count in zip(overview.step, overview.shape, strict=True))
    while (extent := extent / SCALE) > max(outlook.least / SCALE, max(room) - 1):
        sizes = [1.0 if axis == flat else max(extent, outlook.least) for axis in range(3)]
        view = make_view(centre, sizes, shape, (outlook.finest,) * 3, flat)
        if max(view.step) == max(views[-1].step):
            break  # nothing finer is to be had
        views.append(view)
    return views
