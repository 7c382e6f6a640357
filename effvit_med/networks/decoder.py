"""From feature maps to logits: the published head of output stride 8, and our decoder down to stride 1."""

from __future__ import annotations

from collections.abc import Sequence
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
from effvit_med.networks.efficientvit import Backbone
from effvit_med.networks.presets import DecoderPreset, HeadPreset


@runtime_checkable
class Decoder(Protocol):
    """What turns an image and its feature maps into logits.

    Attributes:
        output_stride: input voxels per logit voxel, one per axis.
    """

    output_stride: tuple[int, ...]

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
    if tuple(x.shape[2:]) == tuple(size):
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
        return self.output_ops[0](self.middle(x))


class HighResolutionDecoder(nn.Module):
    """Carries the deepest map up to the input's resolution, adding the finer maps and at last the image itself.

    At each step the deeper map is narrowed by a point convolution, interpolated linearly, added to the point-projected
    finer map, and refined by residual blocks. At full size the finer map is the image. Where there are many voxels and
    few channels the blocks are single dense convolutions: at 96^3 and 16 channels one costs 1.6 times what a depthwise
    and a point convolution cost on a CPU, for 10 times the products. Where there are few voxels they are MBConvs.

    Args:
        style: what all blocks share.
        backbone: the channels and strides of the feature maps.
        out_channels: the number of classes.
        preset: the widths and depths.
        level: where to stop: 0 at the image's own size, i at the backbone's map i - 1.

    Raises:
        SettingsError: if there are not as many widths as levels.
    """

    def __init__(
        self, style: BlockStyle, backbone: Backbone, out_channels: int, preset: DecoderPreset, level: int = 0
    ) -> None:
        super().__init__()
        channels = (backbone.in_channels, *backbone.channels)
        if len(preset.widths) != len(channels) or len(preset.depths) != len(channels) - 1:
            raise SettingsError(
                f"The decoder has {len(preset.widths)} widths and {len(preset.depths)} depths; for {len(channels)} "
                f"levels give {len(channels)} and {len(channels) - 1}."
            )
        strides = ((1,) * style.layers.spatial_dims, *backbone.strides)
        widths = preset.widths
        self.output_stride = strides[level]
        self.mode = style.layers.linear_mode
        self.levels = tuple(range(len(channels) - 2, level - 1, -1))
        point = ConvKind(style.point, style.point, activation=False)
        self.deepest = ConvNorm(style, channels[-1], widths[-1])
        self.narrow = nn.ModuleDict({str(i): ConvNorm(style, widths[i + 1], widths[i], point) for i in self.levels})
        self.skip = nn.ModuleDict({str(i): ConvNorm(style, channels[i], widths[i], point) for i in self.levels})
        self.refine = nn.ModuleDict({str(i): _refinement(style, preset, i) for i in self.levels})
        classify = ConvKind(style.point, style.point, bias=True, norm=False, activation=False)
        self.classify = ConvNorm(style, widths[level], out_channels, classify)

    def forward(self, image: Float[Tensor, "batch channels *space"], features: list[Tensor]) -> Tensor:
        """The logits, of size ceil(n / output_stride) along each axis.

        Args:
            image: the image.
            features: the backbone's maps, finest first.
        """
        maps = [image, *features]
        x = self.deepest(maps[-1])
        for level in self.levels:
            name = str(level)
            deeper = resize(self.narrow[name](x), maps[level].shape[2:], self.mode)
            x = self.refine[name](add(deeper, self.skip[name](maps[level])))
        return self.classify(x)


def _refinement(style: BlockStyle, preset: DecoderPreset, level: int) -> OpSequence:
    width = preset.widths[level]
    blocks: list[nn.Module] = []
    for _ in range(preset.depths[level]):
        if level < preset.dense_levels:
            blocks.append(Residual(ConvNorm(style, width, width, ConvKind(style.kernel_size, style.point))))
        else:
            blocks.append(Residual(MBConv(style, width, width, style.point, Widening(preset.expand))))
    return OpSequence(blocks)
