"""The TurboViT-style backbone in 2D and 3D: its arithmetic against brute force, and what it may be fed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from effvit_med.errors import SettingsError
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets.turbovit import TURBOVIT, TurboVitPreset
from effvit_med.networks.turbovit import TurboVit, TurboVitHead
from effvit_med.networks.turbovit_attention import (
    MaskUnitAttention,
    MaskUnitKind,
    join_windows,
    pool_pairs,
    split_windows,
)

TINY = TurboVitPreset("tiny", 8, (1, 2, 2, 1), 1, "a test")
SPACES = st.lists(st.integers(1, 9), min_size=1, max_size=3)


def _randomise(network: nn.Module) -> None:
    """Weights of a size at which every part of a block matters."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=weight[0].numel() ** -0.5 if weight.dim() > 1 else 0.5)


def _cells(space: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """The parts of a map, cut short at its end."""
    starts = itertools.product(*(range(0, length, step) for length, step in zip(space, size, strict=True)))
    return [tuple(slice(a, a + step) for a, step in zip(start, size, strict=True)) for start in starts]


def _pool(x: Tensor) -> Tensor:
    """The largest value of each cell of two along every axis, by a loop over the cells of the unpadded map."""
    space = tuple(x.shape[1:-1])
    two = (2,) * len(space)
    cells = [x[(slice(None), *cell)].flatten(1, -2).amax(1) for cell in _cells(space, two)]
    return torch.stack(cells, 1).reshape(x.shape[0], *((size + 1) // 2 for size in space), x.shape[-1])


def _brute_force(layer: MaskUnitAttention, x: Tensor) -> Tensor:
    """The layer's formula by a loop over windows, heads and nothing but the tokens that exist."""
    kind, space = layer.kind, tuple(x.shape[1:-1])
    q, k, v = layer.qkv(x).chunk(3, dim=-1)
    if kind.pool:
        q = _pool(q)
    out = torch.zeros_like(q)
    windows = kind.window or space
    query_windows = kind.query_window or tuple(q.shape[1:-1])
    for cell, query_cell in zip(_cells(space, windows), _cells(tuple(q.shape[1:-1]), query_windows), strict=True):
        some_q, some_k, some_v = q[(slice(None), *query_cell)], k[(slice(None), *cell)], v[(slice(None), *cell)]
        heads = [
            (a @ b.mT / a.shape[-1] ** 0.5).softmax(-1) @ c
            for a, b, c in zip(
                *(each.flatten(1, -2).chunk(kind.heads, dim=-1) for each in (some_q, some_k, some_v)), strict=True
            )
        ]
        out[(slice(None), *query_cell)] = torch.cat(heads, -1).reshape(some_q.shape)
    return layer.proj(out)


@given(space=SPACES, pool=st.booleans(), step=st.sampled_from([2, 4, None]))
def test_attention_equals_brute_force_on_the_unpadded_map(space: list[int], pool: bool, step: int | None) -> None:
    """For any size, windows of any rank give what a loop over the existing tokens gives: padding changes nothing."""
    window = None if step is None else (step,) * len(space)
    layer = MaskUnitAttention(3, 4, MaskUnitKind(2, window, pool))
    _randomise(layer)
    x = torch.randn(2, *space, 3)
    torch.testing.assert_close(layer(x), _brute_force(layer, x), atol=2e-5, rtol=2e-5)


@given(space=SPACES)
def test_pooling_takes_the_largest_of_each_cell(space: list[int]) -> None:
    """Pooling equals a loop over cells of two, which at an odd end hold fewer tokens, also below zero."""
    x = torch.randn(2, *space, 3) - 5
    assert torch.equal(pool_pairs(x), _pool(x))


@given(space=SPACES, data=st.data())
def test_windows_come_apart_and_together(space: list[int], data: st.DataObject) -> None:
    """Joining the windows of a map gives the map, and each window is the part of the map that it names."""
    window = tuple(data.draw(st.integers(1, 5)) for _ in space)
    x = torch.randn(2, *space, 3)
    parts = split_windows(x, window)
    assert torch.equal(join_windows(parts, window, x.shape), x)
    first = x[(slice(1), *(slice(size) for size in window))]
    assert parts[0].sum() == pytest.approx(float(first.sum()), abs=1e-4)


@pytest.mark.parametrize("pool", [False, True])
def test_flipping_and_swapping_axes_does_the_same_to_the_result(pool: bool) -> None:
    """Within whole windows attention knows no direction: it commutes with flips and with swapped axes."""
    layer = MaskUnitAttention(4, 4, MaskUnitKind(2, (4, 4), pool))
    _randomise(layer)
    x = torch.randn(1, 8, 12, 4)
    out = layer(x)
    torch.testing.assert_close(layer(x.flip(1)), out.flip(1))
    torch.testing.assert_close(layer(x.transpose(1, 2)), out.transpose(1, 2))


def test_windows_do_not_see_each_other() -> None:
    """A token changes the result within its own window and nowhere else."""
    layer = MaskUnitAttention(4, 4, MaskUnitKind(1, (4, 4)))
    _randomise(layer)
    x = torch.randn(1, 8, 8, 4)
    touched = x.clone()
    touched[0, 5, 2] += 1
    changed = (layer(touched) - layer(x)).abs().amax(-1)[0] > 1e-6
    assert changed[4:, :4].all()
    assert changed.sum() == 16


def test_a_volume_of_flat_windows_is_a_stack_of_images() -> None:
    """With windows one slice thick the 3D layer gives what the 2D layer gives slice by slice."""
    flat, thick = (MaskUnitAttention(4, 4, MaskUnitKind(2, window)) for window in ((4, 4), (1, 4, 4)))
    thick.load_state_dict(flat.state_dict())
    x = torch.randn(1, 5, 7, 6, 4)
    torch.testing.assert_close(thick(x)[0], flat(x[0]))


def test_gradients_with_padding_are_those_of_brute_force() -> None:
    """Padding neither receives nor gives a gradient."""
    layer = MaskUnitAttention(3, 4, MaskUnitKind(2, (4, 4), pool=True))
    _randomise(layer)
    x = torch.randn(1, 5, 7, 3, requires_grad=True)
    gradients = [
        torch.autograd.grad(compute(x).square().sum(), [x, *layer.parameters()])
        for compute in (layer, lambda image: _brute_force(layer, image))
    ]
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)


@given(
    space=st.lists(st.integers(1, 70), min_size=2, max_size=2) | st.lists(st.integers(1, 37), min_size=3, max_size=3),
    in_channels=st.integers(1, 4),
)
@settings(max_examples=20)
def test_maps_have_the_promised_sizes(space: list[int], in_channels: int) -> None:
    """For any size, axes and channels, map i has size ceil(n / stride) and the channels it names."""
    network = TurboVit(TINY, len(space), in_channels).eval()
    with torch.inference_mode():
        maps = network.features(torch.randn(2, in_channels, *space))
    for each, channels, stride in zip(maps, network.channels, network.strides, strict=True):
        sizes = [-(-size // step) for size, step in zip(space, stride, strict=True)]
        assert each.shape == (2, channels, *sizes)
        assert each.isfinite().all()
    assert network.strides[0] == (4,) * len(space)
    assert network.strides[-1] == (32,) * len(space)


@pytest.mark.parametrize(("name", "mega", "giga"), [("turbovit_t", 3.06, 0.56), ("turbovit_s", 13.26, 2.42)])
def test_size_and_cost_at_224(name: str, mega: float, giga: float) -> None:
    """Parameters with 1000 classes and multiplications at 224 x 224 are those the documentation states."""
    with torch.device("meta"):
        backbone = TurboVit(TURBOVIT[name], 2, 3)
        network = nn.Sequential(backbone, TurboVitHead(backbone.channels[-1], 1000, 2))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 224, 224))
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(mega, abs=0.01)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=0.01)


def test_every_preset_says_that_it_is_ours() -> None:
    """No preset passes for a published one."""
    assert all(preset.origin.startswith("ours") for preset in TURBOVIT.values())


@pytest.mark.parametrize(("dims", "first", "pooling", "second", "leaving"), [(2, 8, 8, 4, 4), (3, 4, 4, 2, 2)])
def test_windows_shrink_with_the_pooling(dims: int, first: int, pooling: int, second: int, leaving: int) -> None:
    """Two stages attend within windows that shrink with the map; the poolings that leave them do too; then globally."""
    kinds = [[block.attn.kind for block in stage] for stage in TurboVit(TINY, dims, 1).stages]
    windows = [[kind.window and kind.window[0] for kind in stage] for stage in kinds]
    assert windows == [[first], [pooling, second], [leaving, None], [None]]
    assert [[kind.pool for kind in stage] for stage in kinds] == [[False], [True, False], [True, False], [True]]


def test_positions_are_stretched_over_the_image() -> None:
    """A table that grows along the first axis makes the constant image differ along that axis alone."""
    network = TurboVit(TINY, 2, 1, table_size=4).eval()
    with torch.inference_mode():
        network.position.copy_(torch.arange(4.0).reshape(1, 1, 4, 1).expand_as(network.position))
        network.patch_embed.weight.zero_()
        finest = network(torch.zeros(1, 1, 64, 64))[0]
    torch.testing.assert_close(finest, finest[..., :1].expand_as(finest))
    assert finest.var(dim=2).amax() > 1e-3


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_reaches_every_parameter(dims: int, checkpointing: bool) -> None:
    """All maps together depend on every parameter, with padding and with recomputed activations too."""
    network = TurboVit(TINY, dims, 2, table_size=6)
    network.checkpointing = checkpointing
    sum(each.square().mean() for each in network(torch.randn(2, 2, *(68, 37, 41)[:dims]))).backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    assert [name for name, each in gradients.items() if each is None or not each.any()] == []
    assert all(each is not None and each.isfinite().all() for each in gradients.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dims", [2, 3])
def test_half_precision_stays_near(dims: int, dtype: torch.dtype) -> None:
    """Under autocast every map is finite and within a few percent of its deviation."""
    network = TurboVit(TINY, dims, 1).eval()
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
    """Channels-last images give the same maps."""
    network = TurboVit(TINY, dims, 3).eval()
    x = torch.randn(2, 3, *(48, 40, 36)[:dims])
    with torch.inference_mode():
        plain = network(x)
        last = network.to(memory_format=layers_for(dims).memory_format)(
            x.contiguous(memory_format=layers_for(dims).memory_format)
        )
    for each, other in zip(plain, last, strict=True):
        torch.testing.assert_close(each, other)


def test_one_graph_fits_other_sizes() -> None:
    """A graph with free sizes, recorded where no padding was needed, gives the eager maps where some is."""
    network = TurboVit(replace(TINY, depths=(1, 1, 1, 1)), 2, 1).eval()
    free = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    graph = torch.export.export(network, (torch.randn(1, 1, 64, 96),), dynamic_shapes=(free,))
    x = torch.randn(1, 1, 37, 70)
    for each, eager in zip(graph.module()(x), network(x), strict=True):
        torch.testing.assert_close(each, eager)


def test_head_pools_the_normalised_deepest_map() -> None:
    """The logits are those of the mean of the normalised deepest map."""
    head = TurboVitHead(6, 4, 3)
    _randomise(head)
    deepest = torch.randn(2, 6, 2, 3, 1)
    wanted = head.head(head.norm(deepest.movedim(1, -1)).mean((1, 2, 3)))
    torch.testing.assert_close(head([torch.zeros(1, 1, 1, 1, 1), deepest]), wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"norm_eps": -1.0}, "norm_eps is -1.0"),
        ({"window_size": 6}, r"window_size is \(6, 6\)"),
        ({"window_size": (8, 8, 8)}, r"window_size is \(8, 8, 8\)"),
        ({"table_size": 0}, "table_size is 0"),
    ],
)
def test_impossible_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    """A wrong number is named together with its value."""
    with pytest.raises(SettingsError, match=message):
        TurboVit(TINY, **{"spatial_dims": 2, "in_channels": 1, **arguments})


def test_odd_windows_cannot_be_pooled() -> None:
    """A window that pooling would cut in half a token is refused."""
    with pytest.raises(SettingsError, match=r"window is \(4, 3\)"):
        MaskUnitKind(1, (4, 3), pool=True)


def test_heads_must_divide_the_channels() -> None:
    """Heads that do not divide the channels are refused."""
    with pytest.raises(SettingsError, match="3 heads do not divide 8"):
        MaskUnitAttention(8, 8, MaskUnitKind(3, None))


def test_head_refuses_an_eps_of_zero() -> None:
    """The head names the eps that is not above 0."""
    with pytest.raises(SettingsError, match="norm_eps is 0"):
        TurboVitHead(8, 2, 2, 0.0)
