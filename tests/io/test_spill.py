"""Facts about `effvit_med.io.spill`: a scan in a temporary file is the scan, and leaves nothing behind."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effvit_med.errors import OutputError, SettingsError
from effvit_med.io.find import ReadOptions, find_cases
from effvit_med.io.nifti import read_nifti, write_volume
from effvit_med.io.read import read_case
from effvit_med.io.spill import FileStore, MemoryStore, make_scratch, make_store
from effvit_med.io.values import PlaneStack, replace_non_finite
from effvit_med.volume import Volume
from effvit_med.volume.pages import release_pages
from tests.io.dicom_cases import make_series, save
from tests.io.source_series import axial


@given(puts=st.lists(st.tuples(st.integers(0, 3), st.integers(-9, 9)), max_size=8))
def test_a_file_holds_what_memory_would(puts: list[tuple[int, int]]) -> None:
    """Any order of writing gives the same planes and the same array, zeros where nothing was written."""
    stores = [MemoryStore((4, 2, 3), np.int16), FileStore((4, 2, 3), np.int16)]
    for store in stores:
        for index, value in puts:
            store.put(index, np.full((2, 3), value) + np.arange(3))
    one, two = stores
    assert np.array_equal(one.as_array(), two.as_array())
    assert all(np.array_equal(one.get(index), two.get(index)) for index in range(4))


def test_only_large_stacks_lie_in_a_file() -> None:
    """Above the limit it is a file, at the limit it is memory."""
    assert isinstance(make_store((2, 4, 4), np.int16, 64), MemoryStore)
    assert isinstance(make_store((2, 4, 4), np.int16, 63), FileStore)


def test_the_array_cannot_be_written_to() -> None:
    """Whoever wants to change the scan copies it first."""
    array = FileStore((1, 2, 2), np.int16).as_array()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has no name even while the array lives, and the array outlives the store."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = FileStore((2, 2, 2), np.int16)
    store.put(1, np.ones((2, 2)))
    array = store.as_array()
    del store
    assert array.sum() == 4
    assert list(tmp_path.iterdir()) == []


class _FullDisk:
    """A file on a disk that is full."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def truncate(self, size: int) -> int:
        return size

    def seek(self, place: int) -> int:
        return place

    def write(self, content: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        pass


def test_a_full_disk_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the size, the folder and what to do; the reason of the system stays the cause."""
    monkeypatch.setattr(tempfile, "TemporaryFile", _FullDisk)
    stack = PlaneStack(512, spill_mb=0)
    with pytest.raises(OutputError, match=r"scan of 1 MiB does not fit .* No space left .* TMPDIR") as caught:
        stack.put(0, np.zeros((32, 32), np.int16))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_limit_below_zero_is_refused() -> None:
    """A negative number of MiB means nothing."""
    with pytest.raises(SettingsError, match="spill_mb is -1"):
        ReadOptions(spill_mb=-1)


@pytest.mark.parametrize("slope", [1, 0.5])
def test_a_series_in_a_file_is_the_series(tmp_path: Path, slope: float) -> None:
    """Padding, a late fraction and the order of slices come out as in memory."""

    def edit(index: int, dataset: Any) -> None:
        dataset.PixelPaddingValue = int(np.frombuffer(dataset.PixelData, np.int16)[3])
        dataset.RescaleSlope, dataset.RescaleIntercept = (slope if index == 4 else 1), -7

    save(tmp_path, make_series(6), edit=edit)
    case = find_cases(tmp_path, ReadOptions()).cases[0]
    one, two = (read_case(case, ReadOptions(spill_mb=limit)) for limit in (128, 0))
    assert isinstance(two.array, np.memmap)
    assert not isinstance(one.array, np.memmap)
    assert one.array.dtype == two.array.dtype
    assert np.array_equal(one.array, two.array)
    assert one.source == two.source


@given(seed=st.integers(0, 99), kind=st.sampled_from([np.int16, np.uint16, np.float32]))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_nifti_in_a_file_is_the_nifti(tmp_path: Path, seed: int, kind: type) -> None:
    """Values, type, axes and findings are those of the array in memory."""
    array = np.random.default_rng(seed).normal(0, 20000, axial().shape).astype(kind)
    if kind is np.float32:
        array[1, 2, 3:5] = np.nan, np.inf
    write_volume(Volume(array, axial()), tmp_path / "a.nii.gz")
    one, two = (read_nifti(tmp_path / "a.nii.gz", spill_mb=limit) for limit in (128, 0))
    assert isinstance(two.array, np.memmap)
    assert one.array.dtype == two.array.dtype
    assert np.array_equal(one.array, two.array)
    assert one.source == two.source


def test_values_that_are_not_finite_are_replaced_plane_by_plane() -> None:
    """The smallest and the largest finite value of the whole stack take their place, in a file as in memory."""
    for limit in (128, 0):
        stack = PlaneStack(3, limit)
        for index, plane in enumerate(([[np.nan, 1.5]], [[-np.inf, np.inf]], [[-4.0, 9.0]])):
            stack.put(index, np.array(plane))
        (finding,) = replace_non_finite(stack)
        assert stack.array.tolist() == [[[-4.0, 1.5]], [[-4.0, 9.0]], [[-4.0, 9.0]]]
        assert finding.message == "3 of 6 voxels are not finite; they were set to -4 (+infinity to 9)."


@pytest.mark.parametrize("limit_bytes", [0, 1000])
def test_scratch_is_zero_and_keeps_what_is_written(limit_bytes: int) -> None:
    """In memory or in a file, also after its pages were given back."""
    scratch = make_scratch((3, 4, 5), np.uint8, limit_bytes)
    assert not scratch.any()
    scratch[1] = 9
    release_pages(scratch)
    assert scratch.sum() == 9 * 20
    assert isinstance(scratch, np.memmap) == (limit_bytes == 0)


def test_scratch_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that takes no file is named, with the size."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"0 MiB do not fit into .*nowhere"):
        make_scratch((3, 4, 5), np.uint8, 0)
