"""How often each value occurs in a label map, in one quick pass.

Most of a label map is background. A plane is looked at in words of eight bytes, and only words that are not zero are
taken apart.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.volume.pages import count_slab, release_pages

UnsignedArray = npt.NDArray[np.unsignedinteger]


def find_labelled(plane: UnsignedArray) -> tuple[npt.NDArray[np.intp], int]:
    """Where a plane has labels, in groups of neighbouring voxels.

    Args:
        plane: contiguous, any shape, unsigned.

    Returns:
        The numbers of the groups that hold at least one label, and how many voxels make a group: ``plane`` in groups
        is ``plane.reshape(-1, size)``.

    Examples:
        >>> plane = np.zeros((2, 16), np.uint8)
        >>> plane[1, 3] = 5
        >>> where, size = find_labelled(plane)
        >>> where.tolist(), size
        ([2], 8)
    """
    flat = plane.reshape(-1)
    if flat.nbytes % 8 or flat.ctypes.data % 8:
        return np.flatnonzero(flat), 1
    return np.flatnonzero(flat.view(np.uint64) != 0), 8 // flat.itemsize  # of booleans it is twice as quick


def count_values(labels: UnsignedArray, axis: int = 0, size: int = 0) -> npt.NDArray[np.int64]:
    """How many voxels of each value each plane has.

    Args:
        labels: (a0, a1, a2) unsigned.
        axis: along which the planes are stacked.
        size: the table has at least this many columns.

    Returns:
        (planes, values) counts; as many columns as the largest value and ``size`` need.

    Examples:
        >>> labels = np.zeros((2, 4, 4), np.uint8)
        >>> labels[1, :2] = 3
        >>> count_values(labels).tolist()
        [[16, 0, 0, 0], [8, 0, 0, 8]]
    """
    planes = np.moveaxis(labels, axis, 0)
    slab = count_slab(planes)
    rows: list[npt.NDArray[np.intp]] = []
    for index, plane in enumerate(planes):
        flat = np.ascontiguousarray(plane).reshape(-1)
        where, group = find_labelled(flat)
        rows.append(np.bincount(flat.reshape(-1, group)[where].reshape(-1)))
        if index % slab == slab - 1:
            release_pages(labels)
    counts = np.zeros((len(rows), max(1, size, *(row.size for row in rows))), np.int64)
    for index, row in enumerate(rows):
        counts[index, : row.size] = row
    counts[:, 0] = planes[0].size - counts[:, 1:].sum(axis=1)
    return counts


def find_values(labels: UnsignedArray) -> set[int]:
    """The values other than 0 that occur in a label map.

    Args:
        labels: (a0, a1, a2) unsigned, in any memory layout.

    Examples:
        >>> find_values(np.array([[[0, 7], [2, 0]]], np.uint8)) == {2, 7}
        True
    """
    totals = count_values(_in_memory_order(labels)).sum(axis=0)
    return {int(value) for value in np.flatnonzero(totals[1:]) + 1}


def digest_labels(labels: UnsignedArray) -> str:
    """A hex digest of a label map, the same for equal labels of one type, however they lie in memory.

    Args:
        labels: (a0, a1, a2) unsigned.

    Examples:
        >>> labels = np.zeros((2, 4, 4), np.uint8)
        >>> turned = np.asfortranarray(labels)
        >>> digest_labels(labels) == digest_labels(turned), digest_labels(labels) == digest_labels(labels + 1)
        (True, False)
    """
    digest = hashlib.blake2b(f"{labels.shape} {labels.dtype.name}".encode())
    slab = count_slab(labels)
    for index, plane in enumerate(labels):
        flat = np.ascontiguousarray(plane).reshape(-1)
        flat = flat.copy() if flat.ctypes.data % 8 else flat  # so that the groups depend on the shape alone
        where, group = find_labelled(flat)
        digest.update(np.array([index, where.size], np.int64).data)
        digest.update(where.astype(np.int64).data)
        digest.update(flat.reshape(-1, group)[where].data)
        if index % slab == slab - 1:
            release_pages(labels)
    return digest.hexdigest()


def _in_memory_order(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same voxels with the axes in the order in which they lie in memory, so that planes need no copy."""
    return labels.transpose(sorted(range(labels.ndim), key=lambda axis: -abs(labels.strides[axis])))
