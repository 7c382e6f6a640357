"""The events of a review, one line each, on the disk before they count."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from effvit_med.errors import InputError, OutputError, SettingsError
from effvit_med.io.atomic import make_folder, write_text
from effvit_med.volume import Finding

JOURNAL_FILE = "review.jsonl"
LOCK_FILE = "review.lock"

TORN_LINE = "TORN_LAST_LINE"
"""Code of the finding that the last line was not whole and was cut off."""

_DIGEST = ',"digest":"'
_TAIL = len(_DIGEST) + 64 + len('"}')


class Journal:
    """An append-only file of events, each with its number and the digest of the line before.

    A line is whole on the disk when `append` returns. Only one process has a journal open at a time; the system lets
    go of the lock when that process dies. A last line that a crash or a power failure left unfinished is cut off
    when the journal is opened again, and `findings` says so.

    Attributes:
        path: the file.
        findings: what was noticed at opening.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Journal.create(Path(folder)) as journal:
        ...         journal.begin({"kind": "start"})
        ...         journal.append({"kind": "edit"})
        ...     with Journal.open(Path(folder)) as journal:
        ...         [(number, event["kind"]) for number, event in journal.read()]
        1
        [(0, 'start'), (1, 'edit')]
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.path = folder / JOURNAL_FILE
        self.findings: tuple[Finding, ...] = ()
        self._lock = lock
        self._digest, self._next, self._bytes = "", 0, 0
        self._stream: int | None = None

    @classmethod
    def create(cls, folder: Path) -> Journal:
        """Take a folder, made if it is not there, for a new journal, which is there when it `begin`s.

        Raises:
            OutputError: if the folder cannot be made, holds a journal already, or does not let itself be locked.
            SettingsError: if another process has the folder.
        """
        make_folder(folder)
        journal = cls(folder, hold(folder))
        if journal.path.exists():
            journal.close()
            raise OutputError(f"{folder} holds a review already; resume that one, or choose another folder.")
        return journal

    def begin(self, first: Mapping[str, Any]) -> None:
        """Write the first event; the file is there with it whole, or not at all.

        Args:
            first: plain values for JSON.

        Raises:
            OutputError: if it cannot be written.
            SettingsError: if the event holds values that JSON has not.
        """
        line, self._digest = _make_line(0, "", first)
        write_text(self.path, line.decode("ascii"))
        self._next, self._bytes = 1, len(line)
        self._open_stream()

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """Open a journal that is there; its events must be `read` before one is appended.

        Raises:
            InputError: if there is none.
            OutputError: if the folder does not let itself be locked.
            SettingsError: if another process has the folder.
        """
        if not (folder / JOURNAL_FILE).is_file():
            raise InputError(f"{folder} holds no review: there is no {JOURNAL_FILE}.")
        return cls(folder, hold(folder))

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """All events with their numbers; then the journal is ready for more.

        A last line without an end is cut off.

        Yields:
            The number of a line, from 0, and its event.

        Raises:
            InputError: if a line that has an end is damaged, or the file cannot be read.
            OutputError: if the last line cannot be cut off.
        """
        self._digest, self._next, self._bytes = "", 0, 0
        size = self.path.stat().st_size
        try:
            with self.path.open("rb") as stream:
                for line in stream:
                    event, reason = _read_line(line, self._next, self._digest)
                    if event is None:
                        self._judge_damage(line, size, reason)
                        break
                    self._digest, self._bytes = line[-67:-3].decode("ascii"), self._bytes + len(line)
                    self._next += 1
                    yield self._next - 1, event
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}.") from error
        self._open_stream()
        self._cut()

    def append(self, event: Mapping[str, Any]) -> int:
        """Bring an event to the disk.

        Args:
            event: plain values for JSON.

        Returns:
            Its number.

        Raises:
            OutputError: if it cannot be written; then the journal is as it was, and the event did not happen.
            SettingsError: if the event holds values that JSON has not.
        """
        if self._stream is None:
            raise OutputError(f"{self.path} is closed; open the review again.")
        line, digest = _make_line(self._next, self._digest, event)
        try:
            if os.fstat(self._stream).st_size != self._bytes:  # a line before failed, and could not be taken back
                self._cut()
            _write_all(self._stream, line)
            os.fsync(self._stream)
        except OSError as error:
            with suppress(OSError, OutputError):
                self._cut()
            raise OutputError(
                f"{self.path} could not be written: {error.strerror or error}. The last correction was not made; "
                "free some space, then make it again."
            ) from error
        self._digest, self._bytes, self._next = digest, self._bytes + len(line), self._next + 1
        return self._next - 1

    @property
    def digest(self) -> str:
        """The digest of the last line, which stands for all lines; empty before `read`."""
        return self._digest

    def close(self) -> None:
        """Let go of the file and of the lock."""
        stream, self._stream = self._stream, None
        if stream is not None:
            os.close(stream)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_stream(self) -> None:
        try:
            self._stream = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}.") from error

    def _judge_damage(self, line: bytes, size: int, reason: str) -> None:
        """A line that is not whole: a finding if it is the last and has no end, else an error."""
        if line.endswith(b"\n") or self._bytes + len(line) < size or self._next == 0:
            raise InputError(
                f"{self.path} is damaged in line {self._next + 1} (byte {self._bytes}): {reason}. What follows cannot "
                "be trusted; take the file from a backup, or cut it before that line."
            )
        message = (
            f"Line {self._next + 1} of {self.path.name}, the last, was not whole ({reason}); its {len(line)} bytes "
            "were cut off. What was being written when the program ended was not made."
        )
        self.findings = (*self.findings, Finding(TORN_LINE, message))

    def _cut(self) -> None:
        """Cut off what is behind the last whole line."""
        stream = self._stream
        if stream is None or os.fstat(stream).st_size == self._bytes:
            return
        try:
            os.ftruncate(stream, self._bytes)
            os.fsync(stream)
        except OSError as error:
            raise OutputError(f"{self.path} could not be mended: {error.strerror}.") from error


def read_first(folder: Path) -> dict[str, Any] | None:
    """The first event of a journal, without taking the folder; None if there is none or it is damaged."""
    try:
        with (folder / JOURNAL_FILE).open("rb") as stream:
            return _read_line(stream.readline(), 0, "")[0]
    except OSError:
        return None


def hold(folder: Path) -> FileLock:
    """Take a folder for this process.

    Raises:
        OutputError: if the folder does not let itself be locked.
        SettingsError: if another review has it.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise SettingsError(
            f"Another program reviews in {folder}. Close it there, or choose another folder."
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "the file system knows no locks"
        raise OutputError(f"{folder} cannot hold a lock: {reason}. Choose a folder on another disk.") from error
    return lock


def _make_line(number: int, before: str, event: Mapping[str, Any]) -> tuple[bytes, str]:
    """The line of an event, and its digest."""
    content = {"number": number, "before": before, "event": event}
    try:
        body = json.dumps(content, separators=(",", ":"), allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"What happened cannot be written down: it holds what is no JSON: {error}.") from error
    return _seal(body.encode("ascii"))


def _plain(value: Any) -> Any:
    """The JSON form of a numpy value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


def _seal(body: bytes) -> tuple[bytes, str]:
    """A line of a JSON object with its digest as last member, and that digest."""
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + f'{_DIGEST}{digest}"}}\n'.encode("ascii"), digest


def _read_line(line: bytes, number: int, before: str) -> tuple[dict[str, Any] | None, str]:
    """The event of a line, or None and what is wrong with it."""
    if not line.endswith(b"\n"):
        return None, "it has no end"
    if line != _seal(line[: -_TAIL - 1] + b"}")[0]:
        return None, "its content does not have the digest that it names"
    try:
        content = json.loads(line)
        found, named, event = content["number"], content["before"], content["event"]
    except (ValueError, KeyError, TypeError) as error:
        return None, f"it is no event: {error}"
    if found != number or named != before:
        return None, f"it says that it is number {found} after {str(named)[:8]}, but line {number} after {before[:8]}"
    return event, ""


def _write_all(stream: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(stream, rest) :]
