"""What a node has received and made, on disk: a kill at any moment loses nothing that was acknowledged.

Below the spool's folder each series has a folder of its own, named by modality and a digest of its UID::

    received/   one file an instance, named by a digest, until the series is answered
    results/    what the segmentation wrote
    state.json  what became of the series; written last
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from effvit_med.errors import EffvitError, OutputError, SettingsError
from effvit_med.io.atomic import atomic_path, write_json
from effvit_med.pacs.identities import Identity
from effvit_med.pacs.queries import shorten

_SUFFIX = ".dcm"


class SpoolFullError(EffvitError):
    """A limit of the spool is reached; the sender is told that we are out of resources."""


@dataclass(frozen=True)
class SpoolLimits:
    """How much a spool takes.

    Attributes:
        instance_mb: MiB of one instance.
        series_instances: instances of one series.
        spool_gb: GiB of all received files that wait.
    """

    instance_mb: float = 512.0
    series_instances: int = 10_000
    spool_gb: float = 50.0


@dataclass(frozen=True)
class SeriesState:
    """What became of a series.

    Attributes:
        status: ``running``, ``segmented``, ``refused`` (not safe to segment as it is) or ``failed``.
        code: a machine-readable word for why; empty if segmented.
        message: a sentence for why; empty if segmented.
        instances: digests of the instances that it was made of.
        files: the results to return, relative to the series' folder.
        returned: ``waiting``, ``stored``, ``refused``, or ``none`` where there is nothing to return.
        attempts: how often the segmentation was begun.
    """

    status: str
    code: str = ""
    message: str = ""
    instances: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    returned: str = "none"
    attempts: int = 0


@dataclass(frozen=True)
class SpooledSeries:
    """A series in the spool.

    Attributes:
        name: its folder's name.
        folder: its folder.
    """

    name: str
    folder: Path

    @property
    def received(self) -> Path:
        """Where its instances lie."""
        return self.folder / "received"

    @property
    def results(self) -> Path:
        """Where its results lie."""
        return self.folder / "results"

    def instances(self) -> tuple[str, ...]:
        """Digests of the instances that lie there now."""
        try:
            return tuple(sorted(path.stem for path in self.received.iterdir() if _is_whole(path)))
        except FileNotFoundError:
            return ()

    def state(self) -> SeriesState | None:
        """What became of it; None if nothing yet."""
        try:
            values: dict[str, Any] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
            return SeriesState(**{**values, "instances": tuple(values["instances"]), "files": tuple(values["files"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def set_state(self, state: SeriesState) -> None:
        """Write what became of it.

        Raises:
            OutputError: if it cannot be written.
        """
        write_json(self.folder / "state.json", asdict(state))

    def sender(self) -> str:
        """AE title of who sent it last; empty if not known."""
        try:
            return (self.folder / "sender.txt").read_text(encoding="utf-8")
        except OSError:
            return ""


class Spool:
    """The folder of a node, held by one process at a time.

    Args:
        folder: where; made if it is not there.
        limits: how much it takes.
    """

    def __init__(self, folder: Path, limits: SpoolLimits) -> None:
        self.folder, self.limits = folder, limits
        self._lock = threading.Lock()
        self._bytes = 0
        self._counts: dict[str, int] = {}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the spool, and clear what a kill left half done.

        Raises:
            OutputError: if the folder cannot be made.
            SettingsError: if another process holds it.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The spool {self.folder} cannot be made: {error.strerror}. Choose another.") from error
        lock = FileLock(self.folder / ".lock")
        try:
            with lock.acquire(timeout=0):
                self._recover()
                yield
        except Timeout as error:
            raise SettingsError(f"Another node works in {self.folder}. Stop it, or choose another --spool.") from error

    def keep(self, identity: Identity, content: bytes, sender: str) -> SpooledSeries:
        """Write a received instance to the disk, for good.

        Raises:
            SpoolFullError: if a limit is reached.
            OutputError: if it cannot be written.
        """
        series = self.series_of(identity)
        path = series.received / (shorten(identity.sop_uid) + _SUFFIX)
        size = len(content)
        with self._lock:
            before = path.stat().st_size if path.exists() else 0
            count = self._counts.get(series.name, 0)
            if size > self.limits.instance_mb * 2**20:
                raise SpoolFullError(f"An instance has {size / 2**20:.0f} MiB, more than --max-instance-mb.")
            if not before and count >= self.limits.series_instances:
                raise SpoolFullError(f"{series.name} has {count} instances, as many as --max-series-instances.")
            if self._bytes + size - before > self.limits.spool_gb * 2**30:
                raise SpoolFullError(f"The spool holds {self._bytes / 2**30:.2f} GiB, as much as --max-spool-gb.")
            self._bytes += size - before
            self._counts[series.name] = count + (not before)
            try:
                series.received.mkdir(parents=True, exist_ok=True)
                self._note_sender(series, sender)
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
            except (OSError, OutputError) as error:
                self._bytes -= size - before
                self._counts[series.name] = count
                if isinstance(error, OutputError):
                    raise
                raise OutputError(f"The spool {self.folder} cannot be written: {error.strerror}.") from error
        return series

    def series_of(self, identity: Identity) -> SpooledSeries:
        """The place of an instance's series."""
        safe = "".join(letter for letter in identity.modality if letter.isascii() and letter.isalnum())[:16] or "series"
        name = f"{safe}_{shorten(identity.study_uid + ' ' + identity.series_uid)}"
        return SpooledSeries(name, self.folder / name)

    def all_series(self) -> list[SpooledSeries]:
        """Every series in the spool."""
        return [SpooledSeries(path.name, path) for path in sorted(self.folder.iterdir()) if path.is_dir()]

    def clear_received(self, series: SpooledSeries, instances: tuple[str, ...]) -> None:
        """Remove instances that are answered; such as came in the meantime stay."""
        with self._lock:
            for name in instances:
                path = series.received / (name + _SUFFIX)
                if path.exists():
                    self._bytes -= path.stat().st_size
                    self._counts[series.name] = self._counts.get(series.name, 1) - 1
                    path.unlink()

    def _note_sender(self, series: SpooledSeries, sender: str) -> None:
        if series.sender() != sender:
            with atomic_path(series.folder / "sender.txt") as temporary:
                temporary.write_text(sender, encoding="utf-8")

    def _recover(self) -> None:
        """Count what is there; half-written files go."""
        for series in self.all_series():
            if not series.received.is_dir():
                continue
            for path in series.received.iterdir():
                if _is_whole(path):
                    self._bytes += path.stat().st_size
                    self._counts[series.name] = self._counts.get(series.name, 0) + 1
                else:
                    path.unlink()


def _is_whole(path: Path) -> bool:
    return path.suffix == _SUFFIX and not path.name.startswith(".")
