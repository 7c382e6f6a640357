"""Every number of every model, as data: one file for each family."""

from effvit_med.networks.presets.decoders import (
    GENERAL_HEAD,
    HEAD_NORM_EPS,
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
    "GENERAL_HEAD",
    "HEADS",
    "HEAD_NORM_EPS",
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
