"""The work behind a node: each stable series is segmented once, and its results are returned until they arrive."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from effvit_med.errors import CancelledError, EffvitError, PeerError, TemporaryError
from effvit_med.pacs.archives import Archive
from effvit_med.pacs.arrivals import Arrivals
from effvit_med.pacs.pushing import PUSHED, PushJournal, find_results, push
from effvit_med.pacs.retrying import Backoff
from effvit_med.pacs.spool import SeriesState, Spool, SpooledSeries

log = logging.getLogger(__name__)
MOST_ATTEMPTS = 3
TICK_S = 1.0
_ONCE = Backoff(retries=0)


@dataclass(frozen=True)
class SeriesAnswer:
    """What the segmentation of a series came to.

    Attributes:
        status: ``segmented``, ``refused`` or ``failed``.
        code: a machine-readable word for why; empty if segmented.
        message: a sentence for why; empty if segmented.
    """

    status: str
    code: str = ""
    message: str = ""


SegmentSeries = Callable[[Path, Path], SeriesAnswer]
"""Segments the DICOM files in the first folder and writes results into the second."""


@dataclass(frozen=True)
class ServiceOptions:
    """How the service works.

    Attributes:
        stable_s: a series is complete when nothing came for so many seconds.
        returns: where results go, by the AE title of who sent the series.
        default_return: where those of other senders go; None to keep them here only.
        backoff: how long to wait between tries to return; the last wait is repeated for ever.
        keep_refused_days: images of series that were refused, failed, or whose results the PACS refuses, are removed
            at a start after so many days.
    """

    stable_s: float = 5.0
    returns: Mapping[str, Archive] = field(default_factory=dict)
    default_return: Archive | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(retries=5, first_s=2.0, factor=3.0, longest_s=300.0))
    keep_refused_days: float = 7.0


class Service:
    """Segments what arrives in a spool and returns the results.

    Args:
        spool: where series arrive; it must be held.
        arrivals: what came when.
        segment: segments a series.
        options: how it works.
        clock: the time in seconds, for waits between returns.
    """

    def __init__(
        self,
        spool: Spool,
        arrivals: Arrivals,
        segment: SegmentSeries,
        options: ServiceOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool, self._arrivals, self._segment, self._options = spool, arrivals, segment, options
        self._clock = clock
        self._returns: dict[str, tuple[float, Iterator[float]]] = {}
        self.counts: Counter[str] = Counter()

    def recover(self) -> None:
        """Go on with what an earlier process left: series not answered, results not returned."""
        for series in self._spool.all_series():
            state = series.state()
            kept = state is not None and state.status == "refused" and not _needs_work(series, state)
            if series.instances() and not kept:  # what failed is tried again
                self._arrivals.note(series.name)
            if state and state.returned == "none" and state.files and self._archive(series):
                state = replace(state, returned="waiting")  # there was nowhere to return to
                series.set_state(state)
            if state and state.returned == "waiting":
                self._returns[series.name] = (self._clock(), self._options.backoff.waits())
        self._remove_old()

    def step(self) -> bool:
        """Do what is due.

        Returns:
            Whether anything was.
        """
        worked = False
        name = self._arrivals.take_stable(self._options.stable_s)
        if name:
            self._answer(SpooledSeries(name, self._spool.folder / name))
            worked = True
        for waiting, (due, waits) in list(self._returns.items()):
            if due <= self._clock():
                self._return(SpooledSeries(waiting, self._spool.folder / waiting), waits)
                worked = True
        return worked

    def wait(self) -> None:
        """Wait until something may be due."""
        rests = [due - self._clock() for due, _ in self._returns.values()]
        self._arrivals.wait(self._options.stable_s, max(0.0, min([TICK_S, *rests])))

    def unanswered(self) -> int:
        """How many series are not segmented yet, or have results that are not returned yet."""
        states = [(series, series.state()) for series in self._spool.all_series()]
        return sum(
            _needs_work(series, state) or (state is not None and state.returned == "waiting")
            for series, state in states
        )

    def _answer(self, series: SpooledSeries) -> None:
        """Segment a series, unless it was already."""
        instances, before = series.instances(), series.state()
        if not instances:
            return
        if before and before.status == "segmented":
            old = set(before.instances)
            if set(instances) <= old and before.returned != "refused":
                shutil.rmtree(series.folder / PUSHED, ignore_errors=True)
                log.info("%s came again; its results are returned again", series.name)
                self._finish(series, replace(before, returned=self._first_return(series, before.files)), instances)
                return
            if not old <= set(instances):
                log.warning("%s: images came after it was answered; send the whole series again", series.name)
                self.counts["late"] += 1
                return
        attempts = before.attempts if before and before.status == "running" else 0
        if attempts >= MOST_ATTEMPTS:
            answer = SeriesAnswer("failed", "CRASHED", f"The program ended {attempts} times while it was segmented.")
        else:
            series.set_state(SeriesState("running", instances=instances, attempts=attempts + 1))
            try:
                answer = self._run(series)
            except (
                KeyboardInterrupt,
                CancelledError,
                TemporaryError,
            ):  # a stop, or a lack of room, is no fault of the series
                series.set_state(SeriesState("running", instances=instances, attempts=attempts))
                raise
        files = find_results(series.results) if answer.status == "segmented" else ()
        names = tuple(each.path.relative_to(series.folder).as_posix() for each in files)
        state = SeriesState(answer.status, answer.code, answer.message, instances, names)
        self._finish(series, replace(state, returned=self._first_return(series, names)), instances)
        self.counts[answer.status] += 1

    def _run(self, series: SpooledSeries) -> SeriesAnswer:
        """The segmentation; whatever it raises is its answer."""
        log.info("%s: %d images, segmenting", series.name, len(series.instances()))
        shutil.rmtree(series.results, ignore_errors=True)
        start = time.perf_counter()
        try:
            series.results.mkdir(parents=True)
            answer = self._segment(series.received, series.results)
        except (CancelledError, TemporaryError):
            raise
        except EffvitError as error:
            answer = SeriesAnswer("failed", type(error).__name__, str(error))
        except Exception as error:  # one bad series must not end the service
            log.debug("trace of %s", series.name, exc_info=error)
            answer = SeriesAnswer("failed", type(error).__name__, "The segmentation ended with an error.")
        seconds = time.perf_counter() - start
        if answer.status == "segmented":
            log.info("%s: segmented in %.1f s", series.name, seconds)
        else:
            log.warning("%s: %s: %s %s", series.name, answer.status, answer.code, answer.message)
        return answer

    def _finish(self, series: SpooledSeries, state: SeriesState, instances: tuple[str, ...]) -> None:
        """Write what became of a series, and plan the return."""
        series.set_state(state)
        if state.returned == "waiting":
            self._returns[series.name] = (self._clock(), self._options.backoff.waits())
        elif state.status == "segmented":
            self._spool.clear_received(series, instances)

    def _archive(self, series: SpooledSeries) -> Archive | None:
        return self._options.returns.get(series.sender(), self._options.default_return)

    def _first_return(self, series: SpooledSeries, files: tuple[str, ...]) -> str:
        return "waiting" if files and self._archive(series) else "none"

    def _return(self, series: SpooledSeries, waits: Iterator[float]) -> None:
        """Try once to return the results of a series."""
        state, archive = series.state(), self._archive(series)
        if state is None or archive is None:
            del self._returns[series.name]
            return
        journal = PushJournal(series.folder, archive.name)
        try:
            result = push(archive, find_results(series.results), journal, _ONCE)
        except PeerError as error:
            log.error("%s: %s", series.name, error)  # noqa: TRY400 - our own errors say all in one line
            code, unsent = 1, 1
        else:
            code, unsent = result.exit_code, result.unsent
        if unsent:
            wait = next(waits, self._options.backoff.longest_s)
            log.warning("%s: results are kept; the next try to return them is in %.0f s", series.name, wait)
            self._returns[series.name] = (self._clock() + wait, waits)
            return
        returned = "refused" if code else "stored"
        log.info("%s: results %s by %s", series.name, returned, archive.name)
        series.set_state(replace(state, returned=returned))
        self.counts[f"returned_{returned}"] += 1
        if returned == "stored":  # else they may be segmented in another way
            self._spool.clear_received(series, state.instances)
        del self._returns[series.name]

    def _remove_old(self) -> None:
        """Remove the images of series that were refused long ago."""
        oldest = time.time() - self._options.keep_refused_days * 86400
        for series in self._spool.all_series():
            state = series.state()
            if state and (state.status in ("refused", "failed") or state.returned == "refused"):
                try:
                    is_old = (series.folder / "state.json").stat().st_mtime < oldest
                except OSError:
                    continue
                if is_old:
                    self._spool.clear_received(series, series.instances())


def _needs_work(series: SpooledSeries, state: SeriesState | None) -> bool:
    instances = series.instances()
    if not instances:
        return False
    if state is None or state.status == "running":
        return True
    answered = set(state.instances)  # of a segmented series some or all may still lie there
    return not set(instances) <= answered if state.status == "segmented" else set(instances) != answered
