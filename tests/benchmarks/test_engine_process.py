"""Measuring in a process of its own."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import pytest

from benchmarks.engine_process import ChildFailedError, Stopwatch, peak_mib, reset_peak, run_alone

HERE = "tests.benchmarks.test_engine_process:"


def answer(number: int) -> dict[str, Any]:
    """What the child is asked for."""
    return {"number": number + 1, "threads": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid()}


def fail() -> dict[str, Any]:
    """A child that dies."""
    raise KeyError("the reason")


def test_answer_comes_from_another_process_with_its_own_figures() -> None:
    """Values go there and back, the number of threads holds there, and memory and time are its own."""
    found = run_alone(HERE + "answer", {"number": 4}, threads=1)
    assert (found["number"], found["threads"]) == (5, "1")
    assert found["pid"] != os.getpid()
    assert 20 < found["peak_mib"] < 5000
    assert 0 < found["process_cpu_s"] <= 2 * found["process_wall_s"]


def test_a_child_that_dies_says_why() -> None:
    """The end of its traceback is in the error."""
    with pytest.raises(ChildFailedError, match="the reason"):
        run_alone(HERE + "fail", {})


def test_time_of_a_phase_adds_up_over_calls() -> None:
    """Two calls of 20 ms make 40 ms of wall time, and sleeping takes no CPU time."""
    watch = Stopwatch()
    sleep = watch.wrap("sleep", time.sleep)
    sleep(0.02)
    sleep(0.02)
    assert 0.04 <= watch.wall["sleep"] < 0.5
    assert watch.figures()["cpu"]["sleep"] < 0.02


def test_time_of_a_failing_phase_counts() -> None:
    """An error passes through, and the time until then is kept."""
    watch = Stopwatch()

    def stop() -> None:
        time.sleep(0.01)
        raise KeyError

    with pytest.raises(KeyError):
        watch.wrap("stop", stop)()
    assert watch.wall["stop"] >= 0.01


def hold_for_a_moment() -> dict[str, Any]:
    """64 MiB are held and let go, the peak is reset: the peak before, with, and after."""
    reset_peak()
    before = peak_mib()
    block = np.ones(64 * 2**20, np.uint8)
    del block
    held = peak_mib()
    reset_peak()
    return {"before": before, "held": held, "after": peak_mib()}


def test_peak_holds_memory_that_was_given_back() -> None:
    """64 MiB that were held for a moment count, and a peak that is reset is not above the one before.

    In a process of its own: this one may have freed memory at hand that was touched before, as the commands keep it.
    """
    found = run_alone(HERE + "hold_for_a_moment", {}, kept=False)
    assert found["held"] - found["before"] > 40
    assert found["after"] <= found["held"]
