"""Segmentation heads and decoders: every number, as data.

Source:
    The heads: Cai et al., EfficientViT (arXiv 2205.14756), and the configurations published with it. The decoder: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from effvit_med.networks.presets.efficientvit import BlockKind
from effvit_med.networks.presets.names import ActivationName


@dataclass(frozen=True)
class HeadPreset:
    """The numbers of one published segmentation head, of output stride 8.

    Attributes:
        name: the name it is built by.
        width: channels of the head.
        depth: how many residual blocks it has.
        kind: the kind of these blocks.
        expand: how many times a block widens inside.
        final_expand: how many times the last features are widened before the classifier, or None for no such layer.
        activation: the activation of every block.
        classes: how many classes the published model has.
    """

    name: str
    width: int
    depth: int
    kind: BlockKind
    expand: int
    final_expand: int | None
    activation: ActivationName
    classes: int


@dataclass(frozen=True)
class DecoderPreset:
    """The numbers of our high-resolution decoder, from the input's own resolution (level 0) to the deepest map.

    Attributes:
        widths: channels at strides 1, 2, 4, and so on; few where there are many voxels. Multiples of 16 at the first
            two: dense kernels of the CPU backend work on blocks of 16 channels. A backbone that ends earlier uses the
            first of them.
        depths: how many residual blocks refine the features at each of these strides but the last.
        dense_levels: how many of the first strides are refined by dense convolutions; the rest by MBConvs.
        expand: how many times these MBConvs widen inside.
        activation: the activation of every block.
        plain_skips: whether a finer map that has the decoder's width already is added as it is.
        subpixel: whether the last step to the input's size has no map of its own: each voxel of the one before gives
            the logits of all voxels that it covers.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    dense_levels: int = 2
    expand: int = 4
    activation: ActivationName = "hardswish"
    plain_skips: bool = False
    subpixel: bool = False


HEADS = {
    preset.name: preset
    for preset in (
        HeadPreset("seg_b0_cityscapes", 32, 1, "mb", 4, 4, "hardswish", 19),
        HeadPreset("seg_b1_cityscapes", 64, 3, "mb", 4, 4, "hardswish", 19),
        HeadPreset("seg_b1_ade20k", 64, 3, "mb", 4, None, "hardswish", 150),
        HeadPreset("seg_b2_cityscapes", 96, 3, "mb", 4, 4, "hardswish", 19),
        HeadPreset("seg_b2_ade20k", 96, 3, "mb", 4, None, "hardswish", 150),
        HeadPreset("seg_b3_cityscapes", 128, 3, "mb", 4, 4, "hardswish", 19),
        HeadPreset("seg_b3_ade20k", 128, 3, "mb", 4, None, "hardswish", 150),
        HeadPreset("seg_l1_cityscapes", 256, 3, "fused", 1, None, "gelu_tanh", 19),
        HeadPreset("seg_l1_ade20k", 128, 3, "fused", 4, 8, "gelu_tanh", 150),
        HeadPreset("seg_l2_cityscapes", 256, 5, "fused", 1, None, "gelu_tanh", 19),
        HeadPreset("seg_l2_ade20k", 128, 3, "fused", 4, 8, "gelu_tanh", 150),
    )
}

#: The published head that goes with a backbone where none is named; `GENERAL_HEAD` with all others.
HEAD_OF_BACKBONE = {
    "efficientvit_b0": "seg_b0_cityscapes",
    "efficientvit_b1": "seg_b1_cityscapes",
    "efficientvit_b2": "seg_b2_cityscapes",
    "efficientvit_b3": "seg_b3_cityscapes",
    "efficientvit_l0": "seg_l1_cityscapes",
    "efficientvit_l1": "seg_l1_cityscapes",
    "efficientvit_l2": "seg_l2_cityscapes",
    "efficientvit_l3": "seg_l2_cityscapes",
}

#: The head for a backbone that was published without one.
GENERAL_HEAD = "seg_b1_cityscapes"

#: Added to the variance in every normalisation of a published segmentation model, by the series of its head.
HEAD_NORM_EPS = {"b": 1e-5, "l": 1e-7}

#: Our decoder, for images and volumes alike.
HIGH_RESOLUTION = DecoderPreset(widths=(16, 32, 32, 48, 64, 96, 128), depths=(1, 2, 2, 2, 1, 1))
