"""Every number of every model, in one place, as data.

Source:
    Cai et al., EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction, ICCV 2023
    (arXiv 2205.14756), and the configurations published with it (mit-han-lab/efficientvit, Apache-2.0).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from effvit_med.errors import SettingsError

BlockKind = Literal["ds", "res", "mb", "fused", "attention"]
ActivationName = Literal["hardswish", "gelu_tanh"]


@dataclass(frozen=True)
class StagePreset:
    """One stage of a backbone: a block that changes the size, then residual blocks that keep it.

    Attributes:
        width: channels of the stage.
        down: the size-changing block; ``conv`` is one convolution, as in the stem.
        down_expand: how many times the size-changing block widens its input inside.
        kind: the kind of the residual blocks.
        blocks: how many residual blocks follow.
        expand: how many times a residual block widens inside.
        fewer_norm: whether only the last convolution of a block is normalised; the others then have a bias.
    """

    width: int
    down: Literal["conv", "mb", "fused"]
    down_expand: int
    kind: BlockKind
    blocks: int
    expand: int
    fewer_norm: bool


@dataclass(frozen=True)
class BackbonePreset:
    """The numbers of one backbone.

    Attributes:
        name: the name it is built by.
        stages: stage 0 (the stem) to stage 4.
        head_dim: channels of one attention head.
        activation: the activation of every block.
        separate_stem: whether stage 0 is stored under ``input_stem`` (B series) or as ``stages.0`` (L series).
        attention_eps: added to the denominator of the attention.
    """

    name: str
    stages: tuple[StagePreset, ...]
    head_dim: int
    activation: ActivationName
    separate_stem: bool
    attention_eps: float = 1e-15


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
        widths: channels at strides 1, 2, 4, 8, 16, 32; few where there are many voxels. Multiples of 16 at the first
            two: dense kernels of the CPU backend work on blocks of 16 channels.
        depths: how many residual blocks refine the features at each of the first five strides.
        dense_levels: how many of the first strides are refined by dense convolutions; the rest by MBConvs.
        expand: how many times these MBConvs widen inside.
        activation: the activation of every block.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    dense_levels: int = 2
    expand: int = 4
    activation: ActivationName = "hardswish"


def _b_series(name: str, widths: tuple[int, ...], depths: tuple[int, ...], head_dim: int) -> BackbonePreset:
    stem = StagePreset(widths[0], "conv", 1, "ds", depths[0], 1, fewer_norm=False)
    early = [StagePreset(w, "mb", 4, "mb", d - 1, 4, fewer_norm=False) for w, d in zip(widths, depths, strict=True)]
    late = [StagePreset(w, "mb", 4, "attention", d, 4, fewer_norm=True) for w, d in zip(widths, depths, strict=True)]
    stages = (stem, early[1], early[2], late[3], late[4])
    return BackbonePreset(f"efficientvit_{name}", stages, head_dim, "hardswish", separate_stem=True)


def _l_series(name: str, widths: tuple[int, ...], depths: tuple[int, ...]) -> BackbonePreset:
    stages = (
        StagePreset(widths[0], "conv", 1, "res", depths[0], 1, fewer_norm=False),
        StagePreset(widths[1], "fused", 16, "fused", depths[1], 4, fewer_norm=False),
        StagePreset(widths[2], "fused", 16, "fused", depths[2], 4, fewer_norm=False),
        StagePreset(widths[3], "mb", 16, "mb", depths[3], 4, fewer_norm=True),
        StagePreset(widths[4], "mb", 24, "attention", depths[4], 6, fewer_norm=True),
    )
    return BackbonePreset(f"efficientvit_{name}", stages, 32, "gelu_tanh", separate_stem=False)


BACKBONES = {
    preset.name: preset
    for preset in (
        _b_series("b0", (8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16),
        _b_series("b1", (16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16),
        _b_series("b2", (24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32),
        _b_series("b3", (32, 64, 128, 256, 512), (1, 4, 6, 6, 9), 32),
        _l_series("l0", (32, 64, 128, 256, 512), (1, 1, 1, 4, 4)),
        _l_series("l1", (32, 64, 128, 256, 512), (1, 1, 1, 6, 6)),
        _l_series("l2", (32, 64, 128, 256, 512), (1, 2, 2, 8, 8)),
        _l_series("l3", (64, 128, 256, 512, 1024), (1, 2, 2, 8, 8)),
    )
}

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

#: The published head that goes with a backbone where none is named.
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

#: Our decoder, for images and volumes alike.
HIGH_RESOLUTION = DecoderPreset(widths=(16, 32, 32, 48, 64, 96), depths=(1, 2, 2, 2, 1))


def refuse_unknown(what: str, value: object, known: Iterable[str]) -> SettingsError:
    """The error for a name that does not exist, with the nearest names that do.

    Args:
        what: what is named, such as ``preset``.
        value: the name that was given.
        known: the names that exist.

    Examples:
        >>> print(refuse_unknown("preset", "efficientvit_b9", BACKBONES))
        There is no preset 'efficientvit_b9'; the nearest are efficientvit_b3, efficientvit_b2, efficientvit_b1 (of 8).
    """
    names = list(known)
    begun = [name for name in names if name.startswith(str(value))]
    nearest = begun or difflib.get_close_matches(str(value), names, n=3, cutoff=0.3) or names
    return SettingsError(f"There is no {what} {value!r}; the nearest are {', '.join(nearest)} (of {len(names)}).")
