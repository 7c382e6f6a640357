"""From feature maps to logits: the published head of output stride 8, and our decoder down to stride 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import (
    BlockStyle,
    ConvKind,
    ConvNorm,
    FusedMBConv,
    MBConv,
    OpSequence,
    Residual,
    Widening,
    add,
)
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.efficientvit import Backbone
from effvit_med.networks.layers import is_same
from effvit_med.networks.presets import DecoderPreset, HeadPreset


@runtime_checkable
class Decoder(Protocol):
    """What turns an image and its feature maps into logits.

    Attributes:
        output_stride: input voxels per logit voxel, one per axis.
        checkpointing: whether inner maps are computed again in the backward pass and not kept.
    """

    output_stride: tuple[int, ...]
    checkpointing: bool

    def __call__(self, image: Tensor, features: list[Tensor]) -> Tensor:
        """The logits, of size ceil(n / output_stride) along each axis."""
        ...


def resize(x: Float[Tensor, "batch channels *space"], size: Sequence[int], mode: str) -> Tensor:
    """The map interpolated to a size, with voxel corners aligned (not their centres); itself where it has that size.

    Args:
        x: the map.
        size: the new size, one number per spatial axis.
        mode: torch's name of the interpolation.
    """
    if all(is_same(here, wanted) for here, wanted in zip(x.shape[2:], size, strict=True)):
        return x
    return functional.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


class SegHead(nn.Module):
    """The published segmentation head: adds the three deepest maps at the size of the finest of them.

    Unlike the original, it interpolates to that map's size and not by fixed factors, so that any input size works.

    Args:
        style: what all blocks share.
        backbone: the channels and strides of the feature maps.
        out_channels: the number of classes.
        preset: the numbers of the head.

    Source:
        Cai et al., EfficientViT (arXiv 2205.14756), section 3.2 (segmentation head).
    """

    def __init__(self, style: BlockStyle, backbone: Backbone, out_channels: int, preset: HeadPreset) -> None:
        super().__init__()
        width = preset.width
        point = ConvKind(style.point, style.point, activation=False)
        finest, middle, deepest = backbone.channels[-3:]
        self.output_stride = backbone.strides[-3]
        self.checkpointing = False
        self.mode = style.layers.head_mode
        self.input_ops = nn.ModuleList(
            [
                OpSequence([ConvNorm(style, deepest, width, point)]),
                OpSequence([ConvNorm(style, middle, width, point)]),
                ConvNorm(style, finest, width, point),
            ]
        )
        block = MBConv if preset.kind == "mb" else FusedMBConv
        widening = Widening(preset.expand)
        self.middle = OpSequence(
            [Residual(block(style, width, width, style.point, widening)) for _ in range(preset.depth)]
        )
        last_width = width * (preset.final_expand or 1)
        final: list[nn.Module] = [ConvNorm(style, width, last_width)] if preset.final_expand else []
        classify = ConvKind(style.point, style.point, bias=True, norm=False, activation=False)
        self.output_ops = nn.ModuleList([OpSequence([*final, ConvNorm(style, last_width, out_channels, classify)])])

    def forward(self, image: Float[Tensor, "batch channels *space"], features: list[Tensor]) -> Tensor:
        """The logits at the size of the third deepest map.

        Args:
            image: not used; every decoder is called alike.
            features: the backbone's maps, finest first.
        """
        del image
        finest, middle, deepest = features[-3:]
        size = finest.shape[2:]
        x = resize(self.input_ops[0](deepest), size, self.mode)
        x = add(x, resize(self.input_ops[1](middle), size, self.mode))
        x = add(x, self.input_ops[2](finest))
        return self.output_ops[0](run_stage(self.middle, x, checkpointing=self.checkpointing))


@dataclass(frozen=True)
class Level:
    """One resolution that the decoder passes.

    Attributes:
        stride: input voxels per voxel, one per axis.
        map_index: which of the backbone's maps has this stride, or None where there is none; 0 is the image itself,
            unless the backbone has a map of its size.
    """

    stride: tuple[int, ...]
    map_index: int | None


def decoder_levels(strides: Sequence[tuple[int, ...]]) -> tuple[Level, ...]:
    """The resolutions from the image's own to the deepest map's, none more than twice as coarse as the one before.

    Args:
        strides: the backbone's, finest map first.

    Examples:
        >>> [(level.stride, level.map_index) for level in decoder_levels([(4, 4), (8, 8)])]
        [((1, 1), 0), ((2, 2), None), ((4, 4), 1), ((8, 8), 2)]
        >>> [(level.stride, level.map_index) for level in decoder_levels([(1, 1), (2, 2)])]
        [((1, 1), 1), ((2, 2), 2)]
    """
    whole = (1,) * len(strides[0])
    full_size = strides[0] == whole
    levels = [Level(whole, int(full_size))]
    for index, stride in enumerate(strides, start=1):
        if full_size and index == 1:
            continue
        while any(2 * before < here for before, here in zip(levels[-1].stride, stride, strict=True)):
            between = tuple(min(2 * before, here) for before, here in zip(levels[-1].stride, stride, strict=True))
            levels.append(Level(between, None))
        levels.append(Level(stride, index))
    return tuple(levels)


class HighResolutionDecoder(nn.Module):
    """Carries the deepest map up to the input's resolution, adding the finer maps and at last the image itself.

    At each step the deeper map is narrowed by a point convolution, interpolated linearly, added to the point-projected
    finer map, and refined by residual blocks. At full size the finer map is the image. Where the backbone skips a
    resolution, as from 1 to 4 in EfficientMod, the features pass it without a finer map. Where there are many voxels
    and few channels the blocks are single dense convolutions: at 96^3 and 16 channels one costs 1.6 times what a
    depthwise and a point convolution cost on a CPU, for 10 times the products. Where there are few voxels they are
    MBConvs.

    With ``subpixel`` the maps end one step before the input's size, and each of their voxels gives the logits of all
    that it covers, 2 x 2 x 2 at stride 2: a map at full size costs more than all others together.

    Args:
        style: what all blocks share.
        backbone: the channels and strides of the feature maps.
        out_channels: the number of classes.
        preset: the widths and depths.
        level: where to stop: 0 at the image's own size, i at the i-th coarser resolution.

    Attributes:
        map_channels: channels of each of `maps`.

    Raises:
        SettingsError: if there are fewer widths or depths than levels, or no such level.

    Source:
        Sub-pixel convolution: Shi et al., CVPR 2016 (arXiv 1609.05158), section 2.2.
    """

    def __init__(
        self, style: BlockStyle, backbone: Backbone, out_channels: int, preset: DecoderPreset, level: int = 0
    ) -> None:
        super().__init__()
        levels = decoder_levels(backbone.strides)
        last = len(levels) - 1
        if len(preset.widths) <= last or len(preset.depths) < last:
            raise SettingsError(
                f"The decoder has {len(preset.widths)} widths and {len(preset.depths)} depths; for {last + 1} "
                f"levels give at least {last + 1} and {last}."
            )
        if not 0 <= level < last:
            raise SettingsError(f"level is {level}; the decoder of this backbone can stop at 0 to {last - 1}.")
        self.output_stride = levels[level].stride
        widths = preset.widths
        channels = (backbone.in_channels, *backbone.channels)
        self.levels = levels[: last + 1]
        self.block = levels[1].stride if preset.subpixel and level == 0 else style.point
        self.last_level = level = level + (self.block != style.point)
        self.checkpointing = False
        self.mode = style.layers.linear_mode
        rising = range(last - 1, level - 1, -1)
        point = ConvKind(style.point, style.point, activation=False)
        self.deepest = ConvNorm(style, channels[-1], widths[last])
        self.narrow = nn.ModuleDict({str(i): ConvNorm(style, widths[i + 1], widths[i], point) for i in rising})
        self.skip = nn.ModuleDict(
            {
                str(i): ConvNorm(style, channels[here.map_index], widths[i], point)
                for i, here in ((i, levels[i]) for i in rising)
                if here.map_index is not None and not (preset.plain_skips and channels[here.map_index] == widths[i])
            }
        )
        self.refine = nn.ModuleDict({str(i): _refinement(style, preset, i) for i in rising})
        classify = ConvKind(style.point, style.point, bias=True, norm=False, activation=False)
        self.classify = ConvNorm(style, widths[level], out_channels * math.prod(self.block), classify)
        self.map_channels = widths[level : last + 1]

    def maps(self, image: Float[Tensor, "batch channels *space"], features: list[Tensor]) -> list[Tensor]:
        """The refined maps that lie between the backbone's and the logits, finest first, with `map_channels` channels.

        Args:
            image: the image.
            features: the backbone's maps, finest first.
        """
        kept: list[Tensor] = []
        self._rise(image, features, kept)
        return kept[::-1]

    def _rise(self, image: Tensor, features: list[Tensor], kept: list[Tensor] | None = None) -> Tensor:
        """The finest refined map; every one is put into a list where one is given, and else freed on the way."""
        maps = [image, *features]
        x = self.deepest(maps[-1])
        if kept is not None:
            kept.append(x)
        for index in range(len(self.levels) - 2, self.last_level - 1, -1):
            name, level = str(index), self.levels[index]
            x = self.narrow[name](x)
            if level.map_index is None:
                size = [(n + step - 1) // step for n, step in zip(image.shape[2:], level.stride, strict=True)]
                x = resize(x, size, self.mode)
            else:
                finer = maps[level.map_index]
                x = add(resize(x, finer.shape[2:], self.mode), self.skip[name](finer) if name in self.skip else finer)
            x = run_stage(self.refine[name], x, checkpointing=self.checkpointing)
            if kept is not None:
                kept.append(x)
        return x

    def forward(self, image: Float[Tensor, "batch channels *space"], features: list[Tensor]) -> Tensor:
        """The logits, of size ceil(n / output_stride) along each axis.

        Args:
            image: the image.
            features: the backbone's maps, finest first.
        """
        return self.logits_of(self._rise(image, features), image)

    def logits_of(self, finest: Float[Tensor, "batch channels *less_space"], image: Tensor) -> Tensor:
        """The logits that the finest of `maps` gives.

        Args:
            finest: the map.
            image: whose size is wanted.
        """
        logits = self.classify(finest)
        if math.prod(self.block) == 1:
            return logits
        logits = spread_blocks(logits, self.block)
        for axis, size in enumerate(image.shape[2:], start=2):
            logits = logits.narrow(axis, 0, size)  # an odd size ends within a block
        return logits


def spread_blocks(x: Float[Tensor, "batch channels *space"], block: Sequence[int]) -> Tensor:
    """Channels as voxels: each voxel becomes a block of them.

    Args:
        x: the map; of each output channel the voxels of a block stand together, the last axis fastest.
        block: voxels of a block along each axis.

    Returns:
        (batch, channels / prod(block), *(space * block)).

    Examples:
        >>> import torch
        >>> spread_blocks(torch.arange(8.0).reshape(1, 4, 1, 2), (2, 2)).tolist()
        [[[[0.0, 2.0, 1.0, 3.0], [4.0, 6.0, 5.0, 7.0]]]]
    """
    dims = len(block)
    space = x.shape[2:]
    split = x.reshape(x.shape[0], x.shape[1] // math.prod(block), *block, *space)
    order = [axis for pair in zip(range(2 + dims, 2 + 2 * dims), range(2, 2 + dims), strict=True) for axis in pair]
    sizes = [size * step for size, step in zip(space, block, strict=True)]
    return split.permute(0, 1, *order).reshape(x.shape[0], split.shape[1], *sizes)


def _refinement(style: BlockStyle, preset: DecoderPreset, level: int) -> OpSequence:
    width = preset.widths[level]
    blocks: list[nn.Module] = []
    for _ in range(preset.depths[level]):
        if level < preset.dense_levels:
            blocks.append(Residual(ConvNorm(style, width, width, ConvKind(style.kernel_size, style.point))))
        else:
            blocks.append(Residual(MBConv(style, width, width, style.point, Widening(preset.expand))))
    return OpSequence(blocks)
