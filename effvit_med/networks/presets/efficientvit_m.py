"""EfficientViT-M0 to M5, of cascaded group attention: every number, as data.

Source:
    Liu et al., EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention, CVPR 2023
    (arXiv 2305.07027), table 2, and the configurations published with it (microsoft/Cream, MIT).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EfficientVitMPreset:
    """The numbers of one backbone.

    Attributes:
        name: the name it is built by.
        widths: channels of the three stages, at strides 16, 32 and 64.
        depths: how many blocks each stage has.
        heads: how many attention heads each stage has.
        q_kernel_sizes: the kernel of the depthwise convolution of q, for each head of a block.
        windows: the side of the attention window in each stage of an image network.
        volume_windows: the same of a volume network; ours, as 7^3 = 343 voxels cost too much.
        key_dim: channels of q and of k in one head.
    """

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    q_kernel_sizes: tuple[int, ...]
    windows: tuple[int, ...] = (7, 7, 4)
    volume_windows: tuple[int, ...] = (4, 4, 4)
    key_dim: int = 16


EFFICIENTVIT_M = {
    preset.name: preset
    for preset in (
        EfficientVitMPreset("efficientvit_m0", (64, 128, 192), (1, 2, 3), (4, 4, 4), (5, 5, 5, 5)),
        EfficientVitMPreset("efficientvit_m1", (128, 144, 192), (1, 2, 3), (2, 3, 3), (7, 5, 3, 3)),
        EfficientVitMPreset("efficientvit_m2", (128, 192, 224), (1, 2, 3), (4, 3, 2), (7, 5, 3, 3)),
        EfficientVitMPreset("efficientvit_m3", (128, 240, 320), (1, 2, 3), (4, 3, 4), (5, 5, 5, 5)),
        EfficientVitMPreset("efficientvit_m4", (128, 256, 384), (1, 2, 3), (4, 4, 4), (7, 5, 3, 3)),
        EfficientVitMPreset("efficientvit_m5", (192, 288, 384), (1, 3, 4), (3, 3, 4), (7, 5, 3, 3)),
    )
}
