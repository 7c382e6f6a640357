"""Promptable networks: every number, as data.

The image's half is as deep as a single pass allows, since it runs once a view; the half that runs at every prompt is
narrow. Ours, not published elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from effvit_med.networks.presets.decoders import DecoderPreset
from effvit_med.networks.presets.efficientvit import BackbonePreset, BlockKind
from effvit_med.networks.presets.fullres import Layout, assemble


@dataclass(frozen=True)
class PromptPreset:
    """The numbers of one promptable network.

    Attributes:
        name: the name it is built by.
        image: the stages that see the image, from stride 2 on.
        prompts: as many stages that see the prompts.
        widths: channels of what both are brought to, a stage each.
        meeting: residual blocks of each stage after both have met.
        kinds: kind of these blocks.
        decoder: from the deepest of these maps back to the image's size.
    """

    name: str
    image: BackbonePreset
    prompts: BackbonePreset
    widths: tuple[int, ...]
    meeting: tuple[int, ...]
    kinds: tuple[BlockKind, ...]
    decoder: DecoderPreset


def _preset(
    name: str,
    image: tuple[tuple[int, ...], tuple[int, ...]],
    prompts: tuple[int, ...],
    widths: tuple[int, ...],
    meeting: tuple[int, ...],
) -> PromptPreset:
    """Dense convolutions at the two finest strides, linear attention at the others."""
    stages = len(widths)
    dense: list[BlockKind] = ["res"] * stages
    attending: list[BlockKind] = ["attention"] * (stages - 2)
    kinds = (*dense[:2], *attending)
    depths = (1,) * (stages - 1)
    seeing = assemble(f"{name}_image", Layout(*image, kinds, depths, activation="prelu", first_stride=2, subpixel=True))
    pointing = Layout(prompts, (0,) * stages, tuple(dense), depths, activation="prelu", first_stride=2, subpixel=True)
    deciding = Layout(widths, meeting, tuple(dense), depths, activation="prelu", first_stride=2, subpixel=True)
    return PromptPreset(
        name,
        seeing.backbone,
        assemble(f"{name}_prompts", pointing).backbone,
        widths,
        meeting,
        kinds,
        assemble(name, deciding).decoder,
    )


_SMALL, _TINY = "prompt_small", "prompt_tiny"

#: By name and number of spatial axes.
PROMPT = {
    (_SMALL, 2): _preset(_SMALL, ((24, 48, 96, 192), (1, 1, 2, 3)), (8, 8, 16, 32), (16, 24, 48, 96), (0, 0, 1, 2)),
    (_SMALL, 3): _preset(_SMALL, ((16, 32, 64, 128), (0, 1, 2, 2)), (8, 16, 32, 48), (16, 24, 48, 96), (0, 0, 1, 1)),
    (_TINY, 2): _preset(_TINY, ((16, 32, 64, 96), (1, 1, 1, 1)), (8, 16, 16, 32), (16, 16, 32, 64), (0, 0, 1, 1)),
    (_TINY, 3): _preset(_TINY, ((8, 16, 32, 64), (0, 1, 1, 1)), (8, 8, 16, 32), (8, 16, 32, 48), (0, 0, 1, 1)),
}

PROMPT_NAMES = tuple(dict.fromkeys(name for name, _ in PROMPT))
