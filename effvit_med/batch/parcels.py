"""What goes from process to process: plain values in a pickle, large arrays in files that the receiver maps."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.volume.pages import count_slab, release_pages

LARGE_BYTES = 64 * 2**10
"""Smaller arrays go along with the plain values."""

_MESSAGE = "message.pickle"

# Pickles are read by the processes of one run only, from a folder that no other user can enter.


class _Pickler(pickle.Pickler):
    """Puts every large array into a file of its own beside the pickle."""

    def __init__(self, folder: Path, stream: Any) -> None:
        super().__init__(stream, protocol=5)
        self._folder = folder
        self._count = 0

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, np.ndarray) or obj.dtype.hasobject or obj.nbytes < LARGE_BYTES:
            return None
        name = f"{self._count:03d}.raw"
        self._count += 1
        order = np.argsort([-abs(stride) for stride in obj.strides], kind="stable").tolist()
        _write_array(obj.transpose(order), self._folder / name)
        return name, obj.dtype.str, tuple(obj.shape[axis] for axis in order), tuple(np.argsort(order).tolist())


class _Unpickler(pickle.Unpickler):
    def __init__(self, folder: Path, stream: Any) -> None:
        super().__init__(stream)
        self._folder = folder

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        name, dtype, shape, axes = pid
        return np.memmap(self._folder / name, dtype, mode="r", shape=shape).transpose(axes)


def store_parcel(value: object, folder: Path) -> None:
    """Write a value into a new folder.

    Args:
        value: anything that can be pickled; its arrays may lie in files themselves and never lie in memory as a whole.
        folder: does not exist yet.

    Raises:
        OSError: if it cannot be written, such as for a full disk.
    """
    folder.mkdir(mode=0o700)
    with (folder / _MESSAGE).open("wb") as stream:
        _Pickler(folder, stream).dump(value)


def load_parcel(folder: Path) -> Any:
    """What `store_parcel` wrote; large arrays lie in their files and cannot be written to.

    Raises:
        OSError: if it is not there.
    """
    with (folder / _MESSAGE).open("rb") as stream:
        return _Unpickler(folder, stream).load()


def _write_array(array: npt.NDArray[Any], path: Path) -> None:
    slab = count_slab(array)
    with path.open("wb", buffering=0) as file:
        for start in range(0, array.shape[0], slab):
            rest = np.ascontiguousarray(array[start : start + slab]).reshape(-1).view(np.uint8).data
            while rest:
                rest = rest[file.write(rest) :]
            release_pages(array)
