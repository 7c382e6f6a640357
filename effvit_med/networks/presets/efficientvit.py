"""EfficientViT B0 to B3 and L0 to L3, and XL0 and XL1 of EfficientViT-SAM: every number, as data.

Source:
    Cai et al., EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction, ICCV 2023
    (arXiv 2205.14756), and the configurations published with it (mit-han-lab/efficientvit, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from effvit_med.networks.presets.names import ActivationName

BlockKind = Literal["ds", "res", "mb", "fused", "attention", "softmax"]


@dataclass(frozen=True)
class StagePreset:
    """One stage of a backbone: a block that changes the size, then residual blocks that keep it.

    Attributes:
        width: channels of the stage.
        down: the size-changing block; ``conv`` is one convolution, as in the stem.
        down_expand: how many times the size-changing block widens its input inside.
        kind: the kind of the residual blocks; ``softmax`` is ``attention`` with softmax in place of the linear one.
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
        stages: stage 0 (the stem) to the last.
        head_dim: channels of one attention head.
        activation: the activation of every block.
        separate_stem: whether stage 0 is stored under ``input_stem`` (B series) or as ``stages.0`` (L, XL).
        attention_eps: added to the denominator of the attention.
        aggregation_kernel_size: of the attention's second scale, along every axis.
        first_stride: of stage 0 where none is named; 1 keeps the input's own resolution. All other stages have 2.
    """

    name: str
    stages: tuple[StagePreset, ...]
    head_dim: int
    activation: ActivationName
    separate_stem: bool
    attention_eps: float = 1e-15
    aggregation_kernel_size: int = 5
    first_stride: int = 2


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


def _xl_series(name: str, depths: tuple[int, ...]) -> BackbonePreset:
    stages = (
        StagePreset(32, "conv", 1, "res", depths[0], 1, fewer_norm=False),
        StagePreset(64, "fused", 16, "fused", depths[1], 4, fewer_norm=False),
        StagePreset(128, "fused", 16, "fused", depths[2], 4, fewer_norm=False),
        StagePreset(256, "fused", 16, "fused", depths[3], 4, fewer_norm=False),
        StagePreset(512, "mb", 16, "attention", depths[4], 4, fewer_norm=True),
        StagePreset(1024, "mb", 24, "attention", depths[5], 6, fewer_norm=True),
    )
    return BackbonePreset(
        f"efficientvit_{name}", stages, 32, "gelu_tanh", separate_stem=False, aggregation_kernel_size=3
    )


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
        _xl_series("xl0", (0, 1, 1, 2, 3, 3)),
        _xl_series("xl1", (1, 2, 2, 4, 6, 6)),
    )
}
