"""Ending a run that no longer gets better."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping

from effvit_med.errors import SettingsError

log = logging.getLogger(__name__)


class StopEarly:
    """A MONAI handler of the trainer over ignite's `EarlyStopping`: it ends the run when validations get no better.

    Args:
        evaluator: whose key metric counts.
        patience: after how many validations without a better one the run ends; 0 for never.
        least_gain: by how much one must be better to count.

    Raises:
        SettingsError: if the patience is negative.
    """

    def __init__(self, evaluator: Engine, patience: int, least_gain: float = 0.0) -> None:
        if patience < 0:
            raise SettingsError(f"patience is {patience}; give a number of validations, or 0 to run to the end.")
        self.evaluator = evaluator
        self.patience = patience
        self.least_gain = least_gain
        self._handler: EarlyStopping | None = None

    def attach(self, engine: Engine) -> None:
        """Watch the evaluator and end this engine's run."""
        if not self.patience:
            return
        self._handler = EarlyStopping(self.patience, _score, engine, threshold=self.least_gain)
        self.evaluator.add_event_handler(Events.COMPLETED, self._handler)

    def state_dict(self) -> dict[str, Any]:
        """How many validations were no better, and the best; empty where none are counted."""
        return dict(self._handler.state_dict()) if self._handler else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting.

        Args:
            state: what `state_dict` gave.
        """
        if self._handler and state:
            self._handler.load_state_dict(state)


def _score(engine: Any) -> float:
    return float(engine.state.metrics[engine.state.key_metric_name])
