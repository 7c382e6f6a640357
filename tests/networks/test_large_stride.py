"""What EfficientViT-M and SHViT share: sizes, numbers, training, half precision, folding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effvit_med.errors import SettingsError
from effvit_med.networks import Backbone, fold_batchnorm
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.large_stride import LargeStrideBackbone, LargeStrideHead, SqueezeExcite, large_stride_style
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
from effvit_med.networks.presets.shvit import SHVIT
from effvit_med.networks.shvit import Shvit

# Of the published 2D models with 3 channels: parameters with the head of 1000 classes and without, millions of
# multiplications at 224 x 224 with the head, and thousands of millions at 512 x 512 and 1024 x 1024 without (of
# EfficientViT-M in the form published for detection, with windows of 7). Of their 3D twins with 1 channel: parameters.
NUMBERS = {
    "efficientvit_m0": (2349436, 2156052, 79, 0.43, 1.61, 2298888),
    "efficientvit_m1": (2980560, 2787176, 167, 0.90, 3.47, 3086768),
    "efficientvit_m2": (4187554, 3962106, 201, 1.08, 4.16, 4273968),
    "efficientvit_m3": (6900722, 6579082, 263, 1.41, 5.35, 6908192),
    "efficientvit_m4": (8804228, 8418460, 299, 1.59, 6.03, 8764624),
    "efficientvit_m5": (12473772, 12088004, 522, 2.80, 10.67, 12726904),
    "shvit_s1": (6330808, 6009168, 241, 1.21, 5.05, 6293712),
    "shvit_s2": (11483072, 11033176, 365, 1.80, 7.46, 11346664),
    "shvit_s3": (14245273, 13795377, 601, 3.03, 12.49, 14376561),
    "shvit_s4": (16588484, 16138588, 783, 3.97, 16.40, 16902652),
}


def _build(name: str, spatial_dims: int = 2, in_channels: int = 1, *, detection: bool = False) -> LargeStrideBackbone:
    torch.manual_seed(0)
    if name in SHVIT:
        return Shvit(SHVIT[name], spatial_dims, in_channels).eval()
    kernels = (7, 5, 3, 3) if detection and name == "efficientvit_m0" else None
    window = 7 if detection else None
    preset = EFFICIENTVIT_M[name]
    return EfficientVitM(preset, spatial_dims, in_channels, window_size=window, q_kernel_sizes=kernels).eval()


def _varied(network: LargeStrideBackbone) -> LargeStrideBackbone:
    """The network with statistics, scales and tables that are not those of a new one."""
    for name, value in network.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bn.bias", "attention_biases")):
            value.normal_()
    return network


_SMALL = {(name, dims): _varied(_build(name, dims)) for name in ("efficientvit_m1", "shvit_s1") for dims in (2, 3)}
_each = pytest.mark.parametrize("network", [pytest.param(each, id=f"{n}-{d}d") for (n, d), each in _SMALL.items()])


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _multiplications(size: int, *parts: nn.Module) -> float:
    x = torch.empty(1, 3, size, size, device="meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        nn.Sequential(*parts)(x)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("name", NUMBERS)
def test_parameters_number_as_published(name: str) -> None:
    """Each model has the published number of parameters, with and without its head."""
    with torch.device("meta"):
        image, volume = _build(name, 2, 3), _build(name, 3, 1)
        head = LargeStrideHead(image.channels[-1], 1000, 2)
    with_head, without, *_, of_volume = NUMBERS[name]
    assert (_parameters(image) + _parameters(head), _parameters(image)) == (with_head, without)
    assert _parameters(volume) == of_volume


@pytest.mark.parametrize("name", NUMBERS)
def test_multiplications_number_as_published(name: str) -> None:
    """Each model multiplies as often as published at 224 x 224, and as a detection backbone at 512 and 1024."""
    with torch.device("meta"):
        backbone, detector = _build(name, 2, 3), _build(name, 2, 3, detection=True)
        head = LargeStrideHead(backbone.channels[-1], 1000, 2).eval()
    _, _, millions, at_512, at_1024, _ = NUMBERS[name]
    assert round(_multiplications(224, backbone, head) / 1e6) == millions
    assert _multiplications(512, detector) / 1e9 == pytest.approx(at_512, abs=0.0051)
    assert _multiplications(1024, detector) / 1e9 == pytest.approx(at_1024, abs=0.0051)


@_each
def test_backbone_meets_the_protocol(network: LargeStrideBackbone) -> None:
    """A backbone is what a decoder asks for: six maps at strides 2 to 64, the stem's three narrower ones first."""
    assert isinstance(network, Backbone)
    assert network.preset_name in NUMBERS
    assert network.channels[:4] == (16, 32, 64, 128)
    assert network.strides == tuple((2**level,) * network.spatial_dims for level in range(1, 7))


@_each
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_size_gives_maps_of_its_size(network: LargeStrideBackbone, data: st.DataObject) -> None:
    """Along every axis map i has size ceil(n / stride i), for any n from 1, and only finite values."""
    longest = 300 if network.spatial_dims == 2 else 80
    space = data.draw(st.tuples(*[st.integers(1, longest)] * network.spatial_dims))
    with torch.inference_mode():
        maps = network.features(torch.randn(1, 1, *space))
    wanted = [tuple(math.ceil(n / s) for n, s in zip(space, strides, strict=True)) for strides in network.strides]
    assert [tuple(each.shape[2:]) for each in maps] == wanted
    assert tuple(each.shape[1] for each in maps) == network.channels
    assert all(each.isfinite().all() for each in maps)


@_each
def test_stem_maps_are_after_relu_and_its_last_is_not(network: LargeStrideBackbone) -> None:
    """The three maps of the stem have no negative value; what goes into the first stage does, at stride 16."""
    x = torch.randn(1, 1, *(40,) * network.spatial_dims)
    with torch.inference_mode():
        maps, embedded = network.features(x), network.patch_embedding(x)
    assert all((each >= 0).all() for each in maps[:3])
    assert (embedded < 0).any()
    assert tuple(embedded.shape[1:]) == (128, *(3,) * network.spatial_dims)


@_each
def test_gradient_reaches_every_parameter(network: LargeStrideBackbone) -> None:
    """One backward pass through all maps leaves a gradient that is not 0 on every parameter, checkpointed or not."""
    x = torch.randn(1, 1, *((300, 200) if network.spatial_dims == 2 else (150, 70, 66)))
    found = []
    for checkpointing in (False, True):
        network.checkpointing = checkpointing
        network.zero_grad()
        torch.stack([each.square().mean() for each in network.features(x)]).sum().backward()
        found.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    network.checkpointing = False
    network.zero_grad()
    assert [name for name, p in network.named_parameters() if name not in found[0] or not found[0][name].any()] == []
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


@_each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_and_near(network: LargeStrideBackbone, dtype: torch.dtype) -> None:
    """Under autocast all maps are finite, and those of bfloat16 and float16 near those of float32."""
    x = torch.randn(1, 1, *((130, 470) if network.spatial_dims == 2 else (70, 40, 90)))
    with torch.inference_mode():
        wanted = network.features(x)
        with torch.autocast("cpu", dtype=dtype):
            found = network.features(x)
    for a, b in zip(found, wanted, strict=True):
        assert a.isfinite().all()
        assert (a.float() - b).std() < 0.05 * b.std()


@_each
def test_folding_and_layout_keep_the_maps(network: LargeStrideBackbone) -> None:
    """With every batch normalisation folded and channels last, the maps are the same up to rounding."""
    folded = fold_batchnorm(network)
    assert not any(isinstance(each, nn.BatchNorm2d | nn.BatchNorm3d) for each in folded.modules())
    layout = torch.channels_last if network.spatial_dims == 2 else torch.channels_last_3d
    folded.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(2, 1, *((130, 470) if network.spatial_dims == 2 else (70, 40, 90)))
    with torch.inference_mode():
        for a, b in zip(folded(x.contiguous(memory_format=layout)), network(x), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)


def test_head_is_the_mean_normalised_and_projected() -> None:
    """The logits are linear in the normalised mean of the last map, and folding keeps them."""
    head = LargeStrideHead(6, 4, 3, 1e-3).eval()
    assert head.bn is not None
    head.bn.running_mean = torch.randn(6)
    head.bn.running_var = torch.rand(6) + 0.5
    nn.init.normal_(head.bn.weight)
    nn.init.normal_(head.bn.bias)
    x = torch.randn(2, 6, 2, 3, 4)
    mean = (x.mean((2, 3, 4)) - head.bn.running_mean) / (head.bn.running_var + 1e-3).sqrt()
    wanted = (mean * head.bn.weight + head.bn.bias) @ head.l.weight.T + head.l.bias
    folded = fold_batchnorm(head)
    assert folded.bn is None
    for each in (head, folded):
        torch.testing.assert_close(each([torch.zeros(1), x]), wanted)


def test_squeeze_rounds_to_eight() -> None:
    """Inside, the squeeze has a quarter of the channels rounded to a multiple of 8: 312 of 1232, as in SHViT-S2."""
    style = large_stride_style(2, 1e-5)
    assert SqueezeExcite(style, 1232).fc1.out_channels == 312


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 1, 1e-5), "spatial_dims is 4"),
        ((2, 0, 1e-5), "in_channels is 0"),
        ((2, 1, 0.0), "norm_eps is 0.0"),
    ],
)
def test_impossible_numbers_are_refused(arguments: tuple[int, int, float], message: str) -> None:
    """An impossible number is named."""
    dims, channels, eps = arguments
    with pytest.raises(SettingsError, match=message):
        Shvit(SHVIT["shvit_s1"], dims, channels, norm_eps=eps)
    with pytest.raises(SettingsError, match=message):
        EfficientVitM(EFFICIENTVIT_M["efficientvit_m0"], dims, channels, norm_eps=eps)


@pytest.mark.parametrize("numbers", [(0, 3), (3, 0)])
def test_head_without_channels_or_classes_is_refused(numbers: tuple[int, int]) -> None:
    """A head needs a channel and a class."""
    with pytest.raises(SettingsError, match="at least 1 of each"):
        LargeStrideHead(*numbers, 2)
