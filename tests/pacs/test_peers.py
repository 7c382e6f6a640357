"""The TLS of peers."""

from __future__ import annotations

import socket

import pytest

from effvit_med.pacs.peers import TlsFiles


def test_a_socket_that_cannot_be_shut_down_is_closed() -> None:
    """A socket is closed by pynetdicom only behind a shutdown that went well; one never connected would stay open."""
    wrapped = TlsFiles().client_context().wrap_socket(socket.socket(), server_hostname="localhost")
    with pytest.raises(OSError, match="not connected"):
        wrapped.shutdown(socket.SHUT_RDWR)
    assert wrapped.fileno() == -1
