"""The table that knows 2D from 3D."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from effvit_med.errors import SettingsError
from effvit_med.networks import create_classifier
from effvit_med.networks.layers import layers_for, per_axis


@pytest.mark.parametrize("spatial_dims", [0, 1, 4])
def test_other_dimensions_are_refused(spatial_dims: int) -> None:
    """A number of axes other than 2 or 3 is refused by its value."""
    with pytest.raises(SettingsError, match=f"spatial_dims is {spatial_dims}; a network has 2"):
        layers_for(spatial_dims)


def test_published_head_is_bicubic_only_in_2d() -> None:
    """The published head interpolates bicubically; volumes have only the trilinear mode."""
    assert layers_for(2).head_mode == "bicubic"
    assert layers_for(3).head_mode == "trilinear"


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_point_conv_is_the_plain_convolution(spatial_dims: int, bias: bool) -> None:
    """The fast point convolution computes what torch's own does, in any memory format."""
    layers = layers_for(spatial_dims)
    torch.manual_seed(0)
    fast = layers.point_conv(5, 3, 1, bias=bias)
    plain = layers.conv(5, 3, 1, bias=bias)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 5, *(4, 6, 7)[:spatial_dims])
    torch.testing.assert_close(fast(x), plain(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast(x.to(memory_format=layers.memory_format)), plain(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_point_conv_keeps_channels_last(spatial_dims: int) -> None:
    """A channels-last map stays channels-last, so that no later layer has to copy it."""
    layers = layers_for(spatial_dims)
    x = torch.randn(2, 5, *(4,) * spatial_dims).to(memory_format=layers.memory_format)
    assert layers.point_conv(5, 3, 1)(x).is_contiguous(memory_format=layers.memory_format)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_traced_point_conv_is_a_convolution() -> None:
    """A traced graph holds the plain 3D operator, which other runtimes know."""
    traced = torch.jit.trace(layers_for(3).point_conv(2, 3, 1), torch.randn(1, 2, 3, 3, 3))
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    assert "aten::_convolution" in kinds
    assert not {"aten::linear", "aten::movedim"} & set(kinds)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_instance_norm_of_one_voxel_is_its_bias(spatial_dims: int) -> None:
    """A single voxel equals its own mean, so the normalised value is 0 and the bias remains."""
    norm = layers_for(spatial_dims).instance_norm(3, affine=True)
    nn.init.constant_(norm.bias, 0.5)
    out = norm(torch.randn(2, 3, *(1,) * spatial_dims))
    torch.testing.assert_close(out, torch.full_like(out, 0.5))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_instance_norm_is_torchs(spatial_dims: int) -> None:
    """Larger maps are normalised as torch does."""
    norm = layers_for(spatial_dims).instance_norm(3, affine=True)
    x = torch.randn(2, 3, *(4,) * spatial_dims)
    torch.testing.assert_close(norm(x), nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias))


@pytest.mark.parametrize("value", [[1, 2], [1, 2, 2, 2], 0, [1, 2, 0]])
def test_numbers_that_do_not_fit_the_axes_are_refused(value: int | list[int]) -> None:
    """There must be one whole number of at least 1 per axis; the message holds the value."""
    with pytest.raises(SettingsError, match=r"a stage stride is .*; give one whole number of at least 1, or 3 of them"):
        per_axis(value, 3, "a stage stride")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_layer_types_are_pickled_by_their_axes(protocol: int) -> None:
    """Every protocol of pickle gives the very same table back."""
    assert pickle.loads(pickle.dumps(layers_for(3), protocol=protocol)) is layers_for(3)


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_m0", "shvit_s1"])
def test_whole_networks_are_saved_by_torch(tmp_path: Path, name: str) -> None:
    """`torch.save` of a network, not only of its weights, keeps the outputs."""
    network, image = create_classifier(name).eval(), torch.randn(1, 3, 64, 40)
    torch.save(network, tmp_path / "network.pt")
    loaded = torch.load(tmp_path / "network.pt", weights_only=False)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(image), atol=0, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_instance_norm_of_an_empty_batch_is_empty(spatial_dims: int) -> None:
    """A batch of no maps gives no maps."""
    shape = (0, 3, *(4, 5, 6)[:spatial_dims])
    assert layers_for(spatial_dims).instance_norm(3, affine=True)(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("channels_last", [True, False])
def test_instance_norm_without_gradients_is_torchs_own(spatial_dims: int, channels_last: bool) -> None:
    """The way that keeps the layout gives what torch's own way gives, also far from zero."""
    layers = layers_for(spatial_dims)
    torch.manual_seed(0)
    norm = layers.instance_norm(6, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 * torch.randn(2, 6, *(9, 8, 7)[:spatial_dims]) + 50
    x = x.contiguous(memory_format=layers.memory_format) if channels_last else x
    with torch.inference_mode():
        torch.testing.assert_close(norm(x), norm.double()(x.double()).float(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_instance_norm_keeps_channels_last(spatial_dims: int) -> None:
    """No later layer has to copy the map."""
    layers = layers_for(spatial_dims)
    x = torch.randn(2, 6, *(5,) * spatial_dims).to(memory_format=layers.memory_format)
    with torch.inference_mode():
        assert layers.instance_norm(6, affine=True)(x).is_contiguous(memory_format=layers.memory_format)
