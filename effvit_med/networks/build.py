"""Networks from names and plain values, as a configuration file gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.decoder import Decoder, HighResolutionDecoder, SegHead, resize
from effvit_med.networks.efficientvit import Backbone, EfficientVit
from effvit_med.networks.layers import layers_for, per_axis
from effvit_med.networks.presets import (
    BACKBONES,
    HEAD_OF_BACKBONE,
    HEADS,
    HIGH_RESOLUTION,
    ActivationName,
    refuse_unknown,
)

_DECODERS = ("high_resolution", "seg_head")
_LEVELS = {1: 0, 2: 1, 4: 2}


@dataclass(frozen=True)
class NetworkDetails:
    """What is seldom changed about a network.

    Attributes:
        norm: ``batch`` as published, or ``instance``.
        norm_eps: added to the variance; the published files need 1e-5 (B series), 1e-7 (L series).
        kernel_size: of the 3^n convolutions, odd, or one per axis.
        aggregation_kernel_size: of the attention's second scale, odd, or one per axis.
        head: the preset of the published head; the one that belongs to the backbone where left out.
    """

    norm: str = "batch"
    norm_eps: float = 1e-5
    kernel_size: int | Sequence[int] = 3
    aggregation_kernel_size: int | Sequence[int] = 5
    head: str | None = None


class SegmentationNetwork(nn.Module):
    """A backbone and a decoder: from an image to one logit per class and voxel.

    Args:
        backbone: gives the feature maps.
        head: turns them into logits.
        spatial_dims: 2 for images, 3 for volumes.
        out_channels: the number of classes.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: the number of classes.
        output_stride: image voxels per voxel of `logits`, one per axis.
    """

    def __init__(self, backbone: Backbone, head: Decoder, spatial_dims: int, out_channels: int) -> None:
        super().__init__()
        layers = layers_for(spatial_dims)
        self.backbone = backbone
        self.head = head
        self.spatial_dims = spatial_dims
        self.in_channels = backbone.in_channels
        self.out_channels = out_channels
        self.output_stride = head.output_stride
        self.mode = layers.linear_mode
        self.memory_format = layers.memory_format
        self.to(memory_format=self.memory_format)  # type: ignore[call-overload]

    def logits(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *less_space"]:
        """The logits at the decoder's own resolution.

        Args:
            x: the image, of any size.

        Returns:
            Size ceil(n / output_stride) along each axis.

        Raises:
            SettingsError: if the image has not the channels or the axes that the network was built for.
        """
        if x.dim() != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise SettingsError(
                f"The image has the shape {tuple(x.shape)}; this network takes (batch, {self.in_channels} channels, "
                f"{self.spatial_dims} spatial axes)."
            )
        x = x.contiguous(memory_format=self.memory_format)
        return self.head(x, self.backbone.features(x))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """The logits at the image's full size, interpolated linearly where the decoder is coarser.

        Args:
            x: the image, of any size.

        Raises:
            SettingsError: if the image has not the channels or the axes that the network was built for.
        """
        return resize(self.logits(x), x.shape[2:], self.mode)


def build_backbone(
    spatial_dims: int,
    in_channels: int,
    preset: str = "efficientvit_b0",
    stage_strides: Sequence[int | Sequence[int]] | None = None,
    **details: Any,
) -> EfficientVit:
    """A new backbone with random weights.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        preset: ``efficientvit_b0`` to ``b3`` or ``l0`` to ``l3``.
        stage_strides: for each of the five stages one stride, or one per axis, such as
            ``[[1, 2, 2], 2, 2, 2, 2]`` for thick slices; 2 everywhere where left out.
        **details: any field of `NetworkDetails`.

    Raises:
        SettingsError: if a name is unknown or a number impossible.
    """
    settings = _details(details)
    return _backbone(spatial_dims, in_channels, preset, stage_strides, settings)


def build_network(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    preset: str = "efficientvit_b0",
    decoder: str = "high_resolution",
    decoder_stride: int | None = None,
    stage_strides: Sequence[int | Sequence[int]] | None = None,
    **details: Any,
) -> SegmentationNetwork:
    """A new segmentation network with random weights.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        out_channels: the number of classes, background included.
        preset: the backbone, ``efficientvit_b0`` to ``b3`` or ``l0`` to ``l3``.
        decoder: ``high_resolution`` or the published ``seg_head``.
        decoder_stride: of the high-resolution decoder: 1 (full size, the default), 2 or 4, where the stages have their
            usual stride of 2; in general 2 stands for the first feature map and 4 for the second. The published head
            always has 8.
        stage_strides: for each of the five stages one stride, or one per axis, such as
            ``[[1, 2, 2], 2, 2, 2, 2]`` for thick slices; 2 everywhere where left out.
        **details: any field of `NetworkDetails`.

    Raises:
        SettingsError: if a name is unknown or a number impossible; it names the value and what there is.

    Examples:
        >>> import torch
        >>> network = build_network(3, in_channels=1, out_channels=4, decoder_stride=2)
        >>> image = torch.zeros(1, 1, 20, 33, 16)
        >>> tuple(network(image).shape), tuple(network.logits(image).shape), network.output_stride
        ((1, 4, 20, 33, 16), (1, 4, 10, 17, 8), (2, 2, 2))
    """
    settings = _details(details)
    if out_channels < 1:
        raise SettingsError(f"out_channels is {out_channels}; give at least 1.")
    backbone = _backbone(spatial_dims, in_channels, preset, stage_strides, settings)
    if decoder not in _DECODERS:
        raise refuse_unknown("decoder", decoder, _DECODERS)
    head: Decoder
    if decoder == "seg_head":
        if decoder_stride not in (None, 8):
            raise SettingsError(f"decoder_stride is {decoder_stride}; the published seg_head has 8. Leave it out.")
        name = settings.head or HEAD_OF_BACKBONE[preset]
        if name not in HEADS:
            raise refuse_unknown("head", name, HEADS)
        style = _style(spatial_dims, settings, HEADS[name].activation)
        head = SegHead(style, backbone, out_channels, HEADS[name])
    else:
        stride = 1 if decoder_stride is None else decoder_stride
        if stride not in _LEVELS:
            raise SettingsError(f"decoder_stride is {stride!r}; the high_resolution decoder has 1, 2 or 4.")
        style = _style(spatial_dims, settings, HIGH_RESOLUTION.activation)
        head = HighResolutionDecoder(style, backbone, out_channels, HIGH_RESOLUTION, _LEVELS[stride])
    return SegmentationNetwork(backbone, head, spatial_dims, out_channels)


def _details(values: dict[str, Any]) -> NetworkDetails:
    known = [field.name for field in fields(NetworkDetails)]
    for name in values:
        if name not in known:
            raise refuse_unknown("network setting", name, known)
    return NetworkDetails(**values)


def _style(spatial_dims: int, settings: NetworkDetails, activation: ActivationName) -> BlockStyle:
    kernel_size = per_axis(settings.kernel_size, spatial_dims, "kernel_size")
    return BlockStyle(layers_for(spatial_dims), kernel_size, activation, settings.norm, settings.norm_eps)


def _backbone(
    spatial_dims: int,
    in_channels: int,
    preset: str,
    stage_strides: Sequence[int | Sequence[int]] | None,
    settings: NetworkDetails,
) -> EfficientVit:
    layers_for(spatial_dims)
    if preset not in BACKBONES:
        raise refuse_unknown("preset", preset, BACKBONES)
    if in_channels < 1:
        raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
    numbers = BACKBONES[preset]
    style = _style(spatial_dims, settings, numbers.activation)
    return EfficientVit(numbers, style, in_channels, stage_strides, settings.aggregation_kernel_size)
