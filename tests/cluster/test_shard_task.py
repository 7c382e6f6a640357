"""What a task of an array does with the exit codes of its batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from effvit_med.cluster.shard_states import read_states
from effvit_med.cluster.shard_task import ShardTask
from effvit_med.errors import EffvitError

CODE = """
import pathlib, sys
log = pathlib.Path(sys.argv[1])
with log.open("a") as file:
    file.write(" ".join(sys.argv[2:]) + "\\n")
codes = sys.argv[2].split(",")
sys.exit(int(codes[min(len(log.read_text().splitlines()), len(codes)) - 1]))
"""


def _task(folder: Path, codes: str) -> ShardTask:
    """A task whose batch ends with one exit code after the other."""
    return ShardTask((sys.executable, "-c", CODE, str(folder / "log"), codes), 4, folder, retries=2, retry_wait_s=0.01)


def _starts(folder: Path) -> list[str]:
    return (folder / "log").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_batch_that_came_to_its_end_is_a_task_that_went_well(tmp_path: Path, code: int) -> None:
    """All done, some failed, nothing to do: the queue need not start the task again."""
    assert _task(tmp_path, str(code))(3) == code
    state = read_states(tmp_path, 4)[3]
    assert (state.state, state.exit_code, state.attempts) == ("done", code, 1)
    assert _starts(tmp_path) == [f"{code} --shard 3/4"]


def test_a_temporary_failure_is_tried_again(tmp_path: Path) -> None:
    """After 75 the same shard is run once more, and what that ends with counts."""
    assert _task(tmp_path, "75,0")(1) == 0
    assert read_states(tmp_path, 4)[1].attempts == 2 == len(_starts(tmp_path))


def test_temporary_failures_are_not_tried_for_ever(tmp_path: Path) -> None:
    """After the retries that were asked for the task has failed with 75."""
    with pytest.raises(EffvitError, match="exit code 75; submit it again"):
        _task(tmp_path, "75")(1)
    assert (read_states(tmp_path, 4)[1].state, len(_starts(tmp_path))) == ("failed", 3)


def test_a_batch_that_was_stopped_has_failed(tmp_path: Path) -> None:
    """130 is no end: the queue must see that something is left to do."""
    with pytest.raises(EffvitError, match="exit code 130"):
        _task(tmp_path, "130")(2)
    assert read_states(tmp_path, 4)[2].state == "failed"
