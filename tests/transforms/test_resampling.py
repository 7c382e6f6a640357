"""A scan on another grid: the same whatever its memory layout, and in little memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.transforms import network_grid, resampling
from effvit_med.transforms.resampling import RowResampler, resampling_memory
from effvit_med.volume import Geometry, pages

PARALLEL = np.array([[0, 0, 1.0, 3], [0, 1.5, 0, 5], [2.0, 0, 0, 7], [0, 0, 0, 1]])


def _mapped(array: npt.NDArray[Any], order: tuple[int, ...]) -> npt.NDArray[Any]:
    """The same array, mapped from a file in which its axes stand in another order."""
    moved = np.ascontiguousarray(array.transpose(order))
    with tempfile.TemporaryFile() as file:
        file.write(moved.tobytes())
        file.flush()
        mapped = np.memmap(file, moved.dtype, mode="r", shape=moved.shape)
    return mapped.transpose(np.argsort(order))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("dtype", ["int16", ">i2", "float64", "bool"])
def test_the_order_in_a_file_changes_no_value(
    order: tuple[int, ...], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks gathered in small chunks from a file give what the array in memory gives in one block."""
    array = np.random.default_rng(0).integers(0, 1000, (14, 18, 22)).astype(dtype)
    source = Geometry(PARALLEL, array.shape)
    target = network_grid(source, "SPL", (2.5, 2.5, 2.5))
    whole = RowResampler(array, source, target).read(0, target.shape[0])
    monkeypatch.setattr(resampling, "BLOCK_VALUES", 3 * 14 * 18)
    monkeypatch.setattr(pages, "SLAB_BYTES", 2 * 14 * 18 * array.itemsize)
    mapped = RowResampler(_mapped(array, order), source, target)
    assert np.array_equal(mapped.read(0, target.shape[0]).numpy(), whole.numpy())
    assert np.array_equal(mapped.read(3, 6).numpy(), whole[3:6].numpy())


@given(st.integers(1, 40), st.floats(0.3, 9), st.sampled_from([(0, 1, 2), (2, 1, 0), (1, 2, 0)]))
def test_rows_do_not_depend_on_the_size_of_a_block(slices: int, spacing: float, order: tuple[int, ...]) -> None:
    """However few values are taken at once, finer or coarser, the rows are the same to the last bit."""
    array = np.random.default_rng(slices).normal(size=(slices, 6, 7)).astype(np.float32)
    source = Geometry(PARALLEL, array.shape)
    target = network_grid(source, "SPL", (spacing, 2.0, 2.0))
    wanted = RowResampler(array, source, target).read(0, target.shape[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "BLOCK_VALUES", 60)
        found = RowResampler(_mapped(array, order), source, target).read(0, target.shape[0])
    assert np.array_equal(found.numpy(), wanted.numpy())


def test_a_tilted_scan_is_kept_thinned() -> None:
    """The memory of a tilted scan is that of its own grid made as coarse as the target; a straight one keeps none."""
    tilted = np.diag([2.0, 1, 1, 1])
    tilted[1, 0] = 0.6
    target = Geometry(np.diag([2.0, 2, 2, 1]), (10, 20, 20))
    found = resampling_memory(Geometry(tilted, (10, 40, 40)), target, np.int16)
    assert found.thin_bytes == 4 * 10 * 20 * 20
    assert resampling_memory(Geometry(np.diag([2.0, 1, 1, 1]), (10, 40, 40)), target, np.int16).thin_bytes == 0


def test_scratch_does_not_grow_with_the_slices() -> None:
    """A scan of ten times the slices is taken in blocks of the same size."""
    short, long = (
        resampling_memory(
            Geometry(np.eye(4), (count, 512, 512)), Geometry(np.diag([2.0, 2, 2, 1]), (count // 2, 256, 256)), np.int16
        )
        for count in (100, 1000)
    )
    assert short == long
    assert short.scratch_bytes <= 2 * 4 * resampling.BLOCK_VALUES + 2**20 or "numba" not in sys.modules


PEAK = """
import sys, threading
import numpy as np
import psutil
from effvit_med.io.spill import FileStore
from effvit_med.transforms import PreparedRows, Preprocess
from effvit_med.volume import Geometry, Volume

def prepare(count):
    store = FileStore((count, 256, 256), np.int16)
    for index in range(count):
        store.put(index, np.full((256, 256), index, np.int16))
    array = store.as_array().T  # x runs fastest, as in a NIfTI file; its slices lie sagittally
    affine = np.eye(4)[[2, 1, 0, 3]] if sys.argv[2] == "sagittal" else np.eye(4)
    rows = PreparedRows(Volume(array, Geometry(affine, array.shape), "CT"), Preprocess((2.0, 2.0, 2.0)))
    for start in range(0, rows.shape[0], 16):
        rows.read(start, min(start + 16, rows.shape[0]))

prepare(8)
base, peak, done = psutil.Process().memory_info().rss, [0], threading.Event()

def watch():
    while not done.wait(0.001):
        peak[0] = max(peak[0], psutil.Process().memory_info().rss)

thread = threading.Thread(target=watch)
thread.start()
prepare(int(sys.argv[1]))
done.set()
thread.join()
print(peak[0] - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
@pytest.mark.parametrize("slices_lie", ["axial", "sagittal"])
def test_memory_does_not_grow_with_the_length_of_a_file(slices_lie: str) -> None:
    """A scan of 150 MiB in a file in NIfTI's order takes less than 16 MiB more than one of 38 MiB."""
    peaks = []
    for count in (300, 1200):
        run = [sys.executable, "-W", "ignore", "-c", PEAK, str(count), slices_lie]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 2**20)
    assert peaks[1] - peaks[0] < 16, peaks
