"""Published weights made to fit a network of other image channels, of volumes, or of another window.

Source:
    Inflation by repetition (``mean``) and by the centre slice (``centre``): Carreira and Zisserman, Quo Vadis, Action
    Recognition (arXiv 1705.07750), section 2.4, and the initialisations compared after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.networks.efficientvit_m import inflate_bias_table, resize_bias_table

Inflation = Literal["centre", "mean"]


@dataclass(frozen=True)
class Fitted:
    """A weight that fits, and what was done to it.

    Attributes:
        value: the weight.
        changes: what was done, in words; empty where nothing was.
    """

    value: Tensor
    changes: tuple[str, ...] = ()


def adapt_stem(weight: Float[Tensor, "out old *kernel"], in_channels: int) -> Float[Tensor, "out new *kernel"]:
    """The first convolution for another number of image channels.

    One channel gets the sum over the old ones, so that a grey image gives what it gave when repeated. Otherwise the old
    ones are taken in turn and scaled by old over new, which keeps the size of the response.

    Args:
        weight: the published kernel.
        in_channels: the new number of channels.

    Examples:
        >>> adapt_stem(torch.ones(1, 3, 1, 1), 1).flatten().tolist()
        [3.0]
        >>> adapt_stem(torch.ones(1, 3, 1, 1), 4).flatten().tolist()
        [0.75, 0.75, 0.75, 0.75]
    """
    old = weight.shape[1]
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [channel % old for channel in range(in_channels)]] * (old / in_channels)


def inflate_kernel(
    weight: Float[Tensor, "out in height width"], depth: int, inflation: Inflation
) -> Float[Tensor, "out in depth height width"]:
    """The kernel of a volume from that of an image; the new axis is the first spatial one, that of the slices.

    Args:
        weight: the kernel of an image.
        depth: size of the new axis, odd.
        inflation: ``centre`` puts the kernel into the middle slice and zeros beside it: a volume of one slice gives
            what the image gave. ``mean`` repeats it and divides by the depth: a volume that does not change along the
            new axis gives what the image gave, away from the border.
    """
    if inflation == "mean":
        return weight.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth
    inflated = weight.new_zeros(*weight.shape[:2], depth, *weight.shape[2:])
    inflated[:, :, depth // 2] = weight
    return inflated


def crop_kernel(weight: Float[Tensor, "out in *kernel"], size: tuple[int, ...]) -> Tensor:
    """A kernel of another size about the same centre: cut off where smaller, with zeros where larger.

    Args:
        weight: the kernel.
        size: the new size, odd like the old along every axis.
    """
    for axis, (old, new) in enumerate(zip(weight.shape[2:], size, strict=True), start=2):
        if new < old:
            weight = weight.narrow(axis, (old - new) // 2, new)
        elif new > old:
            side = list(weight.shape)
            side[axis] = (new - old) // 2
            zeros = weight.new_zeros(side)
            weight = torch.cat([zeros, weight, zeros], axis)
    return weight


def fit_weight(name: str, weight: Tensor, wanted: Tensor, spatial_dims: int, inflation: Inflation) -> Fitted | None:
    """A published weight in the shape that a network needs, or None where it cannot be made to fit.

    Args:
        name: our name of it.
        weight: the published weight.
        wanted: the network's own, for its shape.
        spatial_dims: of the network, 2 or 3.
        inflation: how a kernel of images becomes one of volumes.
    """
    if weight.shape == wanted.shape:
        return Fitted(weight)
    if name.endswith("attention_biases"):
        return _fit_bias_table(weight, wanted.shape[1], spatial_dims) if weight.shape[0] == wanted.shape[0] else None
    changes: list[str] = []
    if weight.dim() not in (wanted.dim(), wanted.dim() - 1) or weight.dim() < 4 or weight.shape[0] != wanted.shape[0]:
        return None
    if weight.shape[1] != wanted.shape[1]:
        if not is_stem(name):
            return None
        changes.append(f"image channels {weight.shape[1]} to {wanted.shape[1]}")
        weight = adapt_stem(weight, wanted.shape[1])
    if weight.dim() < wanted.dim():
        changes.append(f"inflated to a volume ({inflation})")
        weight = inflate_kernel(weight, wanted.shape[2], inflation)
    if weight.shape[2:] != wanted.shape[2:]:
        changes.append(f"kernel {tuple(weight.shape[2:])} to {tuple(wanted.shape[2:])} about its centre")
        weight = crop_kernel(weight, tuple(wanted.shape[2:]))
    return Fitted(weight, tuple(changes))


def is_stem(name: str) -> bool:
    """Whether a weight is the one that sees the image.

    Args:
        name: our name of it.
    """
    return name.removeprefix("image_encoder.").removeprefix("backbone.") in _STEMS


_STEMS = (
    "input_stem.op_list.0.conv.weight",
    "stages.0.op_list.0.conv.weight",
    "patch_embed.0.c.weight",
    "patch_embed.proj.weight",
)


def _fit_bias_table(weight: Tensor, new: int, spatial_dims: int) -> Fitted | None:
    side, wanted = round(weight.shape[1] ** 0.5), round(new ** (1 / spatial_dims))
    if side**2 != weight.shape[1] or wanted**spatial_dims != new:
        return None
    window = (wanted,) * spatial_dims
    change = f"window {side} x {side} to {' x '.join(map(str, window))}"
    resize = resize_bias_table if spatial_dims == 2 else inflate_bias_table
    return Fitted(resize(weight, (side, side), window), (change,))
