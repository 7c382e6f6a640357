"""A TurboViT-style backbone: plain transformer blocks in windows first, globally later, pooled three times in between.

Source:
    The design: Wong et al., TurboViT (arXiv 2308.11421), and Ryali et al., Hiera, ICML 2023 (arXiv 2306.00989). The
    numbers, padding, masking, the interpolated table and volumes are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.efficientmod import FeedForward
from effvit_med.networks.layers import layers_for, per_axis
from effvit_med.networks.presets.turbovit import TABLE_SIZE, WINDOW_SIZE, TurboVitPreset
from effvit_med.networks.turbovit_attention import MaskUnitAttention, MaskUnitKind, pool_pairs

_WEIGHT_DEVIATION = 0.02


class TurboVitBlock(nn.Module):
    """Residual attention, then a residual feed-forward layer; the first of a stage also pools and widens.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kind: heads, window and pooling of the attention.
        expand: how many times the feed-forward layer widens.
        norm_eps: added to the variance in both normalisations.
    """

    def __init__(self, in_channels: int, out_channels: int, kind: MaskUnitKind, expand: int, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels, eps=norm_eps)
        self.attn = MaskUnitAttention(in_channels, out_channels, kind)
        self.norm2 = nn.LayerNorm(out_channels, eps=norm_eps)
        self.mlp = FeedForward(out_channels, expand)
        self.proj: nn.Linear | None = nn.Linear(in_channels, out_channels) if kind.pool else None

    def forward(self, x: Float[Tensor, "batch *space in_channels"]) -> Float[Tensor, "batch *new_space out_channels"]:
        """The map after both halves."""
        normalised = self.norm1(x)
        if self.proj is not None:
            x = pool_pairs(self.proj(normalised))
        x = x + self.attn(normalised)
        return x + self.mlp(self.norm2(x))


class TurboVit(nn.Module):
    """A TurboViT-style backbone; takes any number of channels and any size down to a single voxel.

    The first stages attend within windows. The later ones, and the pooling between them, attend globally: from stride
    16 on, the cost grows with the square of the voxels there, so segment large images and volumes in tiles.

    Positions are known from a learned table that is stretched over the image whatever its size; train and infer with
    tiles of one size where the absolute position should mean the same.

    Args:
        preset: the numbers of the model.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        norm_eps: added to the variance in every normalisation.
        table_size: entries of the position table along every axis, or one number per axis.
        window_size: tokens of a window of the first stage along every axis, or one number per axis; each a multiple of
            4, since two poolings make it smaller. Where left out 8 for images and 4 for volumes.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, in_channels or a table size is below 1, the windows cannot be
            halved as often as the preset pools them, or norm_eps is not above 0.

    Examples:
        >>> from effvit_med.networks.presets.turbovit import TURBOVIT
        >>> backbone = TurboVit(TURBOVIT["turbovit_t"], spatial_dims=2, in_channels=1)
        >>> [tuple(each.shape) for each in backbone.features(torch.zeros(2, 1, 65, 33))][-1]
        (2, 256, 3, 2)
    """

    def __init__(
        self,
        preset: TurboVitPreset,
        spatial_dims: int,
        in_channels: int,
        *,
        norm_eps: float = 1e-6,
        table_size: int | Sequence[int] = TABLE_SIZE,
        window_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        layers = layers_for(spatial_dims)
        if in_channels < 1:
            raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
        _require_positive(norm_eps)
        size = WINDOW_SIZE[spatial_dims] if window_size is None else window_size
        window = per_axis(size, spatial_dims, "window_size")
        factor = 2**preset.windowed_stages
        if any(number % factor for number in window):
            raise SettingsError(f"window_size is {window}; every number must be a multiple of {factor} to be pooled.")
        self.preset_name = preset.name
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = preset.widths
        self.strides = tuple((4 * 2**stage,) * spatial_dims for stage in range(len(preset.depths)))
        self.checkpointing = False
        self.interpolation = layers.linear_mode
        self.patch_embed: nn.Conv2d | nn.Conv3d = layers.conv(in_channels, preset.width, 7, stride=4, padding=3)
        self.position = nn.Parameter(torch.zeros(1, preset.width, *per_axis(table_size, spatial_dims, "table_size")))
        self.stages = nn.ModuleList(_make_stage(preset, stage, window, norm_eps) for stage in range(len(preset.depths)))
        nn.init.trunc_normal_(self.position, std=_WEIGHT_DEVIATION)
        self.apply(_initialise)

    def features(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The maps of the four stages, finest first.

        Args:
            x: the image.

        Returns:
            Four maps of strides 4, 8, 16 and 32, the channels innermost in memory; along each axis map i has size
            ceil(n / strides[i]).
        """
        maps = []
        x = self.patch_embed(x)
        position = functional.interpolate(self.position, size=x.shape[2:], mode=self.interpolation)
        x = x.movedim(1, -1) + position.movedim(1, -1)
        for stage in self.stages:
            x = run_stage(stage, x, checkpointing=self.checkpointing)
            maps.append(x.movedim(-1, 1))
        return maps

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The same as `features`."""
        return self.features(x)


class TurboVitHead(nn.Module):
    """A classification head: layer normalisation, the mean over all voxels, and a linear layer.

    Args:
        channels: channels of the deepest map.
        classes: the number of classes.
        spatial_dims: 2 for images, 3 for volumes.
        norm_eps: added to the variance.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, or norm_eps is not above 0.
    """

    def __init__(self, channels: int, classes: int, spatial_dims: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        layers_for(spatial_dims)
        _require_positive(norm_eps)
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.head = nn.Linear(channels, classes)
        _initialise(self.head)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "batch classes"]:
        """One logit per class.

        Args:
            features: the backbone's maps, finest first.
        """
        return self.head(self.norm(features[-1].movedim(1, -1)).flatten(1, -2).mean(1))


def _make_stage(preset: TurboVitPreset, stage: int, window: tuple[int, ...], norm_eps: float) -> nn.Sequential:
    blocks = []
    for index in range(preset.depths[stage]):
        pool = stage > 0 and index == 0
        level = stage - 1 if pool else stage
        windowed = level < preset.windowed_stages
        here = tuple(size // 2**level for size in window) if windowed else None
        kind = MaskUnitKind(preset.heads * 2**stage, here, pool)
        blocks.append(TurboVitBlock(preset.widths[level], preset.widths[stage], kind, preset.expand, norm_eps))
    return nn.Sequential(*blocks)


def _require_positive(norm_eps: float) -> None:
    if norm_eps <= 0:
        raise SettingsError(f"norm_eps is {norm_eps}; it must be above 0.")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_WEIGHT_DEVIATION)
        nn.init.zeros_(module.bias)
