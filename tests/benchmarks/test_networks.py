"""The run over all networks: what it keeps, and that it goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import networks
from benchmarks.network_list import NETWORKS, Entry
from benchmarks.network_measuring import Conditions, Measurement
from benchmarks.networks import Progress, choose_name, measure_alone, measure_together
from benchmarks.report import Circumstances

ENTRY = NETWORKS[0]


def alone(edge: int, *, seconds: tuple[float, ...] = (), skipped: str = "") -> Measurement:
    return Measurement(ENTRY.name, ENTRY.spatial_dims, edge, 1, 1.0, 1.0, (0.1,), seconds, skipped)


@pytest.fixture(name="progress")
def _progress(tmp_path: Path) -> Progress:
    return Progress(tmp_path / "networks.partial.json", Conditions())


def test_progress_is_taken_up_again(progress: Progress) -> None:
    """An interrupted run finds what it had measured, the later word on each size."""
    progress.keep(alone(64))
    progress.keep(alone(64, seconds=(0.2,)))
    again = Progress(progress.path, Conditions())
    again.load()
    assert again.in_order([ENTRY], [64, 128]) == [alone(64, seconds=(0.2,))]


def test_progress_of_other_conditions_is_refused(progress: Progress) -> None:
    """Figures of two allocators must not stand in one table."""
    progress.keep(alone(64))
    with pytest.raises(SystemExit, match="'allocator': 'kept'"):
        Progress(progress.path, Conditions(allocator="default")).load()


def test_what_is_done_is_not_measured_again(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither alone nor in turns; a size that was skipped is done too."""
    progress.keep(alone(64, seconds=(0.2,)))
    progress.keep(alone(128, skipped="skipped: about 300 s"))
    monkeypatch.setattr(networks.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr(networks, "measure_in_turns", lambda *_: pytest.fail("it was measured"))
    measure_alone(ENTRY, [64, 128], progress)
    measure_together([ENTRY], 64, progress)
    measure_together([ENTRY], 128, progress)


def test_a_network_is_measured_in_a_process_of_its_own(progress: Progress) -> None:
    """The process hands back a line for each size."""
    measure_alone(ENTRY, [32, 64], progress)
    small, large = progress.in_order([ENTRY], [32, 64])
    assert small.fresh_seconds
    assert large.gflops == pytest.approx(4 * small.gflops, rel=0.1)
    assert json.loads(progress.path.read_text())["conditions"] == asdict(Conditions())


def test_a_process_that_dies_leaves_a_word(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on and the table says that it failed; a later run tries again."""
    monkeypatch.setattr(networks.sys, "executable", "false")
    measure_alone(ENTRY, [32], progress)
    assert progress.in_order([ENTRY], [32])[0].skipped == "failed (1)"
    monkeypatch.undo()
    measure_alone(ENTRY, [32], progress)
    assert progress.in_order([ENTRY], [32])[0].fresh_seconds


def test_results_of_other_conditions_have_other_names() -> None:
    """A run on a GPU does not overwrite that of the processor."""
    assert choose_name(Conditions(budget_s=1)) == "networks"
    assert choose_name(Conditions(allocator="default", runtime="compile")) == "networks_compile_default"
    assert choose_name(Conditions(device="cuda", allocator="default")) == "networks_cuda"


def test_what_needs_much_memory_does_not_take_turns(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its figures of being alone, with the reason, and the others go on without it."""
    large = Measurement(ENTRY.name, 2, 64, 1, 1.0, networks.TURNS_MIB + 1.0, (0.1,))
    small = Measurement(NETWORKS[1].name, 2, 64, 1, 1.0, 1.0, (0.1,))
    progress.keep(large)
    progress.keep(small)
    monkeypatch.setattr(networks, "measure_in_turns", lambda entries, *_: [alone_of(each) for each in entries])
    measure_together(NETWORKS[:2], 64, progress)
    found = progress.in_order(NETWORKS[:2], [64])
    assert found[0].skipped == "only alone, in 0.1 s: 4097 MiB are too much beside the others"
    assert (found[0].seconds, found[1].seconds) == ((), (0.5,))


def alone_of(entry: Entry) -> Measurement:
    return Measurement(entry.name, 2, 64, 1, 1.0, 1.0, (0.1,), (0.5,))


def test_results_are_drawn_again_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables made again say the same, with the circumstances of the run that measured."""
    monkeypatch.setattr(networks, "RESULTS", tmp_path)
    monkeypatch.setattr(networks, "draw", lambda *_: None)
    monkeypatch.setattr(networks.write_report, "__defaults__", (tmp_path,))
    made = Circumstances("python -m once", "2020-02-02", "a machine", 0.5, {"torch": "1"})
    networks.write("networks", [alone(64, seconds=(0.2,))], Conditions(), [ENTRY], made)
    before = (tmp_path / "networks.md").read_text()
    networks.redraw("networks", [ENTRY])
    assert (tmp_path / "networks.md").read_text() == before
    assert "`python -m once`, 2020-02-02" in before
