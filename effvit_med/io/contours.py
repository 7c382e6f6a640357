"""Outlines of a plane of labels and back: closed paths in which holes are kept.

A path is an (n, 2) array of fractional indices, row and column, whose last point is joined to its first. A hole is part
of the path that surrounds it: a thin channel, walked there and back, leads to it (a keyhole).
"""

from __future__ import annotations

from itertools import pairwise

import contourpy
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_LEVEL = 0.5
_ASIDE = 0.25  # of a pixel: channels run between the rows of pixel centres, so that rounding cannot cut one off


def trace_outlines(mask: npt.NDArray[np.bool_]) -> list[FloatArray]:
    """The outlines of the true pixels of a plane.

    An outline runs midway between centres of pixels that are true and centres that are not, so that filling it gives
    exactly the pixels back. Points on a straight line are left out.

    Args:
        mask: (rows, columns).

    Returns:
        One closed path per connected piece, with the holes of that piece.

    Examples:
        >>> mask = np.zeros((3, 3), bool)
        >>> mask[1, 1] = True
        >>> [sorted(path.tolist()) for path in trace_outlines(mask)]
        [[[0.5, 1.0], [1.0, 0.5], [1.0, 1.5], [1.5, 1.0]]]
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    first = np.array([rows[0] - 1, columns[0] - 1])
    padded = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    generator = contourpy.contour_generator(z=padded.astype(np.float32), fill_type=contourpy.FillType.OuterOffset)
    paths = []
    for points, offsets in zip(*generator.filled(_LEVEL, 2.0), strict=True):
        rings = [points[start : stop - 1, ::-1] for start, stop in pairwise(offsets)]
        path = rings[0] if len(rings) == 1 else _join_holes(rings, padded)
        paths.append(_start_at_slope(_without_straight_points(path)) + first)
    return paths


def fill_outlines(paths: list[FloatArray], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie inside any of the paths; the inverse of `trace_outlines`.

    Args:
        paths: closed paths of fractional row and column indices, with any part outside the plane.
        shape: rows and columns of the plane.

    Returns:
        The (rows, columns) plane.

    Source:
        Even-odd rule along rows: a centre is inside where an odd number of edges lies to its left.

    Examples:
        >>> fill_outlines([np.array([[0.5, 1.0], [1.0, 1.5], [1.5, 1.0], [1.0, 0.5]])], (2, 3)).astype(int).tolist()
        [[0, 0, 0], [0, 1, 0]]
    """
    plane = np.zeros(shape, np.bool_)
    for path in paths:
        first = max(0, int(np.floor(path[:, 0].min())))
        last = min(shape[0], int(np.ceil(path[:, 0].max())) + 1)
        if first >= last:
            continue
        rows, columns = _find_crossings(path)
        seen = (rows >= first) & (rows < last) & (columns < shape[1])
        flat = (rows[seen] - first) * shape[1] + np.maximum(columns[seen], 0)
        toggles = np.bincount(flat, minlength=(last - first) * shape[1]).reshape(-1, shape[1])
        plane[first:last] |= np.cumsum(toggles, axis=1) % 2 == 1
    return plane


def _find_crossings(path: FloatArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the edges of a path cross rows of pixel centres: the row, and the first column to the right."""
    start, stop = path, np.roll(path, -1, axis=0)
    upper = np.ceil(np.minimum(start[:, 0], stop[:, 0])).astype(np.int64)
    crossed = np.ceil(np.maximum(start[:, 0], stop[:, 0])).astype(np.int64) - upper  # each end belongs to one edge
    edge = np.repeat(np.arange(len(path)), crossed)
    rows = upper[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed)
    rise = stop[edge] - start[edge]
    columns = start[edge, 1] + (rows - start[edge, 0]) * rise[:, 1] / rise[:, 0]
    return rows, np.ceil(columns).astype(np.int64)


def _without_straight_points(path: FloatArray) -> FloatArray:
    """The path without points between two equal directions; all steps are exact multiples of a quarter pixel."""
    back, ahead = path - np.roll(path, 1, axis=0), np.roll(path, -1, axis=0) - path
    turns = back[:, 0] * ahead[:, 1] != back[:, 1] * ahead[:, 0]
    reverses = (back * ahead).sum(axis=1) < 0
    kept: FloatArray = path[turns | reverses]
    return kept


def _start_at_slope(path: FloatArray) -> FloatArray:
    """The path from a point whose row and column both differ from those of the last one.

    plastimatch drops a last point that has the x and y of the first: in a sagittal or coronal slice, where one of them
    is the same everywhere, that would cut off a corner. Corners are sloped, so each path has such a place.
    """
    sloped = ((path - np.roll(path, 1, axis=0)) != 0).all(axis=1)
    return np.roll(path, -int(sloped.argmax()), axis=0)


def _join_holes(rings: list[FloatArray], mask: npt.NDArray[np.bool_]) -> FloatArray:
    """One path out of an outer ring and the rings of its holes.

    From the leftmost point of each hole a channel runs left through true pixels, a quarter of a pixel below the row of
    their centres, to the ring that ends them: the outer one or another hole, which has a channel of its own. So
    channels never cross, and each hole is reached once.
    """
    sizes = [len(ring) for ring in rings]
    starts = np.cumsum([0, *sizes[:-1]])
    points = np.concatenate(rings)
    follow = np.arange(1, len(points) + 1)
    follow[starts + np.array(sizes) - 1] = starts
    precede = np.empty_like(follow)
    precede[follow] = np.arange(len(points))
    at_row = np.flatnonzero(points[:, 0] % 1 == 0)  # where a ring crosses a row of centres
    node_at = {(int(points[node, 0]), int(points[node, 1] + _LEVEL)): int(node) for node in at_row}
    path = _Path(points, follow, precede)
    for start, size in zip(starts[1:], sizes[1:], strict=True):
        nodes = at_row[slice(*np.searchsorted(at_row, [start, start + size]))]
        leftmost = int(nodes[points[nodes, 1].argmin()])
        row, column = int(points[leftmost, 0]), int(points[leftmost, 1] + _LEVEL)
        border = int(np.flatnonzero(~mask[row, :column])[-1]) + 1
        path.open_channel(node_at[row, border], leftmost)
    return path.walk()


class _Path:
    """Rings of points that are joined by channels.

    Args:
        points: (n, 2) of all rings.
        follow: the number of the next point of each.
        precede: the number of the point before each.
    """

    def __init__(self, points: FloatArray, follow: npt.NDArray[np.intp], precede: npt.NDArray[np.intp]) -> None:
        self._points = [(float(row), float(column)) for row, column in points]
        self._follow, self._precede = follow.tolist(), precede.tolist()

    def open_channel(self, first: int, second: int) -> None:
        """Join the rings of two points on one row a little below both."""
        ends = [self._find_below(node) for node in (first, second)]
        (before_1, after_1, place_1), (before_2, after_2, place_2) = ends
        there, back = self._add(place_1, place_2)
        self._follow[before_1], self._follow[there[0]], self._follow[there[1]] = there[0], there[1], after_2
        self._follow[before_2], self._follow[back[0]], self._follow[back[1]] = back[0], back[1], after_1

    def walk(self) -> FloatArray:
        """The points in the order of the joined path."""
        order, node = [0], self._follow[0]
        while node != 0:
            order.append(node)
            node = self._follow[node]
        return np.array([self._points[node] for node in order])

    def _add(self, first: tuple[float, float], second: tuple[float, float]) -> tuple[tuple[int, int], tuple[int, int]]:
        size = len(self._points)
        self._points += [first, second, second, first]
        self._follow += [0] * 4
        return (size, size + 1), (size + 2, size + 3)

    def _find_below(self, node: int) -> tuple[int, int, tuple[float, float]]:
        """The edge that goes down from a point: where it starts, where it ends, and its place beside the row."""
        row, column = self._points[node]
        ahead = self._points[self._follow[node]][0] > row
        other = self._follow[node] if ahead else self._precede[node]
        down, aside = self._points[other][0] - row, self._points[other][1] - column
        place = (row + _ASIDE, column + aside * _ASIDE / down)
        return (node, other, place) if ahead else (other, node, place)
