"""Work beside the window: one thread per task, which reports through a queue that the window empties. Without Qt."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from effvit_med.errors import CancelledError, EffvitError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progressed:
    """How far a task is.

    Attributes:
        phase: what it does, in one word.
        done: how much of it is done.
        total: how much there is; 0 if that is not known.
    """

    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """What a task made.

    Attributes:
        value: what its work returned.
    """

    value: Any


@dataclass(frozen=True)
class Failed:
    """Why a task made nothing.

    Attributes:
        message: for the user: what happened and what to do.
        cancelled: whether the user wanted it.
    """

    message: str
    cancelled: bool = False


Event = Progressed | Finished | Failed


class Reporter:
    """What work is given to say how far it is, and to hear that it shall stop.

    Args:
        events: where to put what is said.
    """

    def __init__(self, events: queue.SimpleQueue[Event]) -> None:
        self._events = events
        self._stop = threading.Event()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Say how far the work is.

        Raises:
            CancelledError: if it shall stop.
        """
        if self._stop.is_set():
            raise CancelledError("Stopped.")
        self._events.put(Progressed(phase, done, total))

    def cancelled(self) -> bool:
        """Whether the work shall stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask the work to stop."""
        self._stop.set()


Work = Callable[[Reporter], Any]


class Task:
    """Work in a thread of its own. It never raises: what goes wrong is a `Failed`.

    Args:
        name: what it does, as the user reads it.
        work: called with a `Reporter`, in the thread.
    """

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self._work = work
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reporter = Reporter(self._events)
        self._thread = threading.Thread(target=self._run, name=f"effvit-med {name}", daemon=True)

    def start(self) -> Task:
        """Begin.

        Returns:
            The task.
        """
        self._thread.start()
        return self

    def run_here(self) -> Task:
        """Do the work now, in this thread, for scripts and tests.

        Returns:
            The task.
        """
        self._run()
        return self

    def stop(self) -> None:
        """Ask the work to stop; a `Failed` that is cancelled comes when it did."""
        self._reporter.stop()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the work ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def poll(self) -> list[Event]:
        """What was reported since the last call; of several reports of one phase only the last."""
        events: list[Event] = []
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return events
            if events and isinstance(event, Progressed) and isinstance(events[-1], Progressed):
                events[-1] = event
            else:
                events.append(event)

    def _run(self) -> None:
        self._events.put(_try(self.name, lambda: self._work(self._reporter)))


class Worker:
    """One thread that does one job after another, in the order they came; answers are taken in where `poll` is called.

    Args:
        name: of the thread.
        inline: do each job at once where it is put, for scripts and tests; answers still wait for `poll`.
    """

    def __init__(self, name: str, *, inline: bool = False) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Finished | Failed], None]] | None]
        self._jobs = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Callable[[Finished | Failed], None], Finished | Failed]]
        self._answers = queue.SimpleQueue()
        self._name, self._inline, self._closed = name, inline, False
        self._thread = threading.Thread(target=self._run, name=f"effvit-med {name}", daemon=True)
        self.unfinished = 0
        if not inline:
            self._thread.start()

    def put(self, work: Callable[[], Any], then: Callable[[Finished | Failed], None] = lambda _: None) -> None:
        """Do something after all that was put before.

        Args:
            work: called in the thread of the worker.
            then: called with its answer by `poll`.
        """
        if self._closed:
            return
        self.unfinished += 1
        if self._inline:
            self._answers.put((then, _try(self._name, work)))
        else:
            self._jobs.put((work, then))

    def poll(self) -> int:
        """Take in the answers that are there.

        Returns:
            How many there were.
        """
        count = 0
        while True:
            try:
                then, answer = self._answers.get_nowait()
            except queue.Empty:
                return count
            self.unfinished -= 1
            count += 1
            then(answer)

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what was put, take nothing more, and forget the answers.

        Args:
            timeout_s: wait so long at most; what is not done then is done without anybody waiting.
        """
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        if not self._inline:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, then = job
            self._answers.put((then, _try(self._name, work)))


def _try(name: str, work: Callable[[], Any]) -> Finished | Failed:
    """The answer of some work, which is never an exception."""
    try:
        return Finished(work())
    except CancelledError:
        return Failed("Stopped.", cancelled=True)
    except EffvitError as error:
        return Failed(str(error))
    except MemoryError:
        return Failed("The memory of this machine is not enough; close other programs and try again.")
    except Exception as error:
        log.exception("%s failed", name)
        return Failed(f"{name} failed: {type(error).__name__}: {error}")
