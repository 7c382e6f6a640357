"""A small network that has learnt something, and what judges it: for the tests of quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from effvit_med.engine.quantisation import Judge, Predict
from effvit_med.networks import SegmentationNetwork
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.decoder import HighResolutionDecoder
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets import HIGH_RESOLUTION
from tests.networks.families import BACKBONE_OF

SIZE = 64
NAMES = ("large", "small")


def draw_discs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of a large and a small disc of equal brightness in noise, and their classes: told apart by size only."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.arange(SIZE, dtype=torch.float32)
    images = 0.15 * torch.randn(count, 1, SIZE, SIZE, generator=generator)
    classes = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    for index in range(count):
        for value, radius in ((1, 11.0), (2, 5.0)):
            centre = torch.rand(2, generator=generator) * (SIZE - 2 * radius) + radius
            inside = (places[:, None] - centre[0]) ** 2 + (places[None, :] - centre[1]) ** 2 < radius**2
            inside &= classes[index] == 0
            images[index, 0][inside] += 1.0
            classes[index][inside] = value
    return images, classes


def new_network() -> SegmentationNetwork:
    """B0 with one block a stage, for images."""
    torch.manual_seed(0)
    backbone = BACKBONE_OF["efficientvit_b"](2)
    style = BlockStyle(layers_for(2), (3, 3))
    decoder = HighResolutionDecoder(style, backbone, 3, HIGH_RESOLUTION)
    return SegmentationNetwork(backbone, decoder, 2, 3)


@cache
def _trained_weights() -> dict[str, Tensor]:
    network = new_network().train()
    steps = 80
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(steps):
        images, classes = draw_discs(4, seed=step)
        loss = torch.nn.functional.cross_entropy(network(images), classes, weight=torch.tensor([0.3, 1.0, 2.0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return {name: value.clone() for name, value in network.state_dict().items()}


def trained_network() -> SegmentationNetwork:
    """A new copy of a network that tells large discs from small ones."""
    network = new_network()
    network.load_state_dict(_trained_weights())
    return network.eval()


def make_judge(seen: list[Predict] | None = None) -> Judge:
    """Dice of both discs over eight images that were not trained on; the Predicts it was given are kept in ``seen``."""
    images, classes = draw_discs(8, seed=10_000)

    def judge(predict: Predict) -> Mapping[str, float]:
        if seen is not None:
            seen.append(predict)
        return dice_of(predict(images).argmax(dim=1), classes)

    return judge


def dice_of(found: Tensor, exact: Tensor) -> dict[str, float]:
    """Dice by name."""
    scores = {}
    for value, name in enumerate(NAMES, start=1):
        a, b = (found == value).numpy(), (exact == value).numpy()
        scores[name] = float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return scores


def spoil_block(network: SegmentationNetwork, name: str) -> str:
    """Gives an MBConv one inner channel of a huge constant, which its last convolution does not look at.

    In float32 that changes nothing beyond the loss of one channel; in INT8 the step between two values of that layer
    becomes larger than all the others together.

    Args:
        network: changed in place.
        name: of the MBConv.

    Returns:
        The block it belongs to.
    """
    block = network.get_submodule(name)
    with torch.no_grad():
        if block.depth_conv.norm is None:
            block.depth_conv.conv.weight[0] = 0
            block.depth_conv.conv.bias[0] = 1e4
        else:
            block.depth_conv.norm.weight[0] = 0
            block.depth_conv.norm.bias[0] = 1e4
        block.point_conv.conv.weight[:, 0] = 0
    return name.removesuffix(".main")
