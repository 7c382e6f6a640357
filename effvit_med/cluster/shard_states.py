"""What is known of a submitted array: one small file for the submission and one for each shard."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from effvit_med.errors import InputError, OutputError
from effvit_med.io.atomic import write_json

OVER = frozenset({"done", "failed"})
"""States of a shard whose task has said its last word."""


@dataclass(frozen=True)
class Submission:
    """An array that was submitted.

    Attributes:
        job: the number that the queue gave it; empty for tasks of this machine.
        executor: ``slurm`` or ``local``.
        shards: how many tasks it has.
    """

    job: str
    executor: str
    shards: int


@dataclass(frozen=True)
class ShardState:
    """What a task last said of its shard.

    Attributes:
        shard: its number, from 1.
        shards: how many there are.
        state: ``running``, ``waiting`` (to run again after exit code 75), ``requeued``, ``done`` or ``failed``.
        attempts: how often the batch was started by this task.
        exit_code: of the last batch; None while it runs.
        job: the number that the queue gave the task.
        host: the node.
    """

    shard: int
    shards: int
    state: str
    attempts: int = 1
    exit_code: int | None = None
    job: str = ""
    host: str = ""


def slurm_folder(output: Path) -> Path:
    """Where job scripts, logs and states of an array lie, below the folder of results."""
    return output / "journal" / "slurm"


def clear_states(folder: Path) -> None:
    """Forget what the shards of an earlier array said; to be done before the next one is submitted.

    Raises:
        OutputError: if a file could not be removed.
    """
    try:
        for old in folder.glob("shard-*.json"):
            old.unlink()
    except OSError as error:
        raise OutputError(f"{folder} could not be cleared of an earlier array: {error.strerror}.") from error


def write_submission(folder: Path, submission: Submission) -> None:
    """Keep what was submitted.

    Raises:
        OutputError: if it could not be written.
    """
    write_json(folder / "submission.json", asdict(submission))


def read_submission(folder: Path) -> Submission | None:
    """What was submitted last; None if nothing ever was.

    Raises:
        InputError: if the file is damaged.
    """
    file = folder / "submission.json"
    if not file.exists():
        return None
    try:
        return Submission(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}). Remove it, and submit again: finished cases stay.") from error


def write_state(folder: Path, state: ShardState) -> None:
    """Keep what a task says of its shard.

    Raises:
        OutputError: if it could not be written.
    """
    write_json(folder / f"shard-{state.shard}.json", asdict(state))


def read_states(folder: Path, shards: int) -> dict[int, ShardState]:
    """What the tasks last said, by number of the shard; those that have not begun are left out."""
    states = {}
    for number in range(1, shards + 1):
        try:
            content = json.loads((folder / f"shard-{number}.json").read_text(encoding="utf-8"))
            states[number] = ShardState(**content)
        except (OSError, ValueError, TypeError):
            continue  # not begun; a state is whole or not there
    return states
