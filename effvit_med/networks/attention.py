"""Multi-scale linear attention: every token sees every other at a cost that grows linearly with the tokens.

Source:
    Cai et al., EfficientViT, ICCV 2023 (arXiv 2205.14756), section 3.1: ReLU linear attention
    O_i = ReLU(Q_i) (sum_j ReLU(K_j)^T V_j) / (ReLU(Q_i) sum_j ReLU(K_j)^T), and multi-scale tokens by aggregation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.networks.blocks import BlockStyle, ConvKind, ConvNorm, MBConv, Residual, Widening
from effvit_med.networks.layers import without_autocast


@dataclass(frozen=True)
class AttentionKind:
    """The numbers of an attention layer.

    Attributes:
        head_dim: channels of one head.
        kernel_sizes: one aggregation kernel for each scale beside the finest, each with one number per axis.
        eps: added to the denominator.
        softmax: whether tokens are weighted by the softmax of q . k, at a cost that grows with the square of the
            tokens; it is there to be compared with.
    """

    head_dim: int
    kernel_sizes: tuple[tuple[int, ...], ...]
    eps: float = 1e-15
    softmax: bool = False


def linear_attention(
    q: Float[Tensor, "batch heads dim tokens"],
    k: Float[Tensor, "batch heads dim tokens"],
    v: Float[Tensor, "batch heads value_dim tokens"],
    eps: float,
) -> Float[Tensor, "batch heads value_dim tokens"]:
    """What each token gathers from all tokens, weighted by ReLU(q) . ReLU(k); computed in float32 at least.

    Sums over tokens pass the range of float16 already at 512 x 512, so half precision and autocast are left here and
    taken up again at the end; the result lies within the range of v.

    Args:
        q: what each token asks for.
        k: what each token offers.
        v: what each token gives.
        eps: added to the denominator, which is 0 where a token finds nothing.

    Examples:
        >>> ones = torch.ones(1, 1, 2, 3)
        >>> linear_attention(ones, ones, torch.tensor([[[[1.0, 2.0, 6.0]]]]), 1e-15)
        tensor([[[[3., 3., 3.]]]])
    """
    dtype = q.dtype
    wide = torch.promote_types(dtype, torch.float32)
    with without_autocast(q):
        q, k, v = q.to(wide).relu(), k.to(wide).relu(), v.to(wide)
        gathered = (v @ k.mT) @ q
        weight = k.sum(-1, keepdim=True).mT @ q
        # weight is never below 0; the bound keeps the eps where an exporter takes so small a summand for nothing
        return (gathered / (weight + eps).clamp_min(eps)).to(dtype)


class LiteMLA(nn.Module):
    """Multi-scale linear attention over all pixels or voxels of a map.

    Args:
        style: what all blocks share.
        channels: channels of input and output; a multiple of the head's.
        kind: head size, aggregation kernels and eps.
    """

    def __init__(self, style: BlockStyle, channels: int, kind: AttentionKind) -> None:
        super().__init__()
        self.kind = kind
        heads = channels // kind.head_dim
        inner = heads * kind.head_dim
        plain = ConvKind(style.point, style.point, norm=False, activation=False)
        self.qkv = ConvNorm(style, channels, 3 * inner, plain)
        self.aggreg = nn.ModuleList(
            nn.Sequential(
                style.layers.conv(
                    3 * inner,
                    3 * inner,
                    kernel_size=kernel_size,  # type: ignore[arg-type]  # a tuple as long as the table says
                    padding=tuple(size // 2 for size in kernel_size),  # type: ignore[arg-type]
                    groups=3 * inner,
                    bias=False,
                ),
                style.layers.point_conv(3 * inner, 3 * inner, 1, groups=3 * heads, bias=False),
            )
            for kernel_size in kind.kernel_sizes
        )
        scales = 1 + len(kind.kernel_sizes)
        self.proj = ConvNorm(style, scales * inner, channels, ConvKind(style.point, style.point, activation=False))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The attended map, of the input's size; q, k and v lie side by side within each head."""
        batch, _, *space = x.shape
        head_dim = self.kind.head_dim
        finest = self.qkv(x)
        scales = torch.cat([finest, *(scale(finest) for scale in self.aggreg)], dim=1)
        heads = scales.shape[1] // (3 * head_dim)
        q, k, v = scales.reshape(batch, heads, 3, head_dim, math.prod(space)).unbind(2)
        if self.kind.softmax:
            out = functional.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT
        else:
            out = linear_attention(q, k, v, self.kind.eps)
        return self.proj(out.reshape(batch, heads * head_dim, *space))


class EfficientVitBlock(nn.Module):
    """Residual attention for what is far, then a residual MBConv for what is near.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        kind: the numbers of the attention.
        expand: how many times the MBConv widens.
    """

    def __init__(self, style: BlockStyle, channels: int, kind: AttentionKind, expand: int) -> None:
        super().__init__()
        self.context_module = Residual(LiteMLA(style, channels, kind))
        local = MBConv(style, channels, channels, style.point, Widening(expand, fewer_norm=True))
        self.local_module = Residual(local)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The map after both halves."""
        return self.local_module(self.context_module(x))
