"""Facts about `effvit_med.volume.pages`: memory goes, values stay."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from effvit_med.volume.pages import count_slab, find_outermost, release_pages


def _resident_bytes() -> int:
    """The memory of this process that files fill."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        pytest.skip("this system has no /proc to look at")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(not hasattr(mmap.mmap, "madvise"), reason="the system knows no madvise")
def test_pages_that_were_read_are_given_back(tmp_path: Path) -> None:
    """After a sweep over 32 MiB most of them are no longer memory of the process, and the values are as before."""
    np.full(2**23, 7, np.int32).tofile(tmp_path / "values")
    array = np.memmap(tmp_path / "values", np.int32, "r").reshape(64, -1)
    view = np.asarray(array[::2].T)
    assert view.min() == 7
    array.sum()
    full = _resident_bytes()
    release_pages(view)
    assert full - _resident_bytes() > 2**24
    assert int(array.astype(np.int64).sum()) == 7 * 2**23


@pytest.mark.parametrize("mode", ["c", "r+"])
def test_nothing_that_was_written_is_lost(tmp_path: Path, mode: str) -> None:
    """Values written into a copy-on-write or a writable map are still there."""
    np.zeros(2**20, np.uint8).tofile(tmp_path / "values")
    array = np.memmap(tmp_path / "values", np.uint8, mode)
    array[::4096] = 3
    release_pages(array[5:])
    assert set(array[::4096].tolist()) == {3}


def test_arrays_in_memory_are_left_alone() -> None:
    """An ordinary array, also a view of bytes, is not touched."""
    for array in (np.arange(5), np.frombuffer(b"abc", np.uint8)):
        before = array.tolist()
        release_pages(array)
        assert array.tolist() == before


def test_a_slab_is_bounded_and_never_empty() -> None:
    """A slab has about 16 MiB, and at least one plane however large planes are."""
    large = np.broadcast_to(np.uint8(0), (3, 2**13, 2**13))
    assert (count_slab(large), count_slab(np.zeros((4, 2, 2)))) == (1, 2**24 // 32)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_outermost_axis_is_that_of_the_longest_stride(axes: tuple[int, int, int]) -> None:
    """However an array is turned, planes across the axis that is found lie in one piece."""
    array = np.zeros((3, 4, 5)).transpose(axes)[:, ::-1]
    assert axes[find_outermost(array)] == 0
