"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from effvit_med.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file grew larger than this system allows; choose another folder or raise the limit",
    errno.EACCES: "there is no permission to write there; change the permissions or choose another folder",
    errno.EPERM: "there is no permission to write there; change the permissions or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "the folder does not exist; make it first",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "a folder of that name is in the way; remove it or choose another name",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` when the block ends well.

    The temporary file lies in the same folder and its name ends like that of ``path``, so that writers that look at
    the suffix choose the same format. At the end its bytes are brought to the disk and it takes the place of
    ``path`` in one step: a reader sees the old file or the new one, never a part. If the block raises, whatever it
    raises, the temporary file is removed and ``path`` is as it was.

    Args:
        path: the file to write; its folder must exist.
        durable: whether to wait until the disk has it; where not, a power failure may undo the change, no crash of a
            program can.

    Yields:
        The path to write to inside the block.

    Raises:
        OutputError: if the system refuses to write (disk full, no permission, no such folder) or if the block wrote
            no file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}.part-{path.name}")
    try:
        yield temporary
        if durable:
            _bring_to_disk(temporary)
        temporary.replace(path)
        if durable:
            _bring_to_disk(path.parent)
    except OSError as error:
        cause = _root_cause(error)
        raise OutputError(_explain(path, temporary, cause)) from cause
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it.

    Raises:
        OutputError: if that cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be made: {error.strerror}. Choose another.") from error


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text as UTF-8, whole or not at all.

    Args:
        path: the file to write; its folder must exist.
        text: what to write; line ends are kept as they are.
        durable: as of `atomic_path`.

    Raises:
        OutputError: if the file could not be written.
    """
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Write plain values as indented UTF-8 JSON, whole or not at all.

    Args:
        path: the file to write; its folder must exist.
        value: mappings, sequences, texts, numbers, booleans, None; also paths and numpy scalars inside them.
        durable: as of `atomic_path`.

    Raises:
        OutputError: if the file could not be written, or a value has no place in JSON (infinite, not a number, or an
            unknown type).
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise OutputError(f"{path} could not be written: its content does not fit into JSON: {error}.") from error
    write_text(path, text + "\n", durable=durable)


def _plain(value: Any) -> Any:
    """The JSON form of a value that the json module does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r}")


def _bring_to_disk(path: Path) -> None:
    """Ask the system to write a file or a folder entry through to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle for a folder to flush
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _root_cause(error: OSError) -> OSError:
    """The error with a number that stands behind one without: some libraries wrap what the system said."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        cause = cause.__cause__ or cause.__context__
    return error


def _explain(path: Path, temporary: Path, error: OSError) -> str:
    if error.filename is not None and Path(os.fsdecode(error.filename)) not in (path, temporary, path.parent):
        return f"{path} could not be written: {error.strerror or error} at {os.fsdecode(error.filename)}."
    if error.errno == errno.ENOENT and path.parent.is_dir():
        return f"{path} could not be written: no file was made."
    if error.errno in (errno.EACCES, errno.EPERM) and path.is_dir():
        return f"{path} could not be written: {_REASONS[errno.EISDIR]}."
    return f"{path} could not be written: {_REASONS.get(error.errno or 0, error.strerror or str(error))}."
