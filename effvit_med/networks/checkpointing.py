"""Memory for time in training: what a stage computes inside is computed again when its gradients are wanted."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_stage(stage: nn.Module, x: Tensor, *, checkpointing: bool) -> Tensor:
    """The output of one stage; with checkpointing its inner maps are computed again in the backward pass, not kept.

    Args:
        stage: the module.
        x: its input.
        checkpointing: whether to trade time for memory; without gradients it changes nothing.
    """
    if not checkpointing or not torch.is_grad_enabled():
        return stage(x)
    if torch.compiler.is_compiling():
        return checkpoint(stage, x, use_reentrant=False)
    return checkpoint(stage, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _Recomputation(stage)))


class _Recomputation:
    """While it lasts, batch normalisations do not count what they see: in the forward pass they saw it already."""

    def __init__(self, stage: nn.Module) -> None:
        self.norms = [
            module
            for module in stage.modules()
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) and module.training and module.track_running_stats
        ]
        self.momenta = [norm.momentum for norm in self.norms]

    def __enter__(self) -> None:
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
