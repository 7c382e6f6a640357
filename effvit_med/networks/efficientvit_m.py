"""EfficientViT-M: attention within windows, whose heads work one after the other, each on its own channels.

A map that fits into one window is attended as a whole, with the part of the bias table that its offsets need. A larger
one is padded at the end of every axis to whole windows. The published 2D models let the padding take part in the
softmax; where it is masked instead, the result is that of windows cut off at the edge of the map.

Source:
    Liu et al., EfficientViT, CVPR 2023 (arXiv 2305.07027), section 3.2: cascaded group attention, equations 2 to 4.
    Learned bias by absolute offset: Graham et al., LeViT (arXiv 2104.01136), section 4.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle, ConvKind
from effvit_med.networks.large_stride import (
    ConvBatchNorm,
    FeedForward,
    LargeStrideBackbone,
    Residual,
    depthwise,
    large_stride_style,
    softmax_attention,
)
from effvit_med.networks.layers import require_odd
from effvit_med.networks.presets.efficientvit_m import EfficientVitMPreset


@dataclass(frozen=True)
class WindowKind:
    """The numbers of the attention in one stage.

    Attributes:
        heads: how many heads.
        key_dim: channels of q and of k in one head.
        window: the side of a window.
        q_kernel_sizes: the kernel of the depthwise convolution of q, for each head at least.
        mask_padding: whether what is padded to fill the last windows is left out of the attention.
    """

    heads: int
    key_dim: int
    window: int
    q_kernel_sizes: tuple[int, ...]
    mask_padding: bool


def bias_of_offsets(
    table: Float[Tensor, "heads offsets"], window: int, space: Sequence[int]
) -> Float[Tensor, "heads tokens tokens"]:
    """The bias of every pair of tokens, taken from the table by their absolute offset along each axis.

    Args:
        table: one value per head and offset, offsets in array order with the last axis fastest.
        window: how many offsets the table has along each axis.
        space: the size of the map; no side above the window.

    Examples:
        >>> bias_of_offsets(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), 2, (1, 2))
        tensor([[[0., 1.],
                 [1., 0.]]])
    """
    dims = len(space)
    index = torch.zeros((1,) * (2 * dims), dtype=torch.long, device=table.device)
    for axis, size in enumerate(space):
        place = torch.arange(size, device=table.device)
        offset = (place[:, None] - place).abs()
        shape = [1] * (2 * dims)
        shape[axis], shape[dims + axis] = size, size
        index = index * window + offset.reshape(shape)
    return table[:, index.flatten(0, dims - 1).flatten(1)]


class CascadedGroupAttention(nn.Module):
    """Heads in a row: each attends its own channels plus what the head before it has found.

    Args:
        style: what all blocks share.
        channels: channels of input and output; a multiple of the heads.
        kind: the numbers of the attention.
    """

    def __init__(self, style: BlockStyle, channels: int, kind: WindowKind) -> None:
        super().__init__()
        width = channels // kind.heads
        self.window = kind.window
        self.parts = [kind.key_dim, kind.key_dim, width]
        offsets = kind.window**style.layers.spatial_dims
        self.attention_biases = nn.Parameter(torch.zeros(kind.heads, offsets))
        self.qkvs = nn.ModuleList(ConvBatchNorm(style, width, sum(self.parts)) for _ in range(kind.heads))
        self.dws = nn.ModuleList(q_convolution(style, kind.key_dim, k) for k in kind.q_kernel_sizes[: kind.heads])
        self.proj = nn.Sequential(nn.ReLU(inplace=True), ConvBatchNorm(style, channels, channels))

    def forward(
        self, x: Float[Tensor, "batch channels *space"], keep: Bool[Tensor, "batch 1 *space"] | None = None
    ) -> Float[Tensor, "batch channels *space"]:
        """The attended map, of the input's size.

        Args:
            x: whole maps or windows; no side above the window.
            keep: which voxels may be seen by others; all where left out.
        """
        bias = bias_of_offsets(self.attention_biases, self.window, x.shape[2:])
        found: list[Tensor] = []
        hidden = None if keep is None else ~keep.flatten(2)
        for index, chunk in enumerate(x.chunk(len(self.qkvs), dim=1)):
            given = chunk + found[-1] if found else chunk
            q, k, v = torch.split(self.qkvs[index](given), self.parts, dim=1)
            q = self.dws[index](q if keep is None else q * keep)
            out = softmax_attention(q.flatten(2), k.flatten(2), v.flatten(2), bias[index], hidden)
            found.append(out.reshape(v.shape))
        return self.proj(torch.cat(found, dim=1))


def q_convolution(style: BlockStyle, channels: int, kernel_size: int) -> ConvBatchNorm:
    """The depthwise convolution of one head's q.

    Args:
        style: what all blocks share.
        channels: channels of q.
        kernel_size: odd, for every axis.
    """
    kernel = (kernel_size,) * style.layers.spatial_dims
    return ConvBatchNorm(style, channels, channels, ConvKind(kernel, style.point, groups=channels, activation=False))


class LocalWindowAttention(nn.Module):
    """Cascaded group attention over a small map as a whole, or over the windows of a larger one.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        kind: the numbers of the attention.
    """

    def __init__(self, style: BlockStyle, channels: int, kind: WindowKind) -> None:
        super().__init__()
        self.mask_padding = kind.mask_padding
        self.attn = CascadedGroupAttention(style, channels, kind)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The attended map, of the input's size."""
        space, window = x.shape[2:], self.attn.window
        if _is_graph():
            inside = _inside(x, window)
            if not self.mask_padding:
                for size in space:
                    inside = inside | (torch.arange(size, device=x.device)[-1] >= window)
            return self._windows(x, inside)
        if all(size <= window for size in space):
            return self.attn(x)
        padded = any(size % window for size in space)
        return self._windows(x, _inside(x, window) if padded and self.mask_padding else None)

    def _windows(self, x: Tensor, inside: Tensor | None) -> Tensor:
        window = self.attn.window
        keep = None if inside is None else _partition(inside.expand(x.shape[0], 1, *inside.shape[2:]), window)
        return _join(self.attn(_partition(x, window), keep), x)


def _is_graph() -> bool:
    """Whether one graph must serve every size, so that no branch may depend on it."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # documented, but not typed
    return tracing or getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def _counts(x: Tensor, window: int) -> list[Any]:
    """How many windows there are along each axis; symbols where a graph is made."""
    return [(size + window - 1) // window for size in x.shape[2:]]


def _inside(x: Tensor, window: int) -> Tensor:
    """Which voxels of the padded map belong to the map; of shape (1, 1, *padded space)."""
    inside = torch.ones((1,) * x.dim(), dtype=torch.bool, device=x.device)
    for axis, count in enumerate(_counts(x, window), 2):
        shape = [-1 if other == axis else 1 for other in range(x.dim())]
        inside = inside & (torch.arange(count * window, device=x.device) < x.shape[axis]).reshape(shape)
    return inside


def _partition(x: Tensor, window: int) -> Tensor:
    """The windows of a map, padded with zeros, as a batch with the channels innermost in memory."""
    dims, counts = x.dim() - 2, _counts(x, window)
    missing = [count * window - size for count, size in zip(counts, x.shape[2:], strict=True)]
    x = x.movedim(1, -1)
    if _is_graph() or any(missing):
        x = functional.pad(x, [0, 0, *(n for pad in reversed(missing) for n in (0, pad))])
    x = x.reshape(x.shape[0], *(n for count in counts for n in (count, window)), x.shape[-1])
    order = (0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    return x.permute(order).flatten(0, dims).movedim(-1, 1)


def _join(windows: Tensor, like: Tensor) -> Tensor:
    """The map, of another's size, that windows were taken from; the inverse of `_partition`."""
    window, dims, x = windows.shape[2], like.dim() - 2, windows.movedim(1, -1)
    counts = _counts(like, window)
    x = x.reshape(like.shape[0], *counts, *(window,) * dims, x.shape[-1])
    order = (0, *(axis for pair in range(dims) for axis in (1 + pair, 1 + dims + pair)), 2 * dims + 1)
    x = x.permute(order).reshape(like.shape[0], *(count * window for count in counts), x.shape[-1])
    for axis, size in enumerate(like.shape[2:], 1):
        # a copy, as the strides of a cut would tie the graph to the remainder of its first size
        x = x.index_select(axis, torch.arange(size, device=x.device)) if _is_graph() else x.narrow(axis, 0, size)
    return x.movedim(-1, 1)


class EfficientVitMBlock(nn.Module):
    """The sandwich: convolution and feed-forward, attention, convolution and feed-forward; all residual.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        kind: the numbers of the attention.
    """

    def __init__(self, style: BlockStyle, channels: int, kind: WindowKind) -> None:
        super().__init__()
        self.dw0 = depthwise(style, channels)
        self.ffn0 = Residual(FeedForward(style, channels))
        self.mixer = Residual(LocalWindowAttention(style, channels, kind))
        self.dw1 = depthwise(style, channels)
        self.ffn1 = Residual(FeedForward(style, channels))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The map after all five."""
        return self.ffn1(self.dw1(self.mixer(self.ffn0(self.dw0(x)))))


class EfficientVitM(LargeStrideBackbone):
    """An EfficientViT-M backbone; takes any number of channels and any size down to a single voxel.

    Args:
        preset: the numbers of the model.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        norm_eps: added to the variance in every normalisation; 1e-5 as published.
        window_size: the side of the window in every stage; that of the preset where left out: 7, 7 and 4 for images.
        q_kernel_sizes: the kernels of q, for each head; those of the preset where left out.
        mask_padding: whether windows end at the edge of the map; by default they do in volumes and, as published, do
            not in images.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, or a number is impossible: in_channels or window_size below
            1, norm_eps not above 0, a kernel that is even or below 1, or fewer kernels than heads.

    Examples:
        >>> from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
        >>> backbone = EfficientVitM(EFFICIENTVIT_M["efficientvit_m0"], spatial_dims=2, in_channels=1).eval()
        >>> [tuple(each.shape) for each in backbone.features(torch.zeros(1, 1, 70, 500))][-1]
        (1, 192, 2, 8)
    """

    def __init__(
        self,
        preset: EfficientVitMPreset,
        spatial_dims: int,
        in_channels: int,
        *,
        norm_eps: float = 1e-5,
        window_size: int | None = None,
        q_kernel_sizes: tuple[int, ...] | None = None,
        mask_padding: bool | None = None,
    ) -> None:
        style = large_stride_style(spatial_dims, norm_eps)
        if window_size is not None and window_size < 1:
            raise SettingsError(f"window_size is {window_size}; give at least 1.")
        kernels = preset.q_kernel_sizes if q_kernel_sizes is None else tuple(q_kernel_sizes)
        require_odd(kernels, "q_kernel_sizes")
        if len(kernels) < max(preset.heads) or min(kernels) < 1:
            raise SettingsError(
                f"q_kernel_sizes is {kernels}; {preset.name} has up to {max(preset.heads)} heads, so give one odd "
                "number of at least 1 for each."
            )
        published = preset.windows if spatial_dims == 2 else preset.volume_windows
        masked = spatial_dims == 3 if mask_padding is None else mask_padding
        stages = []
        for width, depth, heads, window in zip(preset.widths, preset.depths, preset.heads, published, strict=True):
            kind = WindowKind(heads, preset.key_dim, window_size or window, kernels, masked)
            stages.append([EfficientVitMBlock(style, width, kind) for _ in range(depth)])
        super().__init__(preset.name, style, in_channels, preset.widths, stages)
        self.style = style
        self.adopts_windows = window_size is None
        self.adopts_kernels = q_kernel_sizes is None

    def adopt(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        """Fits what was left to the preset, the windows and the kernels of q, to weights that are to be loaded.

        The published weights for detection have windows of 7 in every stage, and other kernels in M0. What is rebuilt
        gets new parameters, trained or frozen as before: load the weights and make the optimiser afterwards. Shapes
        that no network of this kind has are left for the loader to report.

        Args:
            shapes: the shape of each weight by its name in this network's ``state_dict``.

        Returns:
            One sentence for each kind of change; empty where everything fits already.
        """
        windows, kernels = dict[str, None](), dict[str, None]()
        for name, module in self.named_modules():
            if not isinstance(module, CascadedGroupAttention):
                continue
            if self.adopts_windows:
                windows |= self._adopt_window(module, tuple(shapes.get(f"{name}.attention_biases", ())))
            for index in range(len(module.dws) if self.adopts_kernels else 0):
                kernels |= self._adopt_kernel(module, index, tuple(shapes.get(f"{name}.dws.{index}.c.weight", ())))
        found = {"attention windows": ", ".join(windows), "kernels of q": ", ".join(kernels)}
        return [
            f"The {what} were changed from a side of {how}, to fit the weights." for what, how in found.items() if how
        ]

    def _adopt_window(self, attention: CascadedGroupAttention, shape: tuple[int, ...]) -> dict[str, None]:
        table, old = attention.attention_biases, attention.window
        new = round(shape[-1] ** (1 / self.spatial_dims)) if shape else 0
        if new == old or shape != (table.shape[0], new**self.spatial_dims):
            return {}
        attention.window = new
        attention.attention_biases = nn.Parameter(table.new_zeros(shape), requires_grad=table.requires_grad)
        return {f"{old} to {new}": None}

    def _adopt_kernel(self, attention: CascadedGroupAttention, index: int, shape: tuple[int, ...]) -> dict[str, None]:
        old_conv: Any = attention.dws[index].c
        before: nn.Parameter = old_conv.weight
        old, new = before.shape[-1], shape[-1] if shape else 0
        if new == old or new % 2 == 0 or shape != (*before.shape[:2], *(new,) * self.spatial_dims):
            return {}
        conv = q_convolution(self.style, before.shape[0], new).c.train(old_conv.training)
        layout = self.style.layers.memory_format if before.stride(1) == 1 < old else torch.contiguous_format
        weight = conv.weight.detach().to(before).to(memory_format=layout)
        conv.weight, conv.bias = nn.Parameter(weight, requires_grad=before.requires_grad), old_conv.bias
        attention.dws[index].c = conv
        return {f"{old} to {new}": None}


def resize_bias_table(
    table: Float[Tensor, "heads old_offsets"], old: tuple[int, ...], new: tuple[int, ...]
) -> Float[Tensor, "heads new_offsets"]:
    """A table for windows of another size: cut by offset along axes that shrink, interpolated along axes that grow.

    Interpolation is bicubic in 2D, as for the published detection models, and trilinear in 3D.

    Args:
        table: one value per head and offset, offsets in array order with the last axis fastest.
        old: how many offsets the table has along each axis.
        new: how many it shall have along each axis.

    Raises:
        SettingsError: if the sizes are not of 2 or 3 axes both, one is below 1, or they do not fit the table.

    Examples:
        >>> resize_bias_table(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), (2, 2), (2, 1))
        tensor([[0., 2.]])
    """
    _check_sizes(table, old, new, (len(old), len(old)))
    grid = table.reshape(-1, *old)
    for axis, size in enumerate(new):
        grid = grid.narrow(1 + axis, 0, min(size, grid.shape[1 + axis]))
    if tuple(grid.shape[1:]) != tuple(new):
        mode = "bicubic" if len(new) == 2 else "trilinear"
        wide = torch.promote_types(table.dtype, torch.float32)
        grid = functional.interpolate(grid[None].to(wide), size=tuple(new), mode=mode, align_corners=False)[0]
    return grid.flatten(1).to(table.dtype)


def inflate_bias_table(
    table: Float[Tensor, "heads old_offsets"], old2d: tuple[int, ...], new3d: tuple[int, ...]
) -> Float[Tensor, "heads new_offsets"]:
    """A volume's table from an image's: the value does not depend on the offset along the new first axis.

    Args:
        table: one value per head and offset of the image.
        old2d: how many offsets it has along each of the two axes.
        new3d: how many the new one shall have along each of the three; the last two are resized to.

    Raises:
        SettingsError: if there are not two and three sizes, one is below 1, or they do not fit the table.

    Examples:
        >>> inflate_bias_table(torch.tensor([[0.0, 1.0]]), (1, 2), (2, 1, 2))
        tensor([[0., 1., 0., 1.]])
    """
    _check_sizes(table, old2d, new3d, (2, 3))
    return resize_bias_table(table, old2d, new3d[1:]).repeat(1, new3d[0])


def _check_sizes(table: Tensor, old: tuple[int, ...], new: tuple[int, ...], axes: tuple[int, int]) -> None:
    if (len(old), len(new)) != axes or len(old) not in (2, 3) or min(*old, *new) < 1:
        raise SettingsError(
            f"A bias table of {old} offsets cannot become one of {new}; give 2 or 3 axes of at least 1."
        )
    if math.prod(old) != table.shape[1]:
        raise SettingsError(f"The bias table has {table.shape[1]} offsets, but {old} makes {math.prod(old)}.")
