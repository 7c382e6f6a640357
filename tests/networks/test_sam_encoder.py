"""The image encoder of EfficientViT-SAM and its backbones XL0 and XL1."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.efficientvit import EfficientVit
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets import BACKBONES
from effvit_med.networks.presets.sam import SAMS, NeckPreset, PromptPreset, SamPreset
from effvit_med.networks.sam import EfficientVitSam
from effvit_med.networks.sam_encoder import SamImageEncoder

# Millions of parameters of encoder and whole, GMACs of the encoder at its input size: as published.
PUBLISHED = {
    "efficientvit_sam_l0": (30.728, 34.793, 34.8),
    "efficientvit_sam_l1": (43.586, 47.650, 49.0),
    "efficientvit_sam_l2": (57.264, 61.329, 68.6),
    "efficientvit_sam_xl0": (112.893, 116.958, 184.8),
    "efficientvit_sam_xl1": (199.282, 203.346, 321.9),
}
# Millions of parameters of the backbone, GMACs of it at 512 and at 1024.
XL_BACKBONES = {"efficientvit_xl0": (96.623, 29.91, 119.6), "efficientvit_xl1": (167.267, 48.07, 192.3)}
TINY = SamPreset(
    "tiny",
    BACKBONES["efficientvit_b0"],
    64,
    NeckPreset(depth=1, expand=1, width=32),
    PromptPreset(channels=32, embedding_size=8, frame_size=128, mask_channels=8),
)


def _millions(module: torch.nn.Module) -> float:
    return round(sum(each.numel() for each in module.parameters()) / 1e6, 3)


def _xl(preset: str, spatial_dims: int = 2, in_channels: int = 3) -> EfficientVit:
    numbers = BACKBONES[preset]
    style = BlockStyle(layers_for(spatial_dims), (3,) * spatial_dims, numbers.activation)
    return EfficientVit(numbers, style, in_channels)


def _gmacs(module: torch.nn.Module, size: int) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", SAMS)
def test_sizes_are_the_published_ones(name: str) -> None:
    """Parameters of encoder and whole, and the encoder's products, are those of the publication."""
    with torch.device("meta"):
        sam = EfficientVitSam(SAMS[name]).eval()
    encoder, whole, gmacs = PUBLISHED[name]
    assert (_millions(sam.image_encoder), _millions(sam)) == (encoder, whole)
    assert _gmacs(sam.image_encoder, SAMS[name].input_size) == pytest.approx(gmacs, abs=0.06)


@pytest.mark.parametrize("preset", XL_BACKBONES)
def test_xl_backbones_have_the_published_sizes(preset: str) -> None:
    """Parameters of the six-stage backbones and their products at two sizes are those of the publication."""
    with torch.device("meta"):
        backbone = _xl(preset).eval()
    parameters, *gmacs = XL_BACKBONES[preset]
    assert _millions(backbone) == parameters
    assert [_gmacs(backbone, size) for size in (512, 1024)] == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("stages.3.op_list.0.main.spatial_conv.conv.weight", (2048, 128, 3, 3)),
        ("stages.4.op_list.0.main.inverted_conv.conv.weight", (4096, 256, 1, 1)),
        ("stages.4.op_list.1.context_module.main.aggreg.0.0.weight", (1536, 1, 3, 3)),
        ("stages.5.op_list.3.context_module.main.aggreg.0.0.weight", (3072, 1, 3, 3)),
        ("stages.5.op_list.3.local_module.main.inverted_conv.conv.weight", (6144, 1024, 1, 1)),
    ],
)
def test_xl_stages_are_the_published_ones(key: str, shape: tuple[int, ...]) -> None:
    """Attention stands in stages 4 and 5, with an aggregation kernel of 3; stage 3 is of fused blocks."""
    with torch.device("meta"):
        state = _xl("efficientvit_xl0").state_dict()
    assert tuple(state[key].shape) == shape
    assert not any(name.startswith("stages.0.op_list.1") for name in state)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_xl_has_six_maps_of_any_size(spatial_dims: int) -> None:
    """Images and volumes of any size give six maps, map i of size ceil(n / 2^(i + 1))."""
    with torch.device("meta"):
        backbone = _xl("efficientvit_xl0", spatial_dims, 1)
    assert backbone.channels == (32, 64, 128, 256, 512, 1024)
    assert [each[0] for each in backbone.strides] == [2, 4, 8, 16, 32, 64]
    assert (backbone.spatial_dims, backbone.checkpointing) == (spatial_dims, False)


def test_the_preset_says_which_aggregation_kernel() -> None:
    """Left out it is the preset's; given it is what was given."""
    style = BlockStyle(layers_for(2), (3, 3))
    sizes = []
    for given in (None, 7):
        with torch.device("meta"):
            state = EfficientVit(BACKBONES["efficientvit_b0"], style, 1, None, given).state_dict()
        sizes.append(state["stages.3.op_list.1.context_module.main.aggreg.0.0.weight"].shape[-1])
    assert sizes == [5, 7]


@pytest.mark.parametrize("in_channels", [1, 4])
@pytest.mark.parametrize("size", [(64, 64), (50, 131), (1, 1), (200, 30)])
def test_any_size_and_channels_give_the_same_size(in_channels: int, size: tuple[int, int]) -> None:
    """The embedding has its own size, whatever the image's."""
    encoder = SamImageEncoder(TINY, in_channels, 1e-6).eval()
    with torch.inference_mode():
        embedding = encoder(torch.randn(2, in_channels, *size))
    assert tuple(embedding.shape) == (2, 32, 8, 8)
    assert embedding.isfinite().all()


def test_the_neck_adds_all_three_maps() -> None:
    """Each of the three deepest maps counts, and no other."""
    encoder = SamImageEncoder(TINY, 1, 1e-6).eval()
    with torch.inference_mode():
        maps = encoder.backbone.features(torch.randn(1, 1, 64, 64))
        before = encoder.neck(maps)
        for index in range(5):
            changed = [each + 1 if place == index else each for place, each in enumerate(maps)]
            assert bool((encoder.neck(changed) - before).abs().max() > 1e-3) == (index >= 2)


def test_checkpointing_changes_nothing_but_memory() -> None:
    """Outputs and gradients are the same with and without it."""
    encoder = SamImageEncoder(TINY, 1, 1e-6).eval()
    x = torch.randn(1, 1, 48, 64)
    gradients = []
    for checkpointing in (False, True):
        encoder.backbone.checkpointing = checkpointing
        encoder.zero_grad()
        (encoder(x)[:, :8] ** 2).mean().backward()
        gradients.append([each.grad.clone() for each in encoder.parameters() if each.grad is not None])
    assert len(gradients[0]) == len(list(encoder.parameters()))
    for without, with_it in zip(*gradients, strict=True):
        torch.testing.assert_close(without, with_it)


def test_wrong_images_are_refused() -> None:
    """The message names the shape; an encoder of no channels does not exist."""
    with pytest.raises(SettingsError, match=r"shape \(1, 2, 8, 8\); this encoder takes \(batch, 1 channels"):
        SamImageEncoder(TINY, 1, 1e-6)(torch.zeros(1, 2, 8, 8))
    with pytest.raises(SettingsError, match="in_channels is 0"):
        SamImageEncoder(TINY, 0, 1e-6)
    with pytest.raises(SettingsError, match="norm_eps is 0"):
        SamImageEncoder(TINY, 1, 0.0)
