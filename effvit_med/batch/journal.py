"""One small file per case that says how far it is, written whole and last: what is not in it did not happen."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from effvit_med.engine.results import OUTPUT_FILES
from effvit_med.errors import OutputError
from effvit_med.io.atomic import make_folder, write_json

STATE_FORMAT = "effvit-med case 1"

FINISHED = frozenset({"done", "refused", "failed"})
"""Statuses with which a run leaves a case alone; ``pending`` and ``running`` are not finished."""


class Journal:
    """The states of all cases of an output folder.

    Any number of runs may use one journal at the same time: a case is locked by the run that works on it, and the
    system lets go of the lock when that run dies.

    Args:
        output: the folder of all results.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     journal = Journal(Path(folder))
        ...     journal.open()
        ...     journal.write({"case_id": "CT_4_0a1b2c3d", "status": "pending"}, durable=False)
        ...     journal.read("CT_4_0a1b2c3d")["status"]
        'pending'
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output / "journal"
        self._jobs, self._locks = self.folder / "jobs", self.folder / "locks"
        self._held: dict[str, FileLock] = {}

    def open(self) -> None:
        """Make its folders.

        Raises:
            OutputError: if that cannot be done.
        """
        for each in (self._jobs, self._locks):
            make_folder(each)

    def read(self, case_id: str) -> dict[str, Any] | None:
        """The state of a case; None if it has none, or none that can be read."""
        return _read_state(self._jobs / f"{case_id}.json")

    def write(self, state: Mapping[str, Any], *, durable: bool = True) -> None:
        """Put a state in the place of the one before.

        Args:
            state: with ``case_id`` and ``status``.
            durable: whether to wait until the disk has it.

        Raises:
            OutputError: if it cannot be written.
        """
        write_json(self._jobs / f"{state['case_id']}.json", {"format": STATE_FORMAT, **state}, durable=durable)

    def states(self) -> Iterator[dict[str, Any]]:
        """All states, in the order of their case ids."""
        for path in sorted(self._jobs.glob("[!.]*.json")):
            state = _read_state(path)
            if state is not None:
                yield state

    def claim(self, case_id: str) -> bool:
        """Take a case for this run; False if another run has it.

        Raises:
            OutputError: if the lock cannot be made.
        """
        lock = FileLock(self._locks / f"{case_id}.lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "the file system knows no locks"
            raise OutputError(
                f"{self._locks} cannot hold a lock: {reason}. Choose an output on another disk."
            ) from error
        self._held[case_id] = lock
        return True

    def release(self, case_id: str) -> None:
        """Let go of a case."""
        lock = self._held.pop(case_id, None)
        if lock is not None:
            lock.release()

    def claimed(self) -> tuple[str, ...]:
        """The cases that this run has."""
        return tuple(self._held)

    def remove_leftovers(self) -> int:
        """Remove the half-filled hidden folders and files of runs that are no more; how many there were.

        One goes only if its case has a state here, so that nothing is touched that is not ours, and nobody has the
        case.
        """
        found = [(path, path.name[1:].rsplit(".", 2)[0]) for path in self.output.glob(".*.partial")]
        found += [(path, path.stem.partition(".part-")[2]) for path in self._jobs.glob(".*.part-*.json")]
        count = 0
        for path, case_id in found:
            if not (self._jobs / f"{case_id}.json").exists() or case_id in self._held or not self.claim(case_id):
                continue
            try:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
                count += 1
            finally:
                self.release(case_id)
        return count

    def has_outputs(self, state: Mapping[str, Any], *, verify: bool = False) -> bool:
        """Whether the files of a finished case are still there with their sizes.

        Args:
            state: of the case.
            verify: whether their hashes are compared, too.
        """
        folder = self.output / str(state["case_id"])
        outputs = state.get("outputs") or {}
        if "record" not in outputs:
            return False
        for each in outputs.values():
            path = folder / each["file"]
            try:
                if path.stat().st_size != each["bytes"] or (verify and hash_file(path) != each["sha256"]):
                    return False
            except OSError:
                return False
        return True


def describe_outputs(folder: Path) -> dict[str, dict[str, Any]]:
    """Name, size and SHA-256 of every file of a case, by kind.

    Args:
        folder: of the case.

    Raises:
        OutputError: if a file cannot be read.
    """
    try:
        return {
            kind: {"file": name, "bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
            for kind, name in OUTPUT_FILES.items()
            if (folder / name).exists()
        }
    except OSError as error:
        raise OutputError(f"The results in {folder} cannot be read again: {error.strerror or error}.") from error


def hash_file(path: Path) -> str:
    """SHA-256 of a file as hex digits.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_state(path: Path) -> dict[str, Any] | None:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) and "case_id" in state and "status" in state else None
