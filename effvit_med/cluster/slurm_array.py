"""Shards of a batch as one SLURM array, submitted through submitit."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from effvit_med.cluster.extras import require_submitit
from effvit_med.cluster.shard_states import (
    Submission,
    clear_states,
    read_submission,
    slurm_folder,
    write_submission,
)
from effvit_med.cluster.shard_task import ShardTask
from effvit_med.cluster.slurm_queue import ask_queue, check_slurm_is_here
from effvit_med.errors import EffvitError, SettingsError, TemporaryError
from effvit_med.io.atomic import make_folder

JOB_NAME = "effvit-med"
"""Every user of a cluster sees the names of jobs, so this one says nothing of the input."""

_PYTHON_STARTS_S = 90
"""The queue asks a task to stop so long before it kills it."""


@dataclass(frozen=True)
class ArrayOptions:
    """What to ask the queue for.

    Attributes:
        shards: into how many tasks the cases are divided.
        max_parallel: how many tasks may run at once; None for all.
        partition: where to; None for the cluster's default.
        account: who pays; None for the user's default.
        time_min: minutes a task may take before it is requeued to go on.
        mem_gb: memory of a task in GiB; None for the cluster's default.
        cpus: processors of a task.
        gpus: GPUs of a task.
        extra: further options of sbatch by name.
        requeues: how often a task that reached its time limit may go on.
        retries: how often a batch that ends with exit code 75 is run again within its task.
        retry_wait_s: how long to wait before that.
    """

    shards: int
    max_parallel: int | None = None
    partition: str | None = None
    account: str | None = None
    time_min: int = 240
    mem_gb: float | None = None
    cpus: int | None = None
    gpus: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    requeues: int = 50
    retries: int = 2
    retry_wait_s: float = 60.0

    def parameters(self) -> dict[str, Any]:
        """The parameters of submitit's executor for SLURM."""
        wanted: dict[str, Any] = {
            "job_name": JOB_NAME,
            "wckey": None,
            "array_parallelism": self.max_parallel or self.shards,
            "partition": self.partition,
            "account": self.account,
            "time": self.time_min,
            "mem": None if self.mem_gb is None else f"{max(1, round(self.mem_gb * 1024))}MB",
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus,
            "signal_delay_s": _PYTHON_STARTS_S,
            "additional_parameters": dict(self.extra) or None,
            # from SLURM 22.05 on srun does not take this over from sbatch by itself
            "srun_args": None if self.cpus is None else [f"--cpus-per-task={self.cpus}"],
        }
        return {name: value for name, value in wanted.items() if value is not None or name == "wckey"}


def parse_extra(words: tuple[str, ...]) -> dict[str, str]:
    """Options of sbatch from words such as ``qos=long``.

    Raises:
        SettingsError: if a word has another form, or would change what an array needs.

    Examples:
        >>> parse_extra(("qos=long", "constraint=a100|h100"))
        {'qos': 'long', 'constraint': 'a100|h100'}
    """
    extra = {}
    for word in words:
        match = re.fullmatch(r"-{0,2}([A-Za-z][\w-]*)=(.+)", word)
        if match is None:
            raise SettingsError(f"--extra is {word!r}: give an option of sbatch as key=value, such as qos=long.")
        name = match[1].replace("_", "-")
        if name in {"array", "output", "error", "job-name", "signal", "open-mode"}:
            raise SettingsError(f"--extra is {word!r}: {name} is set by this command and cannot be changed.")
        extra[name] = match[2]
    return extra


def write_script(output: Path, options: ArrayOptions) -> str:
    """The job script that `submit_array` would give to sbatch; nothing is written or submitted.

    Raises:
        EffvitError: if submitit is not installed.
    """
    require_submitit()
    from submitit.slurm.slurm import _make_sbatch_string

    folder = slurm_folder(output)
    count = options.shards if options.shards > 1 else None
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)])
    return str(_make_sbatch_string(command=command, folder=folder, map_count=count, **options.parameters()))


def submit_array(command: tuple[str, ...], output: Path, options: ArrayOptions) -> Submission:
    """Submit one task for each shard.

    Args:
        command: the batch command, with all its options but the shard.
        output: the folder for results, which all nodes see at the same path.
        options: what to ask the queue for.

    Returns:
        What was submitted.

    Raises:
        EffvitError: if SLURM or submitit is not here, or sbatch refuses the job.
        SettingsError: if an earlier array of this folder is still in the queue.
        OutputError: if the folder cannot be written.
        TemporaryError: if the controller does not answer.
    """
    require_submitit()
    check_slurm_is_here()
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder = slurm_folder(output)
    make_folder(folder)
    with hold_submission(folder):
        earlier = read_submission(folder)
        if earlier and earlier.job and ask_queue(earlier.job):
            text = (
                f"Array {earlier.job} still works on {output}. Wait for it (effvit-med cluster status {output}), or "
                f"stop it with: scancel {earlier.job}"
            )
            raise SettingsError(text)
        clear_states(folder)
        executor = SlurmExecutor(folder, max_num_timeout=options.requeues)
        try:
            executor.update_parameters(**options.parameters())
            task = ShardTask(command, options.shards, folder, options.retries, options.retry_wait_s)
            jobs = executor.map_array(task, list(range(1, options.shards + 1)))
        except (FailedJobError, FailedSubmissionError) as error:
            raise _refusal(str(error)) from error
        submission = Submission(str(jobs[0].job_id).split("_")[0], "slurm", options.shards)
        write_submission(folder, submission)
    return submission


def wait_for_array(
    submission: Submission,
    poll_s: float = 10.0,
    patience_s: float = 600.0,
    on_change: Callable[[dict[int, str]], None] | None = None,
) -> None:
    """Wait until no task of an array is in the queue any more.

    Args:
        submission: the array.
        poll_s: how often the queue is asked.
        patience_s: how long the controller may be away.
        on_change: called with the states by shard whenever they change.

    Raises:
        TemporaryError: if the controller is away for longer.
    """
    heard = time.monotonic()
    last: dict[int, str] | None = None
    while True:
        try:
            states = ask_queue(submission.job)
        except TemporaryError:
            if time.monotonic() - heard > patience_s:
                raise
        else:
            heard = time.monotonic()
            if on_change and states != last:
                on_change(states)
            last = states
            if not states:
                return
        time.sleep(poll_s)


def hold_submission(folder: Path) -> Any:
    """Keep every other command from submitting for a folder: two of them at once would make two arrays.

    Raises:
        SettingsError: if another one does so at this moment.
    """
    try:
        return FileLock(folder / "submit.lock").acquire(timeout=0)
    except Timeout as error:
        raise SettingsError(f"Another command is submitting to {folder} at this moment. Try again.") from error


def _refusal(text: str) -> EffvitError:
    said = " ".join(line.strip() for line in text.splitlines() if line.strip())
    if "Unable to contact" in said or "Connection refused" in said:
        return TemporaryError(f"SLURM's controller does not answer: {said}. Run this again later.")
    return EffvitError(f"sbatch refused the job: {said}. Change --partition, --account, --time-min or what it names.")
