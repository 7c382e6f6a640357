"""What EfficientViT-M and SHViT share: a stem of stride 16, then three stages at strides 16, 32 and 64.

The names of modules and parameters are those of the published checkpoints, so that these load without a mapping.

Source:
    Liu et al., EfficientViT (arXiv 2305.07027), section 4.1: overlapping patch embedding, sandwich layout, subsample
    block. Yun and Ro, SHViT (arXiv 2401.16456), section 3, takes over all but the attention. Squeeze and excitation:
    Hu et al. (arXiv 1709.01507).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle, ConvKind, add, convolve, fold_pair, padded_convolution
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.layers import layers_for, without_autocast

_SQUEEZE = 4
_MERGE_EXPAND = 4
_FFN_EXPAND = 2


def large_stride_style(spatial_dims: int, norm_eps: float) -> BlockStyle:
    """What all blocks of these families share: kernels of 3, ReLU, batch normalisation.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        norm_eps: added to the variance in every normalisation; 1e-5 as published.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, or norm_eps is not above 0.
    """
    return BlockStyle(layers_for(spatial_dims), (3,) * spatial_dims, "relu", "batch", norm_eps)


class ConvBatchNorm(nn.Module):
    """A convolution and its batch normalisation, stored as ``c`` and ``bn``; padded so that stride 1 keeps the size.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kind: kernel, stride, groups, and whether ReLU follows; a point convolution without ReLU where left out.
    """

    def __init__(self, style: BlockStyle, in_channels: int, out_channels: int, kind: ConvKind | None = None) -> None:
        super().__init__()
        kind = kind or ConvKind(style.point, style.point, activation=False)
        self.style = style
        self.activation = kind.activation
        self.c = padded_convolution(style, in_channels, out_channels, kind)
        self.bn: nn.Module | None = style.make_norm(out_channels)

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"]
    ) -> Float[Tensor, "batch out_channels *smaller_space"]:
        """The convolved map; size n becomes ceil(n / stride) along every axis."""
        return convolve(x, self.c, self.bn, self.style, activation=self.activation)

    def fold(self) -> None:
        """Multiplies the batch normalisation into the convolution, in place."""
        if fold_pair(self.c, self.bn):
            self.bn = None


class Residual(nn.Module):
    """What a block, stored as ``m``, adds to its input.

    Args:
        block: keeps the size and the channels.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.m = block

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The input plus the block's output."""
        return add(self.m(x), x)


class FeedForward(nn.Module):
    """Two point convolutions with ReLU between them; twice as wide inside.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
    """

    def __init__(self, style: BlockStyle, channels: int) -> None:
        super().__init__()
        self.pw1 = ConvBatchNorm(style, channels, _FFN_EXPAND * channels, ConvKind(style.point, style.point))
        self.pw2 = ConvBatchNorm(style, _FFN_EXPAND * channels, channels)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The map after both convolutions."""
        return self.pw2(self.pw1(x))


class SqueezeExcite(nn.Module):
    """Weighs each channel by what all channels are on average.

    Args:
        style: what all blocks share.
        channels: channels of input and output; inside there is a quarter of them, rounded to a multiple of 8.
    """

    def __init__(self, style: BlockStyle, channels: int) -> None:
        super().__init__()
        few = max(8, (channels // _SQUEEZE + 4) // 8 * 8)
        self.fc1 = style.layers.point_conv(channels, few, 1)
        self.fc2 = style.layers.point_conv(few, channels, 1)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The weighted map, of the input's size."""
        mean = x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
        return x * self.fc2(self.fc1(mean).relu()).sigmoid()


class PatchMerging(nn.Module):
    """Halves the size: widen, filter each channel with stride 2, weigh the channels, narrow.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, style: BlockStyle, in_channels: int, out_channels: int) -> None:
        super().__init__()
        middle = _MERGE_EXPAND * in_channels
        stride = tuple(2 * step for step in style.point)
        self.conv1 = ConvBatchNorm(style, in_channels, middle, ConvKind(style.point, style.point))
        self.conv2 = ConvBatchNorm(style, middle, middle, ConvKind(style.kernel_size, stride, groups=middle))
        self.se = SqueezeExcite(style, middle)
        self.conv3 = ConvBatchNorm(style, middle, out_channels)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *new_space"]:
        """The map, of size ceil(n / 2) along every axis."""
        return self.conv3(self.se(self.conv2(self.conv1(x))))


def depthwise(style: BlockStyle, channels: int) -> Residual:
    """A residual depthwise convolution.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
    """
    kind = ConvKind(style.kernel_size, style.point, groups=channels, activation=False)
    return Residual(ConvBatchNorm(style, channels, channels, kind))


def softmax_attention(
    q: Float[Tensor, "batch dim tokens"],
    k: Float[Tensor, "batch dim tokens"],
    v: Float[Tensor, "batch values tokens"],
    bias: Float[Tensor, "tokens tokens"] | None = None,
    hidden: Bool[Tensor, "batch 1 tokens"] | None = None,
) -> Float[Tensor, "batch values tokens"]:
    """What each token gathers, weighted by softmax(q . k / sqrt(dim) + bias); in float32 at least.

    Args:
        q: what each token asks for.
        k: what each token offers.
        v: what each token gives.
        bias: added for each pair of asking and offering token.
        hidden: which tokens give nothing; at least one must give something.

    Examples:
        >>> zeros = torch.zeros(1, 2, 3)
        >>> softmax_attention(zeros, zeros, torch.tensor([[[1.0, 2.0, 6.0]]]))
        tensor([[[3., 3., 3.]]])
    """
    dtype = v.dtype
    wide = torch.promote_types(dtype, torch.float32)
    scale = q.shape[1] ** -0.5
    with without_autocast(v):
        if bias is None:
            scores = (q.to(wide) * scale).mT @ k.to(wide)
        else:
            scores = torch.baddbmm(bias.to(wide), q.to(wide).mT, k.to(wide), alpha=scale)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        return (scores.softmax(-1) @ v.to(wide).mT).mT.to(dtype)


class LargeStrideBackbone(nn.Module):
    """The stem and the three stages; takes any number of channels and any size down to a single voxel.

    The stem's inner maps come first among the features, as a decoder needs finer maps than stride 16.

    Args:
        name: that of the preset.
        style: what all blocks share.
        in_channels: channels of the image.
        widths: channels of the three stages.
        stages: the blocks of each stage that keep its size.

    Attributes:
        preset_name: the name it was built by.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        channels: channels of each of the six maps, finest first.
        strides: image voxels per voxel of each map, one per axis: 2, 4, 8, 16, 32, 64.
        checkpointing: whether stages are computed again in the backward pass, to save memory.

    Raises:
        SettingsError: if in_channels is below 1.
    """

    def __init__(
        self,
        name: str,
        style: BlockStyle,
        in_channels: int,
        widths: tuple[int, ...],
        stages: Sequence[Sequence[nn.Module]],
    ) -> None:
        super().__init__()
        if in_channels < 1:
            raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
        dims = style.layers.spatial_dims
        first, second, third = widths
        stem = (first // 8, first // 4, first // 2)
        self.preset_name = name
        self.spatial_dims = dims
        self.in_channels = in_channels
        self.channels = (*stem, *widths)
        self.strides = tuple((2**level,) * dims for level in range(1, 7))
        self.checkpointing = False
        steps = zip(("0", "2", "4", "6"), (in_channels, *stem), (*stem, first), strict=True)
        stride = (2,) * dims
        self.patch_embed = nn.Sequential(
            OrderedDict(
                (key, ConvBatchNorm(style, a, b, ConvKind(style.kernel_size, stride, activation=key != "6")))
                for key, a, b in steps
            )
        )
        self.blocks1 = nn.Sequential(*stages[0])
        self.blocks2 = nn.Sequential(*_downsampling(style, first, second), *stages[1])
        self.blocks3 = nn.Sequential(*_downsampling(style, second, third), *stages[2])

    def features(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The maps of the stem at strides 2, 4 and 8, after ReLU, then those of the stages at strides 16, 32 and 64.

        Args:
            x: the image.

        Returns:
            Six maps; along each axis map i has size ceil(n / strides[i]).
        """
        maps = self._stem(x)
        x = maps.pop()
        for stage in (self.blocks1, self.blocks2, self.blocks3):
            x = run_stage(stage, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The same as `features`."""
        return self.features(x)

    def patch_embedding(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch width *small_space"]:
        """The stem's last map, of stride 16, which goes into the first stage; normalised, without ReLU.

        Args:
            x: the image.
        """
        return self._stem(x)[-1]

    def _stem(self, x: Tensor) -> list[Tensor]:
        maps = []
        for step in self.patch_embed:
            x = run_stage(step, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps


class LargeStrideHead(nn.Module):
    """The published classification head: the mean of the last map, batch normalisation, a linear layer.

    Args:
        channels: channels of the backbone's last map.
        classes: the number of classes.
        spatial_dims: 2 for images, 3 for volumes.
        norm_eps: added to the variance.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, or there is no class or no channel.

    Examples:
        >>> head = LargeStrideHead(192, 10, 2, 1e-5).eval()
        >>> tuple(head([torch.zeros(2, 192, 3, 4)]).shape)
        (2, 10)
    """

    def __init__(self, channels: int, classes: int, spatial_dims: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        layers_for(spatial_dims)
        if channels < 1 or classes < 1:
            raise SettingsError(f"The head has {channels} channels and {classes} classes; give at least 1 of each.")
        self.bn: nn.BatchNorm1d | None = nn.BatchNorm1d(channels, eps=norm_eps)
        self.l = nn.Linear(channels, classes)

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "batch classes"]:
        """One logit per class.

        Args:
            maps: those of the backbone; the last one is used.
        """
        mean = maps[-1].flatten(2).mean(-1)
        return self.l(mean if self.bn is None else self.bn(mean))

    def fold(self) -> None:
        """Multiplies the batch normalisation into the linear layer after it, in place; the sum is made in float64."""
        norm = self.bn
        if norm is None or norm.running_mean is None or norm.running_var is None:
            return
        with torch.no_grad():
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - norm.running_mean.double() * scale
            weight = self.l.weight.double()
            self.l.bias.copy_(functional.linear(shift, weight, self.l.bias.double()))
            self.l.weight.copy_(weight * scale)
        self.bn = None


def _downsampling(style: BlockStyle, in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Sequential(depthwise(style, in_channels), Residual(FeedForward(style, in_channels))),
        PatchMerging(style, in_channels, out_channels),
        nn.Sequential(depthwise(style, out_channels), Residual(FeedForward(style, out_channels))),
    ]
