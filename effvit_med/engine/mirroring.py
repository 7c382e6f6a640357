"""Test-time augmentation: the mean over mirrored tiles."""

from __future__ import annotations

import itertools
import re

import torch
from torch import Tensor

from effvit_med.engine.model import Model
from effvit_med.engine.scoring import Predict
from effvit_med.volume import Geometry

_SIDE = re.compile(r"(^|[^a-z])(left|right|l|r|lt|rt)([^a-z]|$)", re.IGNORECASE)


def mirrored(predict: Predict, axes: tuple[int, ...]) -> Predict:
    """A network that also looks at its tiles in the mirror and answers with the mean of its logits.

    Args:
        predict: the network.
        axes: spatial axes of a tile that are mirrored, each alone and together, counted from the end (-1 is the last).

    Returns:
        A predict that takes 2 to the power of the number of axes as long.

    Examples:
        >>> right = mirrored(lambda tiles: torch.cumsum(tiles, dim=-1), (-1,))
        >>> right(torch.ones(1, 1, 3)).tolist()
        [[[2.0, 2.0, 2.0]]]
    """
    subsets = [subset for count in range(len(axes) + 1) for subset in itertools.combinations(axes, count)]

    def predict_mean(tiles: Tensor) -> Tensor:
        total: Tensor | None = None
        for subset in subsets:
            logits = torch.flip(predict(torch.flip(tiles, subset)), subset) if subset else predict(tiles)
            total = logits.clone() if total is None else total.add_(logits)
        if total is None:
            raise AssertionError("there is always the tile itself")
        return total.div_(len(subsets))

    return predict_mean


def mirror_axes(model: Model, grid: Geometry) -> tuple[int, ...]:
    """The axes along which tiles of a model may be mirrored.

    A structure that has a side, as the left kidney has, would become the other in a mirror that swaps left and right;
    with such structures, known by their laterality or by left or right in their name, that axis is left out. So is
    every axis along which the network has not learnt from mirrored images, where the bundle says which those are: a
    hippocampus in the mirror has its anterior end behind. 2D networks are mirrored within the slice.

    Args:
        model: what the bundle says.
        grid: the network's grid.

    Returns:
        Axes counted from the end, ready for `mirrored`.
    """
    names = (*(label.name for label in model.labels), *model.head.names(model.labels))
    sided = any(label.laterality is not None for label in model.labels) or any(map(_SIDE.search, names))
    learnt = range(3) if model.tiling.mirror_axes is None else model.tiling.mirror_axes
    axes = [axis for axis in sorted(learnt) if not (sided and grid.orientation[axis] in "LR")]
    return tuple(axis - 3 for axis in axes if axis > 0 or model.preprocess.spatial_dims == 3)
