"""The stopwatch, the medians and what is called outside the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from benchmarks.engine import (
    ALL,
    NETWORK,
    PARTS,
    Run,
    Stopwatch,
    outside_network,
    peak_memory_gib,
    take_medians,
    time_alone,
    time_path,
    to_markdown,
    write_scan,
)
from effvit_med.engine import Settings


def run(seconds: float, peak_gib: float = 1.0) -> Run:
    """A repeat whose network takes so long, and all else 20 s."""
    phases = {part[0]: 1.0 for part in PARTS} | {NETWORK: seconds, ALL: seconds + 20, "load the model": 0.1}
    return Run(phases, phases, {"read": seconds}, 0.3, peak_gib)


def test_time_of_a_phase_adds_up_over_calls() -> None:
    """Two calls of 20 ms make 40 ms of wall time, and sleeping takes no CPU time."""
    watch = Stopwatch()
    sleep = watch.wrap("sleep", time.sleep)
    sleep(0.02)
    sleep(0.02)
    assert 0.04 <= watch.wall["sleep"] < 0.5
    assert watch.cpu["sleep"] < 0.02


def test_time_to_enter_a_context_counts_and_its_body_does_not() -> None:
    """What is done inside the block belongs to other phases; the context is still left at its end."""
    left = []

    @contextmanager
    def slow() -> Iterator[int]:
        time.sleep(0.02)
        yield 5
        left.append(True)

    watch = Stopwatch()
    with watch.wrap("enter", slow)() as value:
        time.sleep(0.2)
    assert value == 5
    assert left == [True]
    assert 0.02 <= watch.wall["enter"] < 0.15


def test_result_that_could_be_entered_is_left_alone() -> None:
    """A function may return a thing with a context of its own, such as a DICOM data set; it comes back untouched."""
    dataset = Dataset()
    assert Stopwatch().wrap("make", lambda: dataset)() is dataset


def test_time_of_a_failing_phase_counts() -> None:
    """An error passes through, and the time until then is kept."""
    watch = Stopwatch()

    def fail() -> None:
        time.sleep(0.01)
        raise KeyError

    with pytest.raises(KeyError):
        watch.wrap("fail", fail)()
    assert watch.wall["fail"] >= 0.01


def test_median_of_each_phase_and_largest_memory() -> None:
    """One slow repeat does not move the figures; one large one does."""
    middle = take_medians([run(3.0), run(100.0, peak_gib=2.0), run(4.0)])
    assert middle.wall[NETWORK] == 4.0
    assert middle.steps == {"read": 4.0}
    assert middle.peak_gib == 2.0


def test_outside_the_network_is_the_whole_without_it() -> None:
    """However long the network takes, the rest is the same."""
    assert outside_network(run(3.0).wall) == outside_network(run(300.0).wall) == 20.0


def test_report_says_seconds_and_share_outside_the_network() -> None:
    """20 of 25 s are 80 %."""
    alone = Run({"read only": 1.0}, {"read only": 1.0}, {}, 0.3, 0.5)
    assert "20.0 s of 25.0 s (80 %)" in to_markdown((3, 4, 5), 1.0, run(5.0), alone, 1)


def test_peak_memory_is_that_of_a_python_with_torch() -> None:
    """The unit is right: between 50 MiB and 100 GiB."""
    assert 0.05 < peak_memory_gib() < 100


def test_every_phase_of_the_engine_is_timed(tmp_path: Path, tiny_bundle: Path) -> None:
    """Each part is called through the name that is watched, and the parts make up nearly the whole."""
    write_scan(tmp_path, (8, 32, 32), 0)
    path = time_path(tmp_path, Settings(device="cpu"), tiny_bundle)
    phases = {part[0] for part in PARTS}
    assert phases <= set(path.wall)
    assert 0 <= path.wall[ALL] - sum(path.wall[name] for name in phases) < 0.5
    alone = time_alone(tmp_path, Settings(device="cpu"), tiny_bundle)
    assert list(alone.wall) == ["read only", "write SEG only, binary", "write SEG only, labelmap"]
