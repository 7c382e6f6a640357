"""Facts about `effvit_med.engine.stopwatch`."""

from __future__ import annotations

import pytest

from effvit_med.engine.stopwatch import Stopwatch


def test_times_under_one_name_add_up() -> None:
    """A step that is entered often is one step, in the order of first entry."""
    watch = Stopwatch()
    for name in ("a", "b", "a"):
        with watch(name):
            sum(range(20_000))
    alone = Stopwatch()
    with alone("a"):
        sum(range(20_000))
    assert [step.name for step in watch.steps()] == ["a", "b"]
    assert watch.steps()[0].cpu_seconds > 0


def test_a_block_that_fails_is_timed_too() -> None:
    """What was spent before an error is counted."""
    watch = Stopwatch()
    with pytest.raises(ValueError, match="stop"), watch("a"):
        raise ValueError("stop")
    assert [step.name for step in watch.steps()] == ["a"]


def test_details_stand_with_their_step() -> None:
    """Plain values go into the step of their name."""
    watch = Stopwatch()
    with watch("a"):
        pass
    assert watch.steps({"a": {"windows": 3}})[0].detail == {"windows": 3}
