"""Dense regression: a finer image from a coarse one, with an own factor along each axis, in 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.build import build_backbone
from effvit_med.networks.decoder import HighResolutionDecoder
from effvit_med.networks.efficientvit import Backbone
from effvit_med.networks.layers import lay_out, layers_for, per_axis
from effvit_med.networks.presets import DecoderPreset
from effvit_med.networks.presets.super_resolution import SUPER_RESOLUTION
from effvit_med.networks.registry import read_details, style_of


def shuffle_voxels(
    x: Float[Tensor, "batch wide_channels *space"], scale: Sequence[int]
) -> Float[Tensor, "batch channels *finer_space"]:
    """The map with its channels laid out in space: each voxel becomes a block of ``scale`` voxels.

    Channel ``c * prod(scale) + k`` fills place k of every block of channel c, where k counts the places of a block in
    array order. In 2D with equal factors this is the known pixel shuffle. `unshuffle_voxels` undoes it exactly.

    Args:
        x: the map; its channels are a multiple of the product of the scale.
        scale: how many times finer, one factor per spatial axis.

    Returns:
        prod(scale) times fewer channels, and n * scale voxels along each axis.

    Raises:
        SettingsError: if there is not one factor per axis, or they do not divide the channels.

    Source:
        Shi et al., ESPCN (arXiv 1609.05158), equation 4, here with any number of axes and a factor for each.

    Examples:
        >>> import torch
        >>> x = torch.arange(6.0).reshape(1, 3, 2, 1)
        >>> shuffle_voxels(x, (3, 1)).flatten().tolist()
        [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]
    """
    factors = per_axis(list(scale), x.dim() - 2, "scale")
    if x.shape[1] % math.prod(factors):
        raise SettingsError(f"{x.shape[1]} channels cannot be laid out in blocks of {factors}; give a multiple.")
    dims = len(factors)
    size = [n * factor for n, factor in zip(x.shape[2:], factors, strict=True)]
    blocks = x.reshape(x.shape[0], -1, *factors, *x.shape[2:])
    pairs = [axis for each in range(dims) for axis in (2 + dims + each, 2 + each)]
    return blocks.permute(0, 1, *pairs).reshape(x.shape[0], x.shape[1] // math.prod(factors), *size)


def unshuffle_voxels(
    x: Float[Tensor, "batch channels *space"], scale: Sequence[int]
) -> Float[Tensor, "batch wide_channels *coarser_space"]:
    """The map with each block of ``scale`` voxels gathered into the channels of one voxel; undoes `shuffle_voxels`.

    Args:
        x: the map; each size is a multiple of its factor.
        scale: how many times coarser, one factor per spatial axis.

    Returns:
        prod(scale) times as many channels, and n / scale voxels along each axis.

    Raises:
        SettingsError: if there is not one factor per axis, or a size is no multiple of its factor.

    Examples:
        >>> import torch
        >>> unshuffle_voxels(torch.arange(6.0).reshape(1, 1, 6, 1), (3, 1)).flatten(2).tolist()
        [[[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]]
    """
    factors = per_axis(list(scale), x.dim() - 2, "scale")
    space = tuple(x.shape[2:])
    if any(n % factor for n, factor in zip(space, factors, strict=True)):
        raise SettingsError(f"The size {space} is no multiple of the scale {factors}; crop or pad it first.")
    dims = len(factors)
    pairs = [number for n, factor in zip(space, factors, strict=True) for number in (n // factor, factor)]
    blocks = x.reshape(x.shape[0], x.shape[1], *pairs)
    offsets, places = [3 + 2 * each for each in range(dims)], [2 + 2 * each for each in range(dims)]
    return blocks.permute(0, 1, *offsets, *places).flatten(1, 1 + dims)


class SuperResolutionNetwork(nn.Module):
    """A backbone, a decoder at the input's resolution and a voxel shuffle, added to the linear interpolation.

    The last convolution starts at zero: a network that was not trained gives exactly the interpolation, and training
    learns the difference to it.

    Args:
        backbone: gives the feature maps.
        spatial_dims: 2 for images, 3 for volumes.
        out_channels: as many as the backbone's image has; or 1 for the middle one of an odd number of channels, such
            as a slice between its neighbours.
        scale: how many times finer, one factor for every axis or one per axis: ``[3, 1, 1]`` makes three slices of
            one, ``[1, 2, 2]`` four pixels of one.
        style: what the blocks of the decoder share; the usual one where left out.
        decoder: the widths and depths of the decoder.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: channels of the finer image.
        scale: the factor along each axis.

    Raises:
        SettingsError: if the scale is 1 everywhere or not one factor of at least 1 per axis, the backbone has another
            number of axes, or the output channels have no counterpart in the image.

    Source:
        The shuffle: Shi et al., ESPCN (arXiv 1609.05158). Learning the difference to the interpolation: Kim et al.,
        VDSR (arXiv 1511.04587), section 3.
    """

    def __init__(
        self,
        backbone: Backbone,
        spatial_dims: int,
        out_channels: int,
        scale: int | Sequence[int],
        style: BlockStyle | None = None,
        decoder: DecoderPreset = SUPER_RESOLUTION,
    ) -> None:
        super().__init__()
        layers = layers_for(spatial_dims)
        factors = per_axis(scale, spatial_dims, "scale")
        if math.prod(factors) == 1:
            raise SettingsError(f"scale is {scale!r}; at least one axis must become finer, such as [3, 1, 1].")
        if any(len(stride) != spatial_dims for stride in backbone.strides):
            raise SettingsError(f"The backbone has strides {backbone.strides[0]}; give one of {spatial_dims} axes.")
        self.shown_channels = _counterparts(backbone.in_channels, out_channels)
        self.backbone = backbone
        self.spatial_dims = spatial_dims
        self.in_channels = backbone.in_channels
        self.out_channels = out_channels
        self.scale = factors
        self.mode = layers.linear_mode
        style = style or BlockStyle(layers, (3,) * spatial_dims)
        self.head = HighResolutionDecoder(style, backbone, out_channels * math.prod(factors), decoder)
        last = self.head.classify.conv
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)
        self.to(memory_format=layers.memory_format)  # type: ignore[call-overload]

    def interpolate(
        self, x: Float[Tensor, "batch in_channels *space"]
    ) -> Float[Tensor, "batch out_channels *finer_space"]:
        """The linear interpolation to which the network adds what it has learnt.

        Voxel edges, not centres, are aligned: the outermost half voxel repeats the outermost values.

        Args:
            x: the image.
        """
        size = [n * factor for n, factor in zip(x.shape[2:], self.scale, strict=True)]
        return functional.interpolate(x[:, self.shown_channels], size=size, mode=self.mode, align_corners=False)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *finer_space"]:
        """The finer image, of size n * scale along each axis.

        Args:
            x: the image, of any size.

        Raises:
            SettingsError: if the image has not the channels or the axes that the network was built for.
        """
        x = lay_out(x, self.spatial_dims, self.in_channels)
        return self.interpolate(x) + shuffle_voxels(self.head(x, self.backbone.features(x)), self.scale)


def build_super_resolution(
    spatial_dims: int,
    in_channels: int,
    scale: int | Sequence[int],
    preset: str = "efficientvit_b0",
    out_channels: int | None = None,
    **details: Any,
) -> SuperResolutionNetwork:
    """A new super-resolution network with random weights in its body; it starts as linear interpolation.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        scale: how many times finer, one factor or one per axis, such as ``[3, 1, 1]``.
        preset: the backbone, such as ``efficientvit_b0``.
        out_channels: channels of the finer image; those of the image where left out.
        **details: any field of `NetworkDetails` that the family knows; for thick slices
            ``stage_strides=[[1, 2, 2], 2, 2, 2, 2]``.

    Raises:
        SettingsError: if a name is unknown or a number impossible; it names the value and what there is.

    Examples:
        >>> import torch
        >>> network = build_super_resolution(3, in_channels=1, scale=[3, 1, 1])
        >>> tuple(network(torch.zeros(2, 1, 5, 17, 16)).shape)
        (2, 1, 15, 17, 16)
    """
    backbone = build_backbone(spatial_dims, in_channels, preset, **details)
    style = style_of(spatial_dims, read_details(details), SUPER_RESOLUTION.activation)
    channels = in_channels if out_channels is None else out_channels
    return SuperResolutionNetwork(backbone, spatial_dims, channels, scale, style)


def _counterparts(in_channels: int, out_channels: int) -> slice:
    """Which channels of the image the channels of the output are finer versions of."""
    if out_channels == in_channels:
        return slice(0, in_channels)
    if out_channels == 1 and in_channels % 2:
        return slice(in_channels // 2, in_channels // 2 + 1)
    raise SettingsError(
        f"out_channels is {out_channels} for {in_channels} channels of the image; give {in_channels}, or 1 where the "
        "image has an odd number of channels and its middle one is wanted."
    )
