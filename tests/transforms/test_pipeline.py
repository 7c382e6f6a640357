"""Facts about preprocessing: intensity and the 2D, 2.5D and 3D settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import InputError, RefusedError, SettingsError
from effvit_med.transforms import (
    Intensity,
    PreparedRows,
    Preprocess,
    pipeline,
    prepare,
    scale_intensity,
    stack_neighbours,
)
from effvit_med.transforms.pipeline import preparing_memory
from effvit_med.volume import Geometry, Volume, pages


def test_percentiles_ignore_a_bright_outlier() -> None:
    """One voxel of a million leaves the scaled values of the others as they were."""
    values = torch.linspace(0, 1000, 1001)
    spoiled = values.clone()
    spoiled[-1] = 1e6
    settings = Intensity("percentile", 0.5, 99.5)
    assert torch.allclose(scale_intensity(values, settings)[:-1], scale_intensity(spoiled, settings)[:-1], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("log", 0, 1), "'log'"),
        (("window", 300, -200), "300 and -200"),
        (("percentile", 0, 101), "0 and 101"),
    ],
)
def test_a_wrong_intensity_is_refused(arguments: tuple[str, float, float], message: str) -> None:
    """The error shows the value that is wrong."""
    with pytest.raises(SettingsError, match=message):
        Intensity(*arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing_mm": (1.0, 0.0, 1.0)}, r"\(1.0, 0.0, 1.0\)"),
        ({"spatial_dims": 4}, "spatial_dims is 4"),
        ({"neighbours": 1}, "neighbours is 1"),
    ],
)
def test_a_wrong_setting_is_refused(change: dict[str, object], message: str) -> None:
    """The error shows the value that is wrong."""
    with pytest.raises(SettingsError, match=message):
        Preprocess(**{"spacing_mm": (1.0, 1.0, 1.0), **change})


def test_a_voxel_that_is_not_finite_is_an_error() -> None:
    """One NaN would spread over the whole grid, so it is refused."""
    array = np.zeros((4, 4, 4), np.float32)
    array[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="1 voxels of the scan are not finite"):
        prepare(Volume(array, Geometry(np.eye(4), (4, 4, 4))), Preprocess((1.0, 1.0, 1.0)))


def test_a_scan_of_many_metres_is_refused() -> None:
    """A spacing of metres is a mistake in the header, not a reason to ask for all memory."""
    scan = Volume(np.zeros((12, 20, 20)), Geometry(np.diag([5000.0, 5000, 5000, 1]), (12, 20, 20)))
    with pytest.raises(RefusedError, match="TOO_LARGE"):
        prepare(scan, Preprocess((1.0, 1.0, 1.0)))


@given(st.integers(1, 7), st.integers(0, 3), st.integers(1, 2))
def test_the_middle_of_a_stack_is_the_slice_itself(slices: int, neighbours: int, channels: int) -> None:
    """Channel c's middle entry of batch entry i is slice i of channel c."""
    values = torch.randn(channels, slices, 2, 3)
    stacked = stack_neighbours(values, range(slices), neighbours)
    middle = stacked.unflatten(1, (channels, 2 * neighbours + 1))[:, :, neighbours]
    assert torch.equal(middle, values.transpose(0, 1))


@given(st.integers(2, 7), st.integers(1, 3))
def test_neighbours_stand_in_order(slices: int, neighbours: int) -> None:
    """The j-th channel of entry i is slice i - k + j, mirrored at the ends."""
    values = torch.arange(float(slices))[None, :, None, None]
    stacked = stack_neighbours(values, range(slices), neighbours)[:, :, 0, 0]
    wanted = (torch.arange(slices)[:, None] + torch.arange(-neighbours, neighbours + 1)) % (2 * slices)
    assert torch.equal(stacked, torch.minimum(wanted, 2 * slices - 1 - wanted).float())


def test_prepare_puts_an_upside_down_scan_the_right_way_up() -> None:
    """A scan stored feet last, right to left, is turned to SPL: the bright corner is found where it is in world."""
    affine = np.array([[0, 0, -2.0, 20], [0, 2.0, 0, 0], [-4.0, 0, 0, 40], [0, 0, 0, 1]])
    array = np.full((8, 10, 12), -200, np.int16)
    array[0, 0, 0] = 300  # top, front, left
    volume = Volume(array, Geometry(affine, (8, 10, 12)))
    prepared = prepare(volume, Preprocess((4.0, 2.0, 2.0)))
    where = np.unravel_index(int(prepared.values.argmax()), prepared.values.shape)
    assert where == (0, 7, 0, 11)
    assert prepared.grid.orientation == "SPL"


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_range_of_values_is_that_of_all_planes(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever axis lies outermost in memory, the ends are found in its first and its last plane."""
    monkeypatch.setattr(pages, "SLAB_BYTES", 64)
    array = np.asarray(np.zeros((5, 6, 7), np.int16), order=order)
    array[0, 0, 0], array[4, 5, 6] = -7, 9
    rows = PreparedRows(Volume(array, Geometry(np.eye(4), array.shape)), Preprocess((1.0, 1.0, 1.0)))
    assert rows.value_range == (-7.0, 9.0)


@pytest.mark.parametrize("kind", ["window", "percentile"])
def test_rows_read_twice_are_scaled_once(kind: str) -> None:
    """Scaling in place changes nothing that is kept: the same rows come again, and they are those of the whole."""
    array = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    volume = Volume(array, Geometry(np.eye(4), array.shape))
    settings = Preprocess((1.5, 1.5, 1.5), intensity=Intensity(kind, 1, 99))
    rows = PreparedRows(volume, settings)
    first = rows.read(1, 4).clone()
    assert torch.equal(rows.read(1, 4), first)
    assert torch.equal(prepare(volume, settings).values[:, 1:4], first)
    assert np.array_equal(array, np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32))


def test_percentiles_are_the_same_held_or_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid too large to hold is made several times, in small parts, and scaled alike; the plan knows which."""
    array = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    volume = Volume(array, Geometry(np.eye(4), array.shape))
    settings = Preprocess((1.0, 1.0, 1.0), intensity=Intensity("percentile", 1, 99))
    held = prepare(volume, settings).values
    assert preparing_memory(volume, settings).held_bytes == 4 * array.size
    monkeypatch.setattr(pipeline, "HELD_VALUES", 10)
    monkeypatch.setattr(pipeline, "_PART_VALUES", 120)
    assert preparing_memory(volume, settings).held_bytes == 0
    assert torch.allclose(prepare(volume, settings).values, held, atol=1e-6)
