"""What stands beside every figure."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import (
    Circumstances,
    adding,
    describe_circumstances,
    keep_runs,
    kept_runs,
    make_table,
    write_report,
)

MADE = Circumstances("python -m benchmarks.x", "2024-05-01T00:00:00+00:00", "a processor", 0.5, {"torch": "2"})


def test_absolute_paths_of_a_command_become_their_last_part(tmp_path: Path) -> None:
    """A result that is kept names no folder of the machine it was made on."""
    command = describe_circumstances("benchmarks.x", ["--data", str(tmp_path / "scans"), "--repeats", "3"]).command
    assert command == "python -m benchmarks.x --data scans --repeats 3"


def test_a_table_has_one_cell_for_each_head() -> None:
    """Text columns are ruled left, figures right, and no row is lost."""
    lines = make_table(["a", "b", "c"], [["x", "y", "1"], ["z", "w", "2"]], texts=2).splitlines()
    assert lines == ["| a | b | c |", "|---|---|---:|", "| x | y | 1 |", "| z | w | 2 |"]


def test_both_files_say_machine_versions_date_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON and the Markdown carry the same circumstances, and what is printed is the Markdown."""
    write_report("x", "# Title", {"figure": 3}, MADE, tmp_path)
    content = json.loads((tmp_path / "x.json").read_text())
    assert content == {**vars(MADE), "figure": 3}
    text = (tmp_path / "x.md").read_text()
    assert all(word in text for word in ("# Title", MADE.command, MADE.date, MADE.machine, "torch 2"))
    assert capsys.readouterr().out.strip() == text.strip()


def test_calls_at_the_same_time_lose_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads what is kept and adds its own while the others wait, however long its report takes."""
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "write_report", partial(write_report, folder=tmp_path))
    together = threading.Barrier(4)

    def call(seed: int) -> None:
        together.wait()
        keep_runs("x", adding({"seed": seed}), lambda runs: f"{len(runs)} runs", MADE)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert sorted(run["seed"] for run in kept_runs("x")) == [0, 1, 2, 3]
    assert (tmp_path / "x.md").read_text().startswith("4 runs")
