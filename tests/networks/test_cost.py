"""Facts about counting parameters and operations."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from effvit_med.networks import build_network, create_backbone, fold_batchnorm
from effvit_med.networks.cost import build_empty, count_flops, count_parameters


def test_a_product_counts_two() -> None:
    """A dense 3 x 3 convolution of 4 to 8 channels on 10 x 10 pixels: 2 x 9 x 4 x 8 x 100."""
    network = build_empty(lambda: nn.Conv2d(4, 8, 3, padding=1))
    assert count_flops(network, (1, 4, 10, 10)) == 2 * 9 * 4 * 8 * 100


def test_counting_needs_no_memory_for_weights() -> None:
    """An empty network lies on the meta device, with all its parameters counted."""
    network = build_empty(partial(create_backbone, "efficientvit_l3"))  # type: ignore[arg-type]
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert round(count_parameters(network) / 1e6, 3) == 193.998


def test_cost_grows_linearly_with_the_pixels() -> None:
    """Four times the pixels, four times the operations: no quadratic term, in both dimensions."""
    for dims, size in ((2, 256), (3, 32)):
        network = build_empty(partial(build_network, dims, 1, 3))
        small, large = (count_flops(network, (1, 1, *(side,) * dims)) for side in (size, 2 * size))
        assert abs(large / small - 2**dims) < 0.01
    assert torch.tensor(0).device.type == "cpu"


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_l0", "efficientvit_m0", "shvit_s1"])
def test_weights_and_folding_do_not_change_the_cost(name: str) -> None:
    """A network with weights, as it is and folded, counts as many operations as an empty one."""
    build = partial(build_network, 2, 1, 3, name)
    wanted = count_flops(build_empty(build), (1, 1, 64, 40))
    network = build().eval()
    assert count_flops(network, (1, 1, 64, 40)) == wanted
    assert count_flops(fold_batchnorm(network), (1, 1, 64, 40)) == wanted
