"""EfficientMod: what a voxel holds, multiplied by what lies around it; attention blocks end the coarser stages.

Inside, the channels lie innermost, so that linear layers and normalisations read memory in order; the names of modules
and parameters are those of the published checkpoints.

Source:
    Ma et al., Efficient Modulation for Vision Networks, ICLR 2024 (arXiv 2403.19963), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.layers import LayerTypes, layers_for, per_axis, require_odd
from effvit_med.networks.presets.efficientmod import CONTEXT_KERNEL_SIZE, EfficientModPreset

_LAYER_SCALE = 1e-4
_WEIGHT_DEVIATION = 0.02


@dataclass(frozen=True)
class ModulationStyle:
    """What all blocks of a network share.

    Attributes:
        layers: the layer types for its number of spatial axes.
        context_kernel_size: of the context's depthwise convolution, odd, one per axis.
        norm_eps: added to the variance in every normalisation.

    Raises:
        SettingsError: if a kernel size is even or the eps is not above 0.
    """

    layers: LayerTypes
    context_kernel_size: tuple[int, ...]
    norm_eps: float

    def __post_init__(self) -> None:
        require_odd(self.context_kernel_size, "context_kernel_size")
        if self.norm_eps <= 0:
            raise SettingsError(f"norm_eps is {self.norm_eps}; it must be above 0.")


class PatchEmbed(nn.Module):
    """A strided convolution that makes the map smaller, and a layer normalisation.

    Args:
        style: what all blocks share.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: along every axis, odd and above the stride, so that size n becomes ceil(n / stride).
        stride: along every axis.
    """

    def __init__(
        self, style: ModulationStyle, in_channels: int, out_channels: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        self.proj: nn.Conv2d | nn.Conv3d = style.layers.conv(
            in_channels, out_channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = nn.LayerNorm(out_channels, eps=style.norm_eps)

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"]
    ) -> Float[Tensor, "batch *smaller_space out_channels"]:
        """The smaller map, with the channels innermost."""
        return self.norm(self.proj(x).movedim(1, -1))


class ContextLayer(nn.Module):
    """What lies around each voxel: a linear layer, a large depthwise convolution with GELU, and a linear layer.

    Args:
        style: gives the kernel size.
        channels: channels of input and output.
    """

    def __init__(self, style: ModulationStyle, channels: int) -> None:
        super().__init__()
        self.f = nn.Linear(channels, channels)
        self.g = nn.Linear(channels, channels)
        around = style.layers.conv(
            channels,
            channels,
            kernel_size=style.context_kernel_size,  # type: ignore[arg-type]  # a tuple as long as the table says
            padding=tuple(size // 2 for size in style.context_kernel_size),  # type: ignore[arg-type]
            groups=channels,
        )
        self.context_list = nn.ModuleList([around])

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The context, of the input's size."""
        around = self.context_list[0](self.f(x).movedim(-1, 1))
        return self.g(functional.gelu(around).movedim(1, -1))


class ModulationMlp(nn.Module):
    """A feed-forward layer whose hidden features are multiplied by the context.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        expand: how many times as many hidden features there are; each group of ``channels`` of them meets the same
            context. Only where it is above 1 do they pass a GELU before.
    """

    def __init__(self, style: ModulationStyle, channels: int, expand: int) -> None:
        super().__init__()
        self.expand = expand
        self.fc1 = nn.Linear(channels, channels * expand)
        self.context_layer = ContextLayer(style, channels)
        self.fc2 = nn.Linear(channels * expand, channels)

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The modulated map, of the input's size."""
        context = self.context_layer(x)
        hidden = self.fc1(x)
        if self.expand == 1:
            return self.fc2(hidden * context)
        groups = functional.gelu(hidden).reshape(*x.shape[:-1], self.expand, x.shape[-1])
        return self.fc2((groups * context.unsqueeze(-2)).flatten(-2))


class ModulationBlock(nn.Module):
    """Residual modulation, scaled by one learned number for each channel.

    Args:
        style: what all blocks share.
        channels: channels of input and output.
        expand: how many times it widens inside.
    """

    def __init__(self, style: ModulationStyle, channels: int, expand: int) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((channels,), _LAYER_SCALE))
        self.norm = nn.LayerNorm(channels, eps=style.norm_eps)
        self.mlp = ModulationMlp(style, channels, expand)

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The map after the block, of the input's size."""
        return x + self.gamma_1 * self.mlp(self.norm(x))


class FeedForward(nn.Module):
    """A linear layer, GELU and a linear layer, for each voxel by itself.

    Args:
        channels: channels of input and output.
        expand: how many times it widens inside.
    """

    def __init__(self, channels: int, expand: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels * expand)
        self.fc2 = nn.Linear(channels * expand, channels)

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The map after both layers."""
        return self.fc2(functional.gelu(self.fc1(x)))


class GlobalAttention(nn.Module):
    """Softmax attention of every voxel to every voxel: the cost grows with the square of their number.

    Args:
        channels: channels of input and output.
        heads: how many heads.
        head_dim: channels of one head.
    """

    def __init__(self, channels: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * heads * head_dim, bias=False)
        self.proj = nn.Linear(heads * head_dim, channels)

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The attended map, of the input's size."""
        qkv = self.qkv(x.flatten(1, -2)).unflatten(-1, (3, self.heads, -1))
        q, k, v = (each.transpose(1, 2) for each in qkv.unbind(2))
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2)).reshape(x.shape)


class AttentionBlock(nn.Module):
    """Residual attention, then a residual feed-forward layer.

    Args:
        preset: gives the number and the least size of the heads.
        channels: channels of input and output.
        expand: how many times the feed-forward layer widens.
        norm_eps: added to the variance in both normalisations.
    """

    def __init__(self, preset: EfficientModPreset, channels: int, expand: int, norm_eps: float) -> None:
        super().__init__()
        head_dim = max(channels // preset.heads, preset.least_head_dim)
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attn = GlobalAttention(channels, preset.heads, head_dim)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.mlp = FeedForward(channels, expand)

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The map after both halves."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ModulationStage(nn.Module):
    """The blocks of one stage, and beside them the convolution that leads to the next.

    Args:
        blocks: the blocks, first to last.
        downsample: halves the size for the next stage; None in the last. `forward` leaves it out.
    """

    def __init__(self, blocks: list[nn.Module], downsample: PatchEmbed | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        """The map after all blocks, of the input's size."""
        for block in self.blocks:
            x = block(x)
        return x


class EfficientMod(nn.Module):
    """An EfficientMod backbone; takes any number of channels and any size down to a single voxel.

    All presets but ``efficientmod_s_conv`` hold global attention at strides 16 and 32. Its cost grows with the square
    of the voxels there: at 1024 x 1024 it is most of the work, so segment large images and volumes in tiles.

    Args:
        preset: the numbers of the model.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        norm_eps: added to the variance in every normalisation.
        context_kernel_size: of the context's depthwise convolution, odd, or one per axis; where left out 7, as
            published, for images and 5 for volumes.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, in_channels is below 1, a kernel size is even or not one per
            axis, or norm_eps is not above 0.

    Examples:
        >>> from effvit_med.networks.presets.efficientmod import EFFICIENTMOD
        >>> backbone = EfficientMod(EFFICIENTMOD["efficientmod_xxs"], 2, 1)
        >>> [tuple(each.shape) for each in backbone.features(torch.zeros(2, 1, 64, 41))][-1]
        (2, 256, 2, 2)
    """

    def __init__(
        self,
        preset: EfficientModPreset,
        spatial_dims: int,
        in_channels: int,
        *,
        norm_eps: float = 1e-5,
        context_kernel_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        layers = layers_for(spatial_dims)
        if in_channels < 1:
            raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
        if context_kernel_size is None:
            context_kernel_size = CONTEXT_KERNEL_SIZE[spatial_dims]
        style = ModulationStyle(layers, per_axis(context_kernel_size, spatial_dims, "context_kernel_size"), norm_eps)
        self.preset_name = preset.name
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.channels = preset.widths
        self.strides = tuple((4 * 2**stage,) * spatial_dims for stage in range(len(preset.widths)))
        self.checkpointing = False
        self.patch_embed = PatchEmbed(style, in_channels, preset.widths[0], kernel_size=7, stride=4)
        self.layers = nn.ModuleList(_make_stage(style, preset, stage) for stage in range(len(preset.widths)))
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
        for stage in self.layers:
            x = run_stage(stage, x, checkpointing=self.checkpointing)
            maps.append(x.movedim(-1, 1))
            if isinstance(stage.downsample, PatchEmbed):
                x = stage.downsample(maps[-1])
        return maps

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The same as `features`."""
        return self.features(x)


class EfficientModHead(nn.Module):
    """The published classification head: layer normalisation, the mean over all voxels, and a linear layer.

    Args:
        channels: channels of the deepest map.
        classes: the number of classes.
        spatial_dims: 2 for images, 3 for volumes.
        norm_eps: added to the variance.

    Raises:
        SettingsError: if spatial_dims is neither 2 nor 3, or norm_eps is not above 0.
    """

    def __init__(self, channels: int, classes: int, spatial_dims: int, norm_eps: float = 1e-5) -> None:
        super().__init__()
        layers_for(spatial_dims)
        if norm_eps <= 0:
            raise SettingsError(f"norm_eps is {norm_eps}; it must be above 0.")
        self.norm = nn.LayerNorm(channels, eps=norm_eps)
        self.head = nn.Linear(channels, classes)
        _initialise(self.head)

    def normalise(self, features: list[Tensor]) -> Float[Tensor, "batch channels *space"]:
        """The normalised deepest map.

        Args:
            features: the backbone's maps, finest first.
        """
        return self.norm(features[-1].movedim(1, -1)).movedim(-1, 1)

    def forward(self, features: list[Tensor]) -> Float[Tensor, "batch classes"]:
        """One logit per class.

        Args:
            features: the backbone's maps, finest first.
        """
        return self.head(self.normalise(features).flatten(2).mean(2))


def _make_stage(style: ModulationStyle, preset: EfficientModPreset, stage: int) -> ModulationStage:
    width = preset.widths[stage]
    blocks: list[nn.Module] = [
        ModulationBlock(style, width, preset.expand if index % 2 else 1) for index in range(preset.depths[stage])
    ]
    expand = preset.attention_expand[stage]
    blocks += [AttentionBlock(preset, width, expand, style.norm_eps) for _ in range(preset.attention_depths[stage])]
    following = preset.widths[stage + 1 : stage + 2]
    downsample = PatchEmbed(style, width, following[0], kernel_size=3, stride=2) if following else None
    return ModulationStage(blocks, downsample)


def _initialise(module: nn.Module) -> None:
    """Linear weights as published: a small truncated normal, no bias; convolutions and the rest stay torch's."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=_WEIGHT_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
