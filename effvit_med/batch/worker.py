"""A child of a batch: it loads one stage and does one case after another, until its parent is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from effvit_med.batch.messages import Answer, Note, Order, Ready, Start, Step, Unfit, receive, send
from effvit_med.batch.parcels import load_parcel, store_parcel
from effvit_med.engine.concealment import Concealment
from effvit_med.engine.stages import FULL_DISK, Task, has_errno
from effvit_med.errors import EffvitError, RefusedError

_STATUS = Path("/proc/self/status")
_STEP_INTERVAL_S = 0.5
_DEVICE_LOST = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "cuDNN error", "MPS backend", "HIP error")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


def main() -> None:
    """Serve the parent at the other end of standard input and output."""
    orders = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    _close_standard_streams()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides when to stop
        signal.signal(number, signal.SIG_IGN)
    _die_with_parent()
    _Worker(orders, answers).run()


class _Worker:
    def __init__(self, orders: BinaryIO, answers: BinaryIO) -> None:
        self._orders, self._answers = orders, answers
        self._lock = threading.Lock()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._concealment: Concealment | None = None
        self._is_searching = False
        self._told_s = 0.0

    def run(self) -> None:
        """Load the stage, then work."""
        start: Start = receive(self._orders)
        threading.Thread(target=self._listen, daemon=True).start()
        trace = start.trace_file.open("w")
        faulthandler.enable(trace)
        stage = self._load(start)
        while stage is not None:
            order = self._inbox.get()
            answer = self._work(stage, order, keep_ids=start.options.keep_ids)
            self._say(answer)
            del order, answer

    def _listen(self) -> None:
        """Take orders; the process ends with its parent, in the middle of whatever it does."""
        while True:
            try:
                self._inbox.put(receive(self._orders))
            except (EOFError, OSError):
                os._exit(0)

    def _load(self, start: Start) -> Any:
        _start_logging(self, start)
        _set_oom_score()
        module, _, function = start.factory.partition(":")
        try:
            stage = getattr(importlib.import_module(module), function)(start.options)
        except EffvitError as error:
            self._say(Unfit(str(error), is_ours=True))
            return None
        except Exception as error:  # noqa: BLE001 - told to the parent
            self._say(Unfit(f"{type(error).__name__}: {error}", is_ours=False))
            return None
        self._say(Ready(getattr(stage, "about", {})))
        return stage

    def _work(self, stage: Any, order: Order, *, keep_ids: bool) -> Answer:
        wall, cpu = time.perf_counter(), time.process_time()
        task = order.arguments[0]
        self._concealment = task.concealment if isinstance(task, Task) and not keep_ids else None
        self._is_searching = not isinstance(task, Task) and not keep_ids
        try:
            value = stage(*order.arguments, *(load_parcel(folder) for folder in order.parcels), progress=self._tell)
            if order.parcel is not None:
                store_parcel(value, order.parcel)
                value = None
            answer = Answer("ok", value)
        except Exception as error:  # noqa: BLE001 - judged
            answer = judge(error, keep_ids=keep_ids)
        gc.collect()
        taken = (time.perf_counter() - wall, time.process_time() - cpu)
        return Answer(
            answer.verdict, answer.value, answer.code, answer.message, answer.trace, *taken, peak_mb=measure_peak_mb()
        )

    def _tell(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told_s >= _STEP_INTERVAL_S:
            self._told_s = now
            self._say(Step(phase, done, total))

    def note(self, record: logging.LogRecord) -> None:
        """Pass a log line on, without names; while nobody knows the names yet, only where a warning was given."""
        if not self._is_searching:
            text = record.getMessage()
            self._say(Note(record.levelno, self._concealment.text(text) if self._concealment else text))
        elif record.levelno >= logging.WARNING:
            where = f"{record.module}:{record.lineno}"
            text = f"The search warns at {where}; the text may name a file, and --keep-ids shows it."
            self._say(Note(record.levelno, text))

    def _say(self, message: object) -> None:
        with self._lock, contextlib.suppress(OSError):  # a parent that is gone ends us soon
            send(self._answers, message)


def judge(error: Exception, *, keep_ids: bool = True) -> Answer:
    """What an error means for its case and for the others.

    Args:
        error: what a stage raised.
        keep_ids: whether the text of an error that is not ours is told: it may quote values of a file.
    """
    trace = shorten_trace(error)
    name = type(error).__name__
    if has_errno(error, FULL_DISK):
        return Answer("stop", code="DISK_FULL", message=str(error), trace=trace)
    if isinstance(error, RefusedError):
        return Answer("refused", code=error.code, message=str(error))
    if isinstance(error, EffvitError):
        return Answer("failed", code=name, message=str(error), trace=trace)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":
        message = f"{name}: the memory ran out. Give the process more, or set a limit with --memory-gb."
        return Answer("failed", code="NOT_ENOUGH_MEMORY", message=message, trace=trace)
    if any(words in str(error) for words in _DEVICE_LOST):
        return Answer("device", code="DEVICE_ERROR", message=f"{name}: {error}".splitlines()[0], trace=trace)
    text = f"{name}: {error}." if keep_ids else f"{name}; its text may quote the file, and --keep-ids shows it."
    message = f"{text} This is a fault of effvit-med; report it with the trace in the state file."
    return Answer("failed", code="CRASHED", message=message, trace=trace)


def shorten_trace(error: BaseException) -> str:
    """Module, line and function of each frame, innermost last; no values and no folders."""
    frames = traceback.extract_tb(error.__traceback__)
    return "\n".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-20:])


def measure_peak_mb() -> float:
    """The most memory that this process has held, in MiB; 0 where the system does not say."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0
    return round(int(line.split()[1]) / 1024, 1)


class _Forward(logging.Handler):
    """Sends log lines to the parent."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.note(record)


def _start_logging(worker: _Worker, start: Start) -> None:
    """Only our own lines: those of other libraries may quote header values."""
    logging.getLogger().addHandler(logging.NullHandler())
    ours = logging.getLogger("effvit_med")
    ours.addHandler(_Forward(worker))
    ours.setLevel(start.log_level)
    ours.propagate = False
    warnings.simplefilter("ignore")


def _close_standard_streams() -> None:
    """What libraries print may name files and patients: it goes nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _set_oom_score() -> None:
    """If the system runs out of memory, it takes a child rather than the parent."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
