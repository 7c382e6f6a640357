"""The candidates of the search: one layout to start from, and what happens when one number of it is another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from effvit_med.networks import HighResolutionDecoder, NetworkDetails, SegmentationNetwork
from effvit_med.networks.efficientvit import EfficientVit
from effvit_med.networks.presets.efficientvit import BlockKind
from effvit_med.networks.presets.fullres import Layout, assemble
from effvit_med.networks.registry import style_of


@dataclass(frozen=True)
class Candidate:
    """A network that may become a preset.

    Attributes:
        name: what is other than in the start.
        layout: its numbers.
        norm: ``instance`` or ``batch``.
        decoder_level: 0 for logits at the input's size, 1 for half of it.
        kernel_size: of the spatial convolutions.
    """

    name: str
    layout: Layout
    norm: str = "instance"
    decoder_level: int = 0
    kernel_size: int = 3

    def build(self, spatial_dims: int, out_channels: int) -> SegmentationNetwork:
        """The network with fresh weights.

        Args:
            spatial_dims: 2 or 3.
            out_channels: classes, background included.
        """
        preset = assemble(self.name, self.layout)
        details = NetworkDetails(norm=self.norm, kernel_size=self.kernel_size)
        style = style_of(spatial_dims, details, self.layout.activation)
        backbone = EfficientVit(preset.backbone, style, 1)
        head = HighResolutionDecoder(style, backbone, out_channels, preset.decoder, self.decoder_level)
        return SegmentationNetwork(backbone, head, spatial_dims, out_channels)

    def to_dict(self) -> dict[str, Any]:
        """Everything that makes the network, as plain values."""
        return asdict(self)


def list_candidates(spatial_dims: int) -> list[Candidate]:
    """All candidates, the start first.

    Args:
        spatial_dims: 2 or 3.
    """
    return _volumes() if spatial_dims == 3 else _images()


def _vary(start: Layout) -> list[Candidate]:
    """What images and volumes have in common."""
    last = len(start.widths) - 1
    attends = [index for index, kind in enumerate(start.kinds) if kind == "attention"]

    def with_kind(kind: BlockKind) -> tuple[BlockKind, ...]:
        return tuple(kind if index in attends else each for index, each in enumerate(start.kinds))

    return [
        Candidate("start", start),
        Candidate("attention: none, as many MBConvs", replace(start, kinds=with_kind("mb"))),
        Candidate("attention: dense convolutions instead", replace(start, kinds=with_kind("res"))),
        Candidate("attention: softmax", replace(start, kinds=with_kind("softmax"))),
        Candidate(
            "attention: no blocks at all", replace(start, blocks=(*start.blocks[: attends[0]], *[0] * len(attends)))
        ),
        Candidate("norm: batch", start, norm="batch"),
        Candidate("decoder: skips as they are", replace(start, plain_skips=True)),
        Candidate("decoder: nothing at full size", replace(start, decoder_depths=(0, *start.decoder_depths[1:]))),
        Candidate("decoder: two blocks at full size", replace(start, decoder_depths=(2, *start.decoder_depths[1:]))),
        Candidate("decoder: stride 2", start, decoder_level=1),
        Candidate("stem: stride 2", replace(start, first_stride=2)),
        Candidate("encoder: a block at full size", replace(start, blocks=(1, *start.blocks[1:]))),
        Candidate("encoder: no block at stride 2", replace(start, blocks=(0, 0, *start.blocks[2:]))),
        Candidate("encoder: four blocks at the end", replace(start, blocks=(*start.blocks[:last], 4))),
        Candidate("decoder: MBConvs from stride 2 on", replace(start, dense_levels=1)),
    ]


def _volumes() -> list[Candidate]:
    kinds: tuple[BlockKind, ...] = ("res", "res", "res", "attention")
    start = Layout((16, 32, 64, 96), (0, 1, 1, 2), kinds, (1, 1, 1))
    five: tuple[BlockKind, ...] = (*kinds, "attention")
    return [
        *_vary(start),
        Candidate("widths: 8 16 32 64", replace(start, widths=(8, 16, 32, 64))),
        Candidate("widths: 16 24 32 48", replace(start, widths=(16, 24, 32, 48))),
        Candidate("widths: 16 32 32 64", replace(start, widths=(16, 32, 32, 64))),
        Candidate("widths: 16 32 64 128", replace(start, widths=(16, 32, 64, 128))),
        Candidate("widths: 24 48 96 128", replace(start, widths=(24, 48, 96, 128))),
        Candidate("widths: 32 48 64 96", replace(start, widths=(32, 48, 64, 96))),
        Candidate("stages: three", Layout((16, 32, 64), (0, 1, 2), ("res", "res", "attention"), (1, 1))),
        Candidate("stages: five", Layout((16, 32, 64, 96, 128), (0, 1, 1, 2, 2), five, (1, 1, 1, 1))),
    ]


def _images() -> list[Candidate]:
    kinds: tuple[BlockKind, ...] = ("res", "res", "res", "attention", "attention")
    start = Layout((16, 32, 64, 96, 128), (0, 1, 1, 2, 2), kinds, (1, 1, 1, 1))
    return [
        *_vary(start),
        Candidate("widths: 8 16 32 64 64", replace(start, widths=(8, 16, 32, 64, 64))),
        Candidate("widths: 16 24 32 48 64", replace(start, widths=(16, 24, 32, 48, 64))),
        Candidate("widths: 16 32 32 64 64", replace(start, widths=(16, 32, 32, 64, 64))),
        Candidate("widths: 24 48 96 128 192", replace(start, widths=(24, 48, 96, 128, 192))),
        Candidate("widths: 32 64 64 96 128", replace(start, widths=(32, 64, 64, 96, 128))),
        Candidate("stages: four", Layout((16, 32, 64, 96), (0, 1, 1, 2), kinds[:4], (1, 1, 1))),
    ]
