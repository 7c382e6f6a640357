"""One case in flight on each worker of a dask cluster: a worker that dies takes its own case with it and no other.

dask sends a worker several tasks ahead. When the worker dies, each of them is held to be a possible cause, and after a
few deaths healthy ones fail as well. Here the next case is sent when the last one has come back, so there is nothing
else to blame.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from effvit_med.errors import CancelledError, TemporaryError

log = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Result = TypeVar("Result")

GATHER_TIMEOUT_S = 30.0
"""How long a result may take from a worker to here; results are small."""


@dataclass(frozen=True)
class WindowRules:
    """How patient the window is.

    Attributes:
        attempts: how many workers a case may lose before it is given up.
        false_starts: how often a case may be sent to a worker that was already gone.
        poll_s: how often the list of workers is asked for.
        no_worker_timeout_s: how long to wait while there is no worker at all.
    """

    attempts: int = 2
    false_starts: int = 10
    poll_s: float = 1.0
    no_worker_timeout_s: float = 300.0


@dataclass(frozen=True)
class Outcome(Generic[Payload, Result]):
    """What came of one payload.

    Attributes:
        payload: what was sent.
        result: what the function returned; None if it did not.
        error: what the function raised; None if it did not.
        lost_workers: how many workers died with it.
        worker: the address of the worker that had it last.
    """

    payload: Payload
    result: Result | None = None
    error: BaseException | None = None
    lost_workers: int = 0
    worker: str = ""


@dataclass(frozen=True)
class Questions(Generic[Payload, Result]):
    """What the window asks its owner.

    Attributes:
        check: called once on each worker that appears, before anything else; says in a sentence why the worker is not
            fit for work, and nothing if it is. None if all are.
        begun: has the payload been begun by the function, in the attempt of this number (from 0)?
        recover: the result of a payload whose worker is gone, if it was finished before that; None if not.
        cancelled: is the run to stop? Asked about once a ``poll_s``.
    """

    check: Callable[[], str] | None = None
    begun: Callable[[Payload, int], bool] = lambda *_: True
    recover: Callable[[Payload], Result | None] = lambda _: None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class _Try(Generic[Payload]):
    payload: Payload
    lost: int = 0
    false_starts: int = 0
    avoid: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class _Flight(Generic[Payload]):
    attempt: _Try[Payload]
    worker: str
    future: Any


class Window(Generic[Payload, Result]):
    """Sends payloads to the workers of a client, one to each at a time.

    Args:
        client: a connected ``distributed.Client``.
        function: called on a worker as function(payload, number of the attempt from 0); importable there.
        rules: how patient to be.
        questions: what to ask the owner of the run.
    """

    def __init__(
        self,
        client: Any,
        function: Callable[[Payload, int], Result],
        rules: WindowRules | None = None,
        questions: Questions[Payload, Result] | None = None,
    ) -> None:
        self._client = client
        self._function = function
        self._rules = rules or WindowRules()
        self._ask: Questions[Payload, Result] = questions or Questions()
        self._landed: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._flights: dict[str, _Flight[Payload]] = {}
        self._again: deque[_Try[Payload]] = deque()
        self._checks: dict[str, _Flight[None]] = {}
        self._judged: dict[str, bool] = {}
        self._workers: tuple[str, ...] = ()

    def run(self, payloads: Iterable[Payload]) -> Iterator[Outcome[Payload, Result]]:
        """Send all payloads, and yield what comes of each as it does.

        Args:
            payloads: taken one by one as workers become free.

        Yields:
            One outcome for each payload, in order of finishing.

        Raises:
            CancelledError: if the owner said so; what is in flight is cancelled.
            TemporaryError: if the scheduler is gone, or no worker came for too long.
        """
        source = iter(payloads)
        more = True
        polled = since = time.monotonic()
        self._look()
        try:
            while True:
                if self._ask.cancelled():
                    raise CancelledError("stopped by the user; finished cases stay")
                if time.monotonic() - polled >= self._rules.poll_s:
                    self._look()
                    polled = time.monotonic()
                    yield from self._give_up_lost()
                more = self._send(source, more)
                if not (self._flights or self._again or more):
                    return
                since = time.monotonic() if self._flights else since
                self._complain_if_deserted(since)
                yield from self._take()
        finally:
            self._cancel_all()

    def _look(self) -> None:
        """Who is there now, and fit for work."""
        try:
            found = list_workers(self._client)
        except (OSError, TimeoutError, RuntimeError, KeyError) as error:
            raise _scheduler_gone(self._client) from error
        if self._client.status != "running":
            raise _scheduler_gone(self._client)
        for worker in set(self._workers) - set(found):
            log.warning("the worker at %s is gone", worker)
        self._workers = found
        for worker in found:
            if worker not in self._judged:
                self._judged[worker] = self._ask.check is None
                if self._ask.check is not None:
                    future = self._send_to(worker, self._ask.check)
                    self._checks[future.key] = _Flight(_Try(None), worker, future)

    def _judge(self, check: _Flight[None]) -> None:
        """Take or leave a worker, after it has looked at itself."""
        worker = check.worker
        try:
            fault = str(check.future.result(timeout=GATHER_TIMEOUT_S))
        except Exception as error:  # noqa: BLE001 - whatever it is, it would meet every case there
            fault = f"cannot be asked: {type(error).__name__}: {error}"
        self._judged[worker] = not fault
        if fault and worker in self._workers:
            log.warning("the worker at %s is left out: it %s", worker, fault)

    def _send(self, source: Iterator[Payload], more: bool) -> bool:
        """Give each free worker something to do; False once the source is at its end."""
        busy = {flight.worker for flight in self._flights.values()}
        for worker in self._workers:
            if worker in busy or not self._judged[worker]:
                continue
            attempt = self._next_again(worker)
            if attempt is None and more:
                try:
                    attempt = _Try(next(source))
                except StopIteration:
                    more = False
            if attempt is not None:
                self._submit(attempt, worker)
        return more

    def _next_again(self, worker: str) -> _Try[Payload] | None:
        """A payload that lost its worker and may go to this one."""
        for attempt in self._again:
            others = [other for other in self._workers if self._judged[other] and other not in attempt.avoid]
            if worker not in attempt.avoid or not others:
                self._again.remove(attempt)
                return attempt
        return None

    def _submit(self, attempt: _Try[Payload], worker: str) -> None:
        future = self._send_to(worker, self._function, attempt.payload, attempt.lost)
        self._flights[future.key] = _Flight(attempt, worker, future)

    def _send_to(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a function called on one worker and no other; its future arrives among what has landed."""
        future = self._client.submit(
            function,
            *arguments,
            key=f"effvit-med-{uuid.uuid4().hex}",  # keys are shown on dashboards: no names in them
            workers=[worker],
            allow_other_workers=False,
            retries=0,
            pure=False,
        )
        future.add_done_callback(self._landed.put)
        return future

    def _take(self) -> Iterator[Outcome[Payload, Result]]:
        """Wait a little for something to land, and take all that has."""
        try:
            landed = [self._landed.get(timeout=self._rules.poll_s)]
        except queue.Empty:
            return
        while not self._landed.empty():
            landed.append(self._landed.get())
        for future in landed:
            flight = self._flights.pop(future.key, None)
            if flight is not None:
                yield from self._land(flight)
            elif future.key in self._checks:
                self._judge(self._checks.pop(future.key))

    def _land(self, flight: _Flight[Payload]) -> Iterator[Outcome[Payload, Result]]:
        from distributed import KilledWorker

        future, attempt = flight.future, flight.attempt
        if future.status == "error":
            error = future.exception(timeout=GATHER_TIMEOUT_S)
            if not isinstance(error, KilledWorker):
                yield Outcome(attempt.payload, None, error, attempt.lost, flight.worker)
                return
        elif future.status == "finished":
            try:
                result = future.result(timeout=GATHER_TIMEOUT_S)
            except (OSError, TimeoutError) as error:  # the worker died between its last word and ours
                log.debug("result lost: %s", error)
            else:
                yield Outcome(attempt.payload, result, None, attempt.lost, flight.worker)
                return
        yield from self._lose(flight)

    def _give_up_lost(self) -> Iterator[Outcome[Payload, Result]]:
        """Take back what was in flight on workers that are gone."""
        for key, check in list(self._checks.items()):
            if check.worker not in self._workers:
                del self._checks[key]
                self._client.cancel([check.future], force=True)
        for key, flight in list(self._flights.items()):
            if flight.worker not in self._workers:
                del self._flights[key]
                yield from self._lose(flight)

    def _lose(self, flight: _Flight[Payload]) -> Iterator[Outcome[Payload, Result]]:
        attempt = flight.attempt
        self._client.cancel([flight.future], force=True)
        result = self._ask.recover(attempt.payload)
        if result is not None:
            yield Outcome(attempt.payload, result, None, attempt.lost, flight.worker)
            return
        if self._ask.begun(attempt.payload, attempt.lost):
            attempt = replace(attempt, lost=attempt.lost + 1)
        else:
            attempt = replace(attempt, false_starts=attempt.false_starts + 1)
        attempt = replace(attempt, avoid=attempt.avoid | {flight.worker})
        if attempt.lost >= self._rules.attempts or attempt.false_starts > self._rules.false_starts:
            yield Outcome(attempt.payload, None, None, attempt.lost, flight.worker)
        else:
            self._again.append(attempt)

    def _complain_if_deserted(self, since: float) -> None:
        waited = time.monotonic() - since
        if not self._flights and waited > self._rules.no_worker_timeout_s:
            text = f"the scheduler has had no worker fit for work for {waited:.0f} s. Start workers and run this again."
            raise TemporaryError(text)

    def _cancel_all(self) -> None:
        futures = [flight.future for flight in self._flights.values()] + [
            check.future for check in self._checks.values()
        ]
        self._flights.clear()
        self._checks.clear()
        if futures and self._client.status == "running":
            self._client.cancel(futures, force=True)


def list_workers(client: Any) -> tuple[str, ...]:
    """The addresses of all workers that a scheduler has now.

    Args:
        client: a connected ``distributed.Client``. What its own ``scheduler_info`` gives may be without workers, if the
            client refreshes its cache at that moment.

    Raises:
        OSError: if the scheduler does not answer.
    """
    return tuple(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


def _scheduler_gone(client: Any) -> TemporaryError:
    address = getattr(getattr(client, "scheduler", None), "address", "") or "its address"
    return TemporaryError(f"the dask scheduler at {address} no longer answers. Run this again when it is back.")
