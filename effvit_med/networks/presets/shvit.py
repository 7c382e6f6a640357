"""SHViT S1 to S4, of single-head attention: every number, as data.

Source:
    Yun and Ro, SHViT: Single-Head Vision Transformer with Memory Efficient Macro Design, CVPR 2024 (arXiv 2401.16456),
    and the configurations published with it (ysj9909/SHViT, MIT).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShvitPreset:
    """The numbers of one backbone.

    Attributes:
        name: the name it is built by.
        widths: channels of the three stages, at strides 16, 32 and 64.
        depths: how many blocks each stage has.
        attended: of each stage, how many of its first channels the attention takes; None for a stage without.
        key_dim: channels of q and of k.
    """

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    attended: tuple[int | None, ...]
    key_dim: int = 16


SHVIT = {
    preset.name: preset
    for preset in (
        ShvitPreset("shvit_s1", (128, 224, 320), (2, 4, 5), (None, 48, 68)),
        ShvitPreset("shvit_s2", (128, 308, 448), (2, 4, 5), (None, 66, 96)),
        ShvitPreset("shvit_s3", (192, 352, 448), (3, 5, 5), (None, 75, 96)),
        ShvitPreset("shvit_s4", (224, 336, 448), (4, 7, 6), (None, 72, 96)),
    )
}
