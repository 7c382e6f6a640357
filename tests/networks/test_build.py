"""Networks from plain values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from effvit_med.errors import SettingsError
from effvit_med.networks import SegmentationNetwork, build_backbone, build_network


def _network(spatial_dims: int = 2, **settings: Any) -> SegmentationNetwork:
    torch.manual_seed(0)
    return build_network(spatial_dims, in_channels=1, out_channels=3, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "efficientvit_b7"}, r"no preset 'efficientvit_b7'; the nearest are efficientvit_b\d"),
        ({"decoder": "high_res"}, "no decoder 'high_res'; the nearest are high_resolution"),
        ({"decoder_stride": 3}, "decoder_stride is 3; the high_resolution decoder has 1, 2 or 4"),
        ({"decoder": "seg_head", "decoder_stride": 1}, "decoder_stride is 1; the seg_head has \\(8, 8\\)"),
        ({"decoder": "seg_head", "head": "seg_b0"}, "no head 'seg_b0'; the nearest are seg_b0_cityscapes"),
        ({"norm": "bach"}, "no norm 'bach'; the nearest are batch"),
        ({"norm_epsilon": 1e-3}, "no network setting 'norm_epsilon'; the nearest are norm_eps"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0; it must be above 0"),
        ({"kernel_size": 4}, r"kernel_size is \(4, 4\); every number must be odd"),
        ({"aggregation_kernel_size": 2}, r"aggregation_kernel_size is \(2, 2\); every number must be odd"),
        ({"spatial_dims": 1}, "spatial_dims is 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    """Each impossible setting is refused with its value and what there is instead."""
    with pytest.raises(SettingsError, match=message):
        _network(**settings)


def test_channels_below_one_are_refused() -> None:
    """An image has at least one channel, and an output at least one class."""
    with pytest.raises(SettingsError, match="in_channels is 0"):
        build_backbone(2, 0)
    with pytest.raises(SettingsError, match="out_channels is 0"):
        build_network(2, 1, 0)


@pytest.mark.parametrize(
    ("spatial_dims", "shape"), [(2, (1, 2, 16, 16)), (2, (1, 1, 16, 16, 16)), (3, (1, 1, 16, 16)), (3, (1, 2, 8, 8, 8))]
)
def test_image_of_another_shape_is_refused(spatial_dims: int, shape: tuple[int, ...]) -> None:
    """An image with other channels or axes is refused by its shape."""
    with pytest.raises(SettingsError, match=re.escape(f"The image has the shape {shape}; this network takes")):
        _network(spatial_dims)(torch.zeros(shape))


def test_network_says_what_it_takes_and_gives() -> None:
    """Tiling and export read the network's numbers from it."""
    network = _network(3, decoder_stride=2, stage_strides=[[1, 2, 2], 2, 2, 2, 2])
    assert (network.spatial_dims, network.in_channels, network.out_channels) == (3, 1, 3)
    assert network.output_stride == (1, 2, 2)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("decoder", ["high_resolution", "seg_head"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_every_parameter_gets_a_gradient(spatial_dims: int, decoder: str, norm: str) -> None:
    """No parameter of backbone and decoder is left out of the graph."""
    network = _network(spatial_dims, decoder=decoder, norm=norm)
    network(torch.randn(2, 1, *(40,) * spatial_dims)).square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_stays_finite(spatial_dims: int, dtype: torch.dtype) -> None:
    """Half-precision autocast gives finite logits near those of float32, even for CT-sized values."""
    network = _network(spatial_dims).eval()
    x = 50 * torch.randn(1, 1, *(48,) * spatial_dims)
    with torch.inference_mode():
        exact = network(x)
        with torch.autocast("cpu", dtype):
            half = network(x)
    assert half.isfinite().all()
    assert (half - exact).abs().mean() < 0.1 * exact.std()


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("decoder", ["high_resolution", "seg_head"])
def test_writing_in_place_changes_nothing(spatial_dims: int, decoder: str) -> None:
    """Inference saves memory by writing in place; the logits and the image are as with gradients."""
    network = _network(spatial_dims, decoder=decoder).eval()
    x = torch.randn(1, 1, *(33,) * spatial_dims)
    before = x.clone()
    with torch.inference_mode():
        quick = network(x)
    torch.testing.assert_close(quick, network(x).detach(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(x, before, atol=0, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_exported_network_gives_the_same(spatial_dims: int) -> None:
    """An exported graph, as other runtimes import it, holds plain convolutions and computes the same logits."""
    network = _network(spatial_dims).eval()
    x = torch.randn(1, 1, *(32,) * spatial_dims)
    exported = torch.export.export(network, (x,))
    assert "aten.linear" not in exported.graph_module.code
    torch.testing.assert_close(exported.module()(x), network(x), atol=1e-4, rtol=1e-4)


def test_network_learns_a_square() -> None:
    """Some steps of plain gradient descent fit a square to within a tenth of its border voxels."""
    network = _network(norm="instance")
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 9:21, 5:24] = 1.0
    wanted = x[:, 0].long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x + 0.3 * torch.randn_like(x)), wanted).backward()
        optimizer.step()
    with torch.inference_mode():
        wrong = (network(x).argmax(1) != wanted).sum()
    assert int(wrong) <= 6


def test_whole_network_can_be_saved_and_read(tmp_path: Path) -> None:
    """torch.save keeps the object with its layout and gives the same outputs."""
    network, image = build_network(3, 1, 2).eval(), torch.randn(1, 1, 16, 16, 16)
    torch.save(network, tmp_path / "network.pt")
    again = torch.load(tmp_path / "network.pt", weights_only=False)
    with torch.inference_mode():
        torch.testing.assert_close(again(image), network(image))
