"""Cases taken from any iterable, one at a time and only when asked for, without ever waiting for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from effvit_med.batch.process import Inbox
from effvit_med.engine.stages import Task


@dataclass(frozen=True)
class Arrived:
    """The next case; None at the end."""

    task: Task | None


@dataclass(frozen=True)
class Broken:
    """What the iterable raised."""

    error: BaseException


class Feed:
    """Takes cases from an iterable in a thread of its own.

    Args:
        cases: may take any time for the next one.
        inbox: where `Arrived` and `Broken` are put, with this object as their sender.

    Attributes:
        is_over: whether the end was reached.
        is_asked: whether a case is on its way.
    """

    def __init__(self, cases: Iterable[Task], inbox: Inbox) -> None:
        self.is_over = False
        self.is_asked = False
        self._cases, self._inbox = cases, inbox
        self._wanted = threading.Semaphore(0)
        self._closed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def ask(self) -> None:
        """Ask for one case, unless one is on its way or there are no more."""
        if not self.is_asked and not self.is_over:
            self.is_asked = True
            self._wanted.release()

    def close(self) -> None:
        """Ask for no more."""
        self._closed = True
        self._wanted.release()

    def take(self, message: Arrived | Broken) -> Task | None:
        """What has arrived, once it has been received.

        Raises:
            BaseException: what the iterable raised.
        """
        self.is_asked = False
        if isinstance(message, Broken):
            self.is_over = True
            raise message.error
        self.is_over = message.task is None
        return message.task

    def _serve(self) -> None:
        try:
            cases = iter(self._cases)
            while True:
                self._wanted.acquire()
                if self._closed:
                    return
                task = next(cases, None)
                self._inbox.put((self, Arrived(task)))
                if task is None:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that runs the cases
            self._inbox.put((self, Broken(error)))
