"""EfficientMod xxs, xs, s and s_Conv: every number, as data.

Source:
    Ma et al., Efficient Modulation for Vision Networks, ICLR 2024 (arXiv 2403.19963), and the configurations published
    with it (ma-xu/EfficientMod, Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EfficientModPreset:
    """The numbers of one backbone; where there are several, one for each of the four stages.

    Attributes:
        name: the name it is built by.
        widths: channels.
        depths: how many modulation blocks a stage has.
        expand: how many times the second, fourth, ... modulation block of a stage widens inside; the others do not.
        attention_depths: how many attention blocks follow.
        attention_expand: how many times the feed-forward layer of an attention block widens.
        heads: of every attention block.
        least_head_dim: a head has width / heads channels, but never fewer than this.
    """

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    expand: int
    attention_depths: tuple[int, ...] = (0, 0, 0, 0)
    attention_expand: tuple[int, ...] = (4, 4, 4, 4)
    heads: int = 8
    least_head_dim: int = 32


EFFICIENTMOD = {
    preset.name: preset
    for preset in (
        EfficientModPreset("efficientmod_xxs", (32, 64, 128, 256), (2, 2, 6, 2), 6, (0, 0, 1, 2)),
        EfficientModPreset("efficientmod_xs", (32, 64, 144, 288), (3, 3, 4, 2), 4, (0, 0, 3, 3)),
        EfficientModPreset("efficientmod_s", (32, 64, 144, 312), (4, 4, 8, 4), 6, (0, 0, 4, 4), (4, 4, 4, 5)),
        EfficientModPreset("efficientmod_s_conv", (40, 80, 160, 344), (4, 4, 12, 8), 6),
    )
}

#: Taps along each axis of the context's depthwise convolution, by the number of spatial axes: published for images,
#: ours for volumes, where 7 along each axis would be 343 taps a voxel.
CONTEXT_KERNEL_SIZE = {2: 7, 3: 5}
