"""Attention within windows that a later pooling makes smaller, and the pooling of its queries.

A map of any size will do: windows that reach beyond its end hold padding, which no query sees and no result keeps.

Source:
    Ryali et al., Hiera, ICML 2023 (arXiv 2306.00989), section 3: mask-unit attention and query pooling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError

#: Numbers of a shape: whole numbers, or what stands for them while a graph with free sizes is recorded.
Sizes: TypeAlias = Sequence[Any]


@dataclass(frozen=True)
class MaskUnitKind:
    """The numbers of one attention layer.

    Attributes:
        heads: how many heads share the channels of the output.
        window: tokens of a window along each axis; None for attention to the whole map.
        pool: whether queries are pooled, which halves the size along each axis.

    Raises:
        SettingsError: if a window whose queries are pooled is odd along an axis.
    """

    heads: int
    window: tuple[int, ...] | None
    pool: bool = False

    def __post_init__(self) -> None:
        if self.pool and self.window is not None and any(size % 2 for size in self.window):
            raise SettingsError(f"window is {self.window}; where queries are pooled every number must be even.")

    @property
    def query_window(self) -> tuple[int, ...] | None:
        """Queries of a window along each axis, after pooling."""
        if self.window is None or not self.pool:
            return self.window
        return tuple(size // 2 for size in self.window)


def pool_pairs(x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *half_space channels"]:
    """The largest value of each cell of two tokens along every axis; at an odd end a cell holds fewer tokens.

    Args:
        x: the map, with the channels innermost.

    Returns:
        Size ceil(n / 2) along each axis.

    Examples:
        >>> pool_pairs(torch.tensor([[[-1.0], [-2.0], [-3.0]]])).flatten()
        tensor([-1., -3.])
    """
    for axis in range(1, x.dim() - 1):
        size = x.shape[axis]
        every_other = (*(slice(None),) * axis, slice(None, None, 2))
        partner = (2 * torch.arange((size + 1) // 2, device=x.device) + 1).clamp(max=size - 1)
        x = torch.maximum(x[every_other], x.index_select(axis, partner))
    return x


def split_windows(
    x: Float[Tensor, "batch *space channels"] | Bool[Tensor, "batch *space channels"], window: Sequence[int]
) -> Float[Tensor, "windows tokens channels"] | Bool[Tensor, "windows tokens channels"]:
    """The windows of a map, one after the other within each image; padded at the end of each axis with zeros.

    Args:
        x: the map, with the channels innermost.
        window: tokens along each axis.

    Examples:
        >>> split_windows(torch.arange(1.0, 6.0).reshape(1, 5, 1), (3,)).squeeze(-1)
        tensor([[1., 2., 3.],
                [4., 5., 0.]])
    """
    batch, *space, channels = x.shape
    dims, counts = len(window), _count_windows(space, window)
    x = _change_ends(x, space, window, 1)
    blocks = [number for pair in zip(counts, window, strict=True) for number in pair]
    order = (0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    x = x.reshape(batch, *blocks, channels).permute(order)
    return x.reshape(batch * math.prod(counts), math.prod(window), channels)


def join_windows(
    x: Float[Tensor, "windows tokens channels"], window: Sequence[int], shape: Sizes
) -> Float[Tensor, "batch *space channels"]:
    """The map whose windows these are, without the padding: the inverse of `split_windows`.

    Args:
        x: the windows.
        window: tokens along each axis.
        shape: how many maps there are, then the size of each, then its channels.
    """
    batch, *space, channels = shape
    dims, counts = len(window), _count_windows(space, window)
    order = [axis for pair in zip(range(1, dims + 1), range(dims + 1, 2 * dims + 1), strict=True) for axis in pair]
    x = x.reshape(batch, *counts, *window, channels).permute(0, *order, 2 * dims + 1)
    x = x.reshape(batch, *(count * step for count, step in zip(counts, window, strict=True)), channels)
    return _change_ends(x, space, window, -1)


class MaskUnitAttention(nn.Module):
    """Softmax attention of pooled or unpooled queries to the tokens of their window, or to all tokens.

    Within windows the cost grows with the number of tokens; over the whole map with its square.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, a multiple of the heads.
        kind: heads, window and pooling.

    Raises:
        SettingsError: if the heads do not divide the output's channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: MaskUnitKind) -> None:
        super().__init__()
        if out_channels % kind.heads:
            raise SettingsError(f"{kind.heads} heads do not divide {out_channels} channels.")
        self.kind = kind
        self.head_dim = out_channels // kind.heads
        self.parts = (out_channels, 2 * out_channels)
        self.qkv = nn.Linear(in_channels, 3 * out_channels)
        self.proj = nn.Linear(out_channels, out_channels)

    def forward(self, x: Float[Tensor, "batch *space in_channels"]) -> Float[Tensor, "batch *query_space out_channels"]:
        """The attended map, of size n, or ceil(n / 2) along each axis where queries are pooled."""
        q, kv = self.qkv(x).split(self.parts, dim=-1)
        if self.kind.pool:
            q = pool_pairs(q)
        window, query_window = self.kind.window, self.kind.query_window
        if window is None or query_window is None:
            return self.proj(self._attend(q.flatten(1, -2), kv.flatten(1, -2), None).reshape(q.shape))
        seen = _seen_keys(x, window)
        out = self._attend(split_windows(q, query_window), split_windows(kv, window), seen)
        return self.proj(join_windows(out, query_window, q.shape))

    def _attend(self, q: Tensor, kv: Tensor, seen: Tensor | None) -> Tensor:
        q = q.reshape(*q.shape[:2], self.kind.heads, self.head_dim).transpose(1, 2)
        k, v = kv.reshape(*kv.shape[:2], 2, self.kind.heads, self.head_dim).transpose(1, 3).unbind(2)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)


def _seen_keys(x: Tensor, window: Sequence[int]) -> Tensor | None:
    """Which tokens of each window are no padding, as (batch * windows, 1, 1, tokens); None where all are."""
    space = x.shape[1:-1]
    if not _is_graph() and not _needs_padding(space, window):
        return None
    real = split_windows(torch.ones((1, *space, 1), dtype=torch.bool, device=x.device), window)
    windows, tokens, _ = real.shape
    return real.unsqueeze(0).expand(x.shape[0], windows, tokens, 1).reshape(x.shape[0] * windows, 1, 1, tokens)


def _count_windows(space: Sizes, window: Sequence[int]) -> list[Any]:
    return [(size + step - 1) // step for size, step in zip(space, window, strict=True)]


def _change_ends(x: Tensor, space: Sizes, window: Sequence[int], sign: int) -> Tensor:
    """The map with what its windows lack added (1) or taken away (-1) at the end of each axis; a new tensor."""
    if not _is_graph() and not _needs_padding(space, window):
        return x
    counts = _count_windows(space, window)
    ends = [sign * (count * step - size) for count, step, size in zip(counts, window, space, strict=True)]
    return functional.pad(x, [0, 0, *(number for end in reversed(ends) for number in (0, end))])


def _needs_padding(space: Sizes, window: Sequence[int]) -> bool:
    return any(size % step for size, step in zip(space, window, strict=True))


def _is_graph() -> bool:
    """Whether a graph is recorded, which must fit other sizes too: then padding may not be left out."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # documented, but not typed
    return tracing or torch.compiler.is_compiling()
