"""The EfficientViT backbones B0 to B3, L0 to L3, XL0 and XL1, for images and volumes, any stride along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks.attention import AttentionKind, EfficientVitBlock
from effvit_med.networks.blocks import (
    BlockStyle,
    ConvKind,
    ConvNorm,
    DSConv,
    FusedMBConv,
    MBConv,
    OpSequence,
    ResBlock,
    Residual,
    Widening,
)
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.layers import per_axis, require_odd
from effvit_med.networks.presets import BackbonePreset, StagePreset


@runtime_checkable
class Backbone(Protocol):
    """What a decoder needs to know of a backbone.

    Attributes:
        in_channels: channels of the image.
        channels: channels of each feature map, finest first.
        strides: input voxels per feature voxel, for each map one number per axis.
    """

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def features(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The feature maps, finest first; each of size ceil(n / stride)."""
        ...


@runtime_checkable
class NamedBackbone(Backbone, Protocol):
    """A backbone of this package, built by its name.

    Attributes:
        preset_name: the name.
        spatial_dims: 2 or 3.
        checkpointing: whether inner maps are computed again in the backward pass and not kept.
    """

    preset_name: str
    spatial_dims: int
    checkpointing: bool


class EfficientVit(nn.Module):
    """An EfficientViT backbone; takes any number of channels and any size down to a single voxel.

    Args:
        preset: the numbers of the model.
        style: layer types, kernel size and normalisation; its activation is set by the preset's.
        in_channels: channels of the image.
        stage_strides: for each stage one stride, or one per axis; 2 everywhere where left out, but for the first stage
            of a preset that keeps the input's own resolution.
        aggregation_kernel_size: of the attention's second scale, odd, or one per axis; the preset's where left out.

    Raises:
        SettingsError: if the strides do not number the stages, or a number is below 1, not one per axis, or an
            even kernel size.

    Examples:
        >>> import torch
        >>> from effvit_med.networks.build import build_backbone
        >>> backbone = build_backbone(2, 1, "efficientvit_b0")
        >>> [tuple(each.shape) for each in backbone.features(torch.zeros(2, 1, 64, 40))][-1]
        (2, 128, 2, 2)
    """

    def __init__(
        self,
        preset: BackbonePreset,
        style: BlockStyle,
        in_channels: int,
        stage_strides: Sequence[int | Sequence[int]] | None = None,
        aggregation_kernel_size: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        dims = style.layers.spatial_dims
        usual = [preset.first_stride] + [2] * (len(preset.stages) - 1)
        per_stage = list(stage_strides) if stage_strides is not None else usual
        if len(per_stage) != len(preset.stages):
            raise SettingsError(
                f"stage_strides is {stage_strides!r} with {len(per_stage)} entries; {preset.name} has "
                f"{len(preset.stages)} stages, so give {len(preset.stages)}."
            )
        steps = [per_axis(stride, dims, "a stage stride") for stride in per_stage]
        if aggregation_kernel_size is None:
            aggregation_kernel_size = preset.aggregation_kernel_size
        aggregation = per_axis(aggregation_kernel_size, dims, "aggregation_kernel_size")
        require_odd(aggregation, "aggregation_kernel_size")
        kind = AttentionKind(preset.head_dim, (aggregation,), preset.attention_eps)
        self.preset_name = preset.name
        self.spatial_dims = dims
        self.checkpointing = False
        self.in_channels = in_channels
        self.channels = tuple(stage.width for stage in preset.stages)
        self.strides = _cumulative(steps)
        widths = (in_channels, *self.channels)
        stages = [
            OpSequence(_stage_blocks(style, stage, width, step, kind))
            for stage, width, step in zip(preset.stages, widths, steps, strict=False)
        ]
        if preset.separate_stem:
            self.input_stem = stages.pop(0)
        self.stages = nn.ModuleList(stages)

    def features(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The maps of all stages, finest first.

        Args:
            x: the image.

        Returns:
            One map a stage; along each axis map i has size ceil(n / strides[i]).
        """
        maps = []
        for stage in [self.input_stem, *self.stages] if hasattr(self, "input_stem") else self.stages:
            x = run_stage(stage, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The same as `features`."""
        return self.features(x)


def _cumulative(steps: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    totals: list[tuple[int, ...]] = []
    for step in steps:
        before = totals[-1] if totals else (1,) * len(step)
        totals.append(tuple(a * b for a, b in zip(before, step, strict=True)))
    return tuple(totals)


def _stage_blocks(
    style: BlockStyle, stage: StagePreset, in_channels: int, stride: tuple[int, ...], kind: AttentionKind
) -> list[nn.Module]:
    width = stage.width
    first: nn.Module
    if stage.down == "conv":
        first = ConvNorm(style, in_channels, width, ConvKind(style.kernel_size, stride))
    else:
        block = MBConv if stage.down == "mb" else FusedMBConv
        widening = Widening(stage.down_expand, stage.fewer_norm)
        first = Residual(block(style, in_channels, width, stride, widening), shortcut=False)
    return [first, *(_same_size_block(style, stage, kind) for _ in range(stage.blocks))]


def _same_size_block(style: BlockStyle, stage: StagePreset, kind: AttentionKind) -> nn.Module:
    width = stage.width
    if stage.kind in ("attention", "softmax"):
        return EfficientVitBlock(style, width, replace(kind, softmax=stage.kind == "softmax"), stage.expand)
    if stage.kind == "ds":
        return Residual(DSConv(style, width, width, style.point))
    if stage.kind == "res":
        return Residual(ResBlock(style, width))
    block = MBConv if stage.kind == "mb" else FusedMBConv
    return Residual(block(style, width, width, style.point, Widening(stage.expand, stage.fewer_norm)))
