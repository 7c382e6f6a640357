"""Facts about a batch whose processes are killed or stopped from outside: nothing half done, lost or done twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from effvit_med.batch import read_manifest
from tests.batch.conftest import write_input

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")

ROOT = Path(__file__).parents[2]


class _Runner:
    """A batch in a process group of its own."""

    def __init__(self, source: Path, output: Path, shard: str = "1/1") -> None:
        words = [sys.executable, "-m", "tests.batch.runner", str(source), str(output), shard]
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.output = output
        self.children: list[psutil.Process] = []

    def wait_for(self, cases: int) -> None:
        """Until so many cases are done."""
        while len(_finished(self.output)) < cases and self.process.poll() is None:
            time.sleep(0.02)
        with contextlib.suppress(psutil.NoSuchProcess):
            self.children = psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int) -> None:
        """Send a signal to the parent only."""
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """Its exit code and output, once it has ended."""
        output, _ = self.process.communicate(timeout=240)
        return self.process.returncode, output

    def are_children_gone(self) -> bool:
        """Whether all children have ended, which takes them a moment."""
        _, alive = psutil.wait_procs(self.children, timeout=60)
        return not alive


def _finished(output: Path) -> set[str]:
    """The cases that the journal calls done."""
    states = (output / "journal" / "jobs").glob("[!.]*.json")
    return {path.stem for path in states if '"status": "done"' in path.read_text()}


def _check_whole(output: Path) -> None:
    """No half file: every folder with a record has the files that it lists, and nothing is hidden."""
    for record in output.glob("*/record.json"):
        listed = json.loads(record.read_text())["outputs"]
        assert all((record.parent / each["file"]).stat().st_size == each["bytes"] for each in listed.values())


def test_a_killed_batch_goes_on_where_it_was(tmp_path: Path, counts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 of the parent its children are gone; the next run does the rest, and nothing finished again."""
    monkeypatch.setenv("TEST_BATCH_SLEEP_S", "0.1")
    source, output = write_input(tmp_path / "in", 12), tmp_path / "out"
    run = _Runner(source, output)
    run.wait_for(5)
    run.stop(signal.SIGKILL)
    assert run.finish()[0] == -signal.SIGKILL
    assert len(run.children) == 3
    assert run.are_children_gone()
    _check_whole(output)
    finished = _finished(output)
    code, text = _Runner(source, output).finish()
    assert code == 0
    assert json.loads(text)["counts"]["skipped"] == len(finished)
    times = Counter(counts.read_text().split())
    assert len(times) == 12
    assert len(finished) >= 5
    assert all(times[name] == 1 for name in finished)
    assert sum(times.values()) <= 12 + 5  # those in flight: one in each process, and those that waited to be written
    assert [row["status"] for row in read_manifest(output)] == ["done"] * 12
    assert not list(output.rglob(".*"))
    assert not list(tmp_path.glob("effvit-med-batch-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_batch_leaves_nothing_half_done(
    tmp_path: Path, counts: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Exit code 130, no child, no hidden folder; what was not done is pending, and the manifest says so."""
    monkeypatch.setenv("TEST_BATCH_SLEEP_S", "0.2")
    source, output = write_input(tmp_path / "in", 8), tmp_path / "out"
    run = _Runner(source, output)
    run.wait_for(3)
    run.stop(number)
    code, text = run.finish()
    assert code == 130
    assert run.are_children_gone()
    assert "go on" in json.loads(text)["message"]
    _check_whole(output)
    rows = read_manifest(output)
    assert len(rows) == 8
    assert {row["status"] for row in rows} == {"done", "pending"}
    assert not list(output.rglob(".*"))
    assert not list(tmp_path.glob("effvit-med-batch-*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_killed_child_costs_at_most_a_try(
    tmp_path: Path, counts: Path, monkeypatch: pytest.MonkeyPatch, stage: int
) -> None:
    """After kill -9 of any child its case is tried again, and all are done."""
    monkeypatch.setenv("TEST_BATCH_SLEEP_S", "0.2")
    source, output = write_input(tmp_path / "in", 8), tmp_path / "out"
    run = _Runner(source, output)
    run.wait_for(3)
    run.children[stage].kill()
    assert run.finish()[0] == 0
    assert [row["status"] for row in read_manifest(output)] == ["done"] * 8
    assert not list(output.rglob(".*"))


@pytest.mark.slow
def test_two_shards_in_two_processes_share_an_output(tmp_path: Path, counts: Path) -> None:
    """At the same time, each case once."""
    source, output = write_input(tmp_path / "in", 12), tmp_path / "out"
    runs = [_Runner(source, output, f"{index}/2") for index in (1, 2)]
    assert [run.finish()[0] for run in runs] == [0, 0]
    assert set(Counter(counts.read_text().split()).values()) == {1}
    assert [row["status"] for row in read_manifest(output)] == ["done"] * 12
