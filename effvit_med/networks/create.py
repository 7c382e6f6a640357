"""Published models by their names, built with the settings they were published with.

`effvit_med.networks.load_published` fills them.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from effvit_med.errors import SettingsError
from effvit_med.networks.build import SegmentationNetwork, build_network
from effvit_med.networks.classifier import Classifier
from effvit_med.networks.efficientvit import NamedBackbone
from effvit_med.networks.presets import HEAD_NORM_EPS, HEAD_OF_BACKBONE, HEADS, refuse_unknown
from effvit_med.networks.presets.classifiers import CLASSIFIERS
from effvit_med.networks.presets.sam import SAMS
from effvit_med.networks.registry import FAMILY_OF, make_backbone, read_details, resolve_backbone, spell
from effvit_med.networks.sam import EfficientVitSam, build_sam

_DATASETS = ("cityscapes", "ade20k")


def create_backbone(name: str, spatial_dims: int = 2, in_channels: int = 3, **details: Any) -> NamedBackbone:
    """A backbone with random weights: the feature maps alone.

    Args:
        name: such as ``efficientvit_b1``, ``efficientvit_m0``, ``shvit_s1`` or ``efficientmod_xxs``; the spellings of
            timm and of the authors' model zoo are understood.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        **details: any field of `NetworkDetails` that the family knows.

    Raises:
        SettingsError: if a name is unknown or a number impossible.

    Examples:
        >>> backbone = create_backbone("shvit_s1", in_channels=1)
        >>> backbone.channels, [stride[0] for stride in backbone.strides]
        ((16, 32, 64, 128, 224, 320), [2, 4, 8, 16, 32, 64])
    """
    return make_backbone(name, spatial_dims, in_channels, read_details(details))


def create_segmenter(
    name: str,
    head: str | None = None,
    spatial_dims: int = 2,
    in_channels: int = 3,
    out_channels: int | None = None,
    **details: Any,
) -> SegmentationNetwork:
    """A segmentation network with random weights.

    Calling it gives logits at the image's size; its ``logits`` gives them at the head's own resolution, which is
    what the published models return.

    Args:
        name: of the backbone, such as ``efficientvit_b1``; or of a published model with its head, such as
            ``efficientvit-seg-b0-cityscapes``.
        head: ``high_resolution`` for our decoder; ``cityscapes`` or ``ade20k`` for the published head of the backbone;
            ``seg_head`` for its usual one, or one of that kind on a backbone published without; or the full name of a
            published head, such as ``seg_b0_cityscapes``. Left out: the head in the name, else our decoder.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        out_channels: the number of classes; that of the published head where left out.
        **details: ``decoder_stride`` of our decoder, and any field of `NetworkDetails` that the family knows.

    Raises:
        SettingsError: if a name is unknown, a number impossible, or the number of classes is not told where none is
            published.

    Examples:
        >>> import torch
        >>> network = create_segmenter("efficientvit_b0", head="cityscapes")
        >>> tuple(network.logits(torch.zeros(1, 3, 64, 96)).shape)
        (1, 19, 8, 12)
    """
    backbone, named = resolve_backbone(name), _head_in(name)
    wanted = spell(head) if head is not None else named or "high_resolution"
    if wanted == "high_resolution":
        return build_network(spatial_dims, in_channels, _classes(out_channels, wanted), backbone, **details)
    published = _published_head(backbone, wanted)
    if published is None:
        classes = _classes(out_channels, wanted)
        return build_network(spatial_dims, in_channels, classes, backbone, "seg_head", **details)
    details.setdefault("norm_eps", HEAD_NORM_EPS[published.removeprefix("seg_")[0]])
    classes = HEADS[published].classes if out_channels is None else out_channels
    return build_network(spatial_dims, in_channels, classes, backbone, "seg_head", head=published, **details)


def create_classifier(
    name: str, spatial_dims: int = 2, in_channels: int = 3, classes: int = 1000, **details: Any
) -> Classifier:
    """A classification network with random weights, with the head it was published with.

    Args:
        name: of the backbone, such as ``efficientvit_b1`` or ``shvit_s4``; published spellings are understood.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        classes: the number of classes.
        **details: any field of `NetworkDetails` that the family knows.

    Raises:
        SettingsError: if a name is unknown, a number impossible, or the backbone was published without such a head.

    Examples:
        >>> import torch
        >>> tuple(create_classifier("efficientvit_b0", classes=5).eval()(torch.zeros(2, 3, 64, 64)).shape)
        (2, 5)
    """
    preset = resolve_backbone(name)
    if classes < 1:
        raise SettingsError(f"classes is {classes}; give at least 1.")
    family = FAMILY_OF[preset]
    settings = read_details(details)
    if settings.norm_eps is None:
        published = CLASSIFIERS[preset].norm_eps if preset in CLASSIFIERS else family.norm_eps
        settings = replace(settings, norm_eps=published)
    backbone = make_backbone(preset, spatial_dims, in_channels, settings)
    head = family.classify(preset, backbone, classes, settings.norm_eps or family.norm_eps)
    return Classifier(backbone, head, classes)


def create_sam(name: str, in_channels: int = 3) -> EfficientVitSam:
    """A promptable EfficientViT-SAM with random weights, for images.

    Args:
        name: ``efficientvit_sam_l0``, ``l1``, ``l2``, ``xl0`` or ``xl1``; published spellings are understood.
        in_channels: channels of the image.

    Raises:
        SettingsError: if there is no such model.
    """
    plain = re.sub(r"^(efficientvit_)?(sam_)?", "efficientvit_sam_", spell(name))
    if plain in SAMS:
        return build_sam(plain, in_channels)
    raise refuse_unknown("SAM model", name, SAMS)


def _head_in(name: str) -> str | None:
    """The data set in the name of a published segmentation model."""
    return next((dataset for dataset in _DATASETS if spell(name).endswith(f"_{dataset}")), None)


def _classes(out_channels: int | None, head: str) -> int:
    if out_channels is None:
        raise SettingsError(f"out_channels is not given; {head} needs the number of classes.")
    return out_channels


def _published_head(backbone: str, head: str) -> str | None:
    """The published head that is meant, or None for the general one on a backbone that was published without."""
    if head in ("seg", "seg_head", "seghead"):
        return HEAD_OF_BACKBONE.get(backbone)
    size = backbone.removeprefix("efficientvit_")
    plain = head.removeprefix("efficientvit_")
    for candidate in (plain, f"seg_{size}_{plain}", f"seg_{size}_{plain}20k"):
        if candidate in HEADS:
            return candidate
    own = [each for each in HEADS if each.startswith(f"seg_{size}_")] or ["seg_head"]
    raise SettingsError(f"There is no head {head!r} for {backbone}; take high_resolution or {', '.join(own)}.")
