"""The libraries of the ``pacs`` extra: loaded when a command needs them, quiet about what passes through them."""

from __future__ import annotations

import logging
import socket
from importlib import import_module
from typing import Any

from effvit_med.errors import SettingsError

_QUIET = ("pynetdicom", "dicomweb_client", "urllib3")


def need_pynetdicom() -> None:
    """Make sure that pynetdicom is there, and set it up.

    Files are sent as their bytes stand on disk, no header value reaches a log, and no socket stays open.

    Raises:
        SettingsError: if it is not installed; the message has the command that installs it.
    """
    _need("pynetdicom")
    from pynetdicom import _config
    from pynetdicom.transport import AssociationSocket

    _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.LOG_HANDLER_LEVEL = "none"
    AssociationSocket._shutdown_socket = _shut_down_and_close  # noqa: SLF001 - pynetdicom has no other place for it


def need_dicomweb() -> None:
    """Make sure that dicomweb-client is there.

    Raises:
        SettingsError: if it is not installed; the message has the command that installs it.
    """
    _need("dicomweb_client")


def _shut_down_and_close(self: Any) -> None:
    """Close an association's socket, also where it cannot be shut down.

    pynetdicom 3 leaves the socket open then: one that never was connected, or that the other side closed first.
    """
    if self.socket is None:
        return
    try:
        self.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        self.socket.close()


def _need(name: str) -> None:
    try:
        import_module(name)
    except ImportError as error:
        package = name.replace("_", "-")
        raise SettingsError(f"{package} is not installed. Install it with: pip install 'effvit-med[pacs]'") from error
    for each in _QUIET:  # their messages quote UIDs, addresses with them, and header values
        logging.getLogger(each).setLevel(logging.CRITICAL)
