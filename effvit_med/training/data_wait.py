"""How much of a step goes by waiting for data."""

from __future__ import annotations

import logging
import time
from typing import Any

from ignite.engine import Engine, Events

log = logging.getLogger(__name__)


class DataWait:
    """A MONAI handler of the trainer that measures the share of the steps' time in which it waits for a batch.

    At the end of an epoch ``data_wait`` (from 0 to 1) and ``steps_per_second`` stand in the trainer's metrics. On a
    GPU, whose work goes on while the program waits, the share is an upper bound of what the GPU waits. The first batch
    of an epoch counts as well; validation does not.
    """

    def __init__(self) -> None:
        self._begun = self._asked = self._waited = 0.0
        self._steps = 0

    def attach(self, engine: Engine) -> None:
        """Measure while the trainer runs."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._ask)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._receive)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def _start(self, _: Engine) -> None:
        self._begun, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def _ask(self, _: Engine) -> None:
        self._asked = time.perf_counter()

    def _receive(self, _: Engine) -> None:
        self._waited += time.perf_counter() - self._asked
        self._steps += 1

    def _tell(self, engine: Engine) -> None:
        state: Any = engine.state
        whole = max(time.perf_counter() - self._begun, 1e-9)
        state.metrics["data_wait"] = self._waited / whole
        state.metrics["steps_per_second"] = self._steps / whole
        log.info(
            "epoch %d: %.2f steps per second, %.1f %% of the time waiting for data",
            state.epoch, self._steps / whole, 100 * self._waited / whole,
        )  # fmt: skip
