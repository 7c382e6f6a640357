"""Networks whose logits have the input's own resolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effvit_med.networks import HighResolutionDecoder, SegmentationNetwork, build_network
from effvit_med.networks.presets.fullres import FULL_RESOLUTION_NAMES, Layout, assemble


def _count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("space", [(17, 24, 19), (17, 23)])
def test_no_map_is_larger_than_half_of_the_image(space: tuple[int, ...]) -> None:
    """The first stage halves, the decoder has no larger map, and the logits still have the image's size."""
    network = build_network(len(space), 1, 2, "fullres_tiny")
    assert isinstance(network.head, HighResolutionDecoder)
    image = torch.randn(1, 1, *space)
    features = network.backbone.features(image)
    maps = [*features, *network.head.maps(image, features)]
    assert max(each.shape[2] for each in maps) == 9
    assert network.logits(image).shape == (1, 2, *space)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_larger_presets_have_more_parameters(spatial_dims: int) -> None:
    """Tiny, small and base are in this order."""
    sizes = [_count(build_network(spatial_dims, 1, 3, name)) for name in FULL_RESOLUTION_NAMES]
    assert sizes == sorted(set(sizes))


def test_instance_normalisation_is_the_usual_one() -> None:
    """Where no normalisation is named, batches may be tiny."""
    network = build_network(3, 1, 2, "fullres_tiny")
    kinds = {type(each).__name__ for each in network.modules() if "Norm3d" in type(each).__name__}
    assert kinds == {"PointInstanceNorm3d"}


def test_batch_normalisation_can_be_asked_for() -> None:
    """The name of a normalisation wins over the family's own."""
    network = build_network(2, 1, 2, "fullres_tiny", norm="batch")
    assert not any(isinstance(each, nn.InstanceNorm2d) for each in network.modules())


def test_strides_may_differ_by_axis() -> None:
    """Thick slices are halved later than what lies within them."""
    network = build_network(3, 1, 2, "fullres_tiny", stage_strides=[[1, 2, 2], [1, 2, 2], 2])
    assert network.backbone.strides == ((1, 2, 2), (1, 4, 4), (2, 8, 8))
    assert network(torch.randn(1, 1, 5, 20, 19)).shape == (1, 2, 5, 20, 19)


@pytest.mark.parametrize(("decoder_stride", "size"), [(1, (10, 13)), (2, (5, 7)), (4, (3, 4))])
def test_decoder_stops_at_its_stride(decoder_stride: int, size: tuple[int, int]) -> None:
    """Logits come at the resolution that was asked for."""
    network = build_network(2, 1, 3, "fullres_tiny", decoder_stride=decoder_stride)
    assert tuple(network.logits(torch.zeros(1, 1, 10, 13)).shape[2:]) == size


@pytest.mark.parametrize("preset", ["fullres_tiny", "efficientvit_b0"])
def test_maps_have_the_channels_that_are_told(preset: str) -> None:
    """Every map of the decoder has as many channels as `map_channels` says, the finest first."""
    network = build_network(2, 1, 3, preset)
    assert isinstance(network.head, HighResolutionDecoder)
    image = torch.zeros(1, 1, 32, 40)
    maps = network.head.maps(image, network.backbone.features(image))
    assert tuple(each.shape[1] for each in maps) == network.head.map_channels
    assert [each.shape[2] for each in maps] == sorted((each.shape[2] for each in maps), reverse=True)


def test_logits_come_from_the_finest_map() -> None:
    """What the maps' finest becomes in the classifier is what the network answers."""
    torch.manual_seed(0)
    network = build_network(3, 1, 3, "fullres_tiny").eval()
    assert isinstance(network.head, HighResolutionDecoder)
    image = torch.randn(1, 1, 8, 12, 9)
    finest = network.head.maps(image, network.backbone.features(image))[0]
    torch.testing.assert_close(network.head.logits_of(finest, image), network(image))


def test_plain_skips_have_no_weights() -> None:
    """A map of the decoder's own width needs no projection to be added."""
    layout = Layout((8, 16), (0, 1), ("res", "attention"), (1,), plain_skips=True)
    assert _decoder_of(layout).skip.keys() == set()
    assert _decoder_of(Layout((8, 16), (0, 1), ("res", "attention"), (1,))).skip.keys() == {"0"}


def test_image_of_another_size_needs_no_padding() -> None:
    """Sizes that are no multiple of any stride come back as they went in."""
    network = build_network(3, 1, 2, "fullres_tiny").eval()
    assert tuple(network(torch.zeros(1, 1, 5, 7, 3)).shape) == (1, 2, 5, 7, 3)


def test_every_parameter_of_a_full_resolution_network_gets_a_gradient() -> None:
    """Nothing in it is idle."""
    network = build_network(2, 1, 3, "fullres_small")
    network(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert not [name for name, each in network.named_parameters() if each.grad is None]


def _decoder_of(layout: Layout) -> HighResolutionDecoder:
    from effvit_med.networks.blocks import BlockStyle
    from effvit_med.networks.efficientvit import EfficientVit
    from effvit_med.networks.layers import layers_for

    preset = assemble("mine", layout)
    style = BlockStyle(layers_for(2), (3, 3))
    network = SegmentationNetwork(
        backbone := EfficientVit(preset.backbone, style, 1),
        HighResolutionDecoder(style, backbone, 2, preset.decoder),
        2,
        2,
    )
    assert isinstance(network.head, HighResolutionDecoder)
    return network.head
