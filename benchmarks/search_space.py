"""The candidates of the search: one layout to start from, and what happens when one number of it is another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from benchmarks.versus_models import Contender, build_adapter
from benchmarks.versus_sets import LabelledSet
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


@dataclass(frozen=True)
class Peer:
    """A network of the accuracy benchmark that candidates are compared with.

    Attributes:
        contender: the network.
        labelled: the set that it is built for.
    """

    contender: Contender
    labelled: LabelledSet

    @property
    def name(self) -> str:
        """As in the tables of the accuracy benchmark."""
        return self.contender.name

    def build(self, spatial_dims: int, out_channels: int) -> nn.Module:
        """The network with fresh weights; it is built for the set's own numbers."""
        del spatial_dims, out_channels
        return build_adapter(self.contender, self.labelled)

    def to_dict(self) -> dict[str, Any]:
        """Its name, which is all that makes it."""
        return {"name": self.name, "layout": {"widths": []}}


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
        Candidate("activation: hardswish", replace(start, activation="hardswish")),
        Candidate("norm: batch", start, norm="batch"),
        Candidate("decoder: skips as they are", replace(start, plain_skips=True)),
        Candidate("decoder: nothing at the finest map", replace(start, decoder_depths=(0, *start.decoder_depths[1:]))),
        Candidate(
            "decoder: two blocks at the finest map", replace(start, decoder_depths=(2, *start.decoder_depths[1:]))
        ),
        Candidate("decoder: logits at stride 2, interpolated", start, decoder_level=1),
        Candidate(
            "encoder: one more block at the finest map", replace(start, blocks=(start.blocks[0] + 1, *start.blocks[1:]))
        ),
        Candidate("encoder: four blocks at the end", replace(start, blocks=(*start.blocks[:last], 4))),
        Candidate("decoder: MBConvs from stride 4 on", replace(start, dense_levels=2)),
    ]


def _without_attention(start: Layout, families: Sequence[tuple[int, ...]]) -> list[Candidate]:
    """Convolutions only, at other widths than the start's."""
    coarse: dict[str, BlockKind] = {"dense convolutions": "res", "MBConvs": "mb"}
    return [
        Candidate(
            f"{name}, widths: {' '.join(map(str, widths))}",
            replace(start, widths=widths, kinds=tuple(kind if each == "attention" else each for each in start.kinds)),
        )
        for name, kind in coarse.items()
        for widths in families
    ]


def _volumes() -> list[Candidate]:
    kinds: tuple[BlockKind, ...] = ("res", "res", "attention")
    start = Layout((24, 48, 96), (1, 1, 2), kinds, (1, 1), activation="prelu", first_stride=2, subpixel=True)
    four: tuple[BlockKind, ...] = ("res", "res", "res", "attention")
    at_full_size = Layout((16, 32, 64, 96), (0, 1, 1, 2), four, (1, 1, 1), activation="prelu")
    return [
        *_vary(start),
        Candidate("decoder: a map at full size", replace(start, subpixel=False)),
        Candidate("first stage: stride 1", at_full_size),
        Candidate("first stage: stride 1, 8 16 32 64", replace(at_full_size, widths=(8, 16, 32, 64))),
        Candidate("widths: 16 32 64", replace(start, widths=(16, 32, 64))),
        Candidate("widths: 16 32 128", replace(start, widths=(16, 32, 128))),
        Candidate("widths: 32 64 128", replace(start, widths=(32, 64, 128))),
        Candidate("widths: 32 48 64", replace(start, widths=(32, 48, 64))),
        *_without_attention(start, ((16, 32, 64), (32, 64, 128), (48, 96, 192))),
        Candidate("stages: two", replace(start, widths=(24, 48), blocks=(1, 2), kinds=kinds[1:], decoder_depths=(1,))),
        Candidate(
            "stages: four",
            replace(start, widths=(24, 48, 96, 128), blocks=(1, 1, 1, 2), kinds=four, decoder_depths=(1, 1, 1)),
        ),
    ]


def _images() -> list[Candidate]:
    kinds: tuple[BlockKind, ...] = ("res", "res", "attention", "attention")
    start = Layout((24, 48, 96, 128), (1, 1, 2, 2), kinds, (1, 1, 1), activation="prelu", first_stride=2, subpixel=True)
    five: tuple[BlockKind, ...] = ("res", *kinds)
    at_full_size = Layout((16, 32, 64, 96, 128), (0, 1, 1, 2, 2), five, (1, 1, 1, 1))
    return [
        *_vary(start),
        Candidate("decoder: a map at full size", replace(start, subpixel=False)),
        Candidate("first stage: stride 1, hardswish", at_full_size),
        Candidate("first stage: stride 1", replace(at_full_size, activation="prelu")),
        Candidate("widths: 16 32 64 96", replace(start, widths=(16, 32, 64, 96))),
        Candidate("widths: 16 32 128 128", replace(start, widths=(16, 32, 128, 128))),
        Candidate("widths: 32 64 128 192", replace(start, widths=(32, 64, 128, 192))),
        Candidate("widths: 32 48 64 96", replace(start, widths=(32, 48, 64, 96))),
        *_without_attention(start, ((8, 16, 32, 64), (16, 32, 64, 96), (32, 64, 128, 192))),
        Candidate(
            "stages: three",
            Layout((24, 48, 96), (1, 1, 2), kinds[:3], (1, 1), activation="prelu", first_stride=2, subpixel=True),
        ),
        Candidate(
            "stages: five",
            replace(start, widths=(24, 48, 96, 128, 128), blocks=(1, 1, 1, 2, 2), kinds=five, decoder_depths=(1,) * 4),
        ),
    ]
