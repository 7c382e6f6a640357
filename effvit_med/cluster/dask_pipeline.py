"""The pipeline of a batch on a dask.distributed cluster that runs already: one case in flight on each worker."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from effvit_med.batch import BatchEvent, BatchOptions, BatchSummary, run_batch
from effvit_med.batch.messages import Answer
from effvit_med.batch.scratch import open_scratch
from effvit_med.cluster.case_order import MARK, CaseOrder, Requirements, describe_model, run_case
from effvit_med.cluster.extras import require
from effvit_med.cluster.window import Outcome, Questions, Window, WindowRules, list_workers
from effvit_med.engine.stages import CaseResult, Task
from effvit_med.errors import EffvitError, SettingsError, TemporaryError
from effvit_med.io.atomic import make_folder

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 15.0
"""How long the scheduler may take to answer."""

FIRST_WORKER_TIMEOUT_S = 60.0
"""How long the first worker may take to appear."""

CHECK_TIMEOUT_S = 60.0
"""How long a worker may take to look at the folders; it imports effvit-med first."""


def run_on_scheduler(
    address: str,
    source: Path,
    output: Path,
    options: BatchOptions,
    *,
    on_event: Callable[[BatchEvent], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> BatchSummary:
    """A batch whose cases are done by the workers of a dask.distributed cluster; all else is as in `run_batch`.

    Args:
        address: of the scheduler, such as ``tcp://host:8786``.
        source: what to segment; the workers see it at the same path.
        output: the folder for results; the workers see it at the same path.
        options: how.
        on_event: told what happens.
        cancelled: asked once a second; True stops the run.

    Returns:
        What became of it, also where it had to stop early.

    Raises:
        EffvitError: if the optional part ``cluster`` is not installed.
        InputError: if the input does not exist or cannot be searched.
        SettingsError: if a worker does not see the folders, or the bundle, a setting or the device is wrong there.
        OutputError: if the output folder cannot be written to.
    """
    require("distributed")
    source, output = Path(source).absolute(), Path(output).absolute()
    # what is unpacked has to be seen by the workers, too
    options = replace(options, scratch=options.scratch or output / "journal" / "scratch")

    def make_pipeline(settled: BatchOptions, tell: Callable[[BatchEvent], None]) -> DaskPipeline:
        return DaskPipeline(address, (source, output), settled, tell)

    return run_batch(source, output, options, on_event=on_event, cancelled=cancelled, make_pipeline=make_pipeline)


class DaskPipeline:
    """The workers of a cluster in the place of the three processes of a batch.

    Args:
        address: of the scheduler.
        paths: input and output, which all workers must see.
        options: of the batch.
        on_event: told what happens, from the thread that calls `run`.
        rules: how patient to be.
    """

    def __init__(
        self,
        address: str,
        paths: tuple[Path, Path],
        options: BatchOptions,
        on_event: Callable[[BatchEvent], None] | None = None,
        rules: WindowRules | None = None,
    ) -> None:
        self._address, self._options = address, options
        self._source, self._output = paths
        self._on_event = on_event or (lambda _: None)
        self._rules = rules or WindowRules(attempts=options.retry + 1)
        self._stack = contextlib.ExitStack()
        self._about: Mapping[str, Any] | None = None
        self.peak_mb: dict[str, float] = {}

    def __enter__(self) -> Self:
        try:
            self.scratch = self._stack.enter_context(open_scratch(self._options.scratch))
            self._notes = self._stack.enter_context(_open_notes(self._output))
            self._client = self._stack.enter_context(_connect(self._address))
            self._check_first_workers()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def model(self) -> Mapping[str, Any]:
        """What the first worker says of the model; it has loaded it by then.

        Raises:
            SettingsError: if it cannot: a wrong bundle, setting or device.
            TemporaryError: if the worker is lost meanwhile.
        """
        if self._about is None:
            self._on_event(BatchEvent("waiting", message="loading the model"))
            answer = self._result(self._submit(describe_model, self._requirements.options), None)
            if answer.verdict != "ok":
                raise SettingsError(f"A worker cannot load the model: {answer.message}")
            self._about = answer.value
        return self._about

    def run(
        self,
        cases: Iterable[Task],
        on_result: Callable[[CaseResult], None],
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Do all cases; what goes wrong with one is its result.

        Args:
            cases: taken one at a time as workers become free.
            on_result: called once for every case, in the order in which they end.
            cancelled: asked once a second; True stops the run.

        Raises:
            TemporaryError: if the scheduler or all workers are gone, or the disk is full.
            CancelledError: if ``cancelled`` said so.
        """
        ask: Questions[CaseOrder, Answer] = Questions(
            check=replace(self._requirements, weights_sha256=str(self.model.get("weights_sha256", ""))),
            begun=lambda order, attempt: order.was_begun(attempt),
            recover=_recover,
            cancelled=cancelled or (lambda: False),
        )
        window: Window[CaseOrder, Answer] = Window(self._client, run_case, self._rules, ask)
        for outcome in window.run(self._order(cases)):
            order = outcome.payload
            result = _settle(outcome)
            if result.status != "segmented":
                log.warning("%s %s: %s", result.status, result.case_id, result.message)
            on_result(result)
            order.forget()

    def _order(self, cases: Iterable[Task]) -> Iterator[CaseOrder]:
        options = replace(self._options, shard=None, scratch=None)
        for task in cases:
            order = CaseOrder(task, options, self._notes)
            order.forget()
            self._on_event(BatchEvent("stage", task.case_id, "segment"))
            yield order

    def _check_first_workers(self) -> None:
        """Wait for a worker, and hold each that is there against the folders."""
        end = time.monotonic() + FIRST_WORKER_TIMEOUT_S
        while not (found := list_workers(self._client)):
            if time.monotonic() > end:
                text = (
                    f"The dask scheduler at {self._address} has no workers. Start some, and run the same command again."
                )
                raise TemporaryError(text)
            time.sleep(0.2)
        futures = {address: self._submit(self._requirements, workers=[address]) for address in found}
        for address, future in futures.items():
            fault = self._result(future, CHECK_TIMEOUT_S)
            if fault:
                raise SettingsError(f"The dask worker at {address} {fault}.")

    @property
    def _requirements(self) -> Requirements:
        paths = (self._source, self._output, *([self._options.bundle] if self._options.bundle else []))
        options = replace(self._options, shard=None, scratch=None)
        return Requirements(tuple(path.absolute() for path in paths), self._notes, options)

    def _submit(self, function: Callable[..., Any], *arguments: Any, **where: Any) -> Any:
        key = f"effvit-med-{secrets.token_hex(8)}"
        return self._client.submit(function, *arguments, key=key, retries=0, pure=False, **where)

    def _result(self, future: Any, timeout_s: float | None) -> Any:
        from distributed import KilledWorker

        try:
            return future.result(timeout=timeout_s)
        except KilledWorker as error:
            raise TemporaryError("dask workers die while they load the model; look at their memory and logs") from error
        except (OSError, TimeoutError) as error:
            raise TemporaryError(f"a dask worker has not answered: {type(error).__name__}") from error
        except (ImportError, AttributeError) as error:
            # the worker could not even unpickle what it was asked
            raise SettingsError(
                f"effvit-med is not installed, or not in this version, on a dask worker: {error}"
            ) from error


@contextlib.contextmanager
def _connect(address: str) -> Iterator[Any]:
    """A client of the scheduler, whose own log does not mix with ours."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    from distributed import Client

    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        text = (
            f"No dask scheduler has answered at {address} in {CONNECT_TIMEOUT_S:.0f} s. Is it running, its port open?"
        )
        raise TemporaryError(text) from error
    except (ValueError, TypeError) as error:
        raise SettingsError(f"--scheduler is {address!r}: {error}. Give an address such as tcp://host:8786.") from error
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, TimeoutError):
            client.close(timeout=5)


@contextlib.contextmanager
def _open_notes(output: Path) -> Iterator[Path]:
    """A folder that this run shares with its workers; when it is left, workers stop."""
    notes = output / "journal" / "dask" / secrets.token_hex(4)
    make_folder(notes)
    (notes / MARK).touch()
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


def _recover(order: CaseOrder) -> Answer | None:
    """The answer of a worker that died after it had finished."""
    answer = order.answer()
    return None if answer is None or answer.verdict == "device" else answer


def _settle(outcome: Outcome[CaseOrder, Answer]) -> CaseResult:
    """What a case's outcome makes of it.

    Raises:
        TemporaryError: if it would meet every case.
        EffvitError: if dask could not run it at all.
    """
    order, answer = outcome.payload, outcome.result
    task, attempts = order.task, outcome.lost_workers + 1
    if outcome.error is not None:
        error = outcome.error
        raise EffvitError(f"The dask worker at {outcome.worker} cannot run a case: {type(error).__name__}: {error}")
    if answer is None:
        message = f"{outcome.lost_workers} dask workers died with it: killed, most likely for its memory, or crashed."
        answer = order.answer() or Answer("failed", code="CRASHED", message=message)
        attempts = outcome.lost_workers
    hidden = task.concealment
    message = hidden.text(answer.message) if hidden else answer.message
    if answer.verdict == "stop":
        raise TemporaryError(f"{message} Finished cases stay; run the same command again later.")
    if answer.verdict == "ok":
        seconds = {"total": answer.cpu_s}
        return replace(answer.value, attempts=attempts, stage_cpu_seconds=seconds)
    status = "refused" if answer.verdict == "refused" else "failed"
    return CaseResult(
        task.case_id, status, answer.code, message, input=task.input, attempts=attempts, trace=answer.trace
    )
