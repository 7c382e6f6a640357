"""A DICOM node that takes images from peers it knows and puts them into a spool."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import Verification

from effvit_med.errors import InputError, OutputError, SettingsError
from effvit_med.pacs.arrivals import Arrivals
from effvit_med.pacs.identities import read_identity
from effvit_med.pacs.peers import AllowedPeer, TlsFiles
from effvit_med.pacs.spool import Spool, SpooledSeries, SpoolFullError

log = logging.getLogger(__name__)

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
    "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
    "1.2.840.10008.5.1.4.1.1.128",  # PET
    "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
)
"""What is taken. Segmentations and reports are not: a PACS that sends on all it gets would send ours in a circle."""

SUCCESS, OUT_OF_RESOURCES, NO_MATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
_SLACK = 2**20


@dataclass(frozen=True)
class NodeOptions:
    """How a node listens.

    Attributes:
        ae_title: its AE title, which callers must name.
        host: the address to listen on.
        port: the port; 0 for any that is free.
        allowed: who may call.
        tls: with TLS, and these files; None without.
        max_associations: callers at a time.
        idle_s: a caller that says nothing for so long is cut off.

    Raises:
        SettingsError: if nobody may call.
    """

    ae_title: str = "EFFVIT"
    host: str = "127.0.0.1"
    port: int = 11112
    allowed: tuple[AllowedPeer, ...] = ()
    tls: TlsFiles | None = None
    max_associations: int = 4
    idle_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.allowed:
            raise SettingsError("Nobody may call this node. Say who may: --allow-peer AET or AET@address.")


class Node:
    """Listens until it is stopped; what it acknowledges is on the disk.

    Args:
        options: how it listens.
        spool: where to.
        arrivals: is told what comes.
    """

    def __init__(self, options: NodeOptions, spool: Spool, arrivals: Arrivals) -> None:
        self._options, self._spool, self._arrivals = options, spool, arrivals
        self._tls = options.tls.server_context() if options.tls else None
        self._sizes: dict[Any, int] = {}
        self._server: Any = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen from now on.

        Raises:
            SettingsError: if the address cannot be listened on.
        """
        ae = AE(ae_title=self._options.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = sorted({peer.ae_title for peer in self._options.allowed})
        ae.maximum_associations = self._options.max_associations
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 15.0, self._options.idle_s, self._options.idle_s
        ae.add_supported_context(Verification)
        for sop_class in IMAGE_CLASSES:
            ae.add_supported_context(sop_class, list(ALL_TRANSFER_SYNTAXES))
        handlers = [
            (evt.EVT_REQUESTED, self._check_address),
            (evt.EVT_DATA_RECV, self._check_size),
            (evt.EVT_C_STORE, self._take),
            (evt.EVT_CONN_CLOSE, self._close),
        ]
        address = (self._options.host, self._options.port)
        try:
            self._server = ae.start_server(address, block=False, ssl_context=self._tls, evt_handlers=handlers)
        except OSError as error:
            where = f"{self._options.host}:{self._options.port}"
            raise SettingsError(f"The node cannot listen on {where}: {error.strerror or error}.") from error
        log.info("%s listens on %s:%d", self._options.ae_title, self._options.host, self.port)

    def stop(self) -> None:
        """Take no more calls, and cut off those that go on."""
        if self._server is not None:
            self._server.ae.shutdown()

    def _check_address(self, event: Any) -> None:
        """Reject who calls from another address than its own."""
        association = event.assoc
        title, host = association.requestor.primitive.calling_ae_title, association.requestor.address
        caller = _plain_address(host)
        if not any(title == peer.ae_title and peer.host in ("", caller) for peer in self._options.allowed):
            log.warning("rejected %s from %s: not an allowed peer", title, host)
            association.acse.send_reject(0x01, 0x01, 0x03)
            association.kill()

    def _check_size(self, event: Any) -> None:
        """Cut off a caller whose one instance outgrows the limit, before it fills the memory."""
        association = event.assoc
        self._sizes[association] = self._sizes.get(association, 0) + len(event.data)
        if self._sizes[association] > self._spool.limits.instance_mb * 2**20 + _SLACK:
            log.error("cut off %s: an instance is larger than --max-instance-mb", association.requestor.ae_title)
            association.abort(block=False)

    def _take(self, event: Any) -> int:
        """Answer a C-STORE request (PS3.4 section B.2.3)."""
        self._sizes[event.assoc] = 0
        sender = str(event.assoc.requestor.ae_title)
        try:
            content = event.encoded_dataset()
            identity = read_identity(content)
        except InputError as error:
            log.warning("not taken from %s: %s", sender, error)
            return CANNOT_UNDERSTAND
        if identity.sop_uid != event.request.AffectedSOPInstanceUID:
            log.warning("not taken from %s: the instance is not the one that was announced", sender)
            return NO_MATCH
        try:
            series: SpooledSeries = self._spool.keep(identity, content, sender)
        except (SpoolFullError, OutputError) as error:
            log.error("not taken from %s: %s", sender, error)  # noqa: TRY400 - our own errors say all in one line
            return OUT_OF_RESOURCES
        self._arrivals.note(series.name, event.assoc)
        return SUCCESS

    def _close(self, event: Any) -> None:
        self._sizes.pop(event.assoc, None)
        self._arrivals.tell()


def _plain_address(host: str) -> str:
    """An address in its usual form; IPv4 that is wrapped in IPv6 is unwrapped."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
