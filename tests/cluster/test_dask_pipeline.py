"""A batch on a dask.distributed cluster that runs already."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import BatchOptions, read_manifest, run_batch
from effvit_med.batch.journal import Journal
from effvit_med.cluster import run_on_scheduler
from effvit_med.cluster.case_order import CaseOrder, Requirements, run_case
from effvit_med.engine import Job
from effvit_med.errors import SettingsError
from tests.batch.conftest import write_input
from tests.batch.stages import OOM_KILL, RAISE
from tests.cluster.conftest import wait_until
from tests.cluster.stages import CHEAP, read_notes


@pytest.fixture(name="bundle")
def _bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    return folder


@pytest.fixture(name="options")
def _options(bundle: Path) -> BatchOptions:
    return BatchOptions(bundle=bundle, job=Job(output_types=("dicom-seg",)), stages=CHEAP)


def _address(client: Any) -> str:
    return client.scheduler.address


def test_only_the_killer_fails_and_healthy_cases_are_done_once(
    dask_client: Any, tmp_path: Path, options: BatchOptions, bundle: Path
) -> None:
    """Of eight cases one raises and one kills every worker it meets: six are done, each segmented once."""
    source = write_input(tmp_path / "in", 8, {2: OOM_KILL, 5: RAISE})
    summary = run_on_scheduler(_address(dask_client), source, tmp_path / "out", options)
    rows = {row["case_id"]: row for row in read_manifest(tmp_path / "out")}
    done = {name for name, row in rows.items() if row["status"] == "done"}
    failed = sorted(row["message"] for row in rows.values() if row["status"] == "failed")
    assert summary.exit_code == 2
    assert (len(done), len(failed)) == (6, 2)
    assert Counter(read_notes(bundle, "segmented")) == dict.fromkeys(done, 1)
    assert "2 dask workers died with it" in failed[0]
    assert failed[1].startswith("ValueError; its text may quote the file")


def test_a_worker_killed_in_the_middle_costs_no_case(
    dask_client: Any, tmp_path: Path, options: BatchOptions, bundle: Path
) -> None:
    """A busy worker is killed from outside: its case goes to another worker, all cases are done, each once."""
    source = write_input(tmp_path / "in", 4)
    (bundle / "closed").touch()

    def kill() -> None:
        wait_until(lambda: len(read_notes(bundle, "begun")) == 2)
        os.kill(int(read_notes(bundle, "begun")[0].split(":")[1]), signal.SIGKILL)
        (bundle / "closed").unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    summary = run_on_scheduler(_address(dask_client), source, tmp_path / "out", options)
    killer.join()
    rows = read_manifest(tmp_path / "out")
    victim = read_notes(bundle, "begun")[0].split(":")[0]
    assert summary.exit_code == 0
    assert Counter(read_notes(bundle, "segmented")) == {row["case_id"]: 1 for row in rows}
    assert {row["case_id"]: row["attempts"] for row in rows if row["attempts"] > 1} == {victim: 2}


def test_the_model_is_loaded_once_per_worker(
    dask_client: Any, tmp_path: Path, options: BatchOptions, bundle: Path
) -> None:
    """Six cases on two workers load two models."""
    run_on_scheduler(_address(dask_client), write_input(tmp_path / "in", 6), tmp_path / "out", options)
    loaded = read_notes(bundle, "loaded")
    assert len(loaded) == len(set(loaded)) == 2


def test_a_second_run_does_nothing_again(dask_client: Any, tmp_path: Path, options: BatchOptions, bundle: Path) -> None:
    """What the workers have done counts for a batch on this machine, too: the journal is the same."""
    source = write_input(tmp_path / "in", 3)
    run_on_scheduler(_address(dask_client), source, tmp_path / "out", options)
    summary = run_batch(source.absolute(), tmp_path / "out", options)
    assert (summary.exit_code, summary.counts["skipped"]) == (0, 3)
    assert len(read_notes(bundle, "segmented")) == 3


def test_a_stop_leaves_cases_to_go_on_with(
    dask_client: Any, tmp_path: Path, options: BatchOptions, bundle: Path
) -> None:
    """Stopped in the middle, the run ends with 130 and no case is held; a second one finishes."""
    source = write_input(tmp_path / "in", 3)
    (bundle / "closed").touch()
    stopped = run_on_scheduler(
        _address(dask_client),
        source,
        tmp_path / "out",
        options,
        cancelled=lambda: len(read_notes(bundle, "begun")) == 2,
    )
    states = Counter(state["status"] for state in Journal(tmp_path / "out").states())
    (bundle / "closed").unlink()
    summary = run_on_scheduler(_address(dask_client), source, tmp_path / "out", options)
    assert stopped.exit_code == 130
    assert states == {"pending": 3}
    assert (summary.exit_code, summary.counts["done"]) == (0, 3)


def test_no_scheduler_is_temporary(tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, the run ends in bounded time with 75 and one sentence."""
    monkeypatch.setattr("effvit_med.cluster.dask_pipeline.CONNECT_TIMEOUT_S", 0.5)
    source = write_input(tmp_path / "in", 1)
    summary = run_on_scheduler("tcp://127.0.0.1:9", source, tmp_path / "out", options)
    assert summary.exit_code == 75
    assert "No dask scheduler has answered at tcp://127.0.0.1:9" in summary.message


def test_a_wrong_bundle_is_told_before_any_case(dask_client: Any, tmp_path: Path, options: BatchOptions) -> None:
    """A model that no worker can load is wrong configuration, not a failure of every case."""
    broken = replace(options, stages=replace(CHEAP, segment="tests.batch.stages:make_broken"))
    with pytest.raises(SettingsError, match=r"cannot load the model: .*no such device"):
        run_on_scheduler(_address(dask_client), write_input(tmp_path / "in", 1), tmp_path / "out", broken)
    assert not read_manifest_rows(tmp_path / "out")


def read_manifest_rows(output: Path) -> list[dict[str, Any]]:
    """The states in a journal that may have none."""
    return list(Journal(output).states()) if (output / "journal" / "jobs").is_dir() else []


def test_a_worker_that_does_not_see_the_input_says_so(tmp_path: Path, options: BatchOptions) -> None:
    """The path that a worker lacks is named, with what to do."""
    notes = tmp_path / "out" / "journal" / "dask" / "run"
    notes.mkdir(parents=True)
    (notes / "mark").touch()
    assert "does not see /nowhere" in Requirements((Path("/nowhere"),), notes, options)()
    assert Requirements((tmp_path,), notes, options)() == ""


def test_a_worker_with_another_folder_at_the_same_path_says_so(tmp_path: Path, options: BatchOptions) -> None:
    """A folder that has the right name but not the client's mark is not shared, and nothing is written there."""
    (tmp_path / "out" / "journal" / "dask" / "run").mkdir(parents=True)
    fault = Requirements((tmp_path,), tmp_path / "out" / "journal" / "dask" / "run", options)()
    assert f"sees another folder at {tmp_path / 'out'}" in fault


def test_a_worker_of_another_version_says_so(tmp_path: Path, options: BatchOptions) -> None:
    """Results of two versions are not mixed in one manifest."""
    assert "not 0.0 as this machine" in Requirements((), tmp_path, options, version="0.0")()


def test_an_order_of_a_client_that_is_gone_is_not_done(tmp_path: Path, options: BatchOptions) -> None:
    """A worker whose client has left, and with it the folder of notes, touches nothing."""
    answer = run_case(CaseOrder(None, options, tmp_path / "gone"), 0)  # type: ignore[arg-type]
    assert (answer.verdict, answer.code) == ("stop", "STOPPED")
    assert not list(tmp_path.glob("*/*"))
