"""A convolution, its bias and its activation in one pass over memory, for inference on a CPU.

A network of thin layers waits for memory, not for arithmetic: adding a bias and applying an activation one after the
other reads and writes the whole map each time. oneDNN, which torch brings along, does all three at once; the compiler
of torch uses the same operators. They are no public interface of torch, so whatever speaks against them leads to the
plain way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effvit_med.networks.layers import PointConv2d, PointConv3d

#: oneDNN's name of each activation, and which formula of it.
_ACTIVATIONS: dict[str, tuple[str, str | None]] = {
    "none": ("none", None),
    "relu": ("relu", None),
    "prelu": ("leaky_relu", None),
    "hardswish": ("hardswish", None),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}


def _has_operators() -> bool:
    names = ("_linear_pointwise", "_convolution_pointwise")
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and all(hasattr(torch.ops.mkldnn, name) for name in names)


_AVAILABLE = _has_operators()


def _is_watched() -> bool:
    return torch._C._len_torch_dispatch_stack() > 0  # noqa: SLF001  torch has no public way to ask


def can_fuse(x: Tensor, conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether the fused operators give what the plain ones would: float32 on a CPU, no gradient, no graph being made.

    Convolutions that are watched by hooks, and whole calls that are watched by a dispatch mode of torch such as its
    counter of operations, take the plain way, as they would be passed over or seen under an unknown name.

    Args:
        x: the map.
        conv: the convolution.
    """
    if not _AVAILABLE or torch.is_grad_enabled() or type(x) is not Tensor or type(conv.weight) is not nn.Parameter:
        return False
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # documented, but not typed
    return (
        x.device.type == conv.weight.device.type == "cpu"
        and x.dtype == conv.weight.dtype == torch.float32
        and x.numel() > 0
        and x.dim() == conv.weight.dim()
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and not (conv._forward_hooks or conv._forward_pre_hooks)  # noqa: SLF001  torch has no public way to ask
        and bool(torch.backends.mkldnn.enabled)
        and not (tracing or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or _is_watched())
    )


def fused_convolution(x: Tensor, conv: nn.Conv2d | nn.Conv3d, activation: str, slope: Tensor | None = None) -> Tensor:
    """The convolved map with bias and activation; call it only where `can_fuse`.

    Args:
        x: the map, batch and channels first.
        conv: the convolution.
        activation: ``none`` or any `ActivationName`.
        slope: what a ``prelu`` multiplies negative values by, one number.

    Examples:
        >>> conv = nn.Conv2d(1, 1, 3, padding=1)
        >>> with torch.inference_mode():
        ...     x = torch.randn(1, 1, 8, 8)
        ...     fused = fused_convolution(x, conv, "relu")
        ...     bool(torch.allclose(fused, conv(x).relu(), atol=1e-6))
        True
    """
    name, formula = _ACTIVATIONS[activation]
    numbers = [] if slope is None else [float(slope)]
    if isinstance(conv, PointConv2d | PointConv3d) and conv.groups == 1:
        tokens = x.movedim(1, -1)
        weight = conv.weight.flatten(1)
        product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        out: Tensor = product(tokens, weight, conv.bias, name, numbers, formula)
        return out.movedim(-1, 1)
    if activation == "none":
        return conv(x)
    mapped: Tensor = torch.ops.mkldnn._convolution_pointwise(  # noqa: SLF001
        x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, name, numbers, formula
    )
    return mapped
