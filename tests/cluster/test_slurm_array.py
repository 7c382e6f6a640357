"""A batch as an array of a real SLURM of one node."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import Shard, read_manifest
from effvit_med.cluster import ArrayOptions, parse_extra
from effvit_med.cluster.array_status import ArrayStatus, ShardStatus
from effvit_med.errors import SettingsError
from tests.batch.conftest import write_input
from tests.batch.stages import RAISE
from tests.cluster.conftest import OneNode, wait_until

CHEAP = (sys.executable, "-m", "tests.cluster.cheap_cli")
CASES = 6
SHARDS = 3


def _submit(slurm: OneNode, source: Path, output: Path, *words: str) -> Any:
    return slurm.run(
        *CHEAP, "cluster", "slurm", str(source), "-o", str(output), "--shards", str(SHARDS), "--output-type",
        "dicom-seg", "--time-min", "5", "--poll", "0.3", *words,
    )  # fmt: skip


def _status(slurm: OneNode, output: Path) -> dict[str, Any]:
    return json.loads(slurm.run(*CHEAP, "cluster", "status", str(output)).stdout)


def test_an_array_whose_task_was_killed_goes_on_where_it_was(
    slurm: OneNode, tmp_path: Path, counts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One task is killed in the middle, the array submitted again: each case is done once, one manifest has all."""
    source, output = write_input(tmp_path / "in", CASES), tmp_path / "out"
    monkeypatch.setenv("TEST_BATCH_WAIT_FOR", str(tmp_path / "go"))
    assert _submit(slurm, source, output).returncode == 0
    wait_until(lambda: len(_begun(output)) >= SHARDS)
    victim = _begun(output)[0]
    job = _status(slurm, output)["job"]
    number = next(index for index in range(1, SHARDS + 1) if Shard(index, SHARDS).holds(victim))
    slurm.run("scancel", "--signal=KILL", f"{job}_{number - 1}")
    wait_until(lambda: str(number - 1) not in slurm.run("squeue", "-h", "-r", "-o", "%K", "-j", job).stdout.split())
    (tmp_path / "go").touch()
    wait_until(lambda: not slurm.run("squeue", "-h").stdout.strip())
    lost = _status(slurm, output)
    assert lost["exit_code"] in (75, 130)

    again = _submit(slurm, source, output, "--wait")
    assert again.returncode == 0, again.stderr
    rows = read_manifest(output)
    assert Counter(row["status"] for row in rows) == {"done": CASES}
    assert Counter(counts.read_text().split()) == {row["case_id"]: 1 for row in rows}
    assert (output / "manifest.csv").exists()
    assert {shard["state"] for shard in _status(slurm, output)["shards"]} == {"done"}
