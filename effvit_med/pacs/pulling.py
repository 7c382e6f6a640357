"""Series fetched from a PACS into a folder, each whole or not there."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from effvit_med.errors import InputError, OutputError, PeerError
from effvit_med.io.atomic import atomic_path
from effvit_med.pacs.archives import Archive, FoundSeries
from effvit_med.pacs.identities import read_identity
from effvit_med.pacs.queries import Query, shorten
from effvit_med.pacs.retrying import Backoff, Sleep, retry

log = logging.getLogger(__name__)
SUFFIX = ".dcm"


@dataclass(frozen=True)
class PullOptions:
    """How to fetch.

    Attributes:
        max_instances: a series of more is left out.
        max_series_mb: a series of more MiB is left out.
        backoff: how often to try again.
        sleep: called with the seconds to wait between tries.
    """

    max_instances: int = 20_000
    max_series_mb: float = 16_384
    backoff: Backoff = field(default_factory=Backoff)
    sleep: Sleep = time.sleep


@dataclass(frozen=True)
class PulledSeries:
    """What became of a series.

    Attributes:
        name: its folder below the output.
        status: ``fetched``, ``there`` (it was complete already), ``incomplete`` or ``failed``.
        instances: files that it has now.
        message: why it is not complete; empty otherwise.
    """

    name: str
    status: str
    instances: int
    message: str = ""


@dataclass(frozen=True)
class PullResult:
    """What became of a query."""

    series: tuple[PulledSeries, ...]

    @property
    def exit_code(self) -> int:
        """0 if all is there, 2 if some series are not complete, 3 if nothing matched."""
        if not self.series:
            return 3
        return 2 if any(each.status in ("incomplete", "failed") for each in self.series) else 0


def pull(
    archive: Archive,
    query: Query,
    output: Path,
    options: PullOptions | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> PullResult:
    """Fetch every series that matches, one after another, each into a folder of its own.

    A series is fetched into a hidden folder, which takes its name when all instances are there. What is complete
    already is not fetched again; what was begun is gone on with. Folders and files are named by digests of UIDs.

    Args:
        archive: the PACS.
        query: what to fetch.
        output: the folder for the series; made if it is not there.
        options: limits and retries.
        on_progress: called as on_progress(series, instances, all instances).

    Returns:
        What became of each series.

    Raises:
        PeerUnreachableError: if the PACS does not answer, however often it is tried; what is fetched stays.
        PeerError: if the PACS refuses the query.
        OutputError: if nothing can be written into the folder.
    """
    options = options or PullOptions()
    found = retry(lambda: archive.find_series(query), options.backoff, sleep=options.sleep)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The folder {output} cannot be made: {error.strerror}. Choose another.") from error
    results = []
    for number, series in enumerate(found, start=1):
        log.info("series %d of %d: %s", number, len(found), series.short_name)
        try:
            results.append(_Fetch(archive, series, output, options, on_progress or (lambda *_: None)).run())
        except PeerError as error:
            if error.exit_code == 75:
                raise
            log.error("%s: %s", series.short_name, error)  # noqa: TRY400 - our own errors say all in one line
            results.append(PulledSeries(series.short_name, "failed", 0, str(error)))
    return PullResult(tuple(results))


class _Fetch:
    """One series on its way."""

    def __init__(
        self,
        archive: Archive,
        series: FoundSeries,
        output: Path,
        options: PullOptions,
        tell: Callable[[str, int, int], None],
    ) -> None:
        self._archive, self._series, self._options, self._tell = archive, series, options, tell
        self._final = output / series.short_name
        self._partial = output / f".{series.short_name}.partial"
        self._wanted: Mapping[str, str] = {}
        self._bytes = 0

    def run(self) -> PulledSeries:
        name, options = self._series.short_name, self._options
        self._wanted = retry(lambda: self._archive.list_instances(self._series), options.backoff, sleep=options.sleep)
        total = len(self._wanted)
        if total > options.max_instances:
            return PulledSeries(name, "failed", 0, f"It has {total} instances, more than --max-instances.")
        if total and not self._missing(self._final):
            self._tell(name, total, total)
            return PulledSeries(name, "there", total)
        self._begin()
        retry(self._fetch, options.backoff, sleep=options.sleep, count_progress=lambda: len(self._have(self._partial)))
        missing = self._missing(self._partial)
        if missing or not total:
            message = f"The PACS sent {total - len(missing)} of {total} instances; the same command tries again."
            return PulledSeries(name, "incomplete", total - len(missing), message)
        self._finish()
        return PulledSeries(name, "fetched", total)

    def _begin(self) -> None:
        """The hidden folder, with what an earlier try left that still counts."""
        try:
            self._partial.mkdir(exist_ok=True)
            wanted = {shorten(uid) + SUFFIX for uid in self._wanted}
            for path in self._partial.iterdir():
                if path.name not in wanted:
                    path.unlink()
            self._bytes = sum(path.stat().st_size for path in self._partial.iterdir())
        except OSError as error:
            raise OutputError(f"{self._partial} cannot be used: {error.strerror}. Choose another folder.") from error

    def _fetch(self) -> None:
        missing = {uid: self._wanted[uid] for uid in self._missing(self._partial)}
        if missing:
            whole = len(missing) == len(self._wanted)
            self._archive.fetch(self._series, missing, self._keep, whole=whole)

    def _keep(self, content: bytes) -> None:
        """Write one instance, if it is one of this series."""
        try:
            identity = read_identity(content)
        except InputError as error:
            raise PeerError(f"{self._archive.name} sent something that is no DICOM file.") from error
        sop_uid, series_uid = identity.sop_uid, identity.series_uid
        if series_uid != self._series.series_uid or sop_uid not in self._wanted:
            log.warning("%s sent an instance that was not asked for; it is left out.", self._archive.name)
            return
        self._bytes += len(content)
        if self._bytes > self._options.max_series_mb * 2**20:
            raise PeerError(f"It is larger than --max-series-mb ({self._options.max_series_mb:g} MiB).")
        with atomic_path(self._partial / (shorten(sop_uid) + SUFFIX)) as temporary:
            temporary.write_bytes(content)
        self._tell(self._series.short_name, len(self._have(self._partial)), len(self._wanted))

    def _finish(self) -> None:
        """Give the hidden folder its name; an older, less complete one makes room."""
        old = self._final.with_name(f".{self._final.name}.old")
        try:
            shutil.rmtree(old, ignore_errors=True)
            if self._final.exists():
                self._final.replace(old)
            self._partial.replace(self._final)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise OutputError(f"{self._final} cannot be written: {error.strerror}.") from error

    def _have(self, folder: Path) -> frozenset[str]:
        return frozenset(path.name for path in folder.glob(f"*{SUFFIX}")) if folder.is_dir() else frozenset()

    def _missing(self, folder: Path) -> list[str]:
        have = self._have(folder)
        return [uid for uid in self._wanted if shorten(uid) + SUFFIX not in have]
