"""How far an array is: what the queue says, what its tasks last said, and what stands in the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effvit_med.batch import Shard
from effvit_med.batch.journal import FINISHED, Journal
from effvit_med.batch.options import DONE, FAULTY, INTERRUPTED, NOTHING_TO_DO, SOME_FAILED, TEMPORARY
from effvit_med.cluster.shard_states import OVER, ShardState, read_states, read_submission, slurm_folder
from effvit_med.cluster.slurm_queue import ask_queue
from effvit_med.errors import EffvitError, InputError


@dataclass(frozen=True)
class ShardStatus:
    """How far a shard is.

    Attributes:
        shard: its number, from 1.
        state: ``pending``, ``running``, ``requeued``, ``waiting`` (after exit code 75), ``done``, ``failed`` or
            ``lost`` (its task is gone without a last word: killed, or its node died).
        exit_code: of its last batch; None where there is none.
        host: the node that had it last.
        cases: how many cases of the journal belong to it; it may find more.
        finished: how many of these are done, refused or failed.
    """

    shard: int
    state: str
    exit_code: int | None = None
    host: str = ""
    cases: int = 0
    finished: int = 0


@dataclass(frozen=True)
class ArrayStatus:
    """How far an array is.

    Attributes:
        job: the number that the queue gave it.
        executor: ``slurm`` or ``local``.
        shards: one after another.
        counts: cases of the journal by status.
        queue: why the queue could not be asked; empty if it was.
    """

    job: str
    executor: str
    shards: tuple[ShardStatus, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    queue: str = ""

    @property
    def is_over(self) -> bool:
        """Whether no shard will say more."""
        return all(shard.state in OVER | {"lost"} for shard in self.shards)

    @property
    def exit_code(self) -> int:
        """That of one batch over all shards: 75 where something is left to do, so that the same command goes on."""
        codes = {shard.exit_code if shard.state in OVER else TEMPORARY for shard in self.shards}
        for code in (FAULTY, INTERRUPTED, TEMPORARY):
            if code in codes:
                return code
        if codes - {DONE, SOME_FAILED, NOTHING_TO_DO}:
            return TEMPORARY  # ended by a signal
        if self.counts.keys() & {"refused", "failed"}:
            return SOME_FAILED
        return NOTHING_TO_DO if codes == {NOTHING_TO_DO} else DONE


def report_status(output: Path) -> ArrayStatus:
    """How far the array of an output folder is.

    Args:
        output: the folder for results.

    Raises:
        InputError: if no array was ever submitted for it.
    """
    folder = slurm_folder(output)
    submission = read_submission(folder)
    if submission is None:
        raise InputError(f"{output} holds no array: none was submitted with effvit-med cluster slurm.")
    queued: dict[int, str] | None = None
    why = ""
    if submission.executor == "slurm":
        try:
            queued = ask_queue(submission.job)
        except EffvitError as error:
            why = str(error)
    journal = Journal(output)
    states = list(journal.states()) if (output / "journal" / "jobs").is_dir() else []
    told = read_states(folder, submission.shards)
    shards = tuple(
        _describe(Shard(number, submission.shards), told.get(number), queued, states)
        for number in range(1, submission.shards + 1)
    )
    counts = Counter(str(state["status"]) for state in states)
    return ArrayStatus(submission.job, submission.executor, shards, dict(counts), why)


def _describe(
    shard: Shard, told: ShardState | None, queued: dict[int, str] | None, states: list[dict[str, Any]]
) -> ShardStatus:
    mine = [state["status"] for state in states if shard.holds(str(state["case_id"]))]
    finished = sum(status in FINISHED for status in mine)
    state = told.state if told else "pending"
    if queued is not None and state not in OVER:
        now = queued.get(shard.index)
        if now is None:
            state = "lost"
        elif now == "PENDING" and state == "running":
            state = "requeued"
    return ShardStatus(
        shard.index, state, told.exit_code if told else None, told.host if told else "", len(mine), finished
    )
