"""Facts about names, families and what every backbone promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import SettingsError
from effvit_med.networks import FAMILIES, FAMILY_OF, NamedBackbone, build_network, create_backbone, fold_batchnorm
from effvit_med.networks.registry import resolve_backbone

SMALLEST = ("efficientvit_b0", "efficientvit_l0", "efficientvit_m0", "shvit_s1", "efficientmod_xxs", "turbovit_t")


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", FAMILY_OF)
def test_every_backbone_keeps_the_protocol(name: str, spatial_dims: int) -> None:
    """Maps have the channels and, rounded up, the sizes that the backbone says, in both dimensions."""
    size = (70, 45, 33)[:spatial_dims]
    with torch.device("meta"):
        backbone = create_backbone(name, spatial_dims, in_channels=2).eval()
        maps = backbone.features(torch.empty(1, 2, *size))
    assert isinstance(backbone, NamedBackbone)
    assert (backbone.preset_name, backbone.spatial_dims, backbone.in_channels) == (name, spatial_dims, 2)
    assert tuple(each.shape[1] for each in maps) == backbone.channels
    wanted = [tuple(-(-n // step) for n, step in zip(size, stride, strict=True)) for stride in backbone.strides]
    assert [tuple(each.shape[2:]) for each in maps] == wanted


@settings(max_examples=10)
@given(
    name=st.sampled_from(SMALLEST),
    decoder=st.sampled_from([("seg_head", None), ("high_resolution", 1), ("high_resolution", 2)]),
    spatial_dims=st.sampled_from([2, 3]),
    in_channels=st.integers(1, 4),
    size=st.tuples(*[st.integers(1, 40)] * 3),
)
def test_every_decoder_takes_every_backbone(
    name: str, decoder: tuple[str, int | None], spatial_dims: int, in_channels: int, size: tuple[int, ...]
) -> None:
    """Logits come at the image's size, for any size and any number of channels."""
    with torch.device("meta"):
        network = build_network(spatial_dims, in_channels, 3, name, decoder[0], decoder[1]).eval()
        image = torch.empty(1, in_channels, *size[:spatial_dims])
        logits = network.logits(image)
        assert tuple(network(image).shape) == (1, 3, *image.shape[2:])
    small = [-(-n // step) for n, step in zip(image.shape[2:], network.output_stride, strict=True)]
    assert list(logits.shape) == [1, 3, *small]


@pytest.mark.parametrize("name", SMALLEST)
def test_folding_keeps_the_outputs_of_every_family(name: str) -> None:
    """Multiplying the normalisations into the convolutions changes rounding only, and none is left behind."""
    network = build_network(2, 1, 2, name).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    folded = fold_batchnorm(network)
    image = torch.randn(1, 1, 64, 48)
    with torch.inference_mode():
        expected, found = network(image), folded(image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_names_are_unique_and_families_are_complete() -> None:
    """No two families claim one name."""
    names = [name for family in FAMILIES for name in family.presets]
    assert len(names) == len(set(names)) == len(FAMILY_OF)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("efficientvit-b2-r288-in1k", "efficientvit_b2"),
        ("efficientvit_l3.r384_in1k", "efficientvit_l3"),
        ("efficientMod_s_Conv", "efficientmod_s_conv"),
        ("shvit_s2.in1k", "shvit_s2"),
        ("EfficientViT_M4", "efficientvit_m4"),
        ("b3", "efficientvit_b3"),
        ("xxs", "efficientmod_xxs"),
        ("s4", "shvit_s4"),
        ("efficientvit_backbone_b0", "efficientvit_b0"),
        ("msra_efficientvit_m3_downstream", "efficientvit_m3"),
        ("timm/efficientvit_l1", "efficientvit_l1"),
        ("efficientvit-seg-b0-cityscapes", "efficientvit_b0"),
        ("efficientvit-sam-xl0", "efficientvit_xl0"),
    ],
)
def test_published_spellings_are_understood(spelling: str, name: str) -> None:
    """The names of timm and of the authors lead to ours."""
    assert resolve_backbone(spelling) == name


def test_unknown_name_is_told_with_the_nearest() -> None:
    """The error has the name that was given and some that exist."""
    with pytest.raises(SettingsError, match=r"no preset 'shvit_s5'; the nearest are shvit_s\d"):
        create_backbone("shvit_s5")


def test_detail_of_another_family_is_refused() -> None:
    """A setting that a family does not know is an error, not silently left aside."""
    with pytest.raises(SettingsError, match=r"window_size is 7, but shvit_s1 \(SHViT\) has no such setting"):
        create_backbone("shvit_s1", window_size=7)
    assert create_backbone("efficientvit_m0", window_size=7).preset_name == "efficientvit_m0"
