"""Facts about `effvit_med.batch.worker` and `effvit_med.batch.process`: what an error or an end means."""

from __future__ import annotations

import errno
import io
import queue

import pytest

from effvit_med.batch import BatchOptions
from effvit_med.batch.messages import receive, send
from effvit_med.batch.process import StageProcess, describe_exit
from effvit_med.batch.worker import judge
from effvit_med.errors import InputError, OutputError, RefusedError


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def _full_disk() -> OutputError:
    error = OutputError("no room")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "verdict", "code"),
    [
        (RefusedError("MISSING_SLICES", "A slice is missing."), "refused", "MISSING_SLICES"),
        (InputError("a file"), "failed", "InputError"),
        (MemoryError(), "failed", "NOT_ENOUGH_MEMORY"),
        (OutOfMemoryError("CUDA out of memory"), "failed", "NOT_ENOUGH_MEMORY"),
        (RuntimeError("CUDA error: device-side assert triggered"), "device", "DEVICE_ERROR"),
        (ValueError("odd"), "failed", "CRASHED"),
        (OSError(errno.ENOSPC, "No space left on device"), "stop", "DISK_FULL"),
        (_full_disk(), "stop", "DISK_FULL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_an_error_means(error: Exception, verdict: str, code: str) -> None:
    """For its case only, for the device, or for the whole run."""
    answer = judge(error)
    assert (answer.verdict, answer.code) == (verdict, code)


def test_the_text_of_a_foreign_error_is_told_only_when_asked_for() -> None:
    """It may quote a header; the kind of error and the place remain."""
    error = ValueError("could not convert string to float: 'DOE^JANE'")
    assert "DOE" in judge(error, keep_ids=True).message
    hidden = judge(error, keep_ids=False).message
    assert "DOE" not in hidden
    assert "ValueError" in hidden


def test_a_trace_has_no_folders() -> None:
    """Folders may hold names."""
    try:
        raise ValueError("odd")
    except ValueError as error:
        trace = judge(error).trace
    assert trace.startswith("test_worker.py:")
    assert "/" not in trace


def test_a_message_that_is_cut_off_is_an_end() -> None:
    """A process that dies while it speaks has said nothing."""
    stream = io.BytesIO()
    send(stream, {"a": 1})
    whole = stream.getvalue()
    assert receive(io.BytesIO(whole)) == {"a": 1}
    with pytest.raises(EOFError):
        receive(io.BytesIO(whole[:-1]))


def test_unknown_signals_have_numbers() -> None:
    """Real-time signals have no name."""
    assert describe_exit(-40) == "was ended by signal 40"


def test_a_process_takes_no_order_before_it_is_ready() -> None:
    """One order at a time, to a process that is there."""
    process = StageProcess("read", "a:b", BatchOptions(), None, queue.Queue())  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="read cannot take"):
        process.give(None)  # type: ignore[arg-type]
