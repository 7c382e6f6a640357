"""Voxel values in the smallest type that holds them exactly: int16 while all are whole numbers in its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.volume import Finding

_INT16 = np.iinfo(np.int16)


class PlaneStack:
    """A stack of planes that is int16 as long as every value fits, and float32 from then on.

    The array is made with the first plane, so a file that lies about its size costs no memory.

    Args:
        count: how many planes there will be.

    Examples:
        >>> stack = PlaneStack(2)
        >>> stack.put(0, np.array([[1, 2]], np.uint16))
        >>> stack.put(1, np.array([[-1, 3]], np.int32))
        >>> stack.array.dtype, stack.array[1].tolist()
        (dtype('int16'), [[-1, 3]])
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._array: npt.NDArray[Any] = np.empty((0, 0, 0), np.int16)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The planes so far, shape (count, rows, columns), int16 or float32."""
        return self._array

    def put(self, index: int, plane: npt.NDArray[Any]) -> None:
        """Store one plane.

        Args:
            index: its place in the stack.
            plane: (rows, columns) real numbers, of one shape for all planes.
        """
        whole = _fits_int16(plane)
        if self._array.size == 0:
            self._array = np.empty((self._count, *plane.shape), np.int16 if whole else np.float32)
        elif not whole and self._array.dtype == np.int16:
            self._array = self._array.astype(np.float32)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite: see `replace_non_finite`
            self._array[index] = plane


def _fits_int16(plane: npt.NDArray[Any]) -> bool:
    if plane.dtype in (np.int16, np.int8, np.uint8, np.bool_):
        return True
    low, high = plane.min(initial=0), plane.max(initial=0)
    if not (_INT16.min <= low and high <= _INT16.max):  # also where a value is not a number
        return False
    return bool(np.issubdtype(plane.dtype, np.integer)) or bool((plane == np.rint(plane)).all())


def rescale(raw: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[Any]:
    """``raw * slope + intercept`` without overflow: whole numbers stay whole, all else is float64.

    Args:
        raw: stored values, any shape.
        slope: finite, not 0.
        intercept: finite.

    Returns:
        The values, same shape; ``raw`` itself for the identity.
    """
    if slope == 1 and intercept == 0:
        return raw
    whole = float(slope).is_integer() and float(intercept).is_integer() and np.issubdtype(raw.dtype, np.integer)
    if whole and abs(slope) < 2**15 and abs(intercept) < 2**40:
        small = raw.dtype.itemsize <= 2 and slope == 1 and abs(intercept) < 2**30
        kind = np.int32 if small else np.int64
        scaled = raw.astype(kind) if slope == 1 else np.multiply(raw, int(slope), dtype=kind)
        return np.asarray(np.add(scaled, int(intercept), dtype=kind))
    return np.asarray(raw.astype(np.float64) * slope + intercept)


def replace_non_finite(array: npt.NDArray[Any]) -> tuple[Finding, ...]:
    """Replace, in place, values that are not finite: the smallest finite value, and the largest for +infinity.

    Args:
        array: any shape, integer or float.

    Returns:
        A finding with the count, or nothing where all values are finite.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return ()
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if not count:
        return ()
    finite = array[~bad]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    np.nan_to_num(array, copy=False, nan=low, neginf=low, posinf=high)
    message = f"{count} of {array.size} voxels are not finite; they were set to {low:g} (+infinity to {high:g})."
    return (Finding("NON_FINITE", message),)
