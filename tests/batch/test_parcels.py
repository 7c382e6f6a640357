"""Facts about `effvit_med.batch.parcels`: what one process stores another finds, bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.batch.parcels import LARGE_BYTES, load_parcel, store_parcel
from effvit_med.io.spill import make_scratch
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.pages import lies_on_disk

VALUES = np.arange(40 * 50 * 60, dtype=np.int16).reshape(40, 50, 60)


@given(st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.sampled_from([1, -1, 2])] * 3))
def test_any_view_of_an_array_arrives_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, axes: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    """Transposed, flipped and thinned arrays keep their values, type and shape."""
    view = VALUES.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
    folder = tmp_path_factory.mktemp("parcel") / "p"
    store_parcel({"array": view}, folder)
    found = load_parcel(folder)["array"]
    assert found.dtype == view.dtype
    assert np.array_equal(found, view)


def test_a_large_array_lies_on_disk(tmp_path: Path) -> None:
    """The receiver maps it and cannot write to it."""
    store_parcel(VALUES, tmp_path / "p")
    found = load_parcel(tmp_path / "p")
    assert lies_on_disk(found)
    assert not found.flags.writeable


def test_an_array_that_lies_in_a_file_arrives(tmp_path: Path) -> None:
    """A scan that the reader has put into a temporary file is copied piece by piece."""
    scratch = make_scratch((40, 50, 60), np.int16, limit_bytes=0)
    scratch[:] = VALUES
    store_parcel(scratch.transpose(2, 0, 1), tmp_path / "p")
    assert np.array_equal(load_parcel(tmp_path / "p"), VALUES.transpose(2, 0, 1))


def test_small_arrays_go_along(tmp_path: Path) -> None:
    """Below the limit there is no further file."""
    store_parcel(np.zeros(LARGE_BYTES // 8 - 1), tmp_path / "p")
    assert [path.name for path in (tmp_path / "p").iterdir()] == ["message.pickle"]


def test_a_volume_arrives(tmp_path: Path) -> None:
    """With its geometry."""
    store_parcel(Volume(VALUES, Geometry(np.diag([2.0, 1, 1, 1]), VALUES.shape), "CT"), tmp_path / "p")
    found = load_parcel(tmp_path / "p")
    assert found.geometry.affine.tolist() == np.diag([2.0, 1, 1, 1]).tolist()
    assert np.array_equal(found.array, VALUES)


def test_a_parcel_cannot_be_entered_by_others(tmp_path: Path) -> None:
    """Its folder belongs to its user alone."""
    store_parcel(1, tmp_path / "p")
    assert (tmp_path / "p").stat().st_mode & 0o077 == 0
