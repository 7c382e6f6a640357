"""Every backbone by its name: which family it belongs to, how it is built, and what was published for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import nn

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.classifier import ClsHead
from effvit_med.networks.efficientmod import EfficientMod, EfficientModHead
from effvit_med.networks.efficientvit import EfficientVit, NamedBackbone
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.large_stride import LargeStrideHead
from effvit_med.networks.layers import layers_for, per_axis
from effvit_med.networks.presets import BACKBONES, ActivationName, DecoderPreset, refuse_unknown
from effvit_med.networks.presets.classifiers import CLASSIFIERS
from effvit_med.networks.presets.efficientmod import EFFICIENTMOD
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
from effvit_med.networks.presets.fullres import FULL_RESOLUTION, FULL_RESOLUTION_NAMES
from effvit_med.networks.presets.shvit import SHVIT
from effvit_med.networks.presets.turbovit import TURBOVIT
from effvit_med.networks.shvit import Shvit
from effvit_med.networks.turbovit import TurboVit, TurboVitHead


@dataclass(frozen=True)
class NetworkDetails:
    """What is seldom changed about a network; which of these a backbone takes depends on its family.

    Attributes:
        norm: ``batch`` as published, or ``instance`` (EfficientViT B and L, the full-resolution networks, and every
            decoder); the family's own where left out.
        norm_eps: added to the variance; the published value of the model where left out.
        kernel_size: of the 3^n convolutions, odd, or one per axis (EfficientViT B and L, and every decoder).
        aggregation_kernel_size: of the attention's second scale, odd, or one per axis (EfficientViT B, L, XL).
        stage_strides: for each stage one stride, or one per axis (EfficientViT B, L, XL).
        head: the preset of the published head; the one that belongs to the backbone where left out.
        window_size: tokens along a window's side (EfficientViT-M, TurboViT).
        mask_padding: whether padded tokens are hidden from the attention (EfficientViT-M).
        context_kernel_size: of the modulation's depthwise convolution, odd (EfficientMod).
    """

    norm: str | None = None
    norm_eps: float | None = None
    kernel_size: int | Sequence[int] = 3
    aggregation_kernel_size: int | Sequence[int] | None = None
    stage_strides: Sequence[int | Sequence[int]] | None = None
    head: str | None = None
    window_size: int | None = None
    mask_padding: bool | None = None
    context_kernel_size: int | None = None


#: What every decoder reads; a backbone that cannot use them does not mind.
_COMMON = frozenset({"norm", "norm_eps", "kernel_size", "head"})


@dataclass(frozen=True)
class Family:
    """Backbones of one design.

    Attributes:
        name: as its paper writes it.
        presets: the names it is built by.
        build: makes a backbone from a name, spatial_dims, in_channels and details.
        classify: makes the classification head from a name, a backbone, the number of classes and the eps.
        takes: the details that only some families know and this one does.
        norm_eps: of the published models, and the default of a backbone.
        layouts: the checkpoint layouts that were published, official first; empty where there are none.
        source: the paper.
        norm: the normalisation where none is named.
        decoder: the decoder that goes with a backbone, from a name and spatial_dims; None for the usual one.
    """

    name: str
    presets: tuple[str, ...]
    build: Callable[[str, int, int, NetworkDetails], NamedBackbone]
    classify: Callable[[str, NamedBackbone, int, float], nn.Module]
    takes: frozenset[str]
    norm_eps: float
    layouts: tuple[str, ...]
    source: str
    norm: str = "batch"
    decoder: Callable[[str, int], DecoderPreset] | None = None


def style_of(spatial_dims: int, details: NetworkDetails, activation: ActivationName) -> BlockStyle:
    """What all blocks of a network share.

    Args:
        spatial_dims: 2 or 3.
        details: gives kernel size and normalisation.
        activation: of every block.

    Raises:
        SettingsError: if a number or a name is wrong.
    """
    kernel_size = per_axis(details.kernel_size, spatial_dims, "kernel_size")
    norm_eps = 1e-5 if details.norm_eps is None else details.norm_eps
    return BlockStyle(layers_for(spatial_dims), kernel_size, activation, details.norm or "batch", norm_eps)


def _eps(details: NetworkDetails, published: float) -> float:
    return published if details.norm_eps is None else details.norm_eps


def _efficientvit(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    preset = BACKBONES[name]
    style = style_of(spatial_dims, details, preset.activation)
    return EfficientVit(preset, style, in_channels, details.stage_strides, details.aggregation_kernel_size)


def _full_resolution(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    preset = FULL_RESOLUTION[name, spatial_dims].backbone
    style = style_of(spatial_dims, details, preset.activation)
    return EfficientVit(preset, style, in_channels, details.stage_strides, details.aggregation_kernel_size)


def _efficientvit_head(name: str, backbone: NamedBackbone, classes: int, norm_eps: float) -> nn.Module:
    if name not in CLASSIFIERS:
        raise SettingsError(
            f"{name} was published without a classification head; take one of {', '.join(CLASSIFIERS)}."
        )
    preset = CLASSIFIERS[name]
    details = NetworkDetails(norm_eps=norm_eps)
    style = style_of(backbone.spatial_dims, details, preset.activation)
    return ClsHead(style, backbone.channels[-1], classes, preset)


def _efficientvit_m(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    return EfficientVitM(
        EFFICIENTVIT_M[name],
        spatial_dims,
        in_channels,
        norm_eps=_eps(details, 1e-5),
        window_size=details.window_size,
        mask_padding=details.mask_padding,
    )


def _shvit(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    return Shvit(SHVIT[name], spatial_dims, in_channels, norm_eps=_eps(details, 1e-5))


def _large_stride_head(name: str, backbone: NamedBackbone, classes: int, norm_eps: float) -> nn.Module:
    del name
    return LargeStrideHead(backbone.channels[-1], classes, backbone.spatial_dims, norm_eps)


def _efficientmod(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    return EfficientMod(
        EFFICIENTMOD[name],
        spatial_dims,
        in_channels,
        norm_eps=_eps(details, 1e-5),
        context_kernel_size=details.context_kernel_size,
    )


def _efficientmod_head(name: str, backbone: NamedBackbone, classes: int, norm_eps: float) -> nn.Module:
    del name
    return EfficientModHead(backbone.channels[-1], classes, backbone.spatial_dims, norm_eps)


def _turbovit(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    return TurboVit(
        TURBOVIT[name],
        spatial_dims,
        in_channels,
        norm_eps=_eps(details, 1e-6),
        window_size=details.window_size,
    )


def _turbovit_head(name: str, backbone: NamedBackbone, classes: int, norm_eps: float) -> nn.Module:
    del name
    return TurboVitHead(backbone.channels[-1], classes, backbone.spatial_dims, norm_eps)


FAMILIES: tuple[Family, ...] = (
    Family(
        name="EfficientViT",
        presets=tuple(BACKBONES),
        build=_efficientvit,
        classify=_efficientvit_head,
        takes=frozenset({"aggregation_kernel_size", "stage_strides"}),
        norm_eps=1e-5,
        layouts=("mit", "timm"),
        source="Cai et al., ICCV 2023, arXiv 2205.14756",
    ),
    Family(
        name="EfficientViT at full resolution (ours)",
        presets=FULL_RESOLUTION_NAMES,
        build=_full_resolution,
        classify=_efficientvit_head,
        takes=frozenset({"aggregation_kernel_size", "stage_strides"}),
        norm_eps=1e-5,
        layouts=(),
        source="ours, of EfficientViT's blocks; benchmarks/search.py finds the numbers",
        norm="instance",
        decoder=lambda name, spatial_dims: FULL_RESOLUTION[name, spatial_dims].decoder,
    ),
    Family(
        name="EfficientViT-M",
        presets=tuple(EFFICIENTVIT_M),
        build=_efficientvit_m,
        classify=_large_stride_head,
        takes=frozenset({"window_size", "mask_padding"}),
        norm_eps=1e-5,
        layouts=("cream", "timm"),
        source="Liu et al., CVPR 2023, arXiv 2305.07027",
    ),
    Family(
        name="SHViT",
        presets=tuple(SHVIT),
        build=_shvit,
        classify=_large_stride_head,
        takes=frozenset(),
        norm_eps=1e-5,
        layouts=("shvit", "timm"),
        source="Yun and Ro, CVPR 2024, arXiv 2401.16456",
    ),
    Family(
        name="EfficientMod",
        presets=tuple(EFFICIENTMOD),
        build=_efficientmod,
        classify=_efficientmod_head,
        takes=frozenset({"context_kernel_size"}),
        norm_eps=1e-5,
        layouts=("efficientmod",),
        source="Ma et al., ICLR 2024, arXiv 2403.19963",
    ),
    Family(
        name="TurboViT (ours)",
        presets=tuple(TURBOVIT),
        build=_turbovit,
        classify=_turbovit_head,
        takes=frozenset({"window_size"}),
        norm_eps=1e-6,
        layouts=(),
        source="after Wong et al., arXiv 2308.11421, which gives no layer table",
    ),
)

FAMILY_OF: Mapping[str, Family] = {preset: family for family in FAMILIES for preset in family.presets}


def resolve_backbone(name: str) -> str:
    """Our name of a backbone, from any spelling it was published under.

    Args:
        name: such as ``efficientvit_b1``, ``b1``, ``efficientvit-b1-r224-in1k`` or timm's
            ``efficientvit_b1.r224_in1k``; the name of a published model stands for its backbone.

    Raises:
        SettingsError: if there is no such backbone; it names the nearest.

    Examples:
        >>> resolve_backbone("efficientvit-l1-r224-in1k"), resolve_backbone("shvit_s1.in1k"), resolve_backbone("m3")
        ('efficientvit_l1', 'shvit_s1', 'efficientvit_m3')
        >>> resolve_backbone("efficientvit_backbone_b0"), resolve_backbone("efficientvit-sam-xl0")
        ('efficientvit_b0', 'efficientvit_xl0')
    """
    plain = spell(name)
    plain = re.sub(r"^efficientvit_(backbone|cls|seg|sam)_", "efficientvit_", plain)
    plain = re.sub(r"_(cityscapes|ade20k|downstream)$", "", plain)
    for start in ("", "efficientvit_", "shvit_", "efficientmod_", "turbovit_"):
        if start + plain in FAMILY_OF:
            return start + plain
    raise refuse_unknown("preset", name, FAMILY_OF)


def spell(name: str) -> str:
    """A published name in our spelling: lower case, underscores, without library and the tag of its training.

    Args:
        name: the name.

    Raises:
        SettingsError: if it is no text.

    Examples:
        >>> spell("efficientMod-s-Conv"), spell("efficientvit-b1-r224-in1k"), spell("timm/efficientvit_m0.r224_in1k")
        ('efficientmod_s_conv', 'efficientvit_b1', 'efficientvit_m0')
    """
    if not isinstance(name, str):
        raise SettingsError(f"The name {name!r} is a {type(name).__name__}; give the name of a model as text.")
    plain = name.rsplit("/", maxsplit=1)[-1].split(".", maxsplit=1)[0].lower().replace("-", "_")
    plain = re.sub(r"^(timm|msra)_", "", plain)
    return re.sub(r"(_r\d+)?(_in1k)?$", "", plain)


def read_details(values: Mapping[str, Any]) -> NetworkDetails:
    """The details of a network, from a configuration.

    Args:
        values: any field of `NetworkDetails`.

    Raises:
        SettingsError: if there is no such field; it names the nearest.
    """
    known = [field.name for field in fields(NetworkDetails)]
    for name in values:
        if name not in known:
            raise refuse_unknown("network setting", name, known)
    return NetworkDetails(**values)


def settle_details(preset: str, details: NetworkDetails) -> NetworkDetails:
    """The details with the normalisation of a backbone's family where none is named.

    Args:
        preset: one of `FAMILY_OF`, or a published spelling of it.
        details: what was asked for.

    Raises:
        SettingsError: if there is no such backbone.

    Examples:
        >>> settle_details("efficientvit_b0", NetworkDetails()).norm
        'batch'
    """
    return replace(details, norm=details.norm or FAMILY_OF[resolve_backbone(preset)].norm)


def make_backbone(name: str, spatial_dims: int, in_channels: int, details: NetworkDetails) -> NamedBackbone:
    """A new backbone with random weights; it remembers its name as ``preset_name``.

    Args:
        name: one of `FAMILY_OF`, or a published spelling of it.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        details: what is seldom changed.

    Raises:
        SettingsError: if a name is unknown, a number impossible, or the family does not know a detail.
    """
    layers_for(spatial_dims)
    preset = resolve_backbone(name)
    if in_channels < 1:
        raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
    family = FAMILY_OF[preset]
    plain = NetworkDetails()
    details = settle_details(preset, details)
    for field in fields(NetworkDetails):
        value = getattr(details, field.name)
        if value != getattr(plain, field.name) and field.name not in _COMMON | family.takes:
            raise SettingsError(f"{field.name} is {value!r}, but {preset} ({family.name}) has no such setting.")
    backbone = family.build(preset, spatial_dims, in_channels, details)
    backbone.preset_name = preset
    return backbone
