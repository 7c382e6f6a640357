"""Keeping single steps from undoing many: gradients are clipped by their norm."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from effvit_med.errors import SettingsError


class GradientClip:
    """A MONAI handler of the trainer that scales gradients down whose norm over all weights passes a bound.

    The largest norm of an epoch, before clipping, stands under ``gradient_norm`` in the trainer's metrics at its end.
    Where gradients were scaled up for float16, they are brought back first.

    Args:
        max_norm: the bound; 0 for none.

    Raises:
        SettingsError: if the bound is negative.
    """

    def __init__(self, max_norm: float) -> None:
        if max_norm < 0:
            raise SettingsError(f"gradient_clip is {max_norm}; give a bound above 0, or 0 for none.")
        self.max_norm = max_norm
        self._largest: Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """Clip between the backward pass and the optimizer's step."""
        if self.max_norm:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _clip(self, engine: Any) -> None:
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        weights = [weight for group in engine.optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.max_norm)
        self._largest = norm if self._largest is None else torch.maximum(self._largest, norm)

    def _tell(self, engine: Any) -> None:
        if self._largest is not None:  # it stayed on its device until now, so no step waited for it
            engine.state.metrics["gradient_norm"] = float(self._largest)
        self._largest = None
