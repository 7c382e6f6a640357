"""SHViT: single-head attention over all pixels or voxels of a coarse map, on a part of the channels.

Source:
    Yun and Ro, SHViT, CVPR 2024 (arXiv 2401.16456), section 3.3: single-head self-attention on partial channels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.large_stride import (
    ConvBatchNorm,
    FeedForward,
    LargeStrideBackbone,
    Residual,
    depthwise,
    large_stride_style,
    softmax_attention,
)
from effvit_med.networks.presets.shvit import ShvitPreset


class SingleHeadAttention(nn.Module):
    """Attention of one head on the first channels; the projection mixes them with the rest.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        attended: how many of the first channels take part.
        key_dim: channels of q and of k.
    """

    def __init__(self, style: BlockStyle, channels: int, attended: int, key_dim: int) -> None:
        super().__init__()
        self.parts = [attended, channels - attended]
        self.qkv_parts = [key_dim, key_dim, attended]
        self.pre_norm = nn.GroupNorm(1, attended, eps=style.norm_eps)
        self.qkv = ConvBatchNorm(style, attended, sum(self.qkv_parts))
        self.proj = nn.Sequential(nn.ReLU(inplace=True), ConvBatchNorm(style, channels, channels))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The attended map, of the input's size."""
        attended, rest = torch.split(x, self.parts, dim=1)
        q, k, v = torch.split(self.qkv(self.pre_norm(attended)), self.qkv_parts, dim=1)
        attended = softmax_attention(q.flatten(2), k.flatten(2), v.flatten(2)).reshape(v.shape)
        return self.proj(torch.cat([attended, rest], dim=1))


class ShvitBlock(nn.Module):
    """What is near, then where wanted what is far, then each voxel by itself; all residual.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        attended: how many channels the attention takes; None for a block without attention.
        key_dim: channels of q and of k.
    """

    def __init__(self, style: BlockStyle, channels: int, attended: int | None, key_dim: int) -> None:
        super().__init__()
        self.conv = depthwise(style, channels)
        self.mixer: nn.Module = (
            nn.Identity() if attended is None else Residual(SingleHeadAttention(style, channels, attended, key_dim))
        )
        self.ffn = Residual(FeedForward(style, channels))

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        """The map after all three."""
        return self.ffn(self.mixer(self.conv(x)))


class Shvit(LargeStrideBackbone):
    """A SHViT backbone; takes any number of channels and any size down to a single voxel.

    Args:
        preset: the numbers of the model.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        norm_eps: added to the variance in every normalisation; 1e-5 as published.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, in_channels is below 1 or norm_eps is not above 0.

    Examples:
        >>> from effvit_med.networks.presets.shvit import SHVIT
        >>> backbone = Shvit(SHVIT["shvit_s1"], spatial_dims=3, in_channels=1).eval()
        >>> [tuple(each.shape) for each in backbone.features(torch.zeros(1, 1, 70, 40, 33))][-1]
        (1, 320, 2, 1, 1)
    """

    def __init__(self, preset: ShvitPreset, spatial_dims: int, in_channels: int, *, norm_eps: float = 1e-5) -> None:
        style = large_stride_style(spatial_dims, norm_eps)
        stages = [
            [ShvitBlock(style, width, attended, preset.key_dim) for _ in range(depth)]
            for width, depth, attended in zip(preset.widths, preset.depths, preset.attended, strict=True)
        ]
        super().__init__(preset.name, style, in_channels, preset.widths, stages)
