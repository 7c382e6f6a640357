"""The mask decoder of SAM."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effvit_med.errors import SettingsError
from effvit_med.networks.presets.sam import MaskDecoderPreset
from effvit_med.networks.sam_decoder import Attention, DoublingConv, MaskDecoder
from effvit_med.networks.sam_encoder import ChannelNorm

PRESET = MaskDecoderPreset(mlp_channels=64, iou_channels=32)


@pytest.fixture(name="decoder")
def _decoder() -> MaskDecoder:
    return MaskDecoder(32, PRESET, norm_eps=1e-6).eval()


def _inputs(images: int, prompts: int) -> dict[str, torch.Tensor]:
    return {
        "image_embeddings": torch.randn(images, 32, 8, 8),
        "image_pe": torch.randn(1, 32, 8, 8),
        "sparse_prompt_embeddings": torch.randn(prompts, 3, 32),
        "dense_prompt_embeddings": torch.randn(prompts, 32, 8, 8),
    }


def test_one_mask_is_the_one_before_the_three(decoder: MaskDecoder) -> None:
    """The decoder draws four masks: the first is for clear prompts, the others for ambiguous ones."""
    inputs = _inputs(1, 1)
    one, one_rating = decoder(**inputs, multimask_output=False)
    three, three_rating = decoder(**inputs, multimask_output=True)
    assert (tuple(one.shape), tuple(three.shape)) == ((1, 1, 32, 32), (1, 3, 32, 32))
    assert (tuple(one_rating.shape), tuple(three_rating.shape)) == ((1, 1), (1, 3))
    assert not any(torch.allclose(one[:, 0], three[:, index]) for index in range(3))


@pytest.mark.parametrize("images", [1, 4])
def test_prompts_of_a_batch_do_not_mix(decoder: MaskDecoder, images: int) -> None:
    """Several prompts at once, on one image or each on its own, give what each gives alone."""
    inputs = _inputs(images, 4)
    masks, ratings = decoder(**inputs, multimask_output=True)
    for index in range(4):
        alone = {name: each[index : index + 1] if each.shape[0] == 4 else each for name, each in inputs.items()}
        wanted, wanted_rating = decoder(**alone, multimask_output=True)
        torch.testing.assert_close(masks[index : index + 1], wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ratings[index : index + 1], wanted_rating, atol=1e-5, rtol=1e-4)


def test_order_of_prompt_tokens_does_not_matter(decoder: MaskDecoder) -> None:
    """Tokens carry their own place: shuffled prompts give the same masks."""
    inputs = _inputs(1, 1)
    masks, _ = decoder(**inputs, multimask_output=True)
    inputs["sparse_prompt_embeddings"] = inputs["sparse_prompt_embeddings"].flip(1)
    torch.testing.assert_close(decoder(**inputs, multimask_output=True)[0], masks, atol=1e-5, rtol=1e-4)


def test_attention_is_that_of_torch() -> None:
    """Without narrowing it is multi-head attention as torch has it."""
    attention = Attention(32, 4)
    torch_one = nn.MultiheadAttention(32, 4, batch_first=True)
    names = ("q_proj", "k_proj", "v_proj")
    with torch.no_grad():
        torch_one.in_proj_weight.copy_(torch.cat([getattr(attention, name).weight for name in names]))
        torch_one.in_proj_bias.copy_(torch.cat([getattr(attention, name).bias for name in names]))
        torch_one.out_proj.weight.copy_(attention.out_proj.weight)
        torch_one.out_proj.bias.copy_(attention.out_proj.bias)
        q, k, v = torch.randn(2, 3, 32), torch.randn(2, 5, 32), torch.randn(2, 5, 32)
        torch.testing.assert_close(attention(q, k, v), torch_one(q, k, v)[0])


@pytest.mark.parametrize("batch", [1, 2])
def test_doubling_is_the_transposed_convolution(batch: int) -> None:
    """The matrix product gives what torch's own operator gives, gradients included."""
    conv = DoublingConv(6, 4)
    x = torch.randn(batch, 6, 5, 3, requires_grad=True)
    wanted = nn.functional.conv_transpose2d(x, conv.weight, conv.bias, stride=2)
    torch.testing.assert_close(conv(x), wanted)
    weight = torch.randn_like(wanted)
    gradients = [torch.autograd.grad((y * weight).sum(), [x, *conv.parameters()]) for y in (conv(x), wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_channels_are_normalised_at_each_pixel() -> None:
    """The mean over channels is the shift's, the deviation the scale's, whatever the memory layout."""
    norm = ChannelNorm(7, eps=1e-6)
    x = torch.randn(2, 7, 5, 4) * 3 + 1
    centred = x - x.mean(1, keepdim=True)
    wanted = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), wanted)
    torch.testing.assert_close(norm(x.contiguous(memory_format=torch.channels_last)), wanted)


def test_every_parameter_that_is_used_gets_a_gradient(decoder: MaskDecoder) -> None:
    """No parameter is left out of the graph; what draws the mask that was not asked for gets zeros."""
    masks, ratings = decoder(**_inputs(1, 2), multimask_output=True)
    (masks.square().mean() + ratings.square().mean()).backward()
    assert [name for name, p in decoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    zero = {name for name, p in decoder.named_parameters() if p.grad is not None and not p.grad.any()}
    unused = {name for name in zero if not name.endswith("k_proj.bias")}  # a shift of all keys changes no softmax
    assert {name.rsplit(".layers", 1)[0] for name in unused} == {"output_hypernetworks_mlps.0"}


def test_wrong_numbers_are_refused(decoder: MaskDecoder) -> None:
    """Two images and three prompts do not go together; nor do 12 channels and 8 heads."""
    with pytest.raises(SettingsError, match="2 image embeddings and 3 prompts"):
        decoder(**_inputs(2, 3), multimask_output=True)
    with pytest.raises(SettingsError, match="12 channels cannot be split into 8 heads"):
        Attention(12, 8)
