"""The shards of a batch as tasks of this machine, a few at a time: to try what an array would do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effvit_med.cluster.extras import require_submitit
from effvit_med.cluster.shard_states import Submission, clear_states, slurm_folder, write_submission
from effvit_med.cluster.shard_task import ShardTask
from effvit_med.cluster.slurm_array import ArrayOptions, hold_submission
from effvit_med.io.atomic import make_folder

_POLL_S = 0.2
_STOP_TIMEOUT_S = 30.0


def run_here(
    command: tuple[str, ...],
    output: Path,
    options: ArrayOptions,
    on_change: Callable[[dict[int, str]], None] | None = None,
) -> Submission:
    """Run all shards on this machine to their end.

    Args:
        command: the batch command, with all its options but the shard.
        output: the folder for results.
        options: its shards, how many at once (one if not said), GPUs and minutes; all else is for a queue.
        on_change: called with the states by shard whenever they change.

    Returns:
        What was run.

    Raises:
        EffvitError: if submitit is not installed.
        SettingsError: if another command submits at this moment.
        OutputError: if the folder cannot be written.
    """
    require_submitit()
    from submitit import LocalExecutor

    folder = slurm_folder(output)
    make_folder(folder)
    with hold_submission(folder):
        clear_states(folder)
        submission = Submission("", "local", options.shards)
        write_submission(folder, submission)
        executor = LocalExecutor(folder, max_num_timeout=options.requeues)
        executor.update_parameters(timeout_min=options.time_min, gpus_per_node=options.gpus or 0)
        task = ShardTask(command, options.shards, folder, options.retries, options.retry_wait_s)
        waiting = deque(range(1, options.shards + 1))
        running: dict[int, Any] = {}
        try:
            while waiting or running:
                running = {number: job for number, job in running.items() if not job.done()}
                while waiting and len(running) < (options.max_parallel or 1):
                    number = waiting.popleft()
                    running[number] = executor.submit(task, number)
                    if on_change:
                        on_change(dict.fromkeys(running, "RUNNING") | dict.fromkeys(waiting, "PENDING"))
                time.sleep(_POLL_S)
        finally:
            _stop(running)
    return submission


def _stop(running: dict[int, Any]) -> None:
    """End what still runs, cleanly: a batch that is stopped loses only its current cases."""
    for job in running.values():
        job.cancel()
    end = time.monotonic() + _STOP_TIMEOUT_S
    while any(not job.done() for job in running.values()) and time.monotonic() < end:
        time.sleep(_POLL_S)
