"""Folders for what goes between processes: gone at the end of a run, or at the start of the next one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from effvit_med.errors import OutputError

_PREFIX = "effvit-med-batch-"
_LOCK = "in-use.lock"


@contextlib.contextmanager
def open_scratch(parent: Path | None = None) -> Iterator[Path]:
    """A new folder that only this user can enter; folders that killed runs have left are removed first.

    Args:
        parent: where; None for the system's folder for temporary files.

    Yields:
        The folder.

    Raises:
        OutputError: if it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
    except OSError as error:
        raise OutputError(f"The folder {place} for temporary files cannot be used: {error.strerror}.") from error
    try:
        with FileLock(folder / _LOCK, thread_local=False):
            yield folder
    except NotImplementedError as error:
        raise OutputError(f"The folder {place} for temporary files knows no locks. Set TMPDIR to another.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Remove the folders of runs that are no more: those whose lock nobody holds.

    Args:
        place: the folder that holds them.
    """
    for folder in place.glob(f"{_PREFIX}*"):
        path = folder / _LOCK
        with contextlib.suppress(OSError, Timeout):  # of another user
            if not path.exists():  # being made just now, or not ours
                continue
            with FileLock(path, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
