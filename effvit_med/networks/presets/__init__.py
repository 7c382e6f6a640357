"""Every number of every model, as data: one file for each family."""

from effvit_med.networks.presets.decoders import (
    HEAD_OF_BACKBONE,
    HEADS,
    HIGH_RESOLUTION,
    DecoderPreset,
    HeadPreset,
)
from effvit_med.networks.presets.efficientvit import BACKBONES, BackbonePreset, BlockKind, StagePreset
from effvit_med.networks.presets.names import ActivationName, refuse_unknown

__all__ = [
    "BACKBONES",
    "HEADS",
    "HEAD_OF_BACKBONE",
    "HIGH_RESOLUTION",
    "ActivationName",
    "BackbonePreset",
    "BlockKind",
    "DecoderPreset",
    "HeadPreset",
    "StagePreset",
    "refuse_unknown",
]
