"""Facts about published models built by their names."""

from __future__ import annotations

import pytest
import torch

from effvit_med.errors import SettingsError
from effvit_med.networks import create_backbone, create_classifier, create_sam, create_segmenter


def _eps(model: torch.nn.Module) -> set[float]:
    return {float(module.eps) for module in model.modules() if hasattr(module, "eps")}


@pytest.mark.parametrize(
    ("call", "eps"),
    [
        (lambda: create_backbone("efficientvit_l1"), 1e-5),
        (lambda: create_classifier("efficientvit_b1"), 1e-5),
        (lambda: create_classifier("efficientvit_l1"), 1e-7),
        (lambda: create_segmenter("efficientvit_l1", head="ade20k"), 1e-7),
        (lambda: create_segmenter("efficientvit_b1", head="ade20k"), 1e-5),
        (lambda: create_sam("efficientvit_sam_l0"), 1e-6),
        (lambda: create_classifier("shvit_s1"), 1e-5),
    ],
)
def test_every_normalisation_has_the_published_eps(call: object, eps: float) -> None:
    """The model zoo's eps, by kind and series."""
    with torch.device("meta"):
        assert _eps(call()) == {eps}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "head", "classes", "backbone"),
    [
        ("efficientvit-seg-b0-cityscapes", None, 19, "efficientvit_b0"),
        ("efficientvit_seg_l2_ade20k", None, 150, "efficientvit_l2"),
        ("b1", "ade20k", 150, "efficientvit_b1"),
        ("efficientvit_b1", "seg_b1_cityscapes", 19, "efficientvit_b1"),
        ("efficientvit_seg_b1", "efficientvit-seg-b1-ade20k", 150, "efficientvit_b1"),
        ("efficientvit_l0", "SegHead", 19, "efficientvit_l0"),
    ],
)
def test_published_head_by_any_of_its_names(name: str, head: str | None, classes: int, backbone: str) -> None:
    """Backbone, head and number of classes follow from the name."""
    with torch.device("meta"):
        network = create_segmenter(name, head=head)
        assert tuple(network.logits(torch.empty(1, 3, 64, 96)).shape) == (1, classes, 8, 12)
    assert network.backbone.preset_name == backbone


def test_our_decoder_needs_the_number_of_classes() -> None:
    """There is no published number to fall back on."""
    with pytest.raises(SettingsError, match="out_channels is not given"):
        create_segmenter("efficientvit_b0")


def test_general_head_goes_with_a_backbone_that_was_published_without() -> None:
    """It has the form of B1's and needs the number of classes."""
    with torch.device("meta"):
        assert create_segmenter("shvit_s1", head="seg_head", out_channels=4).output_stride == (16, 16)
    with pytest.raises(SettingsError, match="seg_head needs the number of classes"):
        create_segmenter("shvit_s1", head="seg_head")


def test_head_that_does_not_exist_is_refused() -> None:
    """No B0 was published for ADE20K; the error lists heads that were."""
    with pytest.raises(SettingsError, match=r"no head 'ade20k' for efficientvit_b0; take .* seg_b0_cityscapes"):
        create_segmenter("efficientvit_b0", head="ade20k")


def test_backbone_without_a_published_classifier_is_refused() -> None:
    """L0 exists as SAM's encoder only."""
    with pytest.raises(SettingsError, match="efficientvit_l0 was published without a classification head"):
        create_classifier("efficientvit_l0")


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_m0", "shvit_s1", "efficientmod_xxs", "turbovit_t"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_classifiers_of_every_family_give_one_logit_per_class(name: str, spatial_dims: int) -> None:
    """In both dimensions, for any number of classes and channels."""
    model = create_classifier(name, spatial_dims, in_channels=1, classes=4).eval()
    with torch.inference_mode():
        logits = model(torch.randn(2, 1, *(40,) * spatial_dims))
    assert tuple(logits.shape) == (2, 4)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", ["efficientvit-sam-xl1", "xl1", "sam_xl1", "efficientvit_xl1"])
def test_sam_by_any_of_its_names(name: str) -> None:
    """The spellings of the model zoo lead to one model."""
    with torch.device("meta"):
        assert create_sam(name).image_encoder.backbone.preset_name == "efficientvit_xl1"


def test_unknown_sam_is_told() -> None:
    """The error has the names that exist."""
    with pytest.raises(SettingsError, match="no SAM model 'b0'"):
        create_sam("b0")
