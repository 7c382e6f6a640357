"""Facts about convolution, bias and activation in one pass."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from effvit_med.networks import blocks as blocks_module
from effvit_med.networks import build_network, fold_batchnorm
from effvit_med.networks.blocks import BlockStyle, ConvKind, ConvNorm
from effvit_med.networks.fused import _AVAILABLE, can_fuse
from effvit_med.networks.layers import layers_for

pytestmark = pytest.mark.skipif(not _AVAILABLE, reason="this build of torch has no oneDNN")


@settings(max_examples=60)
@given(
    spatial_dims=st.sampled_from([2, 3]),
    kind=st.sampled_from(["point", "depthwise", "dense", "strided"]),
    activation=st.sampled_from([None, "relu", "prelu", "hardswish", "gelu", "gelu_tanh"]),
    channels_last=st.booleans(),
    size=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_one_pass_gives_what_three_gave(
    spatial_dims: int, kind: str, activation: str | None, channels_last: bool, size: tuple[int, ...]
) -> None:
    """For every kind of convolution, activation, layout and size the numbers are the same, to rounding."""
    layers = layers_for(spatial_dims)
    style = BlockStyle(layers, (3,) * spatial_dims, activation or "relu")
    kernel = style.point if kind == "point" else style.kernel_size
    stride = (2,) * spatial_dims if kind == "strided" else style.point
    groups = 4 if kind == "depthwise" else 1
    wanted = ConvKind(kernel, stride, groups, bias=True, norm=False, activation=activation is not None)
    block = ConvNorm(style, 4, 4, wanted)
    x = torch.randn(2, 4, *size[:spatial_dims])
    if channels_last:
        x = x.contiguous(memory_format=layers.memory_format)
        block = block.to(memory_format=layers.memory_format)
    plain = block(x)
    with torch.inference_mode():
        assert can_fuse(x, block.conv)
        torch.testing.assert_close(block(x), plain.detach(), rtol=1e-5, atol=1e-5)


def test_gradients_autocast_graphs_and_strangers_take_the_plain_way() -> None:
    """Nothing is fused where it would lose a gradient, a precision, a count or a subclass."""
    conv, x = nn.Conv2d(1, 1, 1), torch.ones(1, 1, 4, 4)

    class Stranger(torch.Tensor):
        pass

    assert not can_fuse(x, conv)
    with torch.inference_mode():
        assert can_fuse(x, conv)
        assert not can_fuse(x.double(), conv)
        assert not can_fuse(x.to("meta"), conv)
        assert not can_fuse(x[:0], conv)
        assert not can_fuse(x.as_subclass(Stranger), conv)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not can_fuse(x, conv)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of Intel's graphics cards
            with torch.backends.mkldnn.flags(enabled=False):
                assert not can_fuse(x, conv)
    with torch.no_grad(), FakeTensorMode() as mode:
        assert not can_fuse(mode.from_tensor(x), conv)


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_l0", "shvit_s1"])
def test_whole_networks_are_the_same_either_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded for inference, with and without the fused operators."""
    network, image = fold_batchnorm(build_network(2, 1, 3, name)), torch.randn(1, 1, 64, 40)
    with torch.inference_mode():
        fused = network(image)
        monkeypatch.setattr(blocks_module, "can_fuse", lambda *_: False)
        plain = network(image)
    assert float((fused - plain).abs().max() / plain.std()) < 2e-5


@pytest.mark.parametrize("setting", [{"padding": "same"}, {"padding_mode": "reflect", "padding": 1}])
def test_padding_that_the_operators_do_not_know_takes_the_plain_way(setting: dict[str, Any]) -> None:
    """They pad with zeros, by numbers."""
    with torch.inference_mode():
        assert can_fuse(torch.ones(1, 1, 4, 4), nn.Conv2d(1, 1, 3, padding=1))
        assert not can_fuse(torch.ones(1, 1, 4, 4), nn.Conv2d(1, 1, 3, **setting))


def test_images_without_a_batch_take_the_plain_way() -> None:
    """A map without the batch axis is left to torch's own convolution."""
    with torch.inference_mode():
        assert not can_fuse(torch.ones(1, 4, 4), nn.Conv2d(1, 1, 1))


@pytest.mark.parametrize("when", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_run(when: str) -> None:
    """A hook on a convolution sees its call, as nothing is fused while it is there."""
    style = BlockStyle(layers_for(2), (3, 3))
    block = ConvNorm(style, 1, 1, ConvKind((3, 3), (1, 1), norm=False, activation=True))
    calls: list[nn.Module] = []
    handle = getattr(block.conv, when)(lambda conv, *_: calls.append(conv))
    with torch.inference_mode():
        block(torch.ones(1, 1, 4, 4))
        handle.remove()
        block(torch.ones(1, 1, 4, 4))
    assert calls == [block.conv]


def test_counted_calls_take_the_plain_way() -> None:
    """The counter of operations would not know the fused ones."""
    conv, x = nn.Conv2d(1, 1, 1), torch.ones(1, 1, 4, 4)
    with torch.inference_mode(), FlopCounterMode(display=False):
        assert not can_fuse(x, conv)
