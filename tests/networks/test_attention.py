"""Multi-scale linear attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from effvit_med.networks.attention import AttentionKind, LiteMLA, linear_attention
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.layers import layers_for


def _attention(spatial_dims: int, kernel_sizes: tuple[tuple[int, ...], ...]) -> LiteMLA:
    torch.manual_seed(1)
    style = BlockStyle(layers_for(spatial_dims), (3,) * spatial_dims)
    return LiteMLA(style, 16, AttentionKind(8, kernel_sizes)).eval()


def _quadratic(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same attention by its definition: one weight for each pair of tokens."""
    weights = q.relu().mT @ k.relu()
    weights = weights / weights.sum(-1, keepdim=True)
    return v @ weights.mT


@given(tokens=st.integers(1, 40), dim=st.sampled_from([4, 16, 32]), seed=st.integers(0, 1000))
def test_linear_form_equals_quadratic_form(tokens: int, dim: int, seed: int) -> None:
    """Summing over keys first gives what weighting every pair of tokens gives."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, dim, tokens, generator=generator, dtype=torch.float64) for _ in range(3))
    k[..., 0] = k[..., 0].abs() + 0.1  # so that every token finds something
    q = q.abs()
    torch.testing.assert_close(linear_attention(q, k, v, 1e-15), _quadratic(q, k, v), atol=1e-9, rtol=1e-9)


def test_token_that_finds_nothing_gets_zero() -> None:
    """Where no key answers a query, eps keeps 0 / 0 from becoming NaN."""
    q, v = torch.full((1, 1, 4, 3), -1.0), torch.randn(1, 1, 4, 3)
    assert linear_attention(q, q, v, 1e-15).abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    """Sums over 16384 tokens pass the range of float16, yet the result stays within the range of the values."""
    q, k = torch.full((1, 1, 16, 16384), 8.0, dtype=dtype), torch.full((1, 1, 16, 16384), 8.0, dtype=dtype)
    v = torch.full((1, 1, 16, 16384), 3.0, dtype=dtype)
    out = linear_attention(q, k, v, 1e-15)
    assert out.dtype == dtype
    torch.testing.assert_close(out, v)


def test_autocast_is_left_in_the_core() -> None:
    """Under autocast the matrix products of the core still run in float32."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 8, 50) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        inside = linear_attention(q, k, v, 1e-15)
    torch.testing.assert_close(inside, linear_attention(q, k, v, 1e-15), atol=0, rtol=0)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_attention_follows_a_permutation_of_voxels(spatial_dims: int) -> None:
    """Without the aggregation the order of voxels does not matter: permuted in is permuted out."""
    attention = _attention(spatial_dims, ())
    size = (3, 4, 5)[:spatial_dims]
    x = torch.randn(2, 16, *size)
    order = torch.randperm(x[0, 0].numel())
    permuted = x.flatten(2)[..., order].reshape(x.shape)
    expected = attention(x).flatten(2)[..., order].reshape(x.shape)
    torch.testing.assert_close(attention(permuted), expected, atol=1e-5, rtol=1e-4)


def test_aggregation_sees_the_neighbourhood() -> None:
    """With the aggregation the order of voxels does matter, or its convolutions would do nothing."""
    attention = _attention(2, ((5, 5),))
    x = torch.randn(1, 16, 6, 6)
    order = torch.randperm(36)
    permuted = x.flatten(2)[..., order].reshape(x.shape)
    expected = attention(x).flatten(2)[..., order].reshape(x.shape)
    assert (attention(permuted) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_attention_follows_a_swap_of_axes(spatial_dims: int) -> None:
    """Swapping two axes of the map and of the kernels swaps those of the output."""
    attention = _attention(spatial_dims, ((5,) * spatial_dims,))
    x = torch.randn(1, 16, *(3, 6, 5)[:spatial_dims])
    expected = attention(x).transpose(2, 3)
    for module in attention.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            module.weight.data = module.weight.data.transpose(2, 3).contiguous()
    torch.testing.assert_close(attention(x.transpose(2, 3)), expected, atol=1e-5, rtol=1e-4)


def test_heads_hold_q_k_and_v_side_by_side() -> None:
    """Channels 0 to 3 dim of the qkv projection belong to head 0: silencing head 1 leaves head 0 as it was."""
    attention = _attention(2, ())
    taken: list[Tensor] = []
    attention.proj.register_forward_pre_hook(lambda _, arguments: taken.append(arguments[0]))
    x = torch.randn(1, 16, 4, 4)
    with torch.no_grad():
        attention(x)
        attention.qkv.conv.weight[24:] = 0.0
        attention(x)
    torch.testing.assert_close(taken[0][:, :8], taken[1][:, :8])
    assert taken[1][:, 8:].abs().max() == 0


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_empty_batch_stays_empty(spatial_dims: int) -> None:
    """A batch of no maps gives no maps, as the layers of torch do."""
    shape = (0, 16, *(4, 5, 6)[:spatial_dims])
    assert _attention(spatial_dims, ((5,) * spatial_dims,))(torch.zeros(shape)).shape == shape


def test_softmax_kind_weights_pairs_by_their_softmax() -> None:
    """The kind that is there to be compared with gives what its definition gives."""
    torch.manual_seed(2)
    style = BlockStyle(layers_for(2), (3, 3))
    layer = LiteMLA(style, 8, AttentionKind(8, (), softmax=True)).eval()
    x = torch.randn(1, 8, 3, 4)
    q, k, v = layer.qkv(x).reshape(1, 1, 3, 8, 12).unbind(2)
    weights = (q.mT @ k / 8**0.5).softmax(-1)
    expected = layer.proj((v @ weights.mT).reshape(1, 8, 3, 4))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
