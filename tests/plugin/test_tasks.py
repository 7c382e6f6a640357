"""Work beside the window: in its order, with every answer, and without an exception that escapes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from effvit_med.errors import CancelledError, InputError
from napari_effvit_med.tasks import Failed, Finished, Task, Worker
from tests.plugin.parts import wait_for


def _raise(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("inline", [False, True])
def test_jobs_are_done_and_answered_in_their_order(inline: bool) -> None:
    """One after another, and no answer is taken in before the window asks."""
    worker, done, answers = Worker("Testing", inline=inline), [], []
    for number in range(50):
        worker.put(lambda number=number: done.append(number) or number, answers.append)
    assert answers == []
    assert worker.unfinished == 50
    wait_for(lambda: not worker.unfinished, worker.poll)
    assert done == list(range(50))
    assert answers == [Finished(number) for number in range(50)]
    worker.close()


def test_jobs_run_in_one_other_thread() -> None:
    """The window's thread only takes in."""
    worker, names, here = Worker("Testing"), [], []
    for _ in range(3):
        worker.put(lambda: names.append(threading.current_thread()), lambda _: here.append(threading.current_thread()))
    wait_for(lambda: not worker.unfinished, worker.poll)
    assert len(set(names)) == 1
    assert set(here) == {threading.current_thread()}
    assert names[0] is not here[0]
    worker.close()


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (InputError("That is no scan."), Failed("That is no scan.")),
        (CancelledError("Stopped."), Failed("Stopped.", cancelled=True)),
        (MemoryError(), Failed("The memory of this machine is not enough; close other programs and try again.")),
        (ValueError("odd"), Failed("Testing failed: ValueError: odd")),
    ],
)
def test_what_goes_wrong_is_an_answer_and_the_worker_goes_on(error: Exception, answer: Failed) -> None:
    """The thread is there for the next job."""
    worker, answers = Worker("Testing"), []
    worker.put(lambda: _raise(error), answers.append)
    worker.put(lambda: 7, answers.append)
    wait_for(lambda: not worker.unfinished, worker.poll)
    assert answers == [answer, Finished(7)]
    worker.close()


def test_closing_finishes_what_was_put_and_forgets_the_answers() -> None:
    """No correction is lost, and nothing is put any more."""
    worker, done, answers = Worker("Testing"), [], []
    for number in range(20):
        worker.put(lambda number=number: done.append(number), answers.append)
    worker.close()
    worker.put(lambda: done.append("late"))
    worker.close()
    assert done == list(range(20))
    assert answers == []


def test_closing_waits_no_longer_than_it_is_told() -> None:
    """A job that hangs does not hang the window."""
    worker, go = Worker("Testing"), threading.Event()
    worker.put(go.wait)
    worker.close(0)
    assert not go.is_set()
    go.set()


def test_an_answer_may_put_the_next_job() -> None:
    """As saving does, which begins when what was corrected before is done."""
    worker, answers = Worker("Testing"), []
    worker.put(lambda: 1, lambda _: worker.put(lambda: 2, answers.append))
    wait_for(lambda: not worker.unfinished, worker.poll)
    assert answers == [Finished(2)]
    worker.close()


def test_a_task_reports_the_last_of_a_row_and_its_end() -> None:
    """What was reported in between is of no use to a window that looks now."""

    def work(report: Any) -> str:
        for number in range(5):
            report("network", number, 5)
        return "done"

    events = Task("Testing", work).run_here().poll()
    assert [getattr(event, "done", None) for event in events] == [4, None]
    assert events[-1] == Finished("done")


def test_a_task_that_was_stopped_says_so() -> None:
    """Its next report ends it."""
    task = Task("Testing", lambda report: report("network", 0, 1))
    task.stop()
    assert task.run_here().poll() == [Failed("Stopped.", cancelled=True)]
