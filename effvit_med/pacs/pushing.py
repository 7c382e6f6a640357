"""Results of a batch stored into a PACS, each once."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path

from pydicom import dcmread

from effvit_med.batch.journal import Journal
from effvit_med.errors import InputError, OutputError, PeerUnreachableError
from effvit_med.io.atomic import write_json
from effvit_med.pacs.archives import Archive, StoreOutcome, label
from effvit_med.pacs.retrying import Backoff, Sleep, retry

log = logging.getLogger(__name__)

BINARY_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP_SEG = "1.2.840.10008.5.1.4.1.1.66.7"
RESULTS = {
    BINARY_SEG: "SEG",
    LABELMAP_SEG: "LABELMAP SEG",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.88.22": "SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
}
"""SOP classes that are stored, by UID (PS3.4 table B.5-1)."""

PUSHED = "pushed"
"""The folder of what is stored, inside a journal."""

LABELMAP_REMEDY = "The PACS does not take LABELMAP segmentations: segment again with --seg-type binary."


@dataclass(frozen=True)
class ResultFile:
    """A DICOM result to store.

    Attributes:
        path: the file.
        sop_class: its SOP Class UID.
        fallback: the BINARY segmentation beside a LABELMAP one, stored where the PACS refuses the LABELMAP.
    """

    path: Path
    sop_class: str
    fallback: Path | None = None


@dataclass(frozen=True)
class PushResult:
    """What became of the files.

    Attributes:
        outcomes: one for each file that was sent.
        already: how many were stored by an earlier run.
        unsent: how many wait because the PACS could not be reached or was busy.
    """

    outcomes: tuple[StoreOutcome, ...]
    already: int = 0
    unsent: int = 0

    @property
    def exit_code(self) -> int:
        """0 if all is stored, 2 if the PACS refuses some, 3 if there was nothing, 75 if some wait."""
        if self.unsent:
            return 75
        if any(each.status == "refused" for each in self.outcomes):
            return 2
        return 0 if self.outcomes or self.already else 3

    @property
    def counts(self) -> Counter[str]:
        """How many files by what became of them."""
        counts: Counter[str] = Counter(each.status for each in self.outcomes if each.status != "busy")
        counts.update(already=self.already, unsent=self.unsent)
        return counts


class PushJournal:
    """What a destination has stored, one small file each, so that a kill loses nothing.

    Args:
        folder: the journal's folder, made when first written; None to keep nothing.
        destination: name of the PACS; each has its own entries.
    """

    def __init__(self, folder: Path | None, destination: str) -> None:
        self._folder = folder / PUSHED / sha256(destination.encode()).hexdigest()[:16] if folder else None
        self._destination = destination

    def has(self, path: Path) -> bool:
        """Whether these very bytes are stored already."""
        return self._folder is not None and (self._folder / f"{_digest(path)}.json").exists()

    def add(self, path: Path) -> None:
        """Note that a file is stored.

        Raises:
            OutputError: if that cannot be written.
        """
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The journal {self._folder} cannot be made: {error.strerror}.") from error
        digest = _digest(path)
        write_json(
            self._folder / f"{digest}.json",
            {"sha256": digest, "file": label(path), "destination": self._destination, "stored_at": int(time.time())},
        )


def find_results(source: Path) -> tuple[ResultFile, ...]:
    """The DICOM results in a folder, or a single file.

    Hidden files and folders, and DICOM images, are left out. So are results whose case was refused or has failed in a
    later run of the batch, since its scan has changed. Of a LABELMAP and a BINARY segmentation in one folder the
    LABELMAP is sent and the BINARY is its fallback.

    Raises:
        InputError: if the source does not exist, or a single file is no DICOM result.
    """
    if source.is_file():
        kind = _sop_class(source)
        if kind not in RESULTS:
            raise InputError(f"{source.name} is no DICOM segmentation, structure set or report. Give one, or a folder.")
        return (ResultFile(source, kind),)
    if not source.is_dir():
        raise InputError(f"{source} does not exist. Give the output folder of a batch, or a file.")
    found = [ResultFile(path, _sop_class(path)) for path in sorted(source.rglob("*.dcm")) if _is_visible(path, source)]
    journal = Journal(source)
    found = [each for each in found if each.sop_class in RESULTS and not _is_outdated(each.path.parent, journal)]
    binary = {each.path.parent: each.path for each in found if each.sop_class == BINARY_SEG}
    labelmap = {each.path.parent for each in found if each.sop_class == LABELMAP_SEG}
    return tuple(
        replace(each, fallback=binary.get(each.path.parent)) if each.sop_class == LABELMAP_SEG else each
        for each in found
        if not (each.sop_class == BINARY_SEG and each.path.parent in labelmap)
    )


def _is_outdated(folder: Path, journal: Journal) -> bool:
    """Whether the journal of a batch says that the results in a case's folder are not those of its last run."""
    state = journal.read(folder.name) if folder.parent == journal.output else None
    if state is None or state["status"] == "done":
        return False
    log.warning("%s is %s by now; its older results are not sent", folder.name, state["status"])
    return True


def push(
    archive: Archive,
    files: Iterable[ResultFile],
    journal: PushJournal,
    backoff: Backoff | None = None,
    *,
    sleep: Sleep = time.sleep,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> PushResult:
    """Store files into a PACS; those in the journal are not sent again.

    Args:
        archive: the PACS.
        files: what to store.
        journal: what is stored already; each success is noted at once.
        backoff: how often to try again while the PACS does not answer or is busy.
        sleep: called with the seconds to wait between tries.
        on_progress: called as on_progress("push", files done, all files).

    Returns:
        What became of each file. A PACS that stays away is no error: its files are counted as unsent.

    Raises:
        PeerError: if the PACS refuses to talk at all: its AE title, credentials, TLS.
        OutputError: if the journal cannot be written.
    """
    work = _Push(archive, list(files), journal, on_progress or (lambda *_: None))
    try:
        retry(work.send, backoff or Backoff(), sleep=sleep, count_progress=lambda: work.done)
    except PeerUnreachableError as error:
        log.error("%s %d files wait on disk; run the same command again.", error, len(work.waiting))  # noqa: TRY400
    return PushResult(tuple(work.outcomes.values()), work.already, len(work.waiting))


class _Push:
    """Files on their way."""

    def __init__(
        self, archive: Archive, files: list[ResultFile], journal: PushJournal, tell: Callable[[str, int, int], None]
    ) -> None:
        self._archive, self._journal, self._tell, self._total = archive, journal, tell, len(files)
        self.waiting = {each.path: each for each in files if not _is_stored(each, journal)}
        self.already = len(files) - len(self.waiting)
        self.outcomes: dict[Path, StoreOutcome] = {}

    @property
    def done(self) -> int:
        """How many files are settled."""
        return self._total - len(self.waiting)

    def send(self) -> None:
        """Send all that waits, fallbacks too."""
        while self.waiting:
            busy = False
            for outcome in self._archive.store(list(self.waiting)):
                self._settle(outcome)
                busy = busy or outcome.status == "busy"
            if busy:
                raise PeerUnreachableError(f"{self._archive.name} has no room or time for {len(self.waiting)} files.")

    def _settle(self, outcome: StoreOutcome) -> None:
        if outcome.status == "busy":
            return
        item = self.waiting.pop(outcome.path)
        if outcome.status == "stored":
            self._journal.add(outcome.path)
        elif item.sop_class == LABELMAP_SEG and item.fallback:
            log.warning("%s The BINARY segmentation beside it is sent instead.", outcome.message)
            self.waiting[item.fallback] = ResultFile(item.fallback, BINARY_SEG)
            return
        else:
            if item.sop_class == LABELMAP_SEG:
                outcome = replace(outcome, message=f"{outcome.message} {LABELMAP_REMEDY}")
            log.error("%s", outcome.message)
        self.outcomes[outcome.path] = outcome
        self._tell("push", self.done, self._total)


def _is_stored(item: ResultFile, journal: PushJournal) -> bool:
    return journal.has(item.path) or (item.fallback is not None and journal.has(item.fallback))


def _is_visible(path: Path, source: Path) -> bool:
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(source).parts)


def _sop_class(path: Path) -> str:
    """The SOP class of a DICOM file; empty if it is none."""
    try:
        return str(dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).get("SOPClassUID", ""))
    except Exception:  # noqa: BLE001 - damaged bytes make pydicom raise nearly anything
        return ""


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def describe_outcomes(outcomes: Sequence[StoreOutcome]) -> list[dict[str, str]]:
    """The refusals as plain values, for the JSON line."""
    return [
        {"file": label(each.path), "status": each.status, "code": each.code, "message": each.message}
        for each in outcomes
        if each.status == "refused"
    ]
