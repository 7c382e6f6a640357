"""A batch as an array of a real SLURM of one node."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import read_manifest
from effvit_med.cluster import ArrayOptions, parse_extra
from effvit_med.cluster.shard_states import read_states, slurm_folder
from effvit_med.errors import SettingsError
from tests.batch.conftest import write_input
from tests.batch.stages import RAISE
from tests.cluster.conftest import OneNode, wait_until
from tests.cluster.stages import read_notes

CHEAP_CLI = (sys.executable, "-m", "tests.cluster.cheap_cli")
CASES = 5  # at least one in each shard; one is alone in the second
SHARDS = 3


@dataclass(frozen=True)
class Story:
    """What was seen while an array ran: its first task killed, its second one at its time limit, then submitted again.

    Attributes:
        folder: with ``in``, ``out`` and ``bundle``.
        job: the number of the first array.
        meanwhile: what a second submission said while the array ran.
        killed: what ``cluster status`` said of the array when it was over.
        again: what the second array said.
    """

    folder: Path
    job: str
    meanwhile: subprocess.CompletedProcess[str]
    killed: dict[str, Any]
    again: subprocess.CompletedProcess[str]


def _submit(slurm: OneNode, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return slurm.run(
        *CHEAP_CLI, "cluster", "slurm", str(folder / "in"), "-o", str(folder / "out"), "--shards", str(SHARDS),
        "--bundle", str(folder / "bundle"), "--output-type", "dicom-seg", "--time-min", "5", "--poll", "0.3", *words,
    )  # fmt: skip


def _queue(slurm: OneNode) -> list[str]:
    return slurm.run("squeue", "--noheader", "--array", "--format=%K").stdout.split()


@pytest.fixture(name="story", scope="module")
def _story(slurm: OneNode, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("array")
    bundle, output = folder / "bundle", folder / "out"
    bundle.mkdir()
    write_input(folder / "in" / "DOE_JANE", CASES, {2: RAISE})
    (bundle / "closed").touch()
    submitted = _submit(slurm, folder)
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)["job"]
    wait_until(lambda: len(read_notes(bundle, "begun")) >= SHARDS)
    meanwhile = _submit(slurm, folder)
    slurm.run("scancel", "--signal=KILL", f"{job}_0")
    slurm.run("scancel", "--signal=USR2", f"{job}_1")
    wait_until(lambda: read_states(slurm_folder(output), SHARDS)[2].state == "requeued" and "0" not in _queue(slurm))
    (bundle / "closed").unlink()
    # SLURM holds a requeued task back for two minutes
    wait_until(lambda: slurm.run("scontrol", "update", f"JobId={job}_1", "StartTime=now").returncode == 0)
    wait_until(lambda: not _queue(slurm))
    killed = json.loads(slurm.run(*CHEAP_CLI, "cluster", "status", str(output)).stdout)
    return Story(folder, job, meanwhile, killed, _submit(slurm, folder, "--wait"))


def test_each_case_is_done_once_and_the_manifest_has_all(story: Story) -> None:
    """Though one task was killed and one requeued, no healthy case was done twice, and only the faulty one failed."""
    rows = read_manifest(story.folder / "out")
    assert Counter(row["status"] for row in rows) == {"done": CASES - 1, "failed": 1}
    done = {row["case_id"] for row in rows if row["status"] == "done"}
    assert Counter(read_notes(story.folder / "bundle", "segmented")) == dict.fromkeys(done, 1)
    assert (story.folder / "out" / "manifest.csv").exists()


def test_a_killed_task_leaves_the_array_to_be_run_again(story: Story) -> None:
    """The status names the shard that was killed and its unfinished case, with an exit code that means: run again."""
    first = story.killed["shards"][0]
    assert story.killed["is_over"]
    assert story.killed["exit_code"] in (75, 130)
    assert (first["finished"], first["cases"]) == (0, 1)
    assert first["state"] in ("lost", "failed")


def test_a_task_at_its_time_limit_is_requeued_and_goes_on(story: Story) -> None:
    """The signal that comes before the time limit ends a task cleanly; SLURM starts it again, and it ends well."""
    second = story.killed["shards"][1]
    assert second["state"] == "done"
    assert (second["finished"], second["cases"]) == (1, 1)
    victim = next(row["case_id"] for row in read_manifest(story.folder / "out") if row["status"] == "failed")
    begun = [line.split(":")[0] for line in read_notes(story.folder / "bundle", "begun")]
    assert begun.count(victim) == 2


def test_waiting_ends_with_the_exit_code_of_one_batch(story: Story) -> None:
    """The array that was submitted again and waited for has 2: all is finished and one case failed."""
    assert story.again.returncode == 2, story.again.stderr
    summary = json.loads(story.again.stdout)
    assert {shard["state"] for shard in summary["shards"]} == {"done"}
    assert sum(shard["finished"] for shard in summary["shards"]) == CASES
    assert summary["manifest"] == str(story.folder / "out" / "manifest.jsonl")


def test_an_array_that_still_runs_is_not_submitted_twice(story: Story) -> None:
    """A second submission for the same results is refused and names the job, so that it can be stopped."""
    assert story.meanwhile.returncode == 1
    assert f"scancel {story.job}" in story.meanwhile.stderr


def test_scripts_and_logs_hold_no_names(story: Story) -> None:
    """Neither job scripts nor logs of tasks name a file or folder of the input, and the job's name is ours."""
    files = [file for file in (story.folder / "out" / "journal" / "slurm").iterdir() if file.suffix != ".pkl"]
    texts = [file.read_text(encoding="utf-8") for file in files]
    assert sum(file.suffix in (".err", ".out") for file in files) == 4 * SHARDS
    assert not any("DOE" in text for text in texts)
    assert any("#SBATCH --job-name=effvit-med\n" in text for text in texts)


def test_sbatch_says_why_it_refuses(slurm: OneNode, tmp_path: Path) -> None:
    """A partition that is not there is one line that names sbatch's own reason, and exit code 1."""
    write_input(tmp_path / "in", 1)
    refused = _submit(slurm, tmp_path, "--partition", "nowhere")
    assert refused.returncode == 1
    assert "sbatch refused the job" in refused.stderr
    assert "nvalid partition" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_what_the_queue_is_asked_for() -> None:
    """Processors are asked for twice, since srun does not take them over; what is not given is left to the cluster."""
    asked = ArrayOptions(8, max_parallel=2, cpus=4, mem_gb=1.5, extra={"qos": "long"}).parameters()
    assert asked["array_parallelism"] == 2
    assert asked["srun_args"] == ["--cpus-per-task=4"]
    assert asked["mem"] == "1536MB"
    assert asked["additional_parameters"] == {"qos": "long"}
    assert "partition" not in asked


@pytest.mark.parametrize(
    ("word", "complaint"), [("qos", "key=value"), ("=x", "key=value"), ("array=0-9", "set by this")]
)
def test_extra_options_are_checked(word: str, complaint: str) -> None:
    """An option of sbatch that has no value, or that an array needs for itself, is refused."""
    with pytest.raises(SettingsError, match=complaint):
        parse_extra((word,))
