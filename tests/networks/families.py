"""The smallest network of every design, cut to one block a stage, and how two outputs are compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from effvit_med.networks import SegmentationNetwork
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.decoder import HighResolutionDecoder, SegHead
from effvit_med.networks.efficientmod import EfficientMod
from effvit_med.networks.efficientvit import Backbone, EfficientVit
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets import BACKBONES, HEADS, HIGH_RESOLUTION
from effvit_med.networks.presets.efficientmod import EFFICIENTMOD
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
from effvit_med.networks.presets.shvit import SHVIT
from effvit_med.networks.presets.turbovit import TURBOVIT
from effvit_med.networks.shvit import Shvit
from effvit_med.networks.turbovit import TurboVit


def _mit(name: str, dims: int) -> Backbone:
    preset = BACKBONES[name]
    short = replace(preset, stages=tuple(replace(stage, blocks=min(1, stage.blocks)) for stage in preset.stages))
    return EfficientVit(short, BlockStyle(layers_for(dims), (3,) * dims, preset.activation), 1)


def _cascaded(dims: int) -> Backbone:
    return EfficientVitM(replace(EFFICIENTVIT_M["efficientvit_m0"], depths=(1, 1, 1)), dims, 1)


def _single_head(dims: int) -> Backbone:
    return Shvit(replace(SHVIT["shvit_s1"], depths=(1, 1, 1)), dims, 1)


def _modulation(dims: int) -> Backbone:
    preset = replace(EFFICIENTMOD["efficientmod_xxs"], depths=(2, 1, 1, 1), attention_depths=(0, 0, 1, 1))
    return EfficientMod(preset, dims, 1)


def _turbo(dims: int) -> Backbone:
    return TurboVit(replace(TURBOVIT["turbovit_t"], depths=(1, 1, 1, 1)), dims, 1)


#: The smallest backbone of each design, cut to one block a stage: as many kinds of blocks, in less time.
BACKBONE_OF: dict[str, Callable[[int], Backbone]] = {
    "efficientvit_b": lambda dims: _mit("efficientvit_b0", dims),
    "efficientvit_l": lambda dims: _mit("efficientvit_l0", dims),
    "efficientvit_m": _cascaded,
    "shvit": _single_head,
    "efficientmod": _modulation,
    "turbovit": _turbo,
}

every_family = pytest.mark.parametrize("family", BACKBONE_OF)
both_ranks = pytest.mark.parametrize("dims", [2, 3])


def make_network(family: str, dims: int, decoder: str = "high_resolution") -> SegmentationNetwork:
    """A network whose normalisations have seen something, so that folding and eval mode are no identity."""
    torch.manual_seed(0)
    backbone = BACKBONE_OF[family](dims)
    style = BlockStyle(layers_for(dims), (3,) * dims)
    head: HighResolutionDecoder | SegHead
    if decoder == "seg_head":
        head = SegHead(style, backbone, 3, HEADS["seg_b0_cityscapes"])
    else:
        head = HighResolutionDecoder(style, backbone, 3, HIGH_RESOLUTION)
    network = SegmentationNetwork(backbone, head, dims, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def make_image(*space: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, *space)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == wanted.shape
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def quietly(make: Callable[[], Any]) -> Any:
    """What ``make`` gives, without torch's warnings to its own developers and without the checks of annotations.

    Checks that are compiled or recorded with the network are no part of it, and know no symbol in place of a size.
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
