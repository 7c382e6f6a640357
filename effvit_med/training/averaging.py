"""An exponential moving average of the weights, which is what a run validates and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

from effvit_med.errors import SettingsError

_NAME = "ema_momentum"


class WeightAverage:
    """A MONAI handler of the trainer over ignite's `EMAHandler`, with a start that forgets the random weights soon.

    After step ``t`` the average keeps ``min(decay, (1 + t) / (10 + t))`` of itself. That depends on nothing but the
    number of steps, so a run that was stopped goes on as if it had not been.

    Args:
        network: whose weights are averaged.
        decay: how much of the average stays at each step; 0 for no average: `network` is then the network itself.

    Attributes:
        network: the average, to validate and to keep.

    Raises:
        SettingsError: if the decay is not at least 0 and below 1.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise SettingsError(f"ema_decay is {decay}; give 0 for none, or a share below 1 such as 0.999.")
        self.decay = decay
        self._handler = EMAHandler(network, momentum=1 - decay) if decay else None
        self.network: nn.Module = self._handler.ema_model if self._handler else network

    def attach(self, engine: Engine) -> None:
        """Average after each step."""
        if self._handler is None:
            return
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._set_momentum)
        self._handler.attach(engine, name=_NAME, warn_if_exists=False)

    def state_dict(self) -> dict[str, Any]:
        """The average's weights; empty where there is none."""
        return dict(self.network.state_dict()) if self._handler else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an average.

        Args:
            state: what `state_dict` gave.
        """
        if self._handler:
            self.network.load_state_dict(state)

    def _set_momentum(self, engine: Engine) -> None:
        step = engine.state.iteration
        setattr(engine.state, _NAME, 1 - min(self.decay, (1 + step) / (10 + step)))
