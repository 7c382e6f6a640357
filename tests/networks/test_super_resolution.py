"""Facts about `effvit_med.networks.super_resolution`."""

from __future__ import annotations

import math
from itertools import product

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks import build_backbone, fold_batchnorm
from effvit_med.networks.super_resolution import (
    SuperResolutionNetwork,
    build_super_resolution,
    shuffle_voxels,
    unshuffle_voxels,
)

factors = st.integers(2, 3).flatmap(lambda dims: st.tuples(*[st.integers(1, 4)] * dims))
scales = st.sampled_from([(3, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2), (1, 3)])
MODES = {2: "bilinear", 3: "trilinear"}


class HalfSize(nn.Module):
    """The smallest backbone: one convolution, one map."""

    preset_name, spatial_dims, in_channels, channels, strides = "half_size", 2, 1, (8,), ((2, 2),)
    checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2, padding=1)

    def features(self, x: Tensor) -> list[Tensor]:
        """The map."""
        return [self.conv(x)]


def _trained(scale: tuple[int, ...], **details: object) -> SuperResolutionNetwork:
    """A network whose last convolution is no longer zero."""
    network = build_super_resolution(len(scale), 1, scale, **details)
    torch.nn.init.normal_(network.head.classify.conv.weight, std=0.1)
    return network.eval()


@given(factors, st.integers(1, 3), st.data())
def test_unshuffling_undoes_the_shuffle(scale: tuple[int, ...], channels: int, data: st.DataObject) -> None:
    """Shuffle and unshuffle are each other's exact inverse, with any factors, in 2D and 3D."""
    size = data.draw(st.tuples(*[st.integers(1, 4)] * len(scale)))
    x = torch.randn(2, channels * math.prod(scale), *size)
    fine = shuffle_voxels(x, scale)
    assert tuple(fine.shape) == (2, channels, *(n * factor for n, factor in zip(size, scale, strict=True)))
    assert torch.equal(unshuffle_voxels(fine, scale), x)
    assert torch.equal(shuffle_voxels(unshuffle_voxels(fine, scale), scale), fine)


@given(factors)
def test_each_channel_fills_its_place_of_every_block(scale: tuple[int, ...]) -> None:
    """Place k of a block, in array order, comes from channel k of the voxel that the block stands for."""
    size = (2, 3, 2)[: len(scale)]
    x = torch.randn(1, math.prod(scale), *size)
    fine = shuffle_voxels(x, scale)[0, 0]
    for k, place in enumerate(product(*map(range, scale))):
        every = tuple(slice(first, None, step) for first, step in zip(place, scale, strict=True))
        assert torch.equal(fine[every], x[0, k])


@given(st.integers(1, 4), st.integers(1, 3))
def test_the_shuffle_of_images_is_the_known_one(factor: int, channels: int) -> None:
    """In 2D with equal factors it is torch's pixel_shuffle."""
    x = torch.randn(2, channels * factor**2, 3, 5)
    assert torch.equal(shuffle_voxels(x, (factor, factor)), functional.pixel_shuffle(x, factor))


@settings(max_examples=15)
@given(scales, st.tuples(*[st.integers(1, 24)] * 3))
def test_the_finer_image_has_exactly_n_times_scale_voxels(scale: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Whatever the size, also of a single voxel, a trained network gives n * scale."""
    x = torch.randn(1, 1, *size[: len(scale)])
    with torch.inference_mode():
        fine = _trained(scale)(x)
    assert tuple(fine.shape[2:]) == tuple(n * factor for n, factor in zip(x.shape[2:], scale, strict=True))
    assert fine.isfinite().all()


@settings(max_examples=15)
@given(scales, st.tuples(*[st.integers(1, 12)] * 3), st.booleans())
def test_an_untrained_network_is_the_linear_interpolation(
    scale: tuple[int, ...], size: tuple[int, ...], training: bool
) -> None:
    """Before any step the output is the interpolated input, bit for bit, in both modes."""
    network = build_super_resolution(len(scale), 1, scale, norm="instance").train(training)
    x = torch.randn(2, 1, *size[: len(scale)])
    wanted = [n * factor for n, factor in zip(x.shape[2:], scale, strict=True)]
    plain = functional.interpolate(x, size=wanted, mode=MODES[len(scale)], align_corners=False)
    assert torch.equal(network(x), plain)


def test_what_is_learnt_is_added_to_the_interpolation() -> None:
    """With a bias of 1 on one of three places, every third slice is one more than the interpolation."""
    network = build_super_resolution(3, 1, [3, 1, 1]).eval()
    with torch.no_grad():
        network.head.classify.conv.bias[2] = 1.0
        x = torch.randn(1, 1, 4, 9, 8)
        difference = network(x) - network.interpolate(x)
    torch.testing.assert_close(difference[0, 0, :, 0, 0], torch.tensor([0.0, 0, 1] * 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [(3, 1, 1), (2, 2)])
def test_gradients_reach_every_weight_after_the_first_step(scale: tuple[int, ...]) -> None:
    """The zero start blocks the body for one step only: after it all parameters learn."""
    network = build_super_resolution(len(scale), 1, scale)
    x = torch.randn(2, 1, *(16, 32, 32)[-len(scale) :])
    optimiser = torch.optim.SGD(network.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        network(x).square().mean().backward()
        optimiser.step()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_of_a_stack_of_slices_the_middle_one_is_refined() -> None:
    """One output channel for five input channels starts as the interpolation of the third."""
    network = build_super_resolution(2, 5, 2, out_channels=1).eval()
    x = torch.randn(1, 5, 6, 7)
    plain = functional.interpolate(x[:, 2:3], size=(12, 14), mode="bilinear", align_corners=False)
    assert torch.equal(network(x), plain)


def test_several_channels_are_refined_together() -> None:
    """Two contrasts give two finer contrasts."""
    network = build_super_resolution(3, 2, [2, 1, 1])
    assert tuple(network(torch.randn(2, 2, 4, 9, 8)).shape) == (2, 2, 8, 9, 8)


@pytest.mark.parametrize("scale", [(3, 1, 1), (2, 2)])
def test_folding_keeps_the_output(scale: tuple[int, ...]) -> None:
    """Multiplying the normalisations into the convolutions changes rounding only."""
    network = _trained(scale)
    x = torch.randn(1, 1, *(8, 24, 24)[-len(scale) :])
    with torch.inference_mode():
        before = network(x)
        torch.testing.assert_close(fold_batchnorm(network)(x), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_finite_values_near_float32(dtype: torch.dtype) -> None:
    """Half precision inside, and the interpolation itself still in float32."""
    network = _trained((2, 2, 2))
    x = torch.randn(1, 1, 8, 16, 16)
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", dtype=dtype):
            half = network(x)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.1, rtol=0.1)


def test_exported_network_takes_other_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.export with free spatial sizes gives the same image at a size it was not exported with."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a size being exported is no plain int
    network = SuperResolutionNetwork(HalfSize(), 2, 1, 2).eval()
    torch.nn.init.normal_(network.head.classify.conv.weight, std=0.1)
    free = {2: torch.export.Dim("rows", min=4, max=256), 3: torch.export.Dim("columns", min=4, max=256)}
    program = torch.export.export(network, (torch.randn(1, 1, 64, 96),), dynamic_shapes=(free,), strict=False)
    x = torch.randn(1, 1, 40, 33)
    torch.testing.assert_close(program.module()(x), network(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("scale", "message"),
    [((1, 1, 1), "at least one axis must become finer"), ((2, 2), r"scale is \(2, 2\)"), (0, "scale is 0")],
)
def test_an_impossible_scale_is_refused(scale: object, message: str) -> None:
    """A scale that changes nothing, or has not one factor per axis, is named."""
    with pytest.raises(SettingsError, match=message):
        build_super_resolution(3, 1, scale)  # type: ignore[arg-type]


def test_channels_without_counterpart_are_refused() -> None:
    """There is nothing to interpolate a third channel from."""
    with pytest.raises(SettingsError, match="out_channels is 3 for 2 channels"):
        build_super_resolution(2, 2, 2, out_channels=3)


def test_a_backbone_of_other_axes_is_refused() -> None:
    """A 2D backbone makes no 3D network."""
    with pytest.raises(SettingsError, match="one of 3 axes"):
        SuperResolutionNetwork(build_backbone(2, 1), 3, 1, 2)


def test_a_wrong_image_is_refused() -> None:
    """The message has the shape and what is wanted."""
    with pytest.raises(SettingsError, match=r"\(1, 2, 8, 8\).*1 channels, 2 spatial axes"):
        build_super_resolution(2, 1, 2)(torch.zeros(1, 2, 8, 8))


def test_a_shuffle_that_does_not_come_out_is_refused() -> None:
    """Channels or sizes that are no multiple are named with the scale."""
    with pytest.raises(SettingsError, match=r"5 channels.*\(2, 2\)"):
        shuffle_voxels(torch.zeros(1, 5, 3, 3), (2, 2))
    with pytest.raises(SettingsError, match=r"size \(3, 4\).*\(2, 2\)"):
        unshuffle_voxels(torch.zeros(1, 1, 3, 4), (2, 2))
