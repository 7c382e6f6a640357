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
from torch.nn import functional

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


@dataclass(frozen=True)
class Fitting:
    """How weights may be made to fit.

    Attributes:
        spatial_dims: of the network, 2 or 3.
        inflation: how a kernel of images becomes one of volumes.
        may_crop: whether a kernel may get another size where no axis is new: only of a model that is known to be whole.
    """

    spatial_dims: int
    inflation: Inflation
    may_crop: bool


def fit_weight(name: str, weight: Tensor, wanted: Tensor, fitting: Fitting) -> Fitted | None:
    """A published weight in the shape that a network needs, or None where it cannot be made to fit.

    Args:
        name: our name of it.
        weight: the published weight.
        wanted: the network's own, for its shape.
        fitting: what may be done.
    """
    if weight.shape == wanted.shape:
        return Fitted(weight)
    if weight.dim() == 0 or weight.shape[0] != wanted.shape[0]:
        return None
    if name.endswith("attention_biases"):
        fitted = _fit_bias_table(weight, wanted.shape[1], fitting.spatial_dims)
    elif name.endswith("position"):
        fitted = _fit_positions(weight, wanted)
    else:
        fitted = _fit_kernel(name, weight, wanted, fitting)
    return fitted if fitted is not None and fitted.value.shape == wanted.shape else None


def _fit_kernel(name: str, weight: Tensor, wanted: Tensor, fitting: Fitting) -> Fitted | None:
    changes: list[str] = []
    if weight.dim() not in (wanted.dim(), wanted.dim() - 1) or weight.dim() < 4:
        return None
    if weight.shape[1] != wanted.shape[1]:
        if not is_stem(name):
            return None
        changes.append(f"image channels {weight.shape[1]} to {wanted.shape[1]}")
        weight = adapt_stem(weight, wanted.shape[1])
    is_new = weight.dim() < wanted.dim()
    if is_new:
        changes.append(f"inflated to a volume ({fitting.inflation})")
        weight = inflate_kernel(weight, wanted.shape[2], fitting.inflation)
    old, new = tuple(weight.shape[2:]), tuple(wanted.shape[2:])
    if old != new:
        if not (is_new or fitting.may_crop) or any((a - b) % 2 for a, b in zip(old, new, strict=True)):
            return None
        changes.append(f"kernel {old} to {new} about its centre")
        weight = crop_kernel(weight, new)
    return Fitted(weight, tuple(changes))


def _fit_positions(weight: Tensor, wanted: Tensor) -> Fitted | None:
    """A table of positions, stretched over the new one; what is learnt of an image holds for every slice."""
    if weight.dim() not in (4, 5) or weight.dim() not in (wanted.dim(), wanted.dim() - 1):
        return None
    changes = [f"position table {tuple(weight.shape[2:])} to {tuple(wanted.shape[2:])}"]
    if weight.dim() < wanted.dim():
        weight = weight.unsqueeze(2).expand(-1, -1, wanted.shape[2], -1, -1)
    mode = "bilinear" if weight.dim() == 4 else "trilinear"
    size = tuple(wanted.shape[2:])
    return Fitted(functional.interpolate(weight.float(), size=size, mode=mode).to(weight.dtype), tuple(changes))


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
    "patch_embed.weight",
)


def _fit_bias_table(weight: Tensor, new: int, spatial_dims: int) -> Fitted | None:
    side, wanted = round(weight.shape[1] ** 0.5), round(new ** (1 / spatial_dims))
    if side**2 != weight.shape[1] or wanted**spatial_dims != new:
        return None
    window = (wanted,) * spatial_dims
    change = f"window {side} x {side} to {' x '.join(map(str, window))}"
    resize = resize_bias_table if spatial_dims == 2 else inflate_bias_table
    return Fitted(resize(weight, (side, side), window), (change,))
