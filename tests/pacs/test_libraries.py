"""What is set up in the libraries of the ``pacs`` extra."""

from __future__ import annotations

import socket

from pynetdicom.transport import AssociationSocket


def test_a_socket_that_cannot_be_shut_down_is_closed() -> None:
    """A socket that was never connected, or that the other side closed first, would stay open."""
    association_socket = AssociationSocket.__new__(AssociationSocket)
    association_socket.socket = socket.socket()
    plain = association_socket.socket
    association_socket._shutdown_socket()
    assert plain.fileno() == -1
