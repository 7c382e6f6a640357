"""Giving back the memory of arrays that lie in a file."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

SLAB_BYTES = 16 * 2**20
"""Programs that sweep over a large array give its pages back after about this many bytes."""

_SHARED_MODES = frozenset({"r", "r+", "w+"})  # a copy-on-write map ("c") would lose what was written into it


def release_pages(array: npt.NDArray[Any]) -> None:
    """Let go of the memory that reading an array from its file has filled; the values stay as they are.

    The pages of a file that was mapped into memory count as memory of the process from the moment they are read.
    A program that has swept over a part calls this, so that its memory does not grow with the length of the scan; what
    is read again comes from the file. It does nothing to an array that lies in ordinary memory, to one that is mapped
    copy-on-write, or where the system knows no such call.

    Args:
        array: any array, also a view of a mapped one.

    Examples:
        >>> release_pages(np.zeros(3))
    """
    part: Any = array
    is_shared = False
    while isinstance(part, np.ndarray):
        is_shared = is_shared or (isinstance(part, np.memmap) and getattr(part, "mode", "") in _SHARED_MODES)
        part = part.base
    if is_shared and isinstance(part, mmap.mmap) and hasattr(part, "madvise"):
        part.madvise(mmap.MADV_DONTNEED)


def count_slab(array: npt.NDArray[Any], axis: int = 0) -> int:
    """How many planes across an axis make a slab of about `SLAB_BYTES`, at least one.

    Args:
        array: what is swept over, at least one plane.
        axis: along which the slabs lie.

    Examples:
        >>> count_slab(np.zeros((300, 512, 512), np.int16))
        32
    """
    return max(1, SLAB_BYTES * array.shape[axis] // max(1, array.nbytes))


def lies_on_disk(array: npt.NDArray[Any]) -> bool:
    """Whether an array, or the array that it is a view of, is mapped from a file.

    Examples:
        >>> lies_on_disk(np.zeros(3))
        False
    """
    part: Any = array
    while isinstance(part, np.ndarray):
        part = part.base
    return isinstance(part, mmap.mmap)


def find_outermost(array: npt.NDArray[Any]) -> int:
    """The axis along which neighbours lie farthest apart in memory: planes across it lie in one piece.

    Args:
        array: of at least one axis.

    Examples:
        >>> find_outermost(np.zeros((2, 3, 4))), find_outermost(np.zeros((2, 3, 4)).T)
        (0, 2)
    """
    return int(np.argmax(np.abs(array.strides)))
