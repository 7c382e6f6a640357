"""A whole batch: find, plan, do what is not done yet, and account for every case."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effvit_med.batch.finding import find_in_process
from effvit_med.batch.jobs import BatchJob, Plan, conceal_input, plan_jobs
from effvit_med.batch.journal import FINISHED, Journal
from effvit_med.batch.manifest import collect_manifest, write_set_aside
from effvit_med.batch.options import DONE, INTERRUPTED, NOTHING_TO_DO, SOME_FAILED, TEMPORARY, BatchOptions
from effvit_med.batch.pipeline import BatchEvent, Pipeline
from effvit_med.batch.rows import describe_job, describe_refused, describe_result, now
from effvit_med.engine.stages import FULL_DISK, CaseResult, Task, has_errno
from effvit_med.errors import (
    CancelledError,
    InputError,
    NoImagesError,
    OutputError,
    SettingsError,
    TemporaryError,
)
from effvit_med.io import Found
from effvit_med.io.atomic import make_folder

log = logging.getLogger(__name__)

OnEvent = Callable[[BatchEvent], None]

MakePipeline = Callable[[BatchOptions, OnEvent], Any]
"""Gives what has the methods and attributes of a `Pipeline`."""


@dataclass(frozen=True)
class CaseOutcome:
    """How a case stands at the end of a run.

    Attributes:
        case_id: its name.
        status: ``done``, ``refused``, ``failed``, ``pending``, or ``elsewhere`` where another run is working on it.
        code: why, where it is not done.
        skipped: whether an earlier run had finished it.
    """

    case_id: str
    status: str
    code: str = ""
    skipped: bool = False


@dataclass(frozen=True)
class BatchSummary:
    """What became of a batch.

    Attributes:
        exit_code: 0 all done; 2 some failed or were refused; 3 no images; 75 run again later; 130 stopped.
        counts: of cases by status, ``skipped`` among them, and of files ``set_aside``.
        manifest: the JSON lines; None where there was nothing to write about.
        cases: how each case of this run's share stands.
        message: why it stopped early; empty if it did not.
    """

    exit_code: int
    counts: Mapping[str, int]
    manifest: Path | None
    cases: tuple[CaseOutcome, ...] = ()
    message: str = ""


def run_batch(
    source: Path,
    output: Path,
    options: BatchOptions,
    *,
    on_event: OnEvent | None = None,
    cancelled: Callable[[], bool] | None = None,
    make_pipeline: MakePipeline = Pipeline,
) -> BatchSummary:
    """Segment every case of an input that is not done yet.

    Whatever happens to this process, what is finished stays finished, no file is half written, and the same call goes
    on where it stopped. Several calls may share an output folder, each with its shard.

    Args:
        source: a folder, a file or a zip archive of DICOM or NIfTI.
        output: the folder for results, journal and manifest.
        options: how.
        on_event: told what happens.
        cancelled: asked twice a second; True stops the run.
        make_pipeline: what does the cases; the processes of this machine unless something else is named.

    Returns:
        What became of it, also where it had to stop early.

    Raises:
        InputError: if the input does not exist or cannot be searched.
        SettingsError: if the bundle, a setting or the device is wrong, or the input lies inside of the output.
        OutputError: if the output folder cannot be written to.
    """
    source, output = Path(source), Path(output)
    _check_places(source, output)
    make_folder(output)
    run = _Run(source, output.resolve(), options, on_event or (lambda _: None))
    try:
        run.do(cancelled, make_pipeline)
        return run.finish()
    except NoImagesError as error:
        return _nothing_to_do(source, error)
    except (KeyboardInterrupt, CancelledError):
        return run.finish(INTERRUPTED, "Stopped by the user; what is finished stays. Run the same command to go on.")
    except TemporaryError as error:
        return run.finish(TEMPORARY, str(error))
    except OutputError as error:
        summary = run.finish(TEMPORARY, f"{error} Make room and run the same command again.")
        if has_errno(error, FULL_DISK):
            return summary
        raise


def list_cases(
    source: Path,
    output: Path,
    options: BatchOptions,
    *,
    on_event: OnEvent | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> BatchSummary:
    """What `run_batch` would do: as it, but nothing is done or written.

    Args:
        source: as of `run_batch`.
        output: need not be there.
        options: how.
        on_event: told what happens.
        cancelled: asked twice a second; True stops the search.

    Returns:
        How each case stands now; ``pending`` is what a run would do. The exit code is 0, or 3 where there is no image.

    Raises:
        InputError: if the input does not exist or cannot be searched.
        SettingsError: if the bundle, a setting or the device is wrong.
        CancelledError: if ``cancelled`` said so.
    """
    _check_places(source, output)
    run = _Run(Path(source), Path(output).resolve(), options, on_event or (lambda _: None))
    try:
        return run.look(cancelled)
    except NoImagesError as error:
        return _nothing_to_do(source, error)


def _check_places(source: Path, output: Path) -> None:
    """Refuse an input that is not there, or that would be taken for results of the batch."""
    try:
        source.stat()
        inside = source.resolve().is_relative_to(output.resolve())
    except FileNotFoundError:
        raise InputError(f"{source} does not exist.") from None
    except OSError as error:
        raise InputError(f"{source} cannot be looked at: {error.strerror or error}.") from error
    if inside:
        raise SettingsError(f"The input {source} lies inside of the output {output}; choose another --output.")


class _Run:
    """One call, from the search to the account."""

    def __init__(self, source: Path, output: Path, options: BatchOptions, on_event: OnEvent) -> None:
        self._source, self._output, self._options, self._tell = source, output, options, on_event
        self._journal = Journal(output)
        self._about = {"run": secrets.token_hex(4), "shard": str(options.shard or "1/1")}
        self._plan = Plan((), ())
        self._model: Mapping[str, Any] = {}
        self._jobs: dict[str, BatchJob] = {}
        self._started: dict[str, str] = {}
        self._outcomes: dict[str, CaseOutcome] = {}
        self._set_aside = 0

    def do(self, cancelled: Callable[[], bool] | None, make_pipeline: MakePipeline) -> None:
        """Search, plan and work."""
        self._journal.open()
        self._journal.remove_leftovers()
        with make_pipeline(self._options, self._tell) as pipeline, self._search(pipeline, cancelled) as found:
            self._account(found)
            pipeline.run(self._unfinished(), lambda result: self._record(result, pipeline), cancelled=cancelled)

    def look(self, cancelled: Callable[[], bool] | None) -> BatchSummary:
        """Search and plan only."""
        with Pipeline(self._options, self._tell) as pipeline, self._search(pipeline, cancelled) as found:
            self._set_aside = len(found.set_aside)
            for refused in self._plan.refused:
                self._outcomes[refused.case_id] = CaseOutcome(refused.case_id, "refused", refused.code)
            for job in self._plan.jobs:
                state = self._journal.read(job.task.case_id)
                if self._is_finished(job, state):
                    self._skip(job, state or {})
        cases = self._cases()
        return BatchSummary(DONE, self._count(cases), None, cases)

    @contextlib.contextmanager
    def _search(self, pipeline: Pipeline, cancelled: Callable[[], bool] | None) -> Iterator[Found]:
        """What there is; the plan is made of it."""
        self._tell(BatchEvent("finding"))
        with find_in_process(self._source, self._options, pipeline.scratch, self._tell_search, cancelled) as found:
            rest = leave_out(found, self._output)
            self._model = pipeline.model
            self._plan = plan_jobs(rest, self._source, self._output, self._options, self._model)
            yield rest

    def finish(self, exit_code: int | None = None, message: str = "") -> BatchSummary:
        """Let go of everything and write the manifest."""
        for case_id in self._journal.claimed():
            state, job = self._journal.read(case_id), self._jobs.get(case_id)
            if job and state and state["status"] == "running":
                with contextlib.suppress(OutputError):
                    self._journal.write({**describe_job(job, "pending"), **self._about}, durable=False)
            self._journal.release(case_id)
        self._journal.remove_leftovers()
        try:
            manifest: Path | None = collect_manifest(self._output)
        except (InputError, OutputError):
            if exit_code is None:
                raise
            manifest = None  # the disk is full, or it was stopped before it began
        cases = self._cases()
        if exit_code is None:
            exit_code = _choose_exit_code(cases)
        return BatchSummary(exit_code, self._count(cases), manifest, cases, message)

    def _cases(self) -> tuple[CaseOutcome, ...]:
        names = (*(each.case_id for each in self._plan.refused), *(job.task.case_id for job in self._plan.jobs))
        return tuple(self._outcomes.get(name, CaseOutcome(name, "pending")) for name in names)

    def _count(self, cases: tuple[CaseOutcome, ...]) -> dict[str, int]:
        counts = Counter({"cases": len(cases), "set_aside": self._set_aside})
        counts.update(case.status for case in cases)
        counts["skipped"] = sum(case.skipped for case in cases)
        return dict(counts)

    def _tell_search(self, phase: str, done: int, total: int) -> None:
        self._tell(BatchEvent("finding", done=done, total=total, message=phase))

    def _account(self, found: Found) -> None:
        """Put all that was found into the journal, before any of it is done."""
        hidden = None if self._options.keep_ids else conceal_input(found)
        self._set_aside = write_set_aside(self._output, found.set_aside, hidden)
        for refused in self._plan.refused:
            row = describe_refused(refused, self._model, self._about)
            before = self._journal.read(refused.case_id)
            if (not before or before.get("key") != row["key"]) and self._journal.claim(refused.case_id):
                self._journal.write(row, durable=False)
                self._journal.release(refused.case_id)
            self._outcomes[refused.case_id] = CaseOutcome(refused.case_id, "refused", refused.code)
            log.warning("refused %s: %s", refused.case_id, row["message"])
        for job in self._plan.jobs:
            state = self._journal.read(job.task.case_id)
            if state is None:
                self._journal.write(describe_job(job, "pending"), durable=False)
            elif self._is_finished(job, state):
                self._skip(job, state)
        total = len(self._plan.jobs)
        self._tell(BatchEvent("found", done=total - self._count_open(), total=total))

    def _count_open(self) -> int:
        return sum(job.task.case_id not in self._outcomes for job in self._plan.jobs)

    def _is_finished(self, job: BatchJob, state: Mapping[str, Any] | None) -> bool:
        """Whether a case stays as an earlier run, or one beside ours, has left it."""
        options = self._options
        if state is None or state.get("status") not in FINISHED or state.get("key") != job.key:
            return False
        if not options.resume and state.get("run") != self._about["run"]:
            return False
        if state["status"] != "done":
            return not options.retry_failed or state.get("run") == self._about["run"]
        return self._journal.has_outputs(state, verify=options.verify)

    def _skip(self, job: BatchJob, state: Mapping[str, Any]) -> None:
        name = job.task.case_id
        self._outcomes[name] = CaseOutcome(name, state["status"], state.get("code", ""), skipped=True)

    def _unfinished(self) -> Iterator[Task]:
        """The tasks that are still to do, each claimed; those of other runs are looked at again at the end."""
        waiting = [job for job in self._plan.jobs if job.task.case_id not in self._outcomes]
        for last in (False, True):
            elsewhere: list[BatchJob] = []
            for job in waiting:
                name = job.task.case_id
                if not self._journal.claim(name):
                    self._outcomes[name] = CaseOutcome(name, "elsewhere")
                    elsewhere.append(job)
                    continue
                state = self._journal.read(name)
                if self._is_finished(job, state):
                    self._skip(job, state or {})
                    self._journal.release(name)
                    continue
                self._outcomes.pop(name, None)
                self._jobs[name], self._started[name] = job, now()
                self._journal.write({**describe_job(job, "running"), **self._about}, durable=False)
                yield replace(job.task, replaces=_was_begun(state))
            waiting = elsewhere
            if last or not waiting:
                return

    def _record(self, result: CaseResult, pipeline: Pipeline) -> None:
        """The last word on a case: from here on it is finished."""
        name = result.case_id
        if result.status != "segmented" and not self._source.exists():
            raise TemporaryError("The input is gone; is its disk still there? Run the same command again when it is.")
        job = self._jobs[name]
        run = {**self._about, "started": self._started[name], "peak_mb": pipeline.peak_mb}
        row = describe_result(job, result, self._model, self._output, run)
        self._journal.write(row)
        self._outcomes[name] = CaseOutcome(name, row["status"], row["code"])
        self._journal.release(name)
        del self._jobs[name], self._started[name]
        total = len(self._plan.jobs)
        self._tell(BatchEvent("finished", name, done=total - self._count_open(), total=total, message=row["status"]))


def _was_begun(state: Mapping[str, Any] | None) -> bool:
    """Whether a run has worked on a case, so that what lies in its folder is ours: a listed case is not enough."""
    return state is not None and (state.get("status") in FINISHED or bool(state.get("run")))


def leave_out(found: Found, folder: Path) -> Found:
    """What was found without what lies in a folder: the results of a batch may lie inside of its input.

    Args:
        found: of the input.
        folder: absolute, without links.
    """

    def lies_inside(path: Path) -> bool:
        return path.resolve().is_relative_to(folder)

    inside = {folder_: lies_inside(folder_) for folder_ in _folders(found)}
    return Found(
        tuple(case for case in found.cases if not inside[_first(case).parent]),
        tuple(each for each in found.refused if not each.files or not inside[each.files[0].parent]),
        tuple(each for each in found.set_aside if not inside[each.path.parent]),
    )


def _folders(found: Found) -> set[Path]:
    refused = {each.files[0].parent for each in found.refused if each.files}
    return {_first(case).parent for case in found.cases} | refused | {each.path.parent for each in found.set_aside}


def _first(case: Any) -> Path:
    return case.files[0] if hasattr(case, "files") else case.path


def _nothing_to_do(source: Path, error: NoImagesError) -> BatchSummary:
    """Without the names that the message may quote."""
    counts = str(error).partition(f"{source}: ")[2].partition(" (")[0]
    return BatchSummary(NOTHING_TO_DO, {}, None, message=f"There is no image in the input: {counts or 'no files'}.")


def _choose_exit_code(cases: tuple[CaseOutcome, ...]) -> int:
    statuses = {case.status for case in cases}
    if statuses & {"pending", "elsewhere"}:
        return TEMPORARY
    return SOME_FAILED if statuses & {"refused", "failed"} else DONE
