"""Stacks of planes, in memory while they are small and in a temporary file when they are large."""

from __future__ import annotations

import tempfile
import weakref
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from effvit_med.errors import OutputError

SPILL_MB = 128
"""A scan of more MiB of voxels is kept in a temporary file instead of in memory; 256 slices of 512 x 512 are not."""

Shape = tuple[int, int, int]


class PlaneStore(Protocol):
    """A stack of planes of one shape and type."""

    def put(self, index: int, plane: npt.NDArray[Any]) -> None:
        """Store a plane; values are converted to the type of the stack."""

    def get(self, index: int) -> npt.NDArray[Any]:
        """A plane; to change it, change the answer and `put` it back."""

    def as_array(self) -> npt.NDArray[Any]:
        """The whole stack, shape (planes, rows, columns)."""


class MemoryStore:
    """A stack in memory.

    Args:
        shape: planes, rows, columns.
        dtype: of the values.
    """

    def __init__(self, shape: Shape, dtype: npt.DTypeLike) -> None:
        self._array: npt.NDArray[Any] = np.zeros(shape, dtype)

    def put(self, index: int, plane: npt.NDArray[Any]) -> None:
        """Store a plane."""
        self._array[index] = plane

    def get(self, index: int) -> npt.NDArray[Any]:
        """A plane, as a view."""
        return self._array[index]

    def as_array(self) -> npt.NDArray[Any]:
        """The stack itself."""
        return self._array


class FileStore:
    """A stack in a temporary file without a name, which goes away with the last array that looks into it.

    The file lies in the system's folder for temporary files (the environment variable TMPDIR chooses another). Planes
    are written, not mapped, so that a full disk is an error and not the end of the process.

    Args:
        shape: planes, rows, columns.
        dtype: of the values.

    Raises:
        OutputError: if the file cannot be made, or later, if the disk is full.

    Examples:
        >>> store = FileStore((3, 2, 2), np.int16)
        >>> store.put(1, np.array([[1, 2], [3, 4]]))
        >>> store.as_array()[1].tolist(), store.as_array()[2].tolist()
        ([[1, 2], [3, 4]], [[0, 0], [0, 0]])
    """

    def __init__(self, shape: Shape, dtype: npt.DTypeLike) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._plane_bytes = shape[1] * shape[2] * self._dtype.itemsize
        try:
            self._file = tempfile.TemporaryFile(prefix="effvit-med-", buffering=0)  # noqa: SIM115 - lives as long as we
            weakref.finalize(self, self._file.close)
            self._file.truncate(shape[0] * self._plane_bytes)
        except OSError as error:
            raise self._explain(error) from error

    def put(self, index: int, plane: npt.NDArray[Any]) -> None:
        """Write a plane.

        Raises:
            OutputError: if the disk is full.
        """
        rest = np.ascontiguousarray(plane, self._dtype).data.cast("B")
        try:
            self._file.seek(index * self._plane_bytes)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._explain(error) from error

    def get(self, index: int) -> npt.NDArray[Any]:
        """Read a plane, as a copy.

        Raises:
            OutputError: if the file cannot be read.
        """
        plane = np.empty(self._shape[1:], self._dtype)
        rest = plane.data.cast("B")
        try:
            self._file.seek(index * self._plane_bytes)
            while rest and (taken := self._file.readinto(rest)):
                rest = rest[taken:]
        except OSError as error:
            raise self._explain(error) from error
        return plane

    def as_array(self) -> npt.NDArray[Any]:
        """The stack as an array that cannot be written to and whose values stay in the file until they are used."""
        return np.memmap(self._file, self._dtype, mode="r", shape=self._shape)

    def _explain(self, error: OSError) -> OutputError:
        size = self._shape[0] * self._plane_bytes / 2**20
        return OutputError(
            f"The scan of {size:.0f} MiB does not fit into the folder for temporary files, {tempfile.gettempdir()}: "
            f"{error.strerror or error}. Free some space there, or name another folder in TMPDIR."
        )


def make_store(shape: Shape, dtype: npt.DTypeLike, limit_bytes: int) -> PlaneStore:
    """A stack in memory, or in a file if it has more bytes than the limit.

    Args:
        shape: planes, rows, columns.
        dtype: of the values.
        limit_bytes: of the voxels.

    Raises:
        OutputError: if the file cannot be made.
    """
    is_large = shape[0] * shape[1] * shape[2] * np.dtype(dtype).itemsize > limit_bytes
    return FileStore(shape, dtype) if is_large else MemoryStore(shape, dtype)


def make_scratch(shape: Shape, dtype: npt.DTypeLike, limit_bytes: int) -> npt.NDArray[Any]:
    """An array of zeros to write to, in memory, or mapped from a temporary file if it has more bytes than the limit.

    The whole file is written before it is mapped: later, a full disk would end the process.

    Args:
        shape: planes, rows, columns.
        dtype: of the values.
        limit_bytes: of the array.

    Raises:
        OutputError: if the file cannot be made or does not fit onto its disk.

    Examples:
        >>> scratch = make_scratch((2, 2, 2), np.uint8, limit_bytes=4)
        >>> scratch[1] = 7
        >>> type(scratch).__name__, int(scratch.sum())
        ('memmap', 28)
    """
    planes, size = shape[0], shape[1] * shape[2] * np.dtype(dtype).itemsize
    if planes * size <= limit_bytes:
        return np.zeros(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="effvit-med-", buffering=0) as file:
            for _ in range(planes):
                rest = memoryview(bytes(size))
                while rest:
                    rest = rest[file.write(rest) :]
            return np.memmap(file, dtype, mode="r+", shape=shape)  # the map keeps the file, which has no name
    except OSError as error:
        raise OutputError(
            f"{planes * size / 2**20:.0f} MiB do not fit into the folder for temporary files, {tempfile.gettempdir()}: "
            f"{error.strerror or error}. Free some space there, or name another folder in TMPDIR."
        ) from error
