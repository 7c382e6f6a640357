"""One long task at a time, and what is said of it. Neither napari nor Qt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from effvit_med.errors import EffvitError
from napari_effvit_med.state import Countdown, describe_seconds
from napari_effvit_med.tasks import Event, Failed, Finished, Progressed, Task, Work

log = logging.getLogger(__name__)

Starter = Callable[[Task], Task]

PHASES = {
    "look": "looking at files",
    "open": "opening the scan",
    "load": "loading the model",
    "prepare": "preparing the scan",
    "region": "looking for the body",
    "network": "segmenting",
    "measure": "measuring",
    "estimate": "timing one window",
    "review": "opening the review",
}
"""What a task does, by the word that it reports, as the user reads it."""


class TaskRunner:
    """Begins a task, tells how far it is, and takes in what it made.

    Args:
        start: how a task is begun; `Task.run_here` for scripts.

    Attributes:
        message: the last thing to say.
        is_error: whether that is bad news.
        fraction: how far the running task is, 0 to 1; None if that is not known.
        on_change: called after anything changed.
    """

    def __init__(self, start: Starter = Task.start) -> None:
        self.message, self.is_error = "", False
        self.fraction: float | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._start = start
        self._task: Task | None = None
        self._then: Callable[[Any], None] = lambda _: None
        self._countdown = Countdown()
        self._stopping = False

    @property
    def running(self) -> str:
        """What is running; empty if nothing is."""
        return self._task.name if self._task else ""

    def stop(self) -> None:
        """Ask the running task to stop; it does within one window."""
        if self._task:
            self._task.stop()
            self._stopping = True
            self.say("Stopping ...")

    def poll(self) -> None:
        """Take in what the running task reported."""
        task = self._task
        if task is None:
            return
        for event in task.poll():
            if task is not self._task:
                return  # what an older task says is of no use any more
            self._take(event)

    def say(self, message: str, *, error: bool = False) -> None:
        """Show a message.

        Args:
            message: for the user.
            error: whether it is bad news.
        """
        self.message, self.is_error = message, error
        self.on_change()

    def _begin(self, name: str, work: Work, then: Callable[[Any], None]) -> None:
        if self._task:
            self.say(f"{self._task.name} is not finished yet; stop it first.", error=True)
            return
        self._then, self.fraction, self._stopping, self._countdown = then, None, False, Countdown()
        self.say(f"{name} ...")
        self._task = Task(name, work)
        self._start(self._task)
        self.on_change()

    def _take(self, event: Event) -> None:
        if isinstance(event, Progressed):
            left = self._countdown.update(event.phase, event.done, event.total, time.monotonic())
            self.fraction = event.done / event.total if event.total else None
            words = PHASES.get(event.phase, event.phase)
            seconds = describe_seconds(left)
            if not self._stopping:
                self.say(f"{words}, {seconds}" if seconds else words)
            return
        self._task, self.fraction = None, None
        if isinstance(event, Failed):
            self.say(event.message, error=not event.cancelled)
        elif isinstance(event, Finished):
            try:
                self._then(event.value)
            except EffvitError as error:
                self.say(str(error), error=True)
            except Exception as error:
                log.exception("showing the result failed")
                self.say(f"The result cannot be shown: {type(error).__name__}: {error}", error=True)
