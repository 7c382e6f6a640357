"""EfficientViT-M: windows, padding, bias tables, and weights of other shapes."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks import fold_batchnorm
from effvit_med.networks.efficientvit_m import (
    EfficientVitM,
    LocalWindowAttention,
    WindowKind,
    bias_of_offsets,
    inflate_bias_table,
    resize_bias_table,
)
from effvit_med.networks.large_stride import large_stride_style
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M

M0 = EFFICIENTVIT_M["efficientvit_m0"]


def _attention(spatial_dims: int, *, window: int = 3, mask_padding: bool) -> LocalWindowAttention:
    torch.manual_seed(0)
    kind = WindowKind(2, 4, window, (3, 5), mask_padding)
    module = LocalWindowAttention(large_stride_style(spatial_dims, 1e-5), 8, kind).eval()
    for name, value in module.state_dict().items():
        if name.endswith(("bias", "attention_biases")):
            value.normal_()
    return module


def _by_hand(module: LocalWindowAttention, x: Tensor) -> Tensor:
    """Attention over one whole map by the equations, token by token; `x` has no batch."""
    attn, space = module.attn, x.shape[1:]
    places = list(itertools.product(*(range(n) for n in space)))
    index = {offset: i for i, offset in enumerate(itertools.product(range(attn.window), repeat=len(space)))}
    found: list[Tensor] = []
    for head, chunk in enumerate(x[None].chunk(2, dim=1)):
        q, k, v = attn.qkvs[head](chunk + found[-1] if found else chunk).split([4, 4, 4], dim=1)
        q = attn.dws[head](q)
        out = torch.empty_like(v)
        for here in places:
            scores = []
            for there in places:
                offset = tuple(abs(a - b) for a, b in zip(here, there, strict=True))
                product = q[(0, slice(None), *here)] @ k[(0, slice(None), *there)] / 2
                scores.append(product + attn.attention_biases[head, index[offset]])
            weights = torch.stack(scores).softmax(0)
            out[(0, slice(None), *here)] = v.flatten(2)[0] @ weights
        found.append(out)
    return attn.proj(torch.cat(found, dim=1))[0]


@pytest.mark.parametrize("space", [(3, 3), (2, 3), (1, 1), (2, 3, 1)])
@torch.no_grad()
def test_small_map_is_attended_whole(space: tuple[int, ...]) -> None:
    """A map that fits into one window gives what the equations give, with the bias of each absolute offset."""
    module = _attention(len(space), mask_padding=False)
    x = torch.randn(2, 8, *space)
    wanted = torch.stack([_by_hand(module, each) for each in x])
    torch.testing.assert_close(module(x), wanted)


@pytest.mark.parametrize("space", [(7, 5), (2, 4), (4, 5, 2)])
@torch.no_grad()
def test_masked_padding_is_as_if_it_were_not_there(space: tuple[int, ...]) -> None:
    """With masked padding each window, cut off at the map's edge, is attended as a map of its own."""
    module = _attention(len(space), mask_padding=True)
    x = torch.randn(2, 8, *space)
    wanted = torch.empty_like(x)
    for corner in itertools.product(*(range(0, n, 3) for n in space)):
        box = tuple(slice(start, start + 3) for start in corner)
        for batch in range(2):
            wanted[(batch, slice(None), *box)] = _by_hand(module, x[(batch, slice(None), *box)])
    torch.testing.assert_close(module(x), wanted)


@pytest.mark.parametrize("space", [(7, 5), (2, 4), (4, 5, 2)])
@torch.no_grad()
def test_padding_takes_part_where_it_is_not_masked(space: tuple[int, ...]) -> None:
    """Without a mask the result is that of the map padded with zeros to whole windows, then cut."""
    module = _attention(len(space), mask_padding=False)
    x = torch.randn(1, 8, *space)
    padded = torch.zeros(1, 8, *(-(-n // 3) * 3 for n in space))
    padded[(..., *(slice(n) for n in space))] = x
    wanted = torch.empty_like(padded)
    for corner in itertools.product(*(range(0, n, 3) for n in padded.shape[2:])):
        box = tuple(slice(start, start + 3) for start in corner)
        wanted[(0, slice(None), *box)] = _by_hand(module, padded[(0, slice(None), *box)])
    torch.testing.assert_close(module(x), wanted[(..., *(slice(n) for n in space))])
    masked = _attention(len(space), mask_padding=True)
    assert (masked(x) - module(x)).abs().max() > 0.01


@pytest.mark.parametrize(
    ("spatial_dims", "mask_padding", "masked"), [(2, None, 0), (3, None, 1), (2, True, 1), (3, False, 0)]
)
def test_padding_is_masked_in_volumes_unless_told(spatial_dims: int, mask_padding: bool | None, masked: int) -> None:
    """By default padding is masked in 3D and, as published, takes part in 2D; the argument overrides it."""
    with torch.device("meta"):
        network = EfficientVitM(M0, spatial_dims, 1, mask_padding=mask_padding)
    found = {each.mask_padding for each in network.modules() if isinstance(each, LocalWindowAttention)}
    assert found == {bool(masked)}


@pytest.mark.parametrize(("spatial_dims", "mask_padding"), [(2, False), (2, True), (3, True)])
@torch.no_grad()
def test_exported_graph_serves_maps_of_other_sizes(spatial_dims: int, mask_padding: bool) -> None:
    """A graph exported once gives the same at sizes with another remainder to the windows."""
    module = _attention(spatial_dims, mask_padding=mask_padding)
    dynamic = (dict.fromkeys(range(2, 2 + spatial_dims), torch.export.Dim.DYNAMIC),)
    example = torch.randn(1, 8, *(7, 9, 5)[:spatial_dims])
    graph = torch.export.export(module, (example,), dynamic_shapes=dynamic).module()
    for space in ((6, 13, 8), (17, 4, 4)):
        x = torch.randn(1, 8, *space[:spatial_dims])
        torch.testing.assert_close(graph(x), module(x))


@torch.no_grad()
def test_exported_graph_of_a_small_map_is_attention_of_the_whole() -> None:
    """The graph, which always pads and masks, gives for a small map what it gives without padding."""
    module = _attention(2, mask_padding=False)
    x = torch.randn(1, 8, 2, 3)
    torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


def test_weights_changed_after_eval_change_the_maps() -> None:
    """A bias table that is changed after `eval` and a first pass is used by the next pass."""
    torch.manual_seed(0)
    network = EfficientVitM(M0, 2, 1).eval()
    x = torch.randn(1, 1, 64, 90)
    with torch.no_grad():
        before = network(x)
        for name, parameter in network.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_(std=3)
        after = network(x)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(after[3:5], before[3:5], strict=True))


@settings(max_examples=30, deadline=None)
@given(space=st.lists(st.integers(1, 4), min_size=2, max_size=3), extra=st.integers(0, 3))
def test_bias_of_a_small_map_is_a_part_of_the_table_by_offset(space: list[int], extra: int) -> None:
    """The same offset has the same bias whatever the map's size."""
    window, dims = max(space) + extra, len(space)
    table = torch.randn(2, window**dims)
    whole = bias_of_offsets(table, window, [window] * dims).reshape(2, *[window] * (2 * dims))
    part = whole[(slice(None), *(slice(n) for n in space), *(slice(n) for n in space))]
    tokens = torch.Size(space).numel()
    torch.testing.assert_close(bias_of_offsets(table, window, space), part.reshape(2, tokens, tokens))


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_adopt_fits_windows_and_kernels(spatial_dims: int) -> None:
    """A network left to its preset takes on the windows and kernels of weights, says so, and then does not change."""
    donor = EfficientVitM(M0, spatial_dims, 1, window_size=3, q_kernel_sizes=(7, 5, 3, 1)).eval()
    network = EfficientVitM(M0, spatial_dims, 1).eval()
    said = network.adopt(_shapes(donor))
    old = "7 to 3, 4 to 3" if spatial_dims == 2 else "4 to 3"
    assert said == [
        f"The attention windows were changed from a side of {old}, to fit the weights.",
        "The kernels of q were changed from a side of 5 to 7, 5 to 3, 5 to 1, to fit the weights.",
    ]
    network.load_state_dict(donor.state_dict())
    assert network.adopt(_shapes(donor)) == []
    x = torch.randn(1, 1, *(70, 90, 65)[:spatial_dims])
    with torch.inference_mode():
        for a, b in zip(network(x), donor(x), strict=True):
            torch.testing.assert_close(a, b)


def test_adopt_leaves_what_the_user_chose() -> None:
    """A window and kernels that were given stay, whatever the weights have."""
    with torch.device("meta"):
        donor = EfficientVitM(M0, 2, 1, window_size=5, q_kernel_sizes=(7, 5, 3, 3))
        chosen = EfficientVitM(M0, 2, 1, window_size=4, q_kernel_sizes=(3, 3, 3, 3))
    before = _shapes(chosen)
    assert chosen.adopt(_shapes(donor)) == []
    assert _shapes(chosen) == before


def test_adopt_leaves_shapes_of_no_such_network_to_the_loader() -> None:
    """A table that is no square, of other heads, or a kernel that is even or oblong, changes nothing."""
    network = EfficientVitM(M0, 2, 1)
    name = "blocks1.0.mixer.m.attn"
    for key, shape in (
        ("attention_biases", (4, 50)),
        ("attention_biases", (3, 25)),
        ("attention_biases", ()),
        ("dws.0.c.weight", (16, 1, 4, 4)),
        ("dws.0.c.weight", (16, 1, 3, 7)),
    ):
        assert network.adopt({f"{name}.{key}": shape}) == []


def test_table_is_cut_by_offset() -> None:
    """A smaller table holds the old values of the offsets that it has."""
    table = torch.arange(2 * 12.0).reshape(2, 12)
    assert resize_bias_table(table, (3, 4), (2, 2)).tolist() == [[0, 1, 4, 5], [12, 13, 16, 17]]


@pytest.mark.parametrize(("old", "new", "mode"), [((4, 4), (7, 7), "bicubic"), ((2, 2, 2), (4, 3, 4), "trilinear")])
def test_table_is_interpolated_to_a_larger_window(old: tuple[int, ...], new: tuple[int, ...], mode: str) -> None:
    """A larger table is the old one interpolated: bicubic in 2D, trilinear in 3D."""
    table = torch.randn(3, torch.Size(old).numel())
    wanted = nn.functional.interpolate(table.reshape(1, 3, *old), size=new, mode=mode, align_corners=False)
    torch.testing.assert_close(resize_bias_table(table, old, new), wanted.reshape(3, -1))


def test_inflated_table_does_not_depend_on_the_new_axis() -> None:
    """Each offset along the new first axis has the image's table, cut to the new window."""
    table = torch.randn(3, 49)
    volume = inflate_bias_table(table, (7, 7), (4, 5, 4)).reshape(3, 4, 5, 4)
    for offset in range(4):
        assert torch.equal(volume[:, offset], table.reshape(3, 7, 7)[:, :5, :4])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [((7, 7), (4, 4, 4), "cannot become"), ((7, 7), (0, 7), "cannot become"), ((5, 5), (4, 4), "49 offsets")],
)
def test_sizes_that_do_not_fit_the_table_are_refused(old: tuple[int, ...], new: tuple[int, ...], message: str) -> None:
    """Sizes that contradict the table or each other are named."""
    with pytest.raises(SettingsError, match=message):
        resize_bias_table(torch.zeros(1, 49), old, new)


def test_inflation_needs_two_axes_and_three() -> None:
    """Only an image's table becomes a volume's."""
    with pytest.raises(SettingsError, match="cannot become"):
        inflate_bias_table(torch.zeros(1, 64), (4, 4, 4), (4, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window_size": 0}, "window_size is 0"),
        ({"q_kernel_sizes": (3, 4, 3, 3)}, "q_kernel_sizes is .*odd"),
        ({"q_kernel_sizes": (3, 3)}, "up to 4 heads"),
        ({"q_kernel_sizes": (3, 3, 3, -1)}, "at least 1 for each"),
    ],
)
def test_impossible_windows_and_kernels_are_refused(arguments: dict[str, object], message: str) -> None:
    """An impossible window or kernel is named."""
    with pytest.raises(SettingsError, match=message):
        EfficientVitM(M0, 2, 1, **arguments)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_empty_batch_stays_empty(mask_padding: bool) -> None:
    """A batch of no maps gives no maps, also where they are cut into windows."""
    assert _attention(2, mask_padding=mask_padding)(torch.zeros(0, 8, 7, 5)).shape == (0, 8, 7, 5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_adopted_kernels_are_what_the_old_ones_were(spatial_dims: int) -> None:
    """A rebuilt convolution keeps being frozen, its precision, mode and layout; it is trained where the old one was."""
    donor = EfficientVitM(M0, spatial_dims, 1, q_kernel_sizes=(7, 7, 7, 7))
    network = EfficientVitM(M0, spatial_dims, 1).to(torch.bfloat16)
    layout = network.style.layers.memory_format
    network = network.to(memory_format=layout).train()  # type: ignore[call-overload]  # torch takes any format
    names = [f"blocks1.0.mixer.m.attn.dws.{index}" for index in (0, 1)]
    network.get_submodule(names[0]).requires_grad_(requires_grad=False).eval()
    network.adopt(_shapes(donor))
    frozen, trained = (network.get_submodule(name) for name in names)
    for block, is_trained in ((frozen, False), (trained, True)):
        weight = block.get_parameter("c.weight")
        assert weight.shape[2:] == (7,) * spatial_dims
        assert {each.dtype for each in block.parameters()} == {torch.bfloat16}
        assert {each.requires_grad for each in block.parameters()} == {is_trained}
        assert {each.training for each in block.modules()} == {is_trained}
        plain = torch.empty(weight.shape)
        assert weight.stride() == plain.to(memory_format=layout).stride() != plain.stride()


def test_adopted_kernels_of_a_folded_network_have_its_bias() -> None:
    """A folded network takes on the weights of another folded one, biases and all."""
    donor = fold_batchnorm(EfficientVitM(M0, 2, 1, q_kernel_sizes=(7, 5, 3, 3)))
    network = fold_batchnorm(EfficientVitM(M0, 2, 1))
    network.adopt(_shapes(donor))
    assert _shapes(network) == _shapes(donor)
