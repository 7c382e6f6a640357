"""Facts about `effvit_med.batch.run`: every case is accounted for, and done once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from effvit_med.batch import BatchOptions, read_manifest, run_batch
from tests.batch.conftest import write_input
from tests.batch.stages import OOM_KILL, RAISE, SEGFAULT


def test_only_the_cases_that_misbehave_fail(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """Of twelve cases one raises, one crashes its process, one is killed: nine are done, each once."""
    source = write_input(tmp_path / "in", 12, {2: RAISE, 5: SEGFAULT, 9: OOM_KILL})
    summary = run_batch(source, tmp_path / "out", options)
    rows = {row["case_id"]: row for row in read_manifest(tmp_path / "out")}
    assert summary.exit_code == 2
    assert Counter(row["status"] for row in rows.values()) == {"done": 9, "failed": 3}
    assert sorted(counts.read_text().split()) == sorted(name for name, row in rows.items() if row["status"] == "done")
    failed = sorted(row["message"] for row in rows.values() if row["status"] == "failed")
    assert "SIGSEGV" in failed[0]
    assert "SIGKILL" in failed[1]
    assert "most likely for its memory" in failed[1]
    assert "this case raises" in failed[2]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_second_run_does_nothing_again(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """Finished cases are skipped, and the exit code is that of a batch that is all done."""
    source = write_input(tmp_path / "in", 3)
    run_batch(source, tmp_path / "out", options)
    summary = run_batch(source, tmp_path / "out", options)
    assert summary.exit_code == 0
    assert summary.counts["skipped"] == 3
    assert len(counts.read_text().split()) == 3
