"""A small PACS of pynetdicom: C-FIND and C-GET over a folder, and failures on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from effvit_med.pacs import Peer

_KEY = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


@dataclass
class ArchivePeer:
    """What it does next.

    Attributes:
        drop_after: breaks off the next C-GET after so many instances; None never.
        gets: how many instances were asked for, by request.
    """

    drop_after: int | None
    gets: list[int]
    port: int = 0

    @property
    def peer(self) -> Peer:
        """Where it is."""
        return Peer("PACS", "127.0.0.1", self.port)


@contextmanager
def archive_peer(folder: Path) -> Iterator[ArchivePeer]:
    """The PACS of all files below a folder."""
    peer = ArchivePeer(None, [])
    images = [dcmread(path) for path in sorted(folder.rglob("*.dcm"))]

    def match(request: Dataset) -> list[Dataset]:
        uids = {key: request.get(key) for key in _KEY.values() if request.get(key)}
        return [
            image
            for image in images
            if all(str(image.get(key)) in ([want] if isinstance(want, str) else want) for key, want in uids.items())
        ]

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        request = event.identifier
        key, seen = _KEY[request.QueryRetrieveLevel], set()
        for image in match(request):
            if image[key].value in seen:
                continue
            seen.add(image[key].value)
            answer = Dataset()
            for element in request:
                setattr(answer, element.keyword, image.get(element.keyword))
            answer.QueryRetrieveLevel = request.QueryRetrieveLevel
            yield 0xFF00, answer

    def get(event: Any) -> Iterator[Any]:
        found = match(event.identifier)
        peer.gets.append(len(found))
        yield len(found)
        for number, image in enumerate(found):
            if peer.drop_after == number:
                peer.drop_after = None
                event.assoc.abort()
                return
            yield 0xFF00, image

    ae = AE(ae_title="PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        ae.shutdown()
