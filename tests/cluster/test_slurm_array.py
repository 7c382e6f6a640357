"""A batch as an array of a real SLURM of one node."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import Shard, read_manifest
from effvit_med.cluster import ArrayOptions, parse_extra
from effvit_med.errors import SettingsError
from tests.batch.conftest import write_input
from tests.batch.stages import DISK_FULL, RAISE
from tests.cluster.conftest import OneNode, wait_until
from tests.cluster.stages import read_notes

CHEAP_CLI = (sys.executable, "-m", "tests.cluster.cheap_cli")
CASES = 5
SHARDS = 3


@pytest.fixture(name="bundle")
def _bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


def _submit(slurm: OneNode, folder: Path, *words: str) -> Any:
    return slurm.run(
        *CHEAP_CLI, "cluster", "slurm", str(folder / "in"), "-o", str(folder / "out"), "--shards", str(SHARDS),
        "--bundle", str(folder / "bundle"), "--output-type", "dicom-seg", "--time-min", "5", "--poll", "0.3",
        "--retry-wait", "0.1", *words,
    )  # fmt: skip


def _status(slurm: OneNode, folder: Path) -> dict[str, Any]:
    return json.loads(slurm.run(*CHEAP_CLI, "cluster", "status", str(folder / "out")).stdout)


def _queue(slurm: OneNode) -> list[str]:
    return slurm.run("squeue", "--noheader", "--array", "--format=%K").stdout.split()


def test_an_array_whose_task_was_killed_goes_on_where_it_was(slurm: OneNode, tmp_path: Path, bundle: Path) -> None:
    """One task is killed in the middle, the array submitted again: each case is done once, one manifest has all."""
    write_input(tmp_path / "in", CASES, {2: RAISE})
    (bundle / "closed").touch()
    submitted = _submit(slurm, tmp_path)
    assert submitted.returncode == 0, submitted.stderr
    job = json.loads(submitted.stdout)["job"]
    wait_until(lambda: len(read_notes(bundle, "begun")) >= SHARDS)
    refused = _submit(slurm, tmp_path)
    victim = read_notes(bundle, "begun")[0].split(":")[0]
    number = next(index for index in range(1, SHARDS + 1) if Shard(index, SHARDS).holds(victim))
    slurm.run("scancel", "--signal=KILL", f"{job}_{number - 1}")
    wait_until(lambda: str(number - 1) not in _queue(slurm))
    (bundle / "closed").unlink()
    wait_until(lambda: not _queue(slurm))
    killed = _status(slurm, tmp_path)
    again = _submit(slurm, tmp_path, "--wait")
    summary = json.loads(again.stdout)
    rows = read_manifest(tmp_path / "out")

    assert refused.returncode == 1
    assert f"Array {job} still works" in refused.stderr
    assert killed["exit_code"] in (75, 130)
    assert killed["cases"]["pending"] >= 1
    assert again.returncode == 2, again.stderr
    assert Counter(row["status"] for row in rows) == {"done": CASES - 1, "failed": 1}
    done = {row["case_id"] for row in rows if row["status"] == "done"}
    assert Counter(read_notes(bundle, "segmented")) == dict.fromkeys(done, 1)
    assert (tmp_path / "out" / "manifest.csv").exists()
    assert {shard["state"] for shard in summary["shards"]} == {"done"}
    assert sum(shard["finished"] for shard in summary["shards"]) == CASES


def test_a_task_at_its_time_limit_is_requeued_and_goes_on(slurm: OneNode, tmp_path: Path, bundle: Path) -> None:
    """The signal that comes before the time limit ends a task cleanly; started again, it does what was left."""
    write_input(tmp_path / "in", CASES)
    (bundle / "closed").touch()
    job = json.loads(_submit(slurm, tmp_path).stdout)["job"]
    wait_until(lambda: len(read_notes(bundle, "begun")) >= SHARDS)
    slurm.run("scancel", "--signal=USR2", job)
    wait_until(lambda: {shard["state"] for shard in _status(slurm, tmp_path)["shards"]} == {"requeued"})
    (bundle / "closed").unlink()
    # SLURM holds a requeued job back for two minutes
    wait_until(lambda: slurm.run("scontrol", "update", f"JobId={job}", "StartTime=now").returncode == 0)
    wait_until(lambda: not _queue(slurm))
    collected = slurm.run(*CHEAP_CLI, "cluster", "collect", str(tmp_path / "out"))

    assert collected.returncode == 0, collected.stderr
    assert json.loads(collected.stdout)["cases"] == {"done": CASES}
    rows = read_manifest(tmp_path / "out")
    assert Counter(read_notes(bundle, "segmented")) == {row["case_id"]: 1 for row in rows}


def test_logs_and_names_of_jobs_hold_no_names(slurm: OneNode, tmp_path: Path, bundle: Path) -> None:
    """A full disk is tried again within the task and ends with 75; neither logs nor scripts name a file of the input."""
    write_input(tmp_path / "in" / "DOE_JANE", 1, {1: DISK_FULL})
    done = _submit(slurm, tmp_path, "--wait", "--task-retries", "1")
    summary = json.loads(done.stdout)
    logs = [
        file for file in (tmp_path / "out" / "journal" / "slurm").iterdir() if file.suffix in {".err", ".out", ".sh"}
    ]

    assert done.returncode == 75
    assert 75 in {shard["exit_code"] for shard in summary["shards"]}
    assert len(read_notes(bundle, "begun")) == 2
    assert len(logs) == 2 * SHARDS + 1
    assert not any("DOE" in file.read_text(encoding="utf-8") for file in logs)
    assert "--job-name=effvit-med\n" in next(file for file in logs if file.suffix == ".sh").read_text(encoding="utf-8")


def test_sbatch_says_why_it_refuses(slurm: OneNode, tmp_path: Path, bundle: Path) -> None:
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
