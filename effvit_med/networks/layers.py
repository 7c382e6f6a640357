"""The one file that knows 2D from 3D: every layer type of a network, by its number of spatial axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError


def _point_conv(x: Tensor, conv: nn.Conv2d | nn.Conv3d) -> Tensor:
    """A 1x1 convolution as one matrix product over the voxels, with the channels innermost; no copy of either map."""
    return functional.linear(x.movedim(1, -1), conv.weight.flatten(1), conv.bias).movedim(-1, 1)


def _is_traced() -> bool:
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # documented, but not typed
    return tracing or torch.compiler.is_compiling()


def _is_plain(conv: nn.Conv2d | nn.Conv3d) -> bool:
    return conv.groups > 1 or _is_traced()


class PointConv2d(nn.Conv2d):
    """A 1x1 convolution of stride 1; see `PointConv3d`."""

    def forward(
        self,
        input: Float[Tensor, "batch in_channels *space"],  # noqa: A002  the name torch gives it
    ) -> Float[Tensor, "batch out_channels *space"]:
        """The convolved map, of the input's size."""
        return super().forward(input) if _is_plain(self) else _point_conv(input, self)


class PointConv3d(nn.Conv3d):
    """A 1x1x1 convolution of stride 1, computed in eager mode as a matrix product.

    The result is the same up to rounding. The reason is speed: on channels-last volumes this is up to ten times faster
    on a CPU than the 3D convolution (64 to 32 channels at 48^3: 10 ms against 79 ms), and it never changes the layout.
    Traced and exported graphs keep the plain operator, which other runtimes fuse better.
    """

    def forward(
        self,
        input: Float[Tensor, "batch in_channels *space"],  # noqa: A002  the name torch gives it
    ) -> Float[Tensor, "batch out_channels *space"]:
        """The convolved map, of the input's size."""
        return super().forward(input) if _is_plain(self) else _point_conv(input, self)


class PointInstanceNorm2d(nn.InstanceNorm2d):
    """Instance normalisation that also takes a single pixel: the formula gives its bias there."""

    def forward(
        self,
        input: Float[Tensor, "batch channels *space"],  # noqa: A002  the name torch gives it
    ) -> Float[Tensor, "batch channels *space"]:
        """The normalised map, of the input's size."""
        return _instance_norm(input, self)


class PointInstanceNorm3d(nn.InstanceNorm3d):
    """Instance normalisation that also takes a single voxel: the formula gives its bias there."""

    def forward(
        self,
        input: Float[Tensor, "batch channels *space"],  # noqa: A002  the name torch gives it
    ) -> Float[Tensor, "batch channels *space"]:
        """The normalised map, of the input's size."""
        return _instance_norm(input, self)


def _instance_norm(x: Tensor, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> Tensor:
    if math.prod(x.shape[2:]) > 1 and x.shape[0] > 0:  # torch takes no empty batch
        if not torch.is_grad_enabled() and x.dtype == torch.float32 and not _is_traced():
            return _normalise_channels_last(x, norm)
        return functional.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return (x - x) * norm.weight.reshape(shape) + norm.bias.reshape(shape)


def _normalise_channels_last(x: Tensor, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> Tensor:
    """Instance normalisation in the layout that the map has; torch's own copies it to another and back.

    That halves its time at 16 channels of 40 x 56 x 40 and more where channels are many. Mean first, then squares of
    what is left: nothing is cancelled. With gradients torch's own is faster.
    """
    rows = x.movedim(1, -1).flatten(1, -2)  # (batch, voxels, channels): a view of a channels-last map
    rest = rows - rows.mean(1, keepdim=True)
    scale = (rest * rest).mean(1, keepdim=True).add_(norm.eps).rsqrt_().mul_(norm.weight)
    return rest.mul_(scale).add_(norm.bias).reshape(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)


@dataclass(frozen=True)
class LayerTypes:
    """The layer types and modes that belong to one number of spatial axes.

    Attributes:
        spatial_dims: 2 or 3.
        conv: the convolution.
        point_conv: the convolution of kernel 1 and stride 1.
        batch_norm: batch normalisation.
        instance_norm: instance normalisation, for maps of any size.
        head_mode: interpolation of the published head: bicubic in 2D; no volume twin exists, so trilinear in 3D.
        linear_mode: linear interpolation along every axis.
        memory_format: the layout that the CPU and tensor-core kernels like best: channels last.
    """

    spatial_dims: int
    conv: type[nn.Conv2d | nn.Conv3d]
    point_conv: type[nn.Conv2d | nn.Conv3d]
    batch_norm: type[nn.BatchNorm2d | nn.BatchNorm3d]
    instance_norm: type[nn.InstanceNorm2d | nn.InstanceNorm3d]
    head_mode: str
    linear_mode: str
    memory_format: torch.memory_format

    def __reduce__(self) -> tuple[Callable[[int], LayerTypes], tuple[int]]:
        """How it is pickled: by its number of axes, as torch's memory formats cannot be in every protocol."""
        return layers_for, (self.spatial_dims,)


_TYPES = {
    2: LayerTypes(
        spatial_dims=2,
        conv=nn.Conv2d,
        point_conv=PointConv2d,
        batch_norm=nn.BatchNorm2d,
        instance_norm=PointInstanceNorm2d,
        head_mode="bicubic",
        linear_mode="bilinear",
        memory_format=torch.channels_last,
    ),
    3: LayerTypes(
        spatial_dims=3,
        conv=nn.Conv3d,
        point_conv=PointConv3d,
        batch_norm=nn.BatchNorm3d,
        instance_norm=PointInstanceNorm3d,
        head_mode="trilinear",
        linear_mode="trilinear",
        memory_format=torch.channels_last_3d,
    ),
}


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A block in which operations keep the precision of what they are given.

    Args:
        x: a tensor on the device that is meant; one on a device that knows no autocast, such as ``meta``, is fine.
    """
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def layers_for(spatial_dims: int) -> LayerTypes:
    """The layer types for images (2) or volumes (3).

    Args:
        spatial_dims: the number of spatial axes, 2 or 3.

    Raises:
        SettingsError: if it is any other number.

    Examples:
        >>> layers_for(3).conv.__name__, layers_for(2).head_mode
        ('Conv3d', 'bicubic')
    """
    if spatial_dims not in _TYPES:
        raise SettingsError(f"spatial_dims is {spatial_dims!r}; a network has 2 (images) or 3 (volumes) spatial axes.")
    return _TYPES[spatial_dims]


def per_axis(value: int | Sequence[int], spatial_dims: int, name: str) -> tuple[int, ...]:
    """One whole number for each spatial axis.

    Args:
        value: one number for every axis, or one per axis in array order.
        spatial_dims: the number of spatial axes.
        name: what the number is, for the error message.

    Raises:
        SettingsError: if there are more or fewer numbers than axes, or one is below 1.

    Examples:
        >>> per_axis(2, 3, "stride"), per_axis([1, 2, 2], 3, "stride")
        ((2, 2, 2), (1, 2, 2))
    """
    numbers: tuple[Any, ...] = tuple(value) if isinstance(value, Sequence) else (value,) * spatial_dims
    if len(numbers) != spatial_dims or any(not isinstance(number, int) or number < 1 for number in numbers):
        raise SettingsError(
            f"{name} is {value!r}; give one whole number of at least 1, or {spatial_dims} of them, one per axis."
        )
    return numbers


def lay_out(x: Tensor, spatial_dims: int, in_channels: int) -> Tensor:
    """The image with its channels innermost in memory, once it is one that the network takes.

    Args:
        x: the image.
        spatial_dims: of the network, 2 or 3.
        in_channels: channels that the network was built for.

    Raises:
        SettingsError: if the image has not these channels or axes.
    """
    if x.dim() != spatial_dims + 2 or x.shape[1] != in_channels:
        raise SettingsError(
            f"The image has the shape {tuple(x.shape)}; this network takes (batch, {in_channels} channels, "
            f"{spatial_dims} spatial axes)."
        )
    return x.contiguous(memory_format=layers_for(spatial_dims).memory_format)


def require_odd(kernel_size: tuple[int, ...], name: str) -> None:
    """Nothing, if every number is odd; only then does padding by half of it keep the size.

    Args:
        kernel_size: one number per axis.
        name: what the numbers are, for the error message.

    Raises:
        SettingsError: if a number is even.
    """
    if any(size % 2 == 0 for size in kernel_size):
        raise SettingsError(f"{name} is {kernel_size}; every number must be odd.")


def is_same(size: int, other: int) -> bool:
    """Whether two sizes are equal; in a compiled or exported graph, whether they are so for every input.

    An ordinary comparison there would tie the graph to inputs of which the answer is the same as for the example.

    Args:
        size: of one axis.
        other: of another.

    Examples:
        >>> is_same(4, 4), is_same(4, 2)
        (True, False)
    """
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import statically_known_true

        return statically_known_true(size == other)
    return size == other
