"""A child process as its parent sees it: started, given orders, listened to, and named when it dies."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from effvit_med.batch.messages import Ended, Order, Start, receive, send
from effvit_med.batch.options import BatchOptions

# Not -m: that would put the current folder, which may hold anything, before the places of Python's own modules.
_CODE = "import sys; sys.path[:] = sys.argv[2:]; from effvit_med.batch.worker import main; main()"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

_LOADING_PATIENCE_S = 3600.0  # some runtimes compile the network first
_PIPE_PATIENCE_S = 5.0  # what a process has said before its end is read in far less

Inbox = queue.Queue[tuple[Any, Any]]
"""Where all that happens arrives, as (sender, message)."""


class StageProcess:
    """A process that does one stage; restarted under the same name after it dies.

    Args:
        name: of the stage.
        factory: ``module:function`` that makes it.
        options: of the batch.
        scratch: folder for its temporary files.
        inbox: where its messages arrive, with this object as their sender.
        one_thread: whether numerical libraries are held to one thread.

    Attributes:
        name: as given.
        about: what it said of itself when it was ready.
        is_ready: whether it takes orders.
        was_ready: whether it has ever been.
        busy_since: when it got its order, or began to load, in monotonic seconds; None if it has nothing to do.
        overdue: whether it was killed for its time.
        peak_mb: the most memory that any of its processes has held.
    """

    def __init__(
        self, name: str, factory: str, options: BatchOptions, scratch: Path, inbox: Inbox, *, one_thread: bool = True
    ) -> None:
        self.name = name
        self.about: Mapping[str, Any] = {}
        self.is_ready = False
        self.was_ready = False
        self.busy_since: float | None = None
        self.overdue = False
        self.peak_mb = 0.0
        self._factory, self._options, self._scratch, self._inbox = factory, options, scratch, inbox
        self._one_thread = one_thread
        self._process: subprocess.Popen[bytes] | None = None
        self._dead_since: float | None = None

    @property
    def pid(self) -> int | None:
        """Of the process; None if there is none."""
        return self._process.pid if self._process else None

    @property
    def is_started(self) -> bool:
        """Whether there is a process, loading or ready."""
        return self._process is not None

    def start(self) -> None:
        """Begin; `Ready` or `Unfit` arrives later."""
        self.is_ready, self.overdue, self.busy_since = False, False, time.monotonic()
        environment = {**os.environ, "TMPDIR": str(self._scratch), **(_ONE_THREAD if self._one_thread else {})}
        words = [sys.executable, "-P", "-c", _CODE, f"effvit-med-{self.name}", *sys.path]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)  # noqa: S603
        self._process = process
        level = logging.getLogger("effvit_med").getEffectiveLevel()
        with contextlib.suppress(OSError):  # if it is dead already, its end arrives
            send(_pipe(process.stdin), Start(self._factory, self._options, self._trace_file(), level))
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()

    def give(self, order: Order) -> None:
        """Hand over a case."""
        if self._process is None or not self.is_ready or self.busy_since is not None:
            raise AssertionError(f"{self.name} cannot take an order now")
        self.busy_since = time.monotonic()
        with contextlib.suppress(OSError):
            send(_pipe(self._process.stdin), order)

    def welcome(self, about: Mapping[str, Any]) -> None:
        """Note that it is ready."""
        self.is_ready, self.was_ready, self.about, self.busy_since = True, True, about, None

    def kill(self) -> None:
        """End it at once; `Ended` arrives later."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it at once and wait until it is gone; nothing arrives any more."""
        process, self._process = self._process, None
        self.is_ready, self.busy_since = False, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    _pipe(stream).close()

    def explain_end(self) -> tuple[str, str]:
        """How it died, in words, and where, as far as it could say; call it once after `Ended`."""
        process, self._process = self._process, None
        self.is_ready, self.busy_since, self._dead_since = False, None, None
        code = process.wait() if process else 0
        if process and process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            trace = self._trace_file().read_text(encoding="utf-8", errors="replace")
        except OSError:
            trace = ""
        return describe_exit(code), _shorten(trace)

    def owns(self, message_from: subprocess.Popen[bytes]) -> bool:
        """Whether a message is from the process that runs now, not from one before it."""
        return message_from is self._process

    def look_after(self, limit_s: float | None) -> None:
        """Kill it if it takes too long; say `Ended` for it if it is dead and something still holds its pipe.

        Args:
            limit_s: for one order, and for loading if that is longer than an hour; None for ever.
        """
        since, process = self.busy_since, self._process
        if limit_s is not None and not self.is_ready:
            limit_s = max(limit_s, _LOADING_PATIENCE_S)
        if limit_s is not None and since is not None and not self.overdue and time.monotonic() - since > limit_s:
            self.overdue = True
            self.kill()
        if process is None or process.poll() is None:
            self._dead_since = None
        elif self._dead_since is None:
            self._dead_since = time.monotonic()
        elif time.monotonic() - self._dead_since > _PIPE_PATIENCE_S:
            self._inbox.put(((self, process), Ended()))

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        stream = _pipe(process.stdout)
        while True:
            try:
                message = receive(stream)
            except (EOFError, OSError, ValueError):
                break
            self._inbox.put(((self, process), message))
        with contextlib.suppress(OSError):
            stream.close()
        self._inbox.put(((self, process), Ended()))

    def _trace_file(self) -> Path:
        return self._scratch / f"{self.name}.trace"


def describe_exit(code: int) -> str:
    """How a process ended, in words.

    Args:
        code: of subprocess: negative for signals.

    Examples:
        >>> describe_exit(-9), describe_exit(-11), describe_exit(3)
        ('was killed (SIGKILL), most likely for its memory', 'was ended by SIGSEGV', 'ended with exit code 3')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return "was killed (SIGKILL), most likely for its memory" if name == "SIGKILL" else f"was ended by {name}"


def _shorten(trace: str) -> str:
    """Of what faulthandler wrote, the kind of fault and the stack of the thread that had it, without folders."""
    head, found, stack = trace.partition("Current thread")
    lines = head.strip().splitlines()[:1]
    for line in stack.splitlines()[1:] if found else ():
        before, quote, rest = line.partition('"')
        if not quote:
            break
        path, _, after = rest.partition('"')
        lines.append(f"{before.strip()} {Path(path).name}{after}")
    return "\n".join(lines)[:2000]


def _pipe(stream: Any) -> BinaryIO:
    return stream
