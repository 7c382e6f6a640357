"""What SLURM's queue says of an array: asked through ``squeue``, since not every cluster keeps accounts."""

from __future__ import annotations

import re
import shutil
import subprocess

from effvit_med.errors import EffvitError, TemporaryError

ANSWER_TIMEOUT_S = 60.0
"""How long the controller may take to answer."""

_UNKNOWN_JOB = "Invalid job id"


def check_slurm_is_here() -> None:
    """Whether jobs can be submitted from here.

    Raises:
        EffvitError: if a command of SLURM is not on the PATH.
    """
    missing = [name for name in ("sbatch", "srun", "squeue") if shutil.which(name) is None]
    if missing:
        text = (
            f"Not on the PATH: {', '.join(missing)}, so nothing can be submitted from this machine. Log in to a node "
            "that submits to SLURM, or try the shards on this machine with --executor local."
        )
        raise EffvitError(text)


def ask_queue(job: str) -> dict[int, str]:
    """The states of those tasks of an array that are still in the queue.

    Args:
        job: the number of the array.

    Returns:
        The state, such as ``PENDING`` or ``RUNNING``, by number of the shard (from 1); empty when all are over.

    Raises:
        TemporaryError: if the controller does not answer.
        EffvitError: if ``squeue`` is not on the PATH.
    """
    check_slurm_is_here()
    command = ["squeue", "--noheader", "--array", f"--jobs={job}", "--format=%K %T"]
    try:
        # a fixed command and a number that sbatch gave
        answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise TemporaryError(f"squeue has not answered in {ANSWER_TIMEOUT_S:.0f} s. Ask again later.") from error
    if answer.returncode != 0:
        if _UNKNOWN_JOB in answer.stderr:
            return {}
        raise TemporaryError(f"squeue says: {answer.stderr.strip()}. Ask again later.")
    return _parse(answer.stdout)


def _parse(text: str) -> dict[int, str]:
    r"""States by shard from lines such as ``0 RUNNING``; a job that is no array has ``N/A`` for its one task.

    Examples:
        >>> _parse("0 RUNNING\n2 PENDING\n")
        {1: 'RUNNING', 3: 'PENDING'}
        >>> _parse("N/A COMPLETING\n")
        {1: 'COMPLETING'}
    """
    found = re.findall(r"^\s*(\d+|N/A)\s+(\w+)\s*$", text, flags=re.MULTILINE)
    return {1 if index == "N/A" else int(index) + 1: state for index, state in found}
