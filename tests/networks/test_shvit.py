"""SHViT: its attention and its keys."""

from __future__ import annotations

import torch

from effvit_med.networks.large_stride import large_stride_style, softmax_attention
from effvit_med.networks.presets.shvit import SHVIT
from effvit_med.networks.shvit import Shvit, SingleHeadAttention


def test_attention_is_the_softmax_of_all_pairs() -> None:
    """Voxel by voxel, the result is the mean of all values, weighted by exp(q . k / sqrt(dim))."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 16, 5), torch.randn(2, 16, 5), torch.randn(2, 3, 5)
    found = softmax_attention(q, k, v)
    for batch in range(2):
        for token in range(5):
            weights = torch.stack([(q[batch, :, token] @ k[batch, :, other] / 4).exp() for other in range(5)])
            torch.testing.assert_close(found[batch, :, token], v[batch] @ (weights / weights.sum()))


def test_attention_of_large_half_values_is_finite() -> None:
    """Products beyond the range of float16 do not overflow."""
    large = torch.full((1, 16, 4), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.float16):
        assert (softmax_attention(large, large, large) == 300).all()


def test_only_the_first_channels_are_attended() -> None:
    """A change of one voxel in the other channels changes the output at that voxel alone; in the first, everywhere."""
    torch.manual_seed(0)
    attention = SingleHeadAttention(large_stride_style(3, 1e-5), 20, 8, 16).eval()
    x = torch.randn(1, 20, 3, 2, 4)
    changed = []
    for channel in (7, 8):
        other = x.clone()
        other[0, channel, 1, 0, 2] += 5
        with torch.inference_mode():
            changed.append(int(((attention(other) - attention(x)).abs().amax(1) > 1e-6).sum()))
    assert changed == [24, 1]


def test_first_stage_has_no_attention() -> None:
    """The first stage holds no weight of an attention, the others one in each block."""
    with torch.device("meta"):
        keys = Shvit(SHVIT["shvit_s4"], 2, 3).state_dict()
    found = [key for key in keys if key.endswith("mixer.m.pre_norm.weight")]
    assert found == [
        f"blocks{stage}.{block}.mixer.m.pre_norm.weight" for stage, n in ((2, 7), (3, 6)) for block in range(3, 3 + n)
    ]
