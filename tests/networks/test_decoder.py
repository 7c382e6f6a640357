"""From feature maps to logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.utils import pixelshuffle
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks import Decoder, HighResolutionDecoder, SegmentationNetwork, build_network
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.decoder import resize, spread_blocks
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets import HEADS, HIGH_RESOLUTION, DecoderPreset

# Parameters of the published models, backbone and head.
PARAMETERS = {
    "seg_b0_cityscapes": 706691,
    "seg_b1_cityscapes": 4803443,
    "seg_b1_ade20k": 4791414,
    "seg_b2_cityscapes": 15323779,
    "seg_b2_ade20k": 15293382,
    "seg_b3_cityscapes": 39603155,
    "seg_b3_ade20k": 39546198,
    "seg_l1_cityscapes": 40242227,
    "seg_l1_ade20k": 40409526,
    "seg_l2_cityscapes": 52607923,
    "seg_l2_ade20k": 51462454,
}


class PyramidOfThree(nn.Module):
    """A backbone of another family: three maps, of its own strides."""

    def __init__(self) -> None:
        super().__init__()
        self.in_channels = 2
        self.channels = (6, 10, 12)
        self.strides = ((1, 2), (2, 4), (4, 8))
        steps = zip((2, 6, 10), self.channels, ((1, 2), (2, 2), (2, 2)), strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=step, padding=1) for a, b, step in steps)

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        maps = []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return maps


@pytest.mark.parametrize("head", HEADS)
def test_published_models_have_their_parameters(head: str) -> None:
    """Each published segmentation model has the published number of parameters."""
    preset = f"efficientvit_{head.split('_')[1]}"
    with torch.device("meta"):
        network = build_network(2, 3, HEADS[head].classes, preset, "seg_head", head=head)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[head]


@settings(max_examples=12)
@given(
    spatial_dims=st.sampled_from([2, 3]),
    kind=st.sampled_from([("seg_head", None), ("high_resolution", 1), ("high_resolution", 2), ("high_resolution", 4)]),
    size=st.tuples(*[st.integers(1, 40)] * 3),
)
def test_any_size_gives_logits_of_that_size(
    spatial_dims: int, kind: tuple[str, int | None], size: tuple[int, ...]
) -> None:
    """The logits come at the output stride, and forward brings them to the image's size."""
    network = build_network(spatial_dims, 1, 3, decoder=kind[0], decoder_stride=kind[1]).eval()
    x = torch.randn(1, 1, *size[:spatial_dims])
    with torch.inference_mode():
        assert list(network(x).shape) == [1, 3, *x.shape[2:]]
        small = [-(-n // stride) for n, stride in zip(x.shape[2:], network.output_stride, strict=True)]
        assert list(network.logits(x).shape) == [1, 3, *small]
    assert set(network.output_stride) == {kind[1] or 8}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_decoder_takes_another_backbone(level: int) -> None:
    """Any backbone that tells its channels and strides can be decoded, with strides of its own on each axis."""
    backbone = PyramidOfThree()
    preset = DecoderPreset(widths=(8, 8, 8, 16), depths=(1, 1, 1))
    decoder = HighResolutionDecoder(BlockStyle(layers_for(2), (3, 3)), backbone, 5, preset, level)
    assert isinstance(decoder, Decoder)
    network = SegmentationNetwork(backbone, decoder, 2, 5)
    assert network.output_stride == ((1, 1), *backbone.strides)[level]
    assert tuple(network(torch.randn(2, 2, 13, 22)).shape) == (2, 5, 13, 22)


def test_full_size_decoder_sees_single_voxels() -> None:
    """At stride 1 the image itself is a skip: an impulse changes the logits most in its own neighbourhood."""
    torch.manual_seed(0)
    network = build_network(2, 1, 2).eval()
    x = torch.zeros(1, 1, 64, 64)
    impulse = x.clone()
    impulse[0, 0, 20, 41] = 5.0
    with torch.inference_mode():
        change = (network(impulse) - network(x)).abs().sum((0, 1))
    peak = divmod(int(change.argmax()), 64)
    assert abs(peak[0] - 20) <= 2
    assert abs(peak[1] - 41) <= 2


def test_wrong_number_of_widths_is_refused() -> None:
    """The widths must number the levels; the message counts them."""
    preset = replace(HIGH_RESOLUTION, widths=(16, 32))
    with pytest.raises(SettingsError, match="2 widths and 6 depths; for 4 levels give at least 4 and 3"):
        HighResolutionDecoder(BlockStyle(layers_for(2), (3, 3)), PyramidOfThree(), 5, preset)


def test_resizing_keeps_a_linear_ramp() -> None:
    """Doubling a ramp puts value i at place 2 i + 0.5: the maps are aligned by the edges of their voxels."""
    ramp = torch.arange(8.0).reshape(1, 1, 1, 8)
    doubled = resize(ramp, (1, 16), "bilinear")[0, 0, 0]
    torch.testing.assert_close(doubled[1:-1], (torch.arange(1.0, 15.0) - 0.5) / 2)


@given(block=st.lists(st.integers(1, 3), min_size=2, max_size=3), channels=st.integers(1, 3))
def test_channels_become_the_voxels_of_a_block(block: list[int], channels: int) -> None:
    """Voxel o of block s of output channel c is channel (c, o) of voxel s, whatever the block's shape."""
    space = [2, 3, 4][: len(block)]
    x = torch.randn(2, channels * int(np.prod(block)), *space)
    spread = spread_blocks(x, block)
    assert spread.shape == (2, channels, *(size * step for size, step in zip(space, block, strict=True)))
    for offset in np.ndindex(*block):
        every = tuple(slice(start, None, step) for start, step in zip(offset, block, strict=True))
        ours = spread[(slice(None), slice(None), *every)]
        assert torch.equal(ours, x[:, int(np.ravel_multi_index(offset, block)) :: int(np.prod(block))])


@pytest.mark.parametrize("dims", [2, 3])
def test_blocks_are_spread_as_by_monai(dims: int) -> None:
    """MONAI's function for equal axes gives the same."""
    x = torch.randn(1, 3 * 2**dims, *(4, 5, 3)[:dims])
    assert torch.equal(spread_blocks(x, (2,) * dims), pixelshuffle(x, dims, 2))


def test_a_decoder_with_sub_pixels_has_no_map_at_full_size() -> None:
    """Its logits have the image's size, odd or not, and its finest map half of it; at a coarser stride it is as any."""
    style = BlockStyle(layers_for(3), (3, 3, 3))
    backbone = build_network(3, 1, 2, "efficientvit_b0").backbone
    image = torch.randn(1, 1, 33, 40, 23)
    features = backbone.features(image)
    preset = replace(HIGH_RESOLUTION, subpixel=True)
    head = HighResolutionDecoder(style, backbone, 2, preset)
    assert head.output_stride == (1, 1, 1)
    assert head(image, features).shape == (1, 2, 33, 40, 23)
    assert head.maps(image, features)[0].shape[2:] == (17, 20, 12)
    coarser = HighResolutionDecoder(style, backbone, 2, preset, level=1)
    assert coarser.output_stride == (2, 2, 2)
    assert coarser(image, features).shape == (1, 2, 17, 20, 12)
