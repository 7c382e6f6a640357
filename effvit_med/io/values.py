"""Voxel values in the smallest type that holds them exactly: int16 while all are whole numbers in its range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.io.spill import SPILL_MB, PlaneStore, make_store
from effvit_med.volume import Finding

_INT16 = np.iinfo(np.int16)


class PlaneStack:
    """A stack of planes that is int16 as long as every value fits, and float32 from then on.

    The stack is made with the first plane, so a file that lies about its size costs no memory. A stack of more than
    ``spill_mb`` MiB lies in a temporary file, and its array cannot be written to.

    Args:
        count: how many planes there will be.
        spill_mb: above this many MiB of voxels a temporary file is used.

    Examples:
        >>> stack = PlaneStack(2)
        >>> stack.put(0, np.array([[1, 2]], np.uint16))
        >>> stack.put(1, np.array([[-1, 3]], np.int32))
        >>> stack.array.dtype, stack.array[1].tolist()
        (dtype('int16'), [[-1, 3]])
    """

    def __init__(self, count: int, spill_mb: int = SPILL_MB) -> None:
        self.count = count
        self._limit_bytes = spill_mb * 2**20
        self._store: PlaneStore | None = None
        self._shape = (count, 0, 0)
        self._kind: np.dtype[Any] = np.dtype(np.int16)

    @property
    def array(self) -> npt.NDArray[Any]:
        """The planes so far, shape (count, rows, columns), int16 or float32."""
        return np.empty((0, 0, 0), np.int16) if self._store is None else self._store.as_array()

    @property
    def size(self) -> int:
        """The number of voxels."""
        return self._shape[0] * self._shape[1] * self._shape[2]

    @property
    def is_whole(self) -> bool:
        """Whether all values so far are whole numbers in the range of int16."""
        return self._kind == np.int16

    def put(self, index: int, plane: npt.NDArray[Any]) -> None:
        """Store one plane.

        Args:
            index: its place in the stack.
            plane: (rows, columns) real numbers, of one shape for all planes.

        Raises:
            OutputError: if a temporary file is needed and does not fit onto its disk.
        """
        whole = _fits_int16(plane)
        if self._store is None:
            self._shape = (self.count, *plane.shape)
            self._kind = np.dtype(np.int16 if whole else np.float32)
            self._store = make_store(self._shape, self._kind, self._limit_bytes)
        elif not whole and self.is_whole:
            self._kind = np.dtype(np.float32)
            before, self._store = self._store, make_store(self._shape, self._kind, self._limit_bytes)
            for each in range(self.count):
                self._store.put(each, before.get(each))
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what float32 cannot hold becomes infinite: see `replace_non_finite`
            self._store.put(index, plane)

    def plane(self, index: int) -> npt.NDArray[Any]:
        """One plane, to look at; what is changed in it must be `put` back.

        Raises:
            IndexError: if no plane was stored yet.
        """
        if self._store is None:
            raise IndexError(f"plane {index} of a stack that has none yet")
        return self._store.get(index)


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
    if slope == 1 and raw.dtype in (np.uint16, np.int16) and float(intercept).is_integer() and raw.size:
        low, high = int(raw.min()) + int(intercept), int(raw.max()) + int(intercept)
        if _INT16.min <= low and high <= _INT16.max:  # then sums modulo 2**16 are the sums
            step = np.array(int(intercept) % 2**16, np.uint16).view(np.int16)
            return np.asarray(raw.astype(raw.dtype.newbyteorder("="), copy=False).view(np.int16) + step)
    whole = float(slope).is_integer() and float(intercept).is_integer() and np.issubdtype(raw.dtype, np.integer)
    if whole and abs(slope) < 2**15 and abs(intercept) < 2**40:
        small = raw.dtype.itemsize <= 2 and slope == 1 and abs(intercept) < 2**30
        kind = np.int32 if small else np.int64
        scaled = raw.astype(kind) if slope == 1 else np.multiply(raw, int(slope), dtype=kind)
        return np.asarray(np.add(scaled, int(intercept), dtype=kind))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is found by `replace_non_finite`
        return np.asarray(raw.astype(np.float64) * slope + intercept)


def replace_non_finite(stack: PlaneStack) -> tuple[Finding, ...]:
    """Replace, in place, values that are not finite: the smallest finite value, and the largest for +infinity.

    Args:
        stack: filled planes.

    Returns:
        A finding with the count, or nothing where all values are finite.

    Examples:
        >>> stack = PlaneStack(1)
        >>> stack.put(0, np.array([[np.nan, 2.5], [np.inf, -1.0]]))
        >>> [finding.code for finding in replace_non_finite(stack)], stack.array.tolist()
        (['NON_FINITE'], [[[-1.0, 2.5], [2.5, -1.0]]])
    """
    if stack.is_whole:
        return ()
    bad: list[int] = []
    count, low, high = 0, np.inf, -np.inf
    for index in range(stack.count):
        plane = stack.plane(index)
        finite = plane[np.isfinite(plane)]
        if finite.size < plane.size:
            bad.append(index)
            count += plane.size - finite.size
        low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
    if not bad:
        return ()
    low, high = (float(low), float(high)) if low <= high else (0.0, 0.0)
    for index in bad:
        stack.put(index, np.nan_to_num(stack.plane(index), nan=low, neginf=low, posinf=high))
    message = f"{count} of {stack.size} voxels are not finite; they were set to {low:g} (+infinity to {high:g})."
    return (Finding("NON_FINITE", message),)
