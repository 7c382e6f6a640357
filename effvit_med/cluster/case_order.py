"""A whole case on a dask worker: read, segmented and written there, with the model loaded once per process."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effvit_med import __version__
from effvit_med.batch import BatchOptions
from effvit_med.batch.messages import Answer
from effvit_med.batch.worker import judge, measure_peak_mb
from effvit_med.engine.concealment import digest
from effvit_med.engine.stages import Task
from effvit_med.errors import CancelledError, EffvitError
from effvit_med.io.atomic import atomic_path

MARK = "mark"
"""The file in a folder of notes by which a worker knows that it sees the same folder, and that the run goes on."""

_LOOK_FOR_STOP_S = 2.0
_DEVICE_LOST_EXIT = 75


@dataclass(frozen=True)
class CaseOrder:
    """One case for a worker.

    Attributes:
        task: the case.
        options: of the batch.
        notes: a folder that worker and client share: marks of what was begun, and answers.
    """

    task: Task
    options: BatchOptions
    notes: Path

    def was_begun(self, attempt: int) -> bool:
        """Whether a worker began with this attempt."""
        return self._note(f"begun-{attempt}").exists()

    def answer(self) -> Answer | None:
        """What a worker said of the case, if it got that far."""
        try:
            return pickle.loads(self._note("answer").read_bytes())  # noqa: S301 - written by our own worker
        except (OSError, EOFError, pickle.UnpicklingError):
            return None

    def forget(self) -> None:
        """Remove the notes on this case."""
        for note in self.notes.glob(f"{digest(self.task.case_id)}.*"):
            note.unlink(missing_ok=True)

    def mark_begun(self, attempt: int) -> None:
        """Say that a worker has begun; called there."""
        self._note(f"begun-{attempt}").touch()

    def keep_answer(self, answer: Answer) -> None:
        """Keep an answer where it outlives the worker; called there."""
        with atomic_path(self._note("answer")) as temporary:
            temporary.write_bytes(pickle.dumps(answer))

    def is_stopped(self) -> bool:
        """Whether the client is gone, or wants no more of this."""
        return not (self.notes / MARK).exists()

    def _note(self, kind: str) -> Path:
        return self.notes / f"{digest(self.task.case_id)}.{kind}"


def run_case(order: CaseOrder, attempt: int) -> Answer:
    """Do a case from its files to its results; on a worker.

    Nothing is raised, since dask writes what is raised, with values, into its own log.

    Args:
        order: the case.
        attempt: how many workers it has lost before this one.

    Returns:
        What became of it; ``value`` is the `CaseResult` where the verdict is ``ok``.
    """
    if order.is_stopped():
        return Answer("stop", code="STOPPED")
    before = order.answer()
    if before is not None and before.verdict != "device":
        return before  # dask has lost the result on its way, and asks again
    try:
        order.mark_begun(attempt)
    except OSError as error:
        return judge(error)
    with _silence():
        answer = _judge_case(order)
    if answer.verdict == "device":
        with contextlib.suppress(EffvitError):
            order.keep_answer(answer)
        os._exit(_DEVICE_LOST_EXIT)  # a process that lost its device cannot get it back; its nanny starts another
    if answer.verdict != "stop":
        with contextlib.suppress(EffvitError):
            order.keep_answer(answer)
    return answer


def describe_model(options: BatchOptions) -> Answer:
    """Load the model, and say what it is; on a worker.

    Args:
        options: of the batch.

    Returns:
        The description as ``value``, or why the model cannot be loaded.
    """
    with _silence():
        try:
            return Answer("ok", dict(_open_stages(options).about))
        except Exception as error:  # noqa: BLE001 - judged
            return judge(error)


@dataclass(frozen=True)
class Requirements:
    """What every worker must have.

    Attributes:
        paths: what it must see.
        notes: the folder that it shares with the client.
        options: of the batch.
        weights_sha256: of the model; None to leave the model alone.
        version: of effvit-med on the client.
    """

    paths: tuple[Path, ...]
    notes: Path
    options: BatchOptions
    weights_sha256: str | None = None
    version: str = __version__

    def __call__(self) -> str:
        """Why a worker is not fit for work, in words that follow on its name; nothing if it is. Called there."""
        if self.version != __version__:
            return f"has effvit-med {__version__}, not {self.version} as this machine"
        for path in self.paths:
            if not path.exists():
                return f"does not see {path}: give folders that all machines have under the same name"
        if not (self.notes / MARK).exists():
            return f"sees another folder at {self.notes.parents[2]} than this machine: give one that all share"
        trial = self.notes / f"trial-{secrets.token_hex(4)}"
        try:
            trial.touch()
            trial.unlink()
        except OSError as error:
            return f"cannot write to {self.notes.parents[2]}: {error.strerror}"
        return "" if self.weights_sha256 is None else self._find_fault_of_model(self.weights_sha256)

    def _find_fault_of_model(self, wanted: str) -> str:
        answer = describe_model(self.options)
        if answer.verdict != "ok":
            return f"cannot load the model: {answer.message}"
        found = str(answer.value.get("weights_sha256", ""))
        if found != wanted:
            return f"has a model with the weights {found[:12]}, not {wanted[:12]} as the first worker"
        return ""


@dataclass(frozen=True)
class _LoadedStages:
    """The functions that make up a case."""

    read: Any
    segment: Any
    write: Any

    @property
    def about(self) -> Mapping[str, Any]:
        return getattr(self.segment, "about", {})


_LOADED: dict[bytes, _LoadedStages] = {}
"""By options; one model only, since memory on a device is scarce."""

_LOADING = threading.Lock()


def _open_stages(options: BatchOptions) -> _LoadedStages:
    options = replace(options, shard=None, scratch=None)
    key = pickle.dumps(options)
    with _LOADING:
        if key not in _LOADED:
            _LOADED.clear()
            made = []
            for factory in (options.stages.read, options.stages.segment, options.stages.write):
                module, _, function = factory.partition(":")
                made.append(getattr(importlib.import_module(module), function)(options))
            _LOADED[key] = _LoadedStages(*made)
        return _LOADED[key]


def _judge_case(order: CaseOrder) -> Answer:
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        value = _do_case(order)
        answer = Answer("ok", value)
    except CancelledError:
        return Answer("stop", code="STOPPED")
    except Exception as error:  # noqa: BLE001 - judged
        answer = judge(error, keep_ids=order.options.keep_ids)
    taken = (time.perf_counter() - wall, time.process_time() - cpu)
    return replace(answer, wall_s=taken[0], cpu_s=taken[1], peak_mb=measure_peak_mb())


def _do_case(order: CaseOrder) -> Any:
    stages = _open_stages(order.options)
    looked = time.monotonic()

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal looked
        del phase, done, total
        if time.monotonic() - looked >= _LOOK_FOR_STOP_S:
            looked = time.monotonic()
            if order.is_stopped():
                raise CancelledError("stopped by the client")

    seconds: dict[str, float] = {}
    arguments: list[Any] = []
    for name in ("read", "segment", "write"):
        start = time.perf_counter()
        arguments.append(getattr(stages, name)(order.task, *arguments, progress=tell))
        seconds[name] = time.perf_counter() - start
    return replace(arguments[-1], stage_seconds=seconds)


@contextlib.contextmanager
def _silence() -> Any:
    """Keep our own lines, which may name files, out of a worker's log: findings and errors go to the client."""
    logger = logging.getLogger("effvit_med")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
