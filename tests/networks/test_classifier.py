"""Facts about the published classification head."""

from __future__ import annotations

import pytest
import torch

from effvit_med.networks import create_classifier
from effvit_med.networks.classifier import ClsHead, GlobalPool


def test_pooling_is_the_mean_over_every_axis() -> None:
    """One number per channel, whatever the number of axes."""
    x = torch.arange(24.0).reshape(1, 2, 2, 3, 2)
    torch.testing.assert_close(GlobalPool()(x), torch.tensor([[5.5, 17.5]]))


def test_only_the_last_linear_layer_has_a_bias() -> None:
    """The layer before is normalised instead, as published."""
    head = create_classifier("efficientvit_b0").head
    assert isinstance(head, ClsHead)
    names = [name for name, _ in head.named_parameters() if "linear" in name]
    assert names == ["op_list.2.linear.weight", "op_list.3.linear.weight", "op_list.3.linear.bias"]


@pytest.mark.parametrize("size", [(7, 9), (64, 32)])
def test_any_image_size_can_be_classified(size: tuple[int, int]) -> None:
    """Pooling leaves no trace of the size."""
    with torch.inference_mode():
        assert create_classifier("efficientvit_b0", classes=3).eval()(torch.randn(1, 3, *size)).shape == (1, 3)
