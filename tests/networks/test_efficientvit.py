"""The backbones."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import SettingsError
from effvit_med.networks import Backbone, EfficientVit, build_backbone
from effvit_med.networks.presets import BACKBONES

# Parameters of the published 2D backbones with 3 channels, and of their 3D twins with 1 channel.
PARAMETERS = {
    "efficientvit_b0": (682608, 837696),
    "efficientvit_b1": (4643936, 5196800),
    "efficientvit_b2": (14977008, 16173792),
    "efficientvit_b3": (38997440, 41378048),
    "efficientvit_l0": (27805472, 31848224),
    "efficientvit_l1": (38037280, 42534688),
    "efficientvit_l2": (49090208, 55516832),
    "efficientvit_l3": (193998144, 215772480),
    "efficientvit_xl0": (96622752, 114713760),
    "efficientvit_xl1": (167266976, 196997792),
}


def _backbone(spatial_dims: int, in_channels: int = 1, **details: object) -> EfficientVit:
    torch.manual_seed(0)
    return build_backbone(spatial_dims, in_channels, "efficientvit_b0", **details).eval()


_B0 = {2: _backbone(2), 3: _backbone(3)}


@pytest.mark.parametrize("preset", BACKBONES)
def test_parameters_number_as_published(preset: str) -> None:
    """Each backbone has the published number of parameters, its 3D twin that of an independent rewrite."""
    with torch.device("meta"):
        built = [build_backbone(2, 3, preset), build_backbone(3, 1, preset)]
    assert tuple(sum(p.numel() for p in each.parameters()) for each in built) == PARAMETERS[preset]


def test_backbone_meets_the_protocol() -> None:
    """A backbone is what a decoder asks for."""
    assert isinstance(_B0[2], Backbone)


@pytest.mark.parametrize(
    ("preset", "key", "shape"),
    [
        ("efficientvit_b0", "input_stem.op_list.0.conv.weight", (8, 3, 3, 3)),
        ("efficientvit_b0", "input_stem.op_list.1.main.depth_conv.norm.running_var", (8,)),
        ("efficientvit_b0", "stages.2.op_list.0.main.inverted_conv.conv.bias", (128,)),
        ("efficientvit_b0", "stages.2.op_list.1.context_module.main.qkv.conv.weight", (192, 64, 1, 1)),
        ("efficientvit_b0", "stages.3.op_list.2.context_module.main.aggreg.0.1.weight", (384, 16, 1, 1)),
        ("efficientvit_b0", "stages.3.op_list.2.local_module.main.point_conv.norm.weight", (128,)),
        ("efficientvit_l0", "stages.0.op_list.1.main.conv2.conv.weight", (32, 32, 3, 3)),
        ("efficientvit_l0", "stages.1.op_list.0.main.spatial_conv.conv.weight", (512, 32, 3, 3)),
        ("efficientvit_l0", "stages.4.op_list.0.main.inverted_conv.conv.weight", (6144, 256, 1, 1)),
    ],
)
def test_keys_are_the_published_ones(preset: str, key: str, shape: tuple[int, ...]) -> None:
    """Published checkpoints load without a mapping of names."""
    with torch.device("meta"):
        assert tuple(build_backbone(2, 3, preset).state_dict()[key].shape) == shape


@settings(max_examples=15)
@given(spatial_dims=st.sampled_from([2, 3]), size=st.tuples(*[st.integers(1, 50)] * 3))
def test_each_stage_halves_and_rounds_up(spatial_dims: int, size: tuple[int, ...]) -> None:
    """Any size down to one voxel works; map i has size ceil(n / 2^(i+1))."""
    size = size[:spatial_dims]
    backbone = _B0[spatial_dims]
    with torch.inference_mode():
        maps = backbone.features(torch.randn(1, 1, *size))
    assert len(maps) == 5
    for each, channels, strides in zip(maps, backbone.channels, backbone.strides, strict=True):
        wanted = [math.ceil(n / stride) for n, stride in zip(size, strides, strict=True)]
        assert list(each.shape) == [1, channels, *wanted]
        assert each.isfinite().all()


def test_strides_may_differ_by_axis_and_stage() -> None:
    """For thick slices the first stages may leave the slice axis alone."""
    backbone = _backbone(3, stage_strides=[(1, 2, 2), (1, 2, 2), 2, 2, (2, 1, 2)])
    assert backbone.strides == ((1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 16, 32))
    with torch.inference_mode():
        deepest = backbone.features(torch.randn(1, 1, 20, 64, 64))[-1]
    assert tuple(deepest.shape[2:]) == (3, 4, 2)


def test_kernels_may_differ_by_axis() -> None:
    """A kernel of 1 along the slices makes the stem blind to neighbouring slices."""
    backbone = _backbone(3, kernel_size=(1, 3, 3), stage_strides=[(1, 2, 2)] * 5)
    x = torch.randn(1, 1, 6, 32, 32)
    changed = x.clone()
    changed[:, :, 3] += 1.0
    with torch.inference_mode():
        difference = (backbone.features(x)[0] - backbone.features(changed)[0]).abs().amax((0, 1, 3, 4))
    assert [bool(each > 0) for each in difference] == [False, False, False, True, False, False]


@pytest.mark.parametrize("in_channels", [1, 2, 4, 7])
def test_any_number_of_channels(in_channels: int) -> None:
    """The image may have any number of channels."""
    with torch.inference_mode():
        assert _backbone(2, in_channels).features(torch.randn(1, in_channels, 32, 32))[0].shape[1] == 8


def test_volume_of_one_slice_is_the_image() -> None:
    """A 3D backbone whose middle kernel slices are the 2D weights gives, on one slice, what the 2D backbone gives."""
    flat, deep = _B0[2], _backbone(3)
    weights = deep.state_dict()
    for name, value in flat.state_dict().items():
        if value.dim() == 4:
            weights[name].zero_()
            weights[name][:, :, weights[name].shape[2] // 2] = value
        else:
            weights[name] = value
    deep.load_state_dict(weights)
    x = torch.randn(1, 1, 48, 40)
    with torch.inference_mode():
        for two, three in zip(flat.features(x), deep.features(x[:, :, None]), strict=True):
            torch.testing.assert_close(three[:, :, 0], two, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_every_parameter_gets_a_gradient(norm: str) -> None:
    """No parameter is left out of the graph."""
    backbone = build_backbone(2, 1, "efficientvit_l0" if norm == "batch" else "efficientvit_b0", norm=norm)
    sum(each.square().mean() for each in backbone(torch.randn(2, 1, 64, 64))).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_wrong_number_of_strides_is_refused() -> None:
    """One stride is needed for each stage; the message says how many."""
    with pytest.raises(SettingsError, match="2 entries; efficientvit_b0 has 5 stages"):
        _backbone(2, stage_strides=[2, 2])
