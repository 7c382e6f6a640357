"""Networks from names and plain values, as a configuration file gives them."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks.decoder import Decoder, HighResolutionDecoder, SegHead, resize
from effvit_med.networks.efficientvit import Backbone, NamedBackbone
from effvit_med.networks.layers import lay_out, layers_for
from effvit_med.networks.presets import (
    GENERAL_HEAD,
    HEAD_OF_BACKBONE,
    HEADS,
    HIGH_RESOLUTION,
    DecoderPreset,
    refuse_unknown,
)
from effvit_med.networks.registry import (
    FAMILY_OF,
    NetworkDetails,
    make_backbone,
    read_details,
    settle_details,
    style_of,
)

_DECODERS = ("high_resolution", "seg_head")
_LEVELS = {1: 0, 2: 1, 4: 2}


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
        self.to(memory_format=layers.memory_format)  # type: ignore[call-overload]

    def checkpoint_activations(self, enabled: bool = True) -> None:
        """Trades time for memory in training: inner maps of every stage are computed again in the backward pass.

        The gradients are the same; without gradients it changes nothing.

        Args:
            enabled: whether to do so from now on.

        Raises:
            SettingsError: if the backbone or the decoder is not of this package and cannot.
        """
        for part in (self.backbone, self.head):
            if not hasattr(part, "checkpointing"):
                raise SettingsError(
                    f"A {type(part).__name__} has no switch for checkpointing; give it `checkpointing`."
                )
            part.checkpointing = enabled

    def logits(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *less_space"]:
        """The logits at the decoder's own resolution.

        Args:
            x: the image, of any size.

        Returns:
            Size ceil(n / output_stride) along each axis.

        Raises:
            SettingsError: if the image has not the channels or the axes that the network was built for.
        """
        x = lay_out(x, self.spatial_dims, self.in_channels)
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
    **details: Any,
) -> NamedBackbone:
    """A new backbone with random weights.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        preset: the name of any backbone, such as ``efficientvit_b0``; `effvit_med.networks.FAMILY_OF` has all.
        **details: any field of `NetworkDetails` that the family knows; for thick slices
            ``stage_strides=[[1, 2, 2], 2, 2, 2, 2]``.

    Raises:
        SettingsError: if a name is unknown or a number impossible.
    """
    return make_backbone(preset, spatial_dims, in_channels, read_details(details))


def build_network(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    preset: str = "efficientvit_b0",
    decoder: str = "high_resolution",
    decoder_stride: int | None = None,
    **details: Any,
) -> SegmentationNetwork:
    """A new segmentation network with random weights.

    Args:
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        out_channels: the number of classes, background included.
        preset: the name of any backbone, such as ``efficientvit_b0``; `effvit_med.networks.FAMILY_OF` has all.
        decoder: ``high_resolution`` or the published ``seg_head``.
        decoder_stride: of the high-resolution decoder: 1 (full size, the default), 2 or 4, where the stages have their
            usual stride of 2; in general 2 stands for the first coarser resolution and 4 for the second. The published
            head always has that of the third deepest map, 8 in EfficientViT.
        **details: any field of `NetworkDetails` that the family knows; for thick slices
            ``stage_strides=[[1, 2, 2], 2, 2, 2, 2]``.

    Raises:
        SettingsError: if a name is unknown or a number impossible; it names the value and what there is.

    Examples:
        >>> import torch
        >>> network = build_network(3, in_channels=1, out_channels=4, decoder_stride=2)
        >>> image = torch.zeros(1, 1, 20, 33, 16)
        >>> tuple(network(image).shape), tuple(network.logits(image).shape), network.output_stride
        ((1, 4, 20, 33, 16), (1, 4, 10, 17, 8), (2, 2, 2))
    """
    settings = settle_details(preset, read_details(details))
    if out_channels < 1:
        raise SettingsError(f"out_channels is {out_channels}; give at least 1.")
    backbone = make_backbone(preset, spatial_dims, in_channels, settings)
    if decoder not in _DECODERS:
        raise refuse_unknown("decoder", decoder, _DECODERS)
    head: Decoder
    if decoder == "seg_head":
        head = _seg_head(backbone, out_channels, settings, decoder_stride)
    else:
        stride = 1 if decoder_stride is None else decoder_stride
        if stride not in _LEVELS:
            raise SettingsError(f"decoder_stride is {stride!r}; the high_resolution decoder has 1, 2 or 4.")
        numbers = _decoder_of(backbone)
        style = style_of(spatial_dims, settings, numbers.activation)
        head = HighResolutionDecoder(style, backbone, out_channels, numbers, _LEVELS[stride])
    return SegmentationNetwork(backbone, head, spatial_dims, out_channels)


def _decoder_of(backbone: NamedBackbone) -> DecoderPreset:
    own = FAMILY_OF[backbone.preset_name].decoder
    return own(backbone.preset_name, backbone.spatial_dims) if own else HIGH_RESOLUTION


def _seg_head(backbone: NamedBackbone, out_channels: int, settings: NetworkDetails, stride: int | None) -> SegHead:
    name = settings.head or HEAD_OF_BACKBONE.get(backbone.preset_name, GENERAL_HEAD)
    if name not in HEADS:
        raise refuse_unknown("head", name, HEADS)
    style = style_of(backbone.spatial_dims, settings, HEADS[name].activation)
    head = SegHead(style, backbone, out_channels, HEADS[name])
    if stride is not None and (stride,) * backbone.spatial_dims != head.output_stride:
        raise SettingsError(
            f"decoder_stride is {stride}; the seg_head has {head.output_stride} on {backbone.preset_name}. "
            "Leave it out."
        )
    return head
