"""Published models by their names, built with the settings they were published with.

`effvit_med.networks.load_published` fills them.
"""

from __future__ import annotations

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
        head: ``high_resolution`` for our decoder, ``cityscapes`` or ``ade20k`` for the published head that belongs to
            the backbone, or the full name of a published head, such as ``seg_b0_cityscapes``. Left out: the head in the
            name, else our decoder.
        spatial_dims: 2 for images, 3 for volumes.
        in_channels: channels of the image.
        out_channels: the number of classes; that of the published head where left out.
        **details: ``decoder_stride`` of our decoder, and any field of `NetworkDetails` that the family knows.

    Raises:
        SettingsError: if a name is unknown, a number impossible, or our decoder is not told the number of classes.

    Examples:
        >>> import torch
        >>> network = create_segmenter("efficientvit_b0", head="cityscapes")
        >>> tuple(network.logits(torch.zeros(1, 3, 64, 96)).shape)
        (1, 19, 8, 12)
    """
    backbone, named_head = _split_head(name)
    wanted = head if head is not None else named_head or "high_resolution"
    if wanted == "high_resolution":
        if out_channels is None:
            raise SettingsError("out_channels is not given; the high_resolution decoder needs the number of classes.")
        return build_network(spatial_dims, in_channels, out_channels, backbone, **details)
    published = _published_head(backbone, wanted)
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
    plain = spell(name)
    for candidate in (plain, f"efficientvit_sam_{plain.removeprefix('efficientvit_').removeprefix('sam_')}"):
        if candidate in SAMS:
            return build_sam(candidate, in_channels)
    raise refuse_unknown("SAM model", name, SAMS)


def _split_head(name: str) -> tuple[str, str | None]:
    plain = spell(name)
    for dataset in _DATASETS:
        if plain.startswith("efficientvit_seg_") and plain.endswith(f"_{dataset}"):
            size = plain.removeprefix("efficientvit_seg_").removesuffix(f"_{dataset}")
            return f"efficientvit_{size}", dataset
    return resolve_backbone(name), None


def _published_head(backbone: str, head: str) -> str:
    wanted = spell(head)
    if wanted == "seg_head":
        wanted = HEAD_OF_BACKBONE.get(backbone, wanted)
    candidates = (wanted, f"seg_{backbone.removeprefix('efficientvit_')}_{wanted}")
    for candidate in candidates:
        if candidate in HEADS:
            return candidate
    raise refuse_unknown("head", head, ["high_resolution", *_DATASETS, *HEADS])
