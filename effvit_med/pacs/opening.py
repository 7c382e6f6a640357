"""The way from an address to a PACS."""

from __future__ import annotations

from effvit_med.pacs.archives import Archive
from effvit_med.pacs.libraries import need_dicomweb, need_pynetdicom
from effvit_med.pacs.peers import Peer, WebServer


def open_archive(where: Peer | WebServer, max_series_mb: float = 16384) -> Archive:
    """The PACS at an address; nothing is sent yet.

    Args:
        where: a DICOM node or a DICOMweb server.
        max_series_mb: one answer of more MiB than this is cut off.

    Raises:
        SettingsError: if the library for it is not installed, or its TLS files cannot be used.
    """
    if isinstance(where, WebServer):
        need_dicomweb()
        from effvit_med.pacs.web import WebArchive

        return WebArchive(where, max_series_mb)
    need_pynetdicom()
    from effvit_med.pacs.dimse import DimseArchive

    return DimseArchive(where)
