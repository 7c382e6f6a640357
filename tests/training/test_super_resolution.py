"""Facts about `effvit_med.training.super_resolution`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.engine.super_resolution import SuperResolution, refine_geometry, super_resolve
from effvit_med.errors import GeometryError, SettingsError
from effvit_med.networks.super_resolution import build_super_resolution
from effvit_med.training.super_resolution import Schedule, degrade, train
from effvit_med.volume import Geometry, Volume
from tests.geometries import geometries

scales = st.tuples(*[st.integers(1, 3)] * 3)
PLAIN = Geometry(np.diag([2.0, 2.0, 2.0, 1.0]), (18, 24, 24))


def _stripes(period: float = 5.0) -> Volume:
    """Sharp steps along every axis, as interpolation cannot make them."""
    index = np.meshgrid(*map(np.arange, PLAIN.shape), indexing="ij")
    wave = sum(np.sign(np.sin(2 * np.pi * axis / period + 0.3)) for axis in index)
    return Volume(200 * wave.astype(np.float32), PLAIN, "CT")


@given(geometries(irregular=False), scales)
def test_refining_the_low_grid_gives_the_high_grid(geometry: Geometry, scale: tuple[int, int, int]) -> None:
    """What the engine makes of the degraded scan's grid is the grid of the scan itself, to a millionth of a mm."""
    scan = Volume(np.zeros(geometry.shape), geometry)
    if any(n < factor for n, factor in zip(geometry.shape, scale, strict=True)):
        with pytest.raises(GeometryError, match="smaller than one block"):
            degrade(scan, scale)
        return
    pair = degrade(scan, scale)
    assert refine_geometry(pair.low.geometry, scale).max_distance_mm(pair.high.geometry) < 1e-6


@given(scales, st.tuples(*[st.integers(3, 8)] * 3))
def test_a_low_voxel_is_the_mean_of_its_block(scale: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    """Every low voxel is the mean of the high voxels it was made of, and what is over at the far end is cut."""
    scan = Volume(np.random.default_rng(0).normal(0, 300, size), replace(PLAIN, shape=size))
    pair = degrade(scan, scale)
    for index in np.ndindex(pair.low.geometry.shape):
        block = tuple(slice(i * s, (i + 1) * s) for i, s in zip(index, scale, strict=True))
        assert pair.low.array[index] == pytest.approx(scan.array[block].mean(), abs=1e-3)
    assert pair.high.geometry.shape == tuple(n // s * s for n, s in zip(size, scale, strict=True))


def test_a_scan_with_a_gap_makes_no_pair() -> None:
    """Blocks over missing slices would be thicker than others."""
    gap = replace(PLAIN, shape=(4, 24, 24), slice_offsets=(0, 1, 2, 4))
    with pytest.raises(GeometryError, match="unequal distances"):
        degrade(Volume(np.zeros(gap.shape), gap), (2, 1, 1))


@pytest.mark.parametrize("scale", [(2, 2), (0, 1, 1), (1.5, 1, 1)])
def test_a_scale_that_is_no_three_whole_numbers_makes_no_pair(scale: tuple[float, ...]) -> None:
    """The scale is named."""
    with pytest.raises(SettingsError, match="three whole numbers"):
        degrade(_stripes(), scale)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scale", "patch"), [((3, 1, 1), (6, 16, 16)), ((2, 2), (12, 12))])
def test_a_few_steps_lower_the_loss(scale: tuple[int, ...], patch: tuple[int, ...]) -> None:
    """On one small example the loss of the last steps lies well below that of the first."""
    torch.manual_seed(0)
    network = build_super_resolution(len(scale), 1, scale)
    losses = train(network, [_stripes()], Schedule(40, patch, 2))
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:3])
    assert not network.training


def test_the_first_loss_is_that_of_the_interpolation_in_hu() -> None:
    """Before any step the loss is the error of the linear interpolation, in the unit of the scan, inside the border."""
    network = build_super_resolution(3, 1, [3, 1, 1])
    pair = degrade(_stripes(), (3, 1, 1))
    error = np.abs(super_resolve(pair.low, network).array - pair.high.array)[3:-3, 1:-1, 1:-1].mean()
    loss = train(network, [_stripes()], Schedule(1, (6, 24, 24), 2))[0]
    assert loss == pytest.approx(error, rel=1e-4)


def test_training_again_gives_the_same_losses() -> None:
    """Patches and flips come from the seed."""

    def losses(seed: int) -> list[float]:
        torch.manual_seed(0)
        schedule = Schedule(3, (8, 8), 2, seed=seed)
        return train(build_super_resolution(2, 1, 2), [_stripes()], schedule)

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


@settings(max_examples=6)
@given(st.integers(0, 2))
def test_a_network_of_neighbouring_slices_learns_across_any_axis(axis: int) -> None:
    """A 2D network with three slices takes its planes across the axis that the schedule names."""
    network = build_super_resolution(2, 3, [2, 1], out_channels=1)
    schedule = Schedule(2, (8, 8), 2, resolution=SuperResolution(plane_axis=axis))
    assert np.isfinite(train(network, [_stripes()], schedule)).all()


def test_no_volumes_and_wrong_patches_are_refused() -> None:
    """Both messages say what is wanted."""
    network = build_super_resolution(2, 1, 2)
    with pytest.raises(SettingsError, match="no volumes"):
        train(network, [], Schedule(1, (8, 8)))
    with pytest.raises(SettingsError, match=r"\(8, 8, 8\) must have one size for each of 2 axes"):
        train(network, [_stripes()], Schedule(1, (8, 8, 8)))
