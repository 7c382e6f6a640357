"""What a network costs before it runs: how many numbers it holds and how many operations it takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(network: nn.Module) -> int:
    """How many numbers are trained.

    Args:
        network: any module.

    Examples:
        >>> count_parameters(nn.Linear(3, 2))
        8
    """
    return sum(parameter.numel() for parameter in network.parameters())


def build_empty(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in eval mode without memory for its weights, to be counted but not run.

    Args:
        build: makes the network.
    """
    with torch.device("meta"):
        return build().eval()


def count_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one call: two for each product of convolutions, matrix products and attention.

    Element-wise operations, normalisations and interpolation are not counted, as in the published figures; those
    usually give half of this number, the products.

    Args:
        network: a network from `build_empty`, in eval mode; one with weights, folded or not, costs the same.
        shape: of the input, batch and channels first.

    Examples:
        >>> count_flops(build_empty(lambda: nn.Conv2d(1, 1, 3, padding=1)), (1, 1, 10, 10))
        1800
    """
    device = next(network.parameters()).device
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.empty(shape, device=device))
    return counter.get_total_flops()
