"""The convolution blocks that EfficientViT is made of, for images and volumes alike.

The names of modules and parameters are those of the published checkpoints, so that these load without a mapping.

Source:
    MBConv: Sandler et al., MobileNetV2 (arXiv 1801.04381). Fused MBConv: Tan and Le, EfficientNetV2 (arXiv 2104.00298).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.fused import can_fuse, fused_convolution
from effvit_med.networks.layers import LayerTypes, require_odd
from effvit_med.networks.presets import ActivationName, refuse_unknown

_NORMS = ("batch", "instance")
_FIRST_SLOPE = 0.25  # He et al., arXiv 1502.01852, section 2.1


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network share.

    Attributes:
        layers: the layer types for its number of spatial axes.
        kernel_size: of the spatial convolutions, odd, one per axis.
        activation: the activation.
        norm: ``batch`` as published, or ``instance`` for tiny batches.
        norm_eps: added to the variance in every normalisation.

    Raises:
        SettingsError: if the normalisation is unknown, its eps is not above 0 or a kernel size is even.
    """

    layers: LayerTypes
    kernel_size: tuple[int, ...]
    activation: ActivationName = "hardswish"
    norm: str = "batch"
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.norm not in _NORMS:
            raise refuse_unknown("norm", self.norm, _NORMS)
        if self.norm_eps <= 0:
            raise SettingsError(f"norm_eps is {self.norm_eps}; it must be above 0.")
        require_odd(self.kernel_size, "kernel_size")

    @property
    def point(self) -> tuple[int, ...]:
        """A kernel or stride of 1 along every axis."""
        return (1,) * self.layers.spatial_dims

    def make_norm(self, channels: int) -> nn.Module:
        """A new normalisation layer with scale and shift.

        Args:
            channels: the number of channels.
        """
        if self.norm == "batch":
            return self.layers.batch_norm(channels, eps=self.norm_eps)
        return self.layers.instance_norm(channels, eps=self.norm_eps, affine=True)

    def make_slope(self) -> nn.Parameter | None:
        """The number that a ``prelu`` learns; None for all other activations, which learn nothing."""
        return nn.Parameter(torch.full((1,), _FIRST_SLOPE)) if self.activation == "prelu" else None

    def activate(self, x: Tensor, slope: Tensor | None = None) -> Tensor:
        """The activation of a map; in place where no gradient is wanted, so only for a map nobody else holds.

        Args:
            x: the map.
            slope: what `make_slope` gave, as it is now.
        """
        if slope is not None:
            return functional.prelu(x, slope)
        if self.activation.startswith("gelu"):
            return functional.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        if self.activation == "relu":
            return functional.relu(x, inplace=not torch.is_grad_enabled())
        return functional.hardswish(x, inplace=not torch.is_grad_enabled())


@dataclass(frozen=True)
class ConvKind:
    """What one convolution has, beside its channels.

    Attributes:
        kernel_size: one per axis.
        stride: one per axis.
        groups: into how many groups the channels are split.
        bias: whether it adds a bias.
        norm: whether a normalisation follows.
        activation: whether the activation follows.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    groups: int = 1
    bias: bool = False
    norm: bool = True
    activation: bool = True


def add(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two maps; written into the first where no gradient is wanted, which saves a full-size allocation.

    Args:
        x: a map that nobody else holds.
        y: a map of the same shape.
    """
    return x + y if torch.is_grad_enabled() else x.add_(y)


def fold_pair(conv: nn.Conv2d | nn.Conv3d, norm: nn.Module | None) -> bool:
    """Multiplies a batch normalisation into the convolution before it, in place; the sum is made in float64.

    Args:
        conv: the convolution; it gets a bias.
        norm: what follows it.

    Returns:
        Whether it was folded; nothing else than a batch normalisation with running statistics can be.
    """
    if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d) or norm.running_mean is None or norm.running_var is None:
        return False
    with torch.no_grad():
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        before = conv.bias.double() if conv.bias is not None else 0.0
        bias = norm.bias.double() + (before - norm.running_mean.double()) * scale
        weight = conv.weight.double() * scale.reshape(-1, *(1 for _ in conv.weight.shape[1:]))
        conv.weight.copy_(weight)
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return True


def padded_convolution(style: BlockStyle, in_channels: int, out_channels: int, kind: ConvKind) -> nn.Conv2d | nn.Conv3d:
    """A new convolution, padded so that stride 1 keeps the size; a product of matrices where kernel and stride are 1.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kind: kernel, stride, groups and bias.
    """
    is_point = kind.kernel_size == kind.stride == style.point
    conv = style.layers.point_conv if is_point else style.layers.conv
    return conv(
        in_channels,
        out_channels,
        kernel_size=kind.kernel_size,  # type: ignore[arg-type]  # a tuple as long as the table says
        stride=kind.stride,  # type: ignore[arg-type]
        padding=tuple(size // 2 for size in kind.kernel_size),  # type: ignore[arg-type]
        groups=kind.groups,
        bias=kind.bias,
    )


def convolve(
    x: Tensor,
    conv: nn.Conv2d | nn.Conv3d,
    norm: nn.Module | None,
    style: BlockStyle,
    *,
    activation: bool,
    slope: Tensor | None = None,
) -> Tensor:
    """The map after a convolution, its normalisation and its activation; in one pass where that gives the same.

    Args:
        x: the map.
        conv: the convolution.
        norm: the normalisation, or None where there is none or it is folded.
        style: gives the activation.
        activation: whether there is one.
        slope: that of a ``prelu``.
    """
    if norm is None and can_fuse(x, conv):
        return fused_convolution(x, conv, style.activation if activation else "none", slope)
    x = conv(x)
    if norm is not None:
        x = norm(x)
    return style.activate(x, slope) if activation else x


@runtime_checkable
class Foldable(Protocol):
    """A block that can multiply its normalisation into its convolution, for inference."""

    def fold(self) -> None:
        """Folds in place; a normalisation that depends on the image stays."""
        ...


class ConvNorm(nn.Module):
    """A convolution, then where wanted a normalisation and the activation; padded so that stride 1 keeps the size.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kind: kernel, stride, groups, and what follows; a point convolution with both where left out.
    """

    def __init__(self, style: BlockStyle, in_channels: int, out_channels: int, kind: ConvKind | None = None) -> None:
        super().__init__()
        kind = kind or ConvKind(style.point, style.point)
        self.style = style
        self.activation = kind.activation
        self.conv = padded_convolution(style, in_channels, out_channels, kind)
        self.norm: nn.Module | None = style.make_norm(out_channels) if kind.norm else None
        self.slope = style.make_slope() if kind.activation else None

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"]
    ) -> Float[Tensor, "batch out_channels *smaller_space"]:
        """The convolved map; size n becomes ceil(n / stride) along every axis."""
        return convolve(x, self.conv, self.norm, self.style, activation=self.activation, slope=self.slope)

    def fold(self) -> None:
        """Multiplies the batch normalisation into the convolution, in place."""
        if fold_pair(self.conv, self.norm):
            self.norm = None


class DSConv(nn.Module):
    """A depthwise convolution with activation, then a point convolution without.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: one per axis.
    """

    def __init__(self, style: BlockStyle, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        depthwise = ConvKind(style.kernel_size, stride, groups=in_channels)
        self.depth_conv = ConvNorm(style, in_channels, in_channels, depthwise)
        self.point_conv = ConvNorm(
            style, in_channels, out_channels, ConvKind(style.point, style.point, activation=False)
        )

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The map after both convolutions."""
        return self.point_conv(self.depth_conv(x))


@dataclass(frozen=True)
class Widening:
    """How a block widens its channels inside.

    Attributes:
        expand: how many times.
        fewer_norm: whether only the last convolution is normalised and the others have a bias instead.
    """

    expand: int
    fewer_norm: bool = False


class MBConv(nn.Module):
    """Widen with a point convolution, filter each channel, and narrow with a point convolution.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: one per axis.
        widening: how far it widens and what it normalises.
    """

    def __init__(
        self, style: BlockStyle, in_channels: int, out_channels: int, stride: tuple[int, ...], widening: Widening
    ) -> None:
        super().__init__()
        middle = in_channels * widening.expand
        few = widening.fewer_norm
        widen = ConvKind(style.point, style.point, bias=few, norm=not few)
        depthwise = ConvKind(style.kernel_size, stride, groups=middle, bias=few, norm=not few)
        self.inverted_conv = ConvNorm(style, in_channels, middle, widen)
        self.depth_conv = ConvNorm(style, middle, middle, depthwise)
        self.point_conv = ConvNorm(style, middle, out_channels, ConvKind(style.point, style.point, activation=False))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The map after the three convolutions."""
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))


class FusedMBConv(nn.Module):
    """Widen and filter with one dense convolution, then narrow with a point convolution.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: one per axis.
        widening: how far it widens and what it normalises.
    """

    def __init__(
        self, style: BlockStyle, in_channels: int, out_channels: int, stride: tuple[int, ...], widening: Widening
    ) -> None:
        super().__init__()
        middle = in_channels * widening.expand
        few = widening.fewer_norm
        self.spatial_conv = ConvNorm(
            style, in_channels, middle, ConvKind(style.kernel_size, stride, bias=few, norm=not few)
        )
        self.point_conv = ConvNorm(style, middle, out_channels, ConvKind(style.point, style.point, activation=False))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The map after both convolutions."""
        return self.point_conv(self.spatial_conv(x))


class ResBlock(nn.Module):
    """Two dense convolutions, the second without activation.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
    """

    def __init__(self, style: BlockStyle, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(style, channels, channels, ConvKind(style.kernel_size, style.point))
        self.conv2 = ConvNorm(style, channels, channels, ConvKind(style.kernel_size, style.point, activation=False))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The map after both convolutions."""
        return self.conv2(self.conv1(x))


class Residual(nn.Module):
    """What a block adds to its input; or the block alone where it changes the size or the channels.

    Args:
        main: the block.
        shortcut: whether its input is added.
    """

    def __init__(self, main: nn.Module, *, shortcut: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The block's output, plus the input where there is a shortcut."""
        return add(self.main(x), x) if self.shortcut else self.main(x)


class OpSequence(nn.Module):
    """Blocks one after the other, stored under ``op_list`` as in the published checkpoints.

    Args:
        blocks: the blocks, first to last.
    """

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.Sequential(OrderedDict((str(index), block) for index, block in enumerate(blocks)))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The map after all blocks."""
        return self.op_list(x)
