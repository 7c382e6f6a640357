"""The order of the measurements, how they are kept, and the whole way on a tiny scan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import engine
from benchmarks.engine import QUICK, Sizes, Work, main
from benchmarks.engine_process import ChildFailedError


def test_each_answer_is_kept_as_it_comes(tmp_path: Path) -> None:
    """A run that goes on with the file of an interrupted one asks only for what is missing, or failed before."""
    work = Work(QUICK, tmp_path, tmp_path / "partial.json")

    def fail() -> dict[str, Any]:
        raise ChildFailedError("no memory\nthe last line")

    work.measure("path", "a", lambda: {"figure": 1})
    work.measure("path", "b", fail)
    assert work.found["path"]["b"] == {"failed": "no memory (the last line)"}
    again = Work(QUICK, tmp_path, tmp_path / "partial.json")
    again.load()
    again.measure("path", "a", lambda: {"figure": 2})
    again.measure("path", "b", lambda: {"figure": 3})
    assert again.found == {"path": {"a": {"figure": 1}, "b": {"figure": 3}}}


def test_answers_of_other_sizes_are_not_mixed_in(tmp_path: Path) -> None:
    """What was measured on a tiny scan cannot become a row beside full-size ones."""
    Work(QUICK, tmp_path, tmp_path / "partial.json").measure("path", "a", lambda: {"figure": 1})
    with pytest.raises(SystemExit, match="was made with"):
        Work(Sizes(), tmp_path, tmp_path / "partial.json").load()


def test_no_gpu_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no GPU nothing is measured for it, and the report says why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(["--quick", "--only", "gpu"], tmp_path)
    assert "No GPU on this machine." in (tmp_path / "engine_quick_gpu.md").read_text(encoding="utf-8")
    assert not (tmp_path / "engine_quick_gpu.partial.json").exists()


def test_a_measurement_that_dies_is_named_and_kept_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows are told all the same, the report says which failed, and the answers stay for --resume."""

    def measure(work: Work) -> None:
        work.measure("peak", "all", lambda: engine.run_alone("benchmarks.engine_process:no_such_task", {}))

    monkeypatch.setitem(engine.MEASURE, "peak", measure)  # type: ignore[misc]
    main(["--quick", "--only", "peak"], tmp_path)
    assert "no_such_task" in (tmp_path / "engine_quick_peak.md").read_text(encoding="utf-8")
    assert (tmp_path / "engine_quick_peak.partial.json").exists()


@pytest.mark.slow
def test_quick_run_measures_every_table(tmp_path: Path) -> None:
    """All tables are made on a tiny scan; a peer that is not installed is named, all else succeeds."""
    main(["--quick"], tmp_path)
    tables = json.loads((tmp_path / "engine_quick.json").read_text(encoding="utf-8"))["tables"]
    failed = {f"{table} {row}" for table, rows in tables.items() for row, found in rows.items() if "failed" in found}
    assert failed <= {"peers 14 nnunet", "peers 105 nnunet"}
    assert set(tables) == set(engine.TABLES)
    cold, warm, with_seg = tables["path"]["structured-14-stride4 one thread 0"]["cases"]
    assert {"read", "prepare", "network", "label"} <= set(warm["cpu"])
    assert cold["cpu"]["load model"] > 0
    assert with_seg["outputs"] == "nifti and dicom-seg"
    steps = sum(value for name, value in warm["wall"].items() if name != "all")
    assert 0 <= warm["wall"]["all"] - steps < 0.5 * warm["wall"]["all"]
