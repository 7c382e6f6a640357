"""A PACS as this package sees it, whether it speaks DICOMweb or DIMSE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from effvit_med.errors import PeerError
from effvit_med.pacs.queries import Query, shorten

StoreStatus = Literal["stored", "refused", "busy"]
Keep = Callable[[bytes], None]
"""Takes one DICOM file as bytes."""

MOST_FOUND = 100_000
"""Answers to one query that are kept in memory; a PACS that sends more is cut off."""


@dataclass(frozen=True)
class FoundSeries:
    """A series that a PACS says it has.

    Attributes:
        study_uid: its Study Instance UID.
        series_uid: its Series Instance UID.
        modality: its Modality; empty if the PACS does not say.
    """

    study_uid: str
    series_uid: str
    modality: str = ""

    @property
    def short_name(self) -> str:
        """Its modality and a digest of its UID: fit for logs and as a folder name."""
        safe = "".join(letter for letter in self.modality if letter.isascii() and letter.isalnum())[:16] or "series"
        return f"{safe}_{shorten(self.series_uid)}"


@dataclass(frozen=True)
class StoreOutcome:
    """What a PACS did with a file.

    Attributes:
        path: the file.
        status: ``stored``; ``refused``: not wanted now or later; ``busy``: not now.
        code: for a machine: ``SOP_CLASS_NOT_ACCEPTED``, ``STATUS_A900``, ``HTTP_409``, ``NO_CONFIRMATION`` (the PACS
            does not say that it has stored it), ...; empty if stored.
        message: for a person; empty if stored.
    """

    path: Path
    status: StoreStatus
    code: str = ""
    message: str = ""


class Archive(Protocol):
    """What a PACS can do for us.

    Every method raises `PeerUnreachableError` where trying again may help and `PeerError` where it does not.
    """

    @property
    def name(self) -> str:
        """How messages name it: a URL, or AET@host:port."""

    def find_series(self, query: Query) -> list[FoundSeries]:
        """The series that match."""

    def list_instances(self, series: FoundSeries) -> Mapping[str, str]:
        """SOP Class UID of each instance by its SOP Instance UID; a class may be empty if the PACS does not say."""

    def fetch(self, series: FoundSeries, instances: Mapping[str, str], keep: Keep, *, whole: bool) -> None:
        """Get these instances of a series, which are all of it (``whole``) or some, as they are stored there."""

    def store(self, files: Sequence[Path]) -> Iterator[StoreOutcome]:
        """Send files as they are; what became of each comes as soon as it is known."""


def check_count(count: int, name: str) -> None:
    """Let no PACS fill our memory with answers to a query.

    Args:
        count: answers so far.
        name: how messages name the PACS.

    Raises:
        PeerError: if there are more than `MOST_FOUND`.
    """
    if count > MOST_FOUND:
        raise PeerError(f"{name} answers a query with more than {MOST_FOUND} matches. Ask for less: narrow the query.")


def label(path: Path) -> str:
    """How messages name a result: its file with the folder of its case."""
    return f"{path.parent.name}/{path.name}"
