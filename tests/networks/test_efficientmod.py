"""EfficientMod in 2D and 3D: its published numbers, its arithmetic and what it may be fed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from effvit_med.errors import SettingsError
from effvit_med.networks.efficientmod import (
    AttentionBlock,
    EfficientMod,
    EfficientModHead,
    GlobalAttention,
    ModulationBlock,
    ModulationMlp,
    ModulationStyle,
)
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets.efficientmod import EFFICIENTMOD, EfficientModPreset

#: Parameters with 1000 classes, and GMACs at 224 x 224, as published to the figures shown.
PUBLISHED = {
    "efficientmod_xxs": (4_736_264, 0.579),
    "efficientmod_xs": (6_627_544, 0.773),
    "efficientmod_s": (12_897_184, 1.402),
    "efficientmod_s_conv": (12_872_336, 1.471),
}
TINY = EfficientModPreset("tiny", (8, 16, 16, 24), (1, 2, 1, 2), 3, (0, 0, 1, 1), heads=2, least_head_dim=10)


def _randomise(network: nn.Module) -> None:
    """Weights of a size at which every part of a block matters."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.5)


@pytest.mark.parametrize("name", sorted(EFFICIENTMOD))
def test_size_and_cost_are_the_published_ones(name: str) -> None:
    """Every preset has the published parameters, and multiplications at 224 x 224 to three decimals."""
    parameters, giga_macs = PUBLISHED[name]
    with torch.device("meta"):
        backbone = EfficientMod(EFFICIENTMOD[name], 2, 3)
        network = nn.Sequential(backbone, EfficientModHead(backbone.channels[-1], 1000, 2))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 224, 224))
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=0.001)


def test_every_published_preset_is_counted() -> None:
    """No preset escapes the table of published figures."""
    assert set(PUBLISHED) == set(EFFICIENTMOD)


@given(
    space=st.lists(st.integers(1, 70), min_size=2, max_size=2) | st.lists(st.integers(1, 37), min_size=3, max_size=3),
    in_channels=st.integers(1, 4),
)
@settings(max_examples=20)
def test_maps_have_the_promised_sizes(space: list[int], in_channels: int) -> None:
    """For any size, axes and channels, map i has size ceil(n / stride) and the channels it names."""
    network = EfficientMod(TINY, len(space), in_channels).eval()
    with torch.inference_mode():
        maps = network.features(torch.randn(2, in_channels, *space))
    for each, channels, stride in zip(maps, network.channels, network.strides, strict=True):
        sizes = [-(-size // step) for size, step in zip(space, stride, strict=True)]
        assert each.shape == (2, channels, *sizes)
        assert each.isfinite().all()
    assert network.strides[0] == (4,) * len(space)
    assert network.strides[-1] == (32,) * len(space)


@pytest.mark.parametrize("space", [(1, 1), (1, 1, 1), (33, 17, 9)])
def test_published_presets_take_tiny_and_odd_images(space: tuple[int, ...]) -> None:
    """The smallest published model takes a single voxel, and an odd volume."""
    network = EfficientMod(EFFICIENTMOD["efficientmod_xxs"], len(space), 1).eval()
    with torch.inference_mode():
        deepest = network(torch.randn(1, 1, *space))[-1]
    assert deepest.shape == (1, 256, *(-(-size // 32) for size in space))


def test_context_kernel_is_smaller_in_volumes() -> None:
    """The context looks 7 pixels far in images and 5 voxels in volumes, or as far as one says along each axis."""

    def kernel(network: EfficientMod) -> tuple[int, ...]:
        return tuple(network.get_parameter("layers.0.blocks.0.mlp.context_layer.context_list.0.weight").shape[2:])

    assert kernel(EfficientMod(TINY, 2, 1)) == (7, 7)
    assert kernel(EfficientMod(TINY, 3, 1)) == (5, 5, 5)
    assert kernel(EfficientMod(TINY, 3, 1, context_kernel_size=(1, 7, 7))) == (1, 7, 7)


@pytest.mark.parametrize("expand", [1, 3])
def test_context_is_tiled_over_the_hidden_features(expand: int) -> None:
    """Hidden feature j meets context j modulo the width; it passes a GELU before, but only in a layer that widens."""
    layer = ModulationMlp(ModulationStyle(layers_for(2), (3, 3), 1e-5), 4, expand)
    _randomise(layer)
    x = torch.randn(1, 5, 6, 4)
    hidden = layer.fc1(x) if expand == 1 else functional.gelu(layer.fc1(x))
    wanted = layer.fc2(hidden * layer.context_layer(x).repeat(1, 1, 1, expand))
    torch.testing.assert_close(layer(x), wanted)


def test_attention_is_softmax_over_all_voxels() -> None:
    """Global attention equals its formula, head by head, also where heads are wider than the channels allow."""
    layer = GlobalAttention(channels=6, heads=2, head_dim=5)
    _randomise(layer)
    x = torch.randn(1, 3, 2, 2, 6)
    q, k, v = layer.qkv(x.reshape(12, 6)).reshape(12, 3, 2, 5).unbind(1)
    heads = [(q[:, head] @ k[:, head].T / 5**0.5).softmax(-1) @ v[:, head] for head in range(2)]
    torch.testing.assert_close(layer(x).reshape(12, 6), layer.proj(torch.cat(heads, 1)))


def test_attention_block_knows_no_positions() -> None:
    """Shuffling the voxels of a map shuffles the result of an attention block alike."""
    block = AttentionBlock(TINY, 16, 4, 1e-5)
    x = torch.randn(1, 4, 5, 16)
    order = torch.randperm(20)
    shuffled = block(x.flatten(1, 2)[:, order].reshape(x.shape))
    torch.testing.assert_close(shuffled.flatten(1, 2), block(x).flatten(1, 2)[:, order])


def test_modulation_is_local() -> None:
    """A voxel changes the result of a modulation block only within half a kernel of itself."""
    block = ModulationBlock(ModulationStyle(layers_for(3), (1, 3, 5), 1e-5), 4, 2)
    _randomise(block)
    x = torch.randn(1, 5, 7, 9, 4)
    touched = x.clone()
    touched[0, 2, 3, 4] += torch.randn(4)
    changed = (block(touched) - block(x)).abs().amax(-1)[0] > 1e-6
    wanted = torch.zeros(5, 7, 9, dtype=torch.bool)
    wanted[2, 2:5, 2:7] = True
    assert torch.equal(changed, wanted)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_reaches_every_parameter(dims: int) -> None:
    """All maps together depend on every parameter."""
    network = EfficientMod(TINY, dims, 2)
    sum(each.square().mean() for each in network(torch.randn(2, 2, *(40,) * dims))).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_checkpointing_changes_nothing_but_memory() -> None:
    """Gradients with recomputed activations are the same."""
    network = EfficientMod(TINY, 2, 1)
    x = torch.randn(1, 1, 33, 40)
    gradients = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        sum(each.square().sum() for each in network(x)).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in network.parameters()]))
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [2, 3])
def test_half_precision_stays_near(dims: int, dtype: torch.dtype) -> None:
    """Under autocast every map is finite and within a few percent of its deviation."""
    network = EfficientMod(TINY, dims, 1).eval()
    _randomise(network)
    x = torch.randn(1, 1, *(45, 39, 33)[:dims])
    with torch.inference_mode():
        wanted = network(x)
        with torch.autocast("cpu", dtype):
            maps = network(x)
    for each, exact in zip(maps, wanted, strict=True):
        assert (each.float() - exact).square().mean().sqrt() < 0.05 * exact.std()


@pytest.mark.parametrize("dims", [2, 3])
def test_layout_of_the_image_does_not_matter(dims: int) -> None:
    """Channels-last images give the same maps, and maps lie with the channels innermost."""
    network = EfficientMod(TINY, dims, 3).eval()
    x = torch.randn(2, 3, *(48, 40, 36)[:dims])
    with torch.inference_mode():
        plain = network(x)
        last = network.to(memory_format=layers_for(dims).memory_format)(
            x.contiguous(memory_format=layers_for(dims).memory_format)
        )
    for each, other in zip(plain, last, strict=True):
        torch.testing.assert_close(each, other)
        assert each.stride(1) == 1


@pytest.mark.parametrize("dims", [2, 3])
def test_one_graph_fits_other_sizes(dims: int) -> None:
    """An exported graph with free sizes gives the eager maps of another size."""
    network = EfficientMod(replace(TINY, depths=(1, 1, 1, 0), attention_depths=(0, 0, 0, 1)), dims, 1).eval()
    free = dict.fromkeys(range(2, 2 + dims), torch.export.Dim.DYNAMIC)
    graph = torch.export.export(network, (torch.randn(1, 1, *(64, 96, 64)[:dims]),), dynamic_shapes=(free,))
    x = torch.randn(1, 1, *(37, 70, 41)[:dims])
    for each, eager in zip(graph.module()(x), network(x), strict=True):
        torch.testing.assert_close(each, eager)


def test_head_normalises_before_it_pools() -> None:
    """The logits are those of the mean of the normalised deepest map."""
    head = EfficientModHead(6, 4, 3)
    _randomise(head)
    deepest = torch.randn(2, 6, 2, 3, 1)
    normalised = functional.layer_norm(deepest.movedim(1, -1), (6,), head.norm.weight, head.norm.bias)
    torch.testing.assert_close(head.normalise([deepest]), normalised.movedim(-1, 1))
    torch.testing.assert_close(head([deepest]), head.head(normalised.mean((1, 2, 3))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims is 4"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0"),
        ({"context_kernel_size": 4}, r"context_kernel_size is \(4, 4\)"),
        ({"context_kernel_size": (3, 3, 3)}, r"context_kernel_size is \(3, 3, 3\)"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    """A wrong number is named together with its value."""
    with pytest.raises(SettingsError, match=message):
        EfficientMod(TINY, **{"spatial_dims": 2, "in_channels": 1, **arguments})


def test_head_refuses_an_eps_of_zero() -> None:
    """The head names the eps that is not above 0."""
    with pytest.raises(SettingsError, match="norm_eps is 0"):
        EfficientModHead(8, 2, 2, 0.0)


def test_empty_batch_stays_empty() -> None:
    """A batch of no images gives no maps, of the sizes that any batch has."""
    with torch.inference_mode():
        maps = EfficientMod(TINY, 2, 1).eval()(torch.zeros(0, 1, 64, 40))
    assert [tuple(each.shape) for each in maps] == [(0, 8, 16, 10), (0, 16, 8, 5), (0, 16, 4, 3), (0, 24, 2, 2)]
