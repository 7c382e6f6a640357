"""Facts about preprocessing: intensity and the 2D, 2.5D and 3D settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import InputError, RefusedError, SettingsError
from effvit_med.transforms import Intensity, Preprocess, prepare, scale_intensity, stack_neighbours
from effvit_med.volume import Geometry, Volume


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
    """The j-th channel of entry i is slice i - k + j, held at the ends."""
    values = torch.arange(float(slices))[None, :, None, None]
    stacked = stack_neighbours(values, range(slices), neighbours)[:, :, 0, 0]
    wanted = torch.arange(slices)[:, None] + torch.arange(-neighbours, neighbours + 1)
    assert torch.equal(stacked, wanted.clamp(0, slices - 1).float())


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
