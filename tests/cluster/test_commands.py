"""The commands around an array, and what they say where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from effvit_med.batch import read_manifest
from effvit_med.cli import commands
from effvit_med.cluster.array_status import ArrayStatus, ShardStatus, report_status
from effvit_med.cluster.shard_states import ShardState, Submission, slurm_folder, write_state, write_submission
from tests.batch.conftest import write_input
from tests.cluster.conftest import ROOT
from tests.cluster.stages import read_notes


def _invoke(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(commands, [str(word) for word in words], standalone_mode=False, env=environment)


def test_without_sbatch_one_line_says_what_to_do(tmp_path: Path) -> None:
    """On a machine that cannot submit, nothing is written, and the way to try is named."""
    result = _invoke("cluster", "slurm", tmp_path, "-o", tmp_path / "out", "--shards", 2, PATH=str(tmp_path))
    assert result.return_value == 1
    assert result.stderr.count("\n") == 1
    assert "Not on the PATH: sbatch, srun, squeue" in result.stderr
    assert "--executor local" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the optional part one line says how to install it, for SLURM and for dask."""
    monkeypatch.setattr("effvit_med.cluster.extras.find_spec", lambda _: None)
    array = _invoke("cluster", "slurm", tmp_path, "-o", tmp_path / "out", "--shards", 2)
    dask = _invoke("batch", tmp_path, "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9", "--quiet")
    for result, package in ((array, "submitit"), (dask, "distributed")):
        assert result.return_value == 1
        assert (
            result.stderr == f'Error: {package} is not installed. Install it with: pip install "effvit-med[cluster]"\n'
        )


def test_a_dry_run_shows_script_and_tasks_and_writes_nothing(tmp_path: Path) -> None:
    """Options of the queue are in the script, options of the batch in every task, all paths absolute."""
    queue = ["--shards", 3, "--max-parallel", 2, "--partition", "gpu", "--extra", "qos=long"]
    how = ["--bundle", "models", "--output-type", "nifti", "dicom-seg", "--keep-ids"]
    result = _invoke("cluster", "slurm", tmp_path, "-o", tmp_path / "out put", *queue, *how, "--dry-run", PATH="")
    shown = json.loads(result.stdout)
    assert "#SBATCH --array=0-2%2\n" in shown["script"]
    assert "#SBATCH --partition=gpu\n" in shown["script"]
    assert "#SBATCH --qos=long\n" in shown["script"]
    words = " ".join(shown["tasks"][1])
    assert f"--bundle {Path.cwd() / 'models'} --output-type nifti --output-type dicom-seg" in words
    assert words.endswith("--keep-ids --shard 2/3")
    assert not (tmp_path / "out put").exists()


def test_an_input_that_is_not_there_is_told_before_submitting(tmp_path: Path) -> None:
    """A wrong path is an error here, not of a hundred tasks."""
    result = _invoke("cluster", "slurm", tmp_path / "no", "-o", tmp_path / "out", "--shards", 2)
    assert result.return_value == 1
    assert "no does not exist" in result.stderr


@pytest.mark.parametrize("command", ["status", "collect"])
def test_a_folder_without_an_array_is_told(tmp_path: Path, command: str) -> None:
    """Asked about a folder for which nothing was submitted, the commands say so and make nothing."""
    result = _invoke("cluster", command, tmp_path)
    assert result.return_value == 1
    assert "none was submitted" in result.stderr
    assert not list(tmp_path.iterdir())


def test_shards_run_on_this_machine(tmp_path: Path) -> None:
    """The local executor does what an array would do, each case once, with one manifest at the end."""
    write_input(tmp_path / "in", 3)
    (tmp_path / "bundle").mkdir()
    words = [sys.executable, "-m", "tests.cluster.cheap_cli", "cluster", "slurm", str(tmp_path / "in"), "--shards", "2"]
    words += ["-o", str(tmp_path / "out"), "--bundle", str(tmp_path / "bundle"), "--output-type", "dicom-seg"]
    ran = subprocess.run([*words, "--executor", "local"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = read_manifest(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"done": 3}
    assert Counter(read_notes(tmp_path / "bundle", "segmented")) == {row["case_id"]: 1 for row in rows}
    assert [shard["state"] for shard in json.loads(ran.stdout)["shards"]] == ["done", "done"]


def _status(*shards: ShardStatus, **counts: int) -> ArrayStatus:
    return ArrayStatus("1", "slurm", shards, counts)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (_status(ShardStatus(1, "done", 0), ShardStatus(2, "done", 0), done=4), 0),
        (_status(ShardStatus(1, "done", 0), ShardStatus(2, "done", 2), done=3, failed=1), 2),
        (_status(ShardStatus(1, "done", 3), ShardStatus(2, "done", 3)), 3),
        (_status(ShardStatus(1, "done", 2), ShardStatus(2, "lost"), done=3, refused=1), 75),
        (_status(ShardStatus(1, "done", 0), ShardStatus(2, "failed", 75), done=3), 75),
        (_status(ShardStatus(1, "done", 0), ShardStatus(2, "running", None), done=3), 75),
        (_status(ShardStatus(1, "done", 0), ShardStatus(2, "failed", 137), done=3), 75),
        (_status(ShardStatus(1, "lost"), ShardStatus(2, "failed", 130)), 130),
        (_status(ShardStatus(1, "failed", 130), ShardStatus(2, "failed", 1)), 1),
    ],
)
def test_shards_have_one_exit_code_together(status: ArrayStatus, code: int) -> None:
    """The exit code of an array says what is to be done next, as that of one batch."""
    assert status.exit_code == code


def test_a_shard_that_said_nothing_and_is_not_queued_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue knows wins over what a task last said, unless that was its last word."""
    folder = slurm_folder(tmp_path)
    folder.mkdir(parents=True)
    write_submission(folder, Submission("7", "slurm", 4))
    for number, state in ((1, "running"), (2, "running"), (3, "done")):
        write_state(folder, ShardState(number, 4, state, exit_code=0 if state == "done" else None))
    queue: dict[int, str] = {2: "PENDING", 4: "PENDING"}
    monkeypatch.setattr("effvit_med.cluster.array_status.ask_queue", lambda _: queue)
    assert [shard.state for shard in report_status(tmp_path).shards] == ["lost", "requeued", "done", "pending"]
