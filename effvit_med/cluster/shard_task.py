"""What one task of an array does: the batch command on its shard, as a process of its own, until it is over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from effvit_med.cluster.shard_states import ShardState, write_state
from effvit_med.errors import EffvitError

TEMPORARY = 75
"""The exit code of a batch that should be run again: disk full, device lost."""

_COMPLETE = frozenset({0, 2, 3})
"""Exit codes of a batch that came to its end; all else is a failed task in the eyes of the queue."""

STOP_TIMEOUT_S = 60.0
"""How long a batch may take to stop; the queue asks 90 seconds before it kills."""


@dataclass(frozen=True)
class ShardTask:
    """A callable for submitit: ``task(number)`` runs that shard, and a task that is stopped is requeued.

    What a stopped task has finished stands in the journal, so the next one goes on from there.

    Attributes:
        command: the batch command without its shard.
        shards: how many there are.
        folder: where the state of each shard is kept.
        retries: how often a batch that ends with exit code 75 is run again.
        retry_wait_s: how long to wait before that; each time twice as long.
    """

    command: tuple[str, ...]
    shards: int
    folder: Path
    retries: int = 2
    retry_wait_s: float = 60.0

    def __call__(self, number: int) -> int:
        """Run a shard to its end.

        Args:
            number: of the shard, from 1.

        Returns:
            The exit code of the batch.

        Raises:
            EffvitError: if the batch did not come to its end, so that the queue counts the task as failed.
        """
        for attempt in range(self.retries + 1):
            self._tell(number, "running", attempt)
            code = _run(self._command_of(number))
            if code != TEMPORARY or attempt == self.retries:
                break
            self._tell(number, "waiting", attempt, code)
            time.sleep(self.retry_wait_s * 2**attempt)
        self._tell(number, "done" if code in _COMPLETE else "failed", attempt, code)
        if code not in _COMPLETE:
            raise EffvitError(f"Shard {number}/{self.shards} ended with exit code {code}; submit it again to go on.")
        return code

    def checkpoint(self, number: int) -> Any:
        """Called by submitit in a task that is about to be stopped: end the batch cleanly, and go on later.

        Args:
            number: of the shard.

        Returns:
            What submitit is to run when the task is started again.
        """
        from submitit.helpers import DelayedSubmission

        _stop_running()
        self._tell(number, "requeued", 0)
        return DelayedSubmission(self, number)

    def _command_of(self, number: int) -> tuple[str, ...]:
        return (*self.command, "--shard", f"{number}/{self.shards}")

    def _tell(self, number: int, state: str, attempt: int, exit_code: int | None = None) -> None:
        job = "_".join(os.environ[name] for name in _job_names() if os.environ.get(name))
        told = ShardState(number, self.shards, state, attempt + 1, exit_code, job, socket.gethostname())
        write_state(self.folder, told)


_RUNNING: list[psutil.Popen] = []
"""The batch of this process; a list, since submitit asks for the checkpoint from a signal."""


def _run(command: tuple[str, ...]) -> int:
    """Run a command to its end; it does not outlive us, whatever ends us."""
    # psutil waits without the locks of subprocess, so that the wait may be interrupted by a signal that waits as well
    # the queue signals all processes of a task: the wish to requeue is ours to hear, not the batch's
    process = psutil.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_ignore_requeue)
    _RUNNING.append(process)
    try:
        code = process.wait()
    finally:
        _stop_running()
    return int(code) if code >= 0 else 128 - int(code)


def _stop_running() -> None:
    while _RUNNING:
        process = _RUNNING.pop()
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            try:
                process.wait(timeout=STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()


def _ignore_requeue() -> None:
    name = os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)


def _job_names() -> tuple[str, ...]:
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
    return ("SLURM_JOB_ID",) if "SLURM_JOB_ID" in os.environ else ("SUBMITIT_LOCAL_JOB_ID",)
