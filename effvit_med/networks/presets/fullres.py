"""Networks that answer at the input's own resolution: every number, as data.

The published EfficientViT with its segmentation head stops at an eighth of the image: right for photographs of objects,
wrong for a structure that is three voxels wide. Here the finest map has stride 2, each of its voxels gives the logits
of the eight (in 2D the four) that it covers, and the decoder adds each stage's map on its way back. Blocks are dense
convolutions, in 2D MBConvs where there are few pixels. Linear attention can stand there (`Layout.kinds`) and is what
these networks began with: it bought nothing on the sets at hand. Widths and kinds are what `benchmarks/search.py`
found, not what a paper has.
"""

from __future__ import annotations

from dataclasses import dataclass

from effvit_med.networks.presets.decoders import DecoderPreset
from effvit_med.networks.presets.efficientvit import BackbonePreset, BlockKind, StagePreset
from effvit_med.networks.presets.names import ActivationName


@dataclass(frozen=True)
class FullResolutionPreset:
    """A backbone and the decoder that goes with it.

    Attributes:
        backbone: the stages.
        decoder: as wide as the backbone at each stride.
    """

    backbone: BackbonePreset
    decoder: DecoderPreset


@dataclass(frozen=True)
class Layout:
    """What distinguishes one full-resolution network from another.

    Attributes:
        widths: channels of each stage, finest first; of a stage that attends, a multiple of ``head_dim``.
        blocks: residual blocks of each stage.
        kinds: kind of these blocks.
        decoder_depths: residual blocks of the decoder at the stride of each stage but the last.
        dense_levels: how many of the decoder's strides are refined by dense convolutions.
        head_dim: channels of one attention head.
        expand: how many times the MBConvs widen inside.
        plain_skips: whether the decoder adds the stages' maps as they are.
        aggregation_kernel_size: of the attention's second scale.
        activation: the activation of every block.
        first_stride: of the first stage; with 2 no map has the input's own size but the image.
        subpixel: whether the logits at the input's size come from the map of stride 2 by sub-pixel convolution; only
            with a first stride of 2.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    kinds: tuple[BlockKind, ...]
    decoder_depths: tuple[int, ...]
    dense_levels: int = 3
    head_dim: int = 16
    expand: int = 4
    plain_skips: bool = False
    aggregation_kernel_size: int = 3
    activation: ActivationName = "hardswish"
    first_stride: int = 1
    subpixel: bool = False


def assemble(name: str, layout: Layout) -> FullResolutionPreset:
    """The backbone and the decoder of a layout.

    Args:
        name: what the network is called.
        layout: its numbers.

    Examples:
        >>> found = assemble("mine", Layout((8, 16), (0, 1), ("res", "attention"), (1,)))
        >>> found.backbone.first_stride, found.decoder.widths
        (1, (8, 16))
    """
    rows = zip(layout.widths, layout.kinds, layout.blocks, strict=True)
    stages = tuple(
        StagePreset(width, "conv", 1, kind, blocks, layout.expand, fewer_norm=False) for width, kind, blocks in rows
    )
    backbone = BackbonePreset(
        name,
        stages,
        layout.head_dim,
        layout.activation,
        separate_stem=False,
        aggregation_kernel_size=layout.aggregation_kernel_size,
        first_stride=layout.first_stride,
    )
    halved = layout.first_stride > 1  # then the decoder's finest level is the image
    decoder = DecoderPreset(
        (layout.widths[0], *layout.widths) if halved else layout.widths,
        (layout.decoder_depths[0], *layout.decoder_depths) if halved else layout.decoder_depths,
        layout.dense_levels,
        layout.expand,
        layout.activation,
        layout.plain_skips,
        layout.subpixel,
    )
    return FullResolutionPreset(backbone, decoder)


def _halved(widths: tuple[int, ...], blocks: tuple[int, ...], coarse: BlockKind, coarse_stages: int) -> Layout:
    """Dense residual blocks first, then ``coarse_stages`` of another kind; the finest map has stride 2."""
    first = len(widths) - coarse_stages
    kinds: list[BlockKind] = ["res" if stage < first else coarse for stage in range(len(widths))]
    depths = (1,) * (len(widths) - 1)
    return Layout(widths, blocks, tuple(kinds), depths, activation="prelu", first_stride=2, subpixel=True)


_VOLUMES, _IMAGES = (1, 1, 2), (1, 1, 2, 2)

#: By name and number of spatial axes.
FULL_RESOLUTION = {
    (f"fullres_{size}", spatial_dims): assemble(f"fullres_{size}", layout)
    for spatial_dims, size, layout in (
        (3, "tiny", _halved((16, 32, 64), _VOLUMES, "res", 1)),
        (3, "small", _halved((32, 64, 128), _VOLUMES, "res", 1)),
        (3, "base", _halved((48, 96, 192), _VOLUMES, "res", 1)),
        (2, "tiny", _halved((8, 16, 32, 64), _IMAGES, "res", 2)),
        (2, "small", _halved((16, 32, 64, 96), _IMAGES, "mb", 2)),
        (2, "base", _halved((24, 48, 96, 128), _IMAGES, "mb", 2)),
    )
}

FULL_RESOLUTION_NAMES = tuple(dict.fromkeys(name for name, _ in FULL_RESOLUTION))
