"""Facts about `effvit_med.batch.run`: every case is accounted for and done once, whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import (
    BatchEvent,
    BatchOptions,
    BatchSummary,
    Pipeline,
    Shard,
    Stages,
    list_cases,
    read_manifest,
    run_batch,
)
from effvit_med.batch.jobs import plan_jobs
from effvit_med.batch.journal import Journal
from effvit_med.engine import Job
from effvit_med.errors import CancelledError, InputError, SettingsError
from effvit_med.io import open_input
from tests.batch.conftest import QUICK, write_input
from tests.batch.stages import CRASH_ONCE, DEVICE, DISK_FULL, EXIT, HANG, MEMORY, OOM_KILL, RAISE, SEGFAULT
from tests.io.dicom_cases import make_series, save


@dataclass(frozen=True)
class _Mixed:
    """A run over fourteen cases, four of which misbehave, and one refused series."""

    source: Path
    output: Path
    options: BatchOptions
    summary: BatchSummary
    rows: dict[int, dict[str, Any]]
    counted: Counter[str]
    events: list[BatchEvent]


def _by_number(output: Path) -> dict[int, dict[str, Any]]:
    return {int(row["case_id"].split("_")[1]): row for row in read_manifest(output)}


@pytest.fixture(name="mixed", scope="module")
def _mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Mixed]:
    folder = tmp_path_factory.mktemp("mixed")
    source = write_input(folder / "in", 14, {2: RAISE, 5: SEGFAULT, 7: MEMORY, 9: CRASH_ONCE})
    save(source / "gap", make_series(places=[0, 2, 6, 8], series=99))
    (source / "notes.txt").write_text("of a person")
    options = BatchOptions(job=Job(output_types=("dicom-seg",)), stages=QUICK, scratch=folder / "scratch")
    events: list[BatchEvent] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_BATCH_COUNTS", str(folder / "counts.txt"))
        summary = run_batch(source, folder / "out", options, on_event=events.append)
        counted = Counter((folder / "counts.txt").read_text().split())
        yield _Mixed(source, folder / "out", options, summary, _by_number(folder / "out"), counted, events)


def test_only_the_cases_that_misbehave_fail(mixed: _Mixed) -> None:
    """One raises, one crashes its process, one asks for too much memory; a series with a gap is refused."""
    statuses = {number: row["status"] for number, row in mixed.rows.items() if row["status"] != "done"}
    assert statuses == {2: "failed", 5: "failed", 7: "failed", 99: "refused"}
    assert mixed.summary.exit_code == 2


def test_every_healthy_case_is_done_once(mixed: _Mixed) -> None:
    """Also those that waited while a process died, and the one that crashed its process once."""
    done = {row["case_id"] for row in mixed.rows.values() if row["status"] == "done"}
    assert mixed.counted == dict.fromkeys(done, 1)
    assert len(done) == 11


def test_a_failed_case_says_why(mixed: _Mixed) -> None:
    """The signal, the error, the memory, each with a code."""
    assert mixed.rows[5]["code"] == "CRASHED"
    assert "SIGSEGV" in mixed.rows[5]["message"]
    assert mixed.rows[2]["code"] == "CRASHED"
    assert "ValueError" in mixed.rows[2]["message"]
    assert mixed.rows[7]["code"] == "NOT_ENOUGH_MEMORY"
    assert mixed.rows[99]["code"] == "MISSING_SLICES"


def test_the_state_says_where_a_process_died(mixed: _Mixed) -> None:
    """The Python stack of a segmentation fault and of an exception, without folders."""
    assert "misbehave" in mixed.rows[5]["trace"]
    assert "misbehave" in mixed.rows[2]["trace"]
    assert "/" not in mixed.rows[5]["trace"] + mixed.rows[2]["trace"]


def test_a_crash_is_tried_once_more(mixed: _Mixed) -> None:
    """The second try of a case that crashed once is good; the tries are counted."""
    assert mixed.rows[9]["status"] == "done"
    assert {number: row["attempts"] for number, row in mixed.rows.items() if row["attempts"] != 1} == {
        5: 2,
        9: 2,
        99: 0,
    }


def test_nothing_temporary_stays(mixed: _Mixed) -> None:
    """No hidden folder in the output, and nothing in the folder for temporary files."""
    assert not list(mixed.output.rglob(".*"))
    assert not list((mixed.output.parent / "scratch").iterdir())


def test_a_row_says_how_a_case_was_made(mixed: _Mixed) -> None:
    """Model, device, versions, hashes in and out, geometry, times, memory, volumes, and the verdict."""
    row = mixed.rows[1]
    assert (row["bundle"], row["device"], len(row["weights_sha256"])) == ("threshold", "cpu", 64)
    assert (row["shape"], row["spacing_mm"]) == ([3, 8, 10], [2.0, 0.9, 0.7])
    assert len(row["inputs_sha256"]) == len(row["key"]) == 64
    assert set(row["outputs"]) == {"dicom-seg", "measurements-csv", "measurements-json", "overlay", "record"}
    assert all(len(each["sha256"]) == 64 and each["bytes"] > 0 for each in row["outputs"].values())
    assert set(row["seconds"]) == set(row["cpu_seconds"]) == {"read", "segment", "write"}
    assert row["peak_mb"]["read"] > 10
    assert row["volumes_ml"]["bright"] > 0
    assert row["quality"]["verdict"] in ("pass", "review", "fail")
    assert [each["structure"] for each in row["quality"]["structures"]] == ["bright"]
    assert row["quality_reason"] == ""
    assert row["started"] <= row["ended"]


def test_events_tell_how_far_it_is(mixed: _Mixed) -> None:
    """Each case ends once, and the last one says that all have."""
    ended = [event for event in mixed.events if event.kind == "finished"]
    assert len(ended) == 14
    assert (ended[-1].done, ended[-1].total) == (14, 14)
    assert [event.kind for event in mixed.events].count("restarted") == 3


def test_files_that_are_no_images_are_counted(mixed: _Mixed) -> None:
    """The text file stands in set_aside.jsonl."""
    assert mixed.summary.counts["set_aside"] == 1
    assert "notes" not in (mixed.output / "set_aside.jsonl").read_text()


def test_a_second_run_does_nothing_again(mixed: _Mixed, counts: Path) -> None:
    """What is done or failed is left as it is, and the exit code still says that some failed."""
    before = read_manifest(mixed.output)
    summary = run_batch(mixed.source, mixed.output, mixed.options)
    assert (summary.exit_code, summary.counts["skipped"]) == (2, 14)
    assert not counts.read_text()
    assert read_manifest(mixed.output) == before


def test_a_dry_run_says_what_would_be_done(mixed: _Mixed, tmp_path: Path) -> None:
    """Of a new output all; of an old one what is not finished; nothing is written."""
    fresh = list_cases(mixed.source, tmp_path / "new", mixed.options)
    assert (fresh.counts["pending"], fresh.counts["refused"]) == (14, 1)
    assert not (tmp_path / "new").exists()
    again = list_cases(mixed.source, mixed.output, mixed.options)
    assert again.counts.get("pending", 0) == 0


def test_only_what_is_missing_or_asked_for_is_done_again(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """A lost file, and with retry_failed a failed case; the healthy rest is left alone."""
    source, output = write_input(tmp_path / "in", 3, {3: RAISE}), tmp_path / "out"
    run_batch(source, output, options)
    first = next(row for row in read_manifest(output) if row["status"] == "done")["case_id"]
    (output / first / "overlay.png").unlink()
    counts.write_text("")
    shutil.rmtree(source / "series003")
    write_input(tmp_path / "mended", 3)
    shutil.copytree(tmp_path / "mended" / "series003", source / "series003")
    summary = run_batch(source, output, replace(options, retry_failed=True))
    assert summary.exit_code == 0
    assert sorted(counts.read_text().split()) == sorted([first, summary.cases[-1].case_id])


@pytest.mark.slow
def test_two_shards_at_once_make_one_manifest(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """On one output, each case once; the manifest of whoever ends last has all rows."""
    source, output = write_input(tmp_path / "in", 10), tmp_path / "out"
    found: dict[int, BatchSummary] = {}

    def run(index: int) -> None:
        found[index] = run_batch(source, output, replace(options, shard=Shard(index, 2)))

    threads = [threading.Thread(target=run, args=(index,)) for index in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index].exit_code for index in (1, 2)] == [0, 0]
    assert len(found[1].cases) + len(found[2].cases) == 10
    assert set(Counter(counts.read_text().split()).values()) == {1}
    assert [row["status"] for row in read_manifest(output)] == ["done"] * 10


def test_a_full_disk_stops_the_run_and_nothing_is_lost(tmp_path: Path, options: BatchOptions) -> None:
    """Exit code 75; what was not done stays pending and is done by the next run."""
    source, output = write_input(tmp_path / "in", 4, {1: DISK_FULL}), tmp_path / "out"
    summary = run_batch(source, output, options)
    assert summary.exit_code == 75
    assert "No space left" in summary.message
    assert summary.counts["pending"] >= 1
    assert {row["status"] for row in read_manifest(output)} <= {"pending", "done"}
    write_input(tmp_path / "in", 4)
    assert run_batch(source, output, options).exit_code == 0


def test_a_model_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path, options: BatchOptions) -> None:
    """One clear line, before any case."""
    source = write_input(tmp_path / "in", 1)
    broken = replace(options, stages=Stages(segment="tests.batch.stages:make_broken"))
    with pytest.raises(SettingsError, match=r"segment process cannot start: RuntimeError: there is no such device"):
        run_batch(source, tmp_path / "out", broken)


def test_a_folder_without_images_is_nothing_to_do(tmp_path: Path, options: BatchOptions) -> None:
    """Exit code 3, not an error; a folder that is not there is one."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("text")
    assert run_batch(tmp_path / "in", tmp_path / "out", options).exit_code == 3
    with pytest.raises(InputError, match="does not exist"):
        run_batch(tmp_path / "nowhere", tmp_path / "out", options)


@pytest.mark.slow
def test_results_inside_the_input_are_no_input(tmp_path: Path, options: BatchOptions) -> None:
    """The output may lie in the input: a second run finds the same cases."""
    source = write_input(tmp_path / "in", 2)
    options = replace(options, job=Job(output_types=("nifti",)))
    first = run_batch(source, source / "out", options)
    second = run_batch(source, source / "out", options)
    assert (first.counts["cases"], second.counts["cases"]) == (2, 2)
    assert second.counts["skipped"] == 2


@pytest.mark.slow
def test_a_case_that_another_run_has_is_left_to_it(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """A second run of the same command does the rest and says that it is not all done."""
    source, output = write_input(tmp_path / "in", 2), tmp_path / "out"
    name = list_cases(source, output, options).cases[0].case_id
    other = Journal(output)
    other.open()
    assert other.claim(name)
    summary = run_batch(source, output, options)
    other.release(name)
    assert summary.exit_code == 75
    assert {case.case_id: case.status for case in summary.cases}[name] == "elsewhere"
    assert name not in counts.read_text()


def test_a_pipeline_takes_cases_as_they_arrive(tmp_path: Path, options: BatchOptions) -> None:
    """A server feeds it from a generator that waits for the result of the case before."""
    source = write_input(tmp_path / "in", 3)
    (tmp_path / "out").mkdir()
    with open_input(source) as found:
        plan = plan_jobs(found, source, tmp_path / "out", options)
    results: list[str] = []

    def arrive() -> Iterator[Any]:
        for number, job in enumerate(plan.jobs):
            while len(results) < number:
                os.sched_yield()
            yield job.task

    with Pipeline(options) as pipeline:
        pipeline.run(arrive(), lambda result: results.append(result.status))
    assert results == ["segmented"] * 3


@pytest.mark.slow
def test_a_pipeline_that_was_stopped_can_be_used_again(tmp_path: Path, options: BatchOptions) -> None:
    """What was in the middle gives no result; the next call does all of its cases."""
    source = write_input(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    with open_input(source) as found:
        tasks = [job.task for job in plan_jobs(found, source, tmp_path / "out", options).jobs]
    results: list[str] = []
    with Pipeline(options) as pipeline:
        with pytest.raises(CancelledError):
            pipeline.run(tasks, lambda result: results.append(result.status), cancelled=lambda: True)
        assert not results
        pipeline.run(tasks, lambda result: results.append(result.status))
    assert results == ["segmented"] * 2


@pytest.mark.slow
def test_fifty_jobs_with_every_fault(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """Raiser, segfault, memory, kill, exit, device fault and hang fail alone; 43 of 50 are done, each once."""
    faults = {3: RAISE, 11: SEGFAULT, 17: MEMORY, 23: OOM_KILL, 29: EXIT, 37: DEVICE, 43: HANG}
    source = write_input(tmp_path / "in", 50, faults)
    summary = run_batch(source, tmp_path / "out", replace(options, case_timeout_s=45.0))
    rows = _by_number(tmp_path / "out")
    assert summary.exit_code == 2
    assert {number for number, row in rows.items() if row["status"] == "failed"} == set(faults)
    assert set(Counter(counts.read_text().split()).values()) == {1}
    assert len(counts.read_text().split()) == 43
    assert rows[43]["code"] == "TIMEOUT"
    assert rows[37]["code"] == "DEVICE_ERROR"
    assert "exit code 3" in rows[29]["message"]
    assert "most likely for its memory" in rows[23]["message"]


@pytest.mark.parametrize("below", [".", "scans"])
def test_an_input_inside_of_the_output_is_an_error(tmp_path: Path, options: BatchOptions, below: str) -> None:
    """All of it would be taken for results; that must not pass for a batch without cases."""
    source = write_input(tmp_path / "scans", 1)
    output = source if below == "." else tmp_path
    with pytest.raises(SettingsError, match="inside of the output"):
        run_batch(source, output, options)


def test_a_path_that_cannot_be_looked_at_is_an_error(tmp_path: Path, options: BatchOptions) -> None:
    """Such as one with a name of 300 letters."""
    with pytest.raises(InputError, match="cannot be looked at"):
        run_batch(tmp_path / ("a" * 300), tmp_path / "out", options)


def test_results_that_no_batch_wrote_are_not_written_over(tmp_path: Path, options: BatchOptions) -> None:
    """A folder of the case's name with the results of other files is refused, not replaced."""
    source = write_input(tmp_path / "in", 1)
    assert run_batch(source, tmp_path / "out", options).exit_code == 0
    (record,) = (tmp_path / "out").glob("*/record.json")
    content = json.loads(record.read_text())
    content["source"]["files"][0]["sha256"] = "0" * 64
    record.write_text(json.dumps(content))
    shutil.rmtree(tmp_path / "out" / "journal")
    before = record.read_bytes()
    summary = run_batch(source, tmp_path / "out", options)
    assert [case.code for case in summary.cases] == ["OUTPUT_TAKEN"]
    assert record.read_bytes() == before


def test_a_second_run_of_an_archive_does_nothing_again(tmp_path: Path, options: BatchOptions, counts: Path) -> None:
    """Also NIfTI files, which are known by their size and time: unpacked files have the time of the archive."""
    folder = Path(__file__).parents[2] / "sample_data" / "nifti"
    archive = Path(shutil.make_archive(str(tmp_path / "scans"), "zip", folder))
    options = replace(options, job=Job(output_types=("nifti",)))
    first = run_batch(archive, tmp_path / "out", options)
    second = run_batch(archive, tmp_path / "out", options)
    assert (first.counts["done"], second.counts["skipped"]) == (1, 1)
    assert len(counts.read_text().split()) == 1
