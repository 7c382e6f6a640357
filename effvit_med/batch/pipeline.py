"""Three processes in a row, one case at a time in each, and a parent that survives the death of any of them."""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from effvit_med.batch.feed import Arrived, Broken, Feed
from effvit_med.batch.messages import Answer, Ended, Note, Order, Ready, Step, Unfit
from effvit_med.batch.options import BatchOptions
from effvit_med.batch.process import Inbox, StageProcess
from effvit_med.batch.scratch import open_scratch
from effvit_med.engine.stages import CaseResult, Task
from effvit_med.errors import CancelledError, SettingsError, TemporaryError

log = logging.getLogger(__name__)

STAGES = ("read", "segment", "write")

WAITING = 2
"""Volumes that may wait between two stages."""

_TICK_S = 0.5


@dataclass(frozen=True)
class BatchEvent:
    """Something to show.

    Attributes:
        kind: ``finding``, ``found``, ``stage`` (a case enters a stage), ``step`` (within a stage), ``finished``,
            ``restarted`` (a process had died) or ``waiting`` (for the model).
        case_id: of which case; empty for the whole.
        stage: where.
        done: how far, of ``total``.
        total: 0 where it is not known.
        message: words for people.
    """

    kind: str
    case_id: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    message: str = ""


@dataclass
class _Flight:
    """A case on its way."""

    task: Task
    folder: Path
    attempts: dict[str, int] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    @property
    def tries(self) -> int:
        return max(self.attempts.values(), default=1)


class Pipeline:
    """The processes of a batch, for any number of cases.

    Args:
        options: of the batch.
        on_event: told what happens, from the thread that calls `run`.

    Raises:
        OutputError: when entered, if there is no room for temporary files.

    Examples:
        The model is loaded once; cases may arrive while others run::

            with Pipeline(BatchOptions(bundle)) as pipeline:
                pipeline.run(tasks, lambda result: print(result.case_id, result.status))
    """

    def __init__(self, options: BatchOptions, on_event: Callable[[BatchEvent], None] | None = None) -> None:
        self._options = options
        self._on_event = on_event or (lambda _: None)
        self._stack = contextlib.ExitStack()
        self._inbox: Inbox = queue.Queue()
        self._processes: list[StageProcess] = []
        self._current: dict[str, _Flight] = {}
        self._waiting: dict[str, deque[_Flight]] = {stage: deque() for stage in STAGES}
        self._number = 0
        self._on_result: Callable[[CaseResult], None] = lambda _: None

    def __enter__(self) -> Self:
        self.scratch = self._stack.enter_context(open_scratch(self._options.scratch))
        factories = self._options.stages
        for name in STAGES:
            process = StageProcess(
                name, getattr(factories, name), self._options, self.scratch, self._inbox, one_thread=name != "segment"
            )
            self._stack.callback(process.close)
            self._processes.append(process)
        self._processes[1].start()  # it takes longest to load; the others begin with the first case
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def model(self) -> Mapping[str, Any]:
        """What the segmenting process says of the model, its device and our versions; waits until it is loaded.

        Raises:
            SettingsError: if a process cannot start: a wrong bundle, setting or device.
        """
        process = self._processes[1]
        while not process.was_ready:
            self._on_event(BatchEvent("waiting", message="loading the model"))
            self._take_message(None)
            self._check_times()
        return process.about

    @property
    def peak_mb(self) -> dict[str, float]:
        """The most memory that the process of each stage has held, in MiB."""
        return {process.name: process.peak_mb for process in self._processes}

    def run(
        self,
        cases: Iterable[Task],
        on_result: Callable[[CaseResult], None],
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do all cases; what goes wrong with one is its result.

        Args:
            cases: taken one at a time, in a thread of its own, as there is room: they may arrive slowly.
            on_result: called once for every case, in the order in which they end.
            cancelled: asked twice a second; True stops the run.

        Raises:
            SettingsError: if a process cannot start.
            TemporaryError: if the disk is full or the device is lost; cases without a result were not done.
            CancelledError: if ``cancelled`` said so.
        """
        self._on_result = on_result
        feed = Feed(cases, self._inbox)
        try:
            while not feed.is_over or any(self._count(stage) for stage in STAGES):
                self._assign()
                if not self._count("read"):
                    feed.ask()
                self._take_message(feed)
                self._check_times()
                if cancelled and cancelled():
                    raise CancelledError("Stopped by the user; what is finished stays.")
        except BaseException:
            self._abandon()
            raise
        finally:
            feed.close()

    def _abandon(self) -> None:
        """End what is in the middle of a case, so that the next call of `run` begins afresh."""
        for process in self._processes:
            if process.name in self._current:
                process.close()
        for flight in (*self._current.values(), *(each for line in self._waiting.values() for each in line)):
            shutil.rmtree(flight.folder, ignore_errors=True)
        self._current.clear()
        for line in self._waiting.values():
            line.clear()

    def _count(self, stage: str) -> int:
        """Cases that wait for a stage or are in it."""
        return len(self._waiting[stage]) + (stage in self._current)

    def _assign(self) -> None:
        """Give every idle process its next case, unless too many wait behind it."""
        for index in reversed(range(len(STAGES))):
            name, process = STAGES[index], self._processes[index]
            crowded = index + 1 < len(STAGES) and len(self._waiting[STAGES[index + 1]]) >= WAITING
            if not process.is_ready or process.busy_since is not None or crowded or not self._waiting[name]:
                continue
            flight = self._waiting[name].popleft()
            flight.attempts[name] = flight.attempts.get(name, 0) + 1
            self._current[name] = flight
            before = tuple(flight.folder / each for each in STAGES[:index])
            parcel = flight.folder / name if index + 1 < len(STAGES) else None
            if parcel is not None:
                shutil.rmtree(parcel, ignore_errors=True)  # of a try that ended in the middle
            process.give(Order((flight.task,), before, parcel))
            self._on_event(BatchEvent("stage", flight.task.case_id, name))

    def _take_message(self, feed: Feed | None) -> None:
        """Wait a little for something to happen, and act on it."""
        try:
            sender, message = self._inbox.get(timeout=_TICK_S)
        except queue.Empty:
            return
        if isinstance(message, (Arrived, Broken)):
            if sender is feed and feed is not None:
                self._admit(feed.take(message))
            return
        process, popen = sender
        if process.owns(popen):
            self._hear(process, message)

    def _admit(self, task: Task | None) -> None:
        if task is not None:
            for process in self._processes:
                if not process.is_started:
                    process.start()
            self._number += 1
            folder = self.scratch / f"case-{self._number:06d}"
            folder.mkdir(mode=0o700)
            self._waiting["read"].append(_Flight(task, folder))

    def _hear(self, process: StageProcess, message: object) -> None:
        flight = self._current.get(process.name)
        if isinstance(message, Ready):
            process.welcome(message.about)
        elif isinstance(message, Unfit):
            self._refuse_to_start(process, message)
        elif isinstance(message, Note):
            log.log(message.level, "%s", message.text)
        elif isinstance(message, Step):
            case_id = flight.task.case_id if flight else ""
            self._on_event(BatchEvent("step", case_id, process.name, message.done, message.total, message.phase))
        elif isinstance(message, Ended):
            self._bury(process)
        elif isinstance(message, Answer):
            process.busy_since = None
            process.peak_mb = max(process.peak_mb, message.peak_mb)
            if flight is not None:
                self._go_on(process, flight, message)

    def _go_on(self, process: StageProcess, flight: _Flight, answer: Answer) -> None:
        """A case leaves a stage: for the next one, or with its result."""
        del self._current[process.name]
        name = process.name
        flight.wall_s[name] = flight.wall_s.get(name, 0.0) + answer.wall_s
        flight.cpu_s[name] = flight.cpu_s.get(name, 0.0) + answer.cpu_s
        if answer.verdict == "stop":
            message = _conceal(flight.task, answer.message)
            raise TemporaryError(f"{message} Finished cases stay; run the same command again later.")
        if answer.verdict == "device":
            self._restart(process)
            if flight.attempts[name] <= self._options.retry:
                self._waiting[name].appendleft(flight)
            else:
                self._finish(flight, "failed", answer.code, answer.message, answer.trace)
        elif answer.verdict != "ok":
            self._finish(flight, answer.verdict, answer.code, answer.message, answer.trace)
        elif name != STAGES[-1]:
            self._waiting[STAGES[STAGES.index(name) + 1]].append(flight)
        else:
            self._deliver(flight, answer.value)

    def _bury(self, process: StageProcess) -> None:
        """A process has died: its case has failed or is tried again, and the process is started anew."""
        overdue, died_young = process.overdue, not process.is_ready
        how, trace = process.explain_end()
        if died_young:
            how = "took too long to load" if overdue else how
            self._refuse_to_start(process, Unfit(f"it {how}", is_ours=False))
        flight = self._current.pop(process.name, None)
        self._restart(process)
        if flight is None:
            log.error("the %s process %s while it had nothing to do, and was started again", process.name, how)
            return
        if overdue:
            limit = self._options.case_timeout_s
            message = f"The {process.name} stage took longer than {limit:g} s and was stopped."
            self._finish(flight, "failed", "TIMEOUT", message, trace)
        elif flight.attempts[process.name] <= self._options.retry:
            log.warning("%s: the %s process %s; trying again", flight.task.case_id, process.name, how)
            self._waiting[process.name].appendleft(flight)
        else:
            self._finish(flight, "failed", "CRASHED", f"The {process.name} process {how}.", trace)

    def _restart(self, process: StageProcess) -> None:
        process.close()
        process.start()
        self._on_event(BatchEvent("restarted", stage=process.name))

    def _refuse_to_start(self, process: StageProcess, why: Unfit) -> None:
        """Raise what it means that a process cannot start: at first a wrong setting, later a loss."""
        if process.was_ready:
            raise TemporaryError(
                f"The {process.name} process cannot be started again: {why.message} The device or the machine may "
                "be in trouble. Finished cases stay; run the same command again later."
            )
        if why.is_ours:
            raise SettingsError(why.message)
        raise SettingsError(f"The {process.name} process cannot start: {why.message}.")

    def _check_times(self) -> None:
        for process in self._processes:
            process.look_after(self._options.case_timeout_s)

    def _finish(self, flight: _Flight, status: str, code: str, message: str, trace: str = "") -> None:
        message = _conceal(flight.task, message)
        log.warning("%s %s: %s", status, flight.task.case_id, message)
        result = CaseResult(flight.task.case_id, status, code, message, input=flight.task.input, trace=trace)
        self._deliver(flight, result)

    def _deliver(self, flight: _Flight, result: CaseResult) -> None:
        shutil.rmtree(flight.folder, ignore_errors=True)
        result = replace(result, attempts=flight.tries, stage_seconds=dict(flight.wall_s))
        result = replace(result, stage_cpu_seconds=dict(flight.cpu_s))
        self._on_result(result)


def _conceal(task: Task, message: str) -> str:
    hidden = task.concealment
    return hidden.text(message) if hidden else message
