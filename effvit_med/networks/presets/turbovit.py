"""TurboViT-style hierarchical transformers: every number, as data, and where it comes from.

Source:
    The design: Wong et al., TurboViT: Generating Fast Vision Transformers via Generative Architecture Search
    (arXiv 2308.11421), which names mask-unit attention, Q-pooling at three places and most blocks after the second, but
    prints no table of widths and depths; and Ryali et al., Hiera, ICML 2023 (arXiv 2306.00989), for both mechanisms.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TurboVitPreset:
    """The numbers of one backbone.

    Attributes:
        name: the name it is built by.
        width: channels of the first stage; every further stage has twice as many.
        depths: how many blocks each stage has.
        heads: attention heads of the first stage; every further stage has twice as many.
        origin: who chose these numbers.
        windowed_stages: how many of the first stages attend within windows; the others attend globally.
        expand: how many times a feed-forward layer widens.
    """

    name: str
    width: int
    depths: tuple[int, ...]
    heads: int
    origin: str
    windowed_stages: int = 2
    expand: int = 4

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(self.width * 2**stage for stage in range(len(self.depths)))


_OURS = "ours: the paper (arXiv 2308.11421) gives no table of widths and depths, and no weights were published"

#: With 1000 classes, at 224 x 224: turbovit_t 3.06 M parameters and 0.56 GMACs, turbovit_s 13.26 M and 2.42 G.
TURBOVIT = {
    preset.name: preset
    for preset in (
        TurboVitPreset("turbovit_t", 32, (1, 2, 6, 2), 1, _OURS),
        TurboVitPreset(
            "turbovit_s",
            64,
            (1, 2, 8, 2),
            1,
            f"{_OURS}; near the size and cost that it claims",
        ),
    )
}

#: Tokens along each axis of a window in the first stage, by the number of spatial axes.
WINDOW_SIZE = {2: 8, 3: 4}

#: Entries of the learned position table along each axis.
TABLE_SIZE = 14
