"""The machines on the other side, and how we speak to them: addresses, credentials, TLS."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from effvit_med.errors import SettingsError

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
HANDSHAKE_TIMEOUT_S = 10.0


def check_ae_title(text: str) -> str:
    """An AE title as it stands.

    Raises:
        SettingsError: if it is empty, longer than 16 characters, or has characters that the standard forbids.

    Source:
        PS3.5 section 6.2, value representation AE.

    Examples:
        >>> check_ae_title("ORTHANC")
        'ORTHANC'
    """
    if not _AE_TITLE.fullmatch(text):
        raise SettingsError(f"The AE title {text!r} is not 1 to 16 printable characters without a backslash.")
    return text


@dataclass(frozen=True)
class TlsFiles:
    """What TLS needs, as PEM files.

    Attributes:
        ca: certificates to trust, and no others; the public ones if None. On a node: only clients that these signed
            may connect.
        certificate: our own certificate.
        key: the private key of ours; it may stand in the certificate's file.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def client_context(self) -> ssl.SSLContext:
        """For calls that we make; the other side's certificate and name are checked.

        Raises:
            SettingsError: if a file is missing or is no such PEM file.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"The certificates in {self.ca} cannot be used: {error}.") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._load(context)

    def server_context(self) -> ssl.SSLContext:
        """For calls that we take; with ``ca`` clients must show a certificate.

        Raises:
            SettingsError: if there is no certificate, or a file is missing or is no such PEM file.
        """
        if not self.certificate:
            raise SettingsError("A node with TLS needs its certificate: give --tls-cert FILE (and --tls-key FILE).")
        context = _ServerContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return self._load(context)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        try:
            if self.ca:
                context.load_verify_locations(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            names = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path)
            raise SettingsError(f"The TLS files {names} cannot be used: {error}.") from error
        return context


class _ServerContext(ssl.SSLContext):
    """Waits a bounded time for a client's side of the handshake, which a server makes while it accepts."""

    def wrap_socket(self, sock: Any, *args: Any, **options: Any) -> Any:
        before = sock.gettimeout()
        sock.settimeout(HANDSHAKE_TIMEOUT_S)
        try:
            wrapped = super().wrap_socket(sock, *args, **options)
        except OSError:
            sock.close()
            raise
        wrapped.settimeout(before)
        return wrapped


@dataclass(frozen=True)
class Peer:
    """A DICOM node.

    Attributes:
        ae_title: its AE title.
        host: its name or address.
        port: its port.
        own_ae_title: what we call ourselves.
        tls: with TLS, and these files; None without TLS.
    """

    ae_title: str
    host: str
    port: int
    own_ae_title: str = "EFFVIT"
    tls: TlsFiles | None = None

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"{self.ae_title}@{self.host}:{self.port}"


@dataclass(frozen=True)
class WebServer:
    """A DICOMweb server.

    Attributes:
        url: where its services begin, such as ``https://pacs.example/dicom-web``.
        headers: what every request carries, such as ``Authorization``.
        tls: files for https.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: TlsFiles = field(default_factory=TlsFiles)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.port != 0
        except ValueError:
            valid = False
        if not valid:  # the URL is not repeated, for what is wrong may be a password in it
            raise SettingsError(
                "The host or port of the URL is none. Give one such as http://127.0.0.1:8042/dicom-web."
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"The URL {parts._replace(netloc='').geturl()!r} does not begin with http(s)://HOST.")
        if parts.username or parts.password:
            raise SettingsError(
                "The URL carries a password, which every user of this machine can see. Use --auth-file."
            )
        if self.headers and parts.scheme == "http" and not is_loopback(parts.hostname):
            raise SettingsError("Credentials would cross the network unprotected: use an https:// URL.")

    @property
    def name(self) -> str:
        """How messages name it."""
        return self.url


@dataclass(frozen=True)
class AllowedPeer:
    """Who may call a node.

    Attributes:
        ae_title: the caller's AE title.
        host: the address it must call from; any if empty.
    """

    ae_title: str
    host: str = ""


def parse_peer(text: str, own_ae_title: str = "EFFVIT", tls: TlsFiles | None = None) -> Peer:
    """A peer from ``AET@host:port``.

    Raises:
        SettingsError: if the text has another form, a wrong AE title or a wrong port.

    Examples:
        >>> parse_peer("ORTHANC@127.0.0.1:4242").port
        4242
        >>> parse_peer("PACS@[::1]:104").host
        '::1'
    """
    title, _, address = text.rpartition("@")
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not title or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SettingsError(f"The peer {text!r} is not AET@host:port, such as ORTHANC@127.0.0.1:4242.")
    return Peer(check_ae_title(title), host, int(port), check_ae_title(own_ae_title), tls)


def parse_allowed_peer(text: str) -> AllowedPeer:
    """Who may call, from ``AET`` or ``AET@address``.

    Raises:
        SettingsError: if the AE title is wrong, or the address is no IP address.

    Examples:
        >>> parse_allowed_peer("ORTHANC@127.0.0.1")
        AllowedPeer(ae_title='ORTHANC', host='127.0.0.1')
    """
    title, at, host = text.partition("@")
    if at:
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError as error:
            raise SettingsError(f"The allowed peer {text!r} is not AET or AET@address with an IP address.") from error
    return AllowedPeer(check_ae_title(title), host)


def read_credentials(variable: str | None, file: Path | None) -> dict[str, str]:
    """The headers that prove who we are, from an environment variable or a file; never from the command line.

    Args:
        variable: name of an environment variable, or None.
        file: a file, or None. One line in either: ``bearer TOKEN``, ``basic USER:PASSWORD`` or ``header NAME: VALUE``.

    Returns:
        Header values by name; empty if neither is given.

    Raises:
        SettingsError: if both are given, one is not there, or its text has none of the three forms. The text itself
            is never shown.
    """
    if variable and file:
        raise SettingsError("Give --auth-env or --auth-file, not both.")
    if not variable and not file:
        return {}
    where = f"environment variable {variable}" if variable else f"file {file}"
    try:
        text = os.environ[variable] if variable else Path(str(file)).read_text(encoding="utf-8")
    except (KeyError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"The credentials cannot be read: {where} is not there or is no text.") from error
    kind, _, value = text.strip().partition(" ")
    name, colon, rest = value.partition(":")
    if "\n" in value or not value.isprintable() or not value:
        pass
    elif kind.lower() == "bearer":
        return {"Authorization": f"Bearer {value.strip()}"}
    elif kind.lower() == "basic" and colon:
        from base64 import b64encode

        return {"Authorization": f"Basic {b64encode(value.strip().encode()).decode()}"}
    elif kind.lower() == "header" and colon and re.fullmatch(r"[A-Za-z0-9-]+", name):
        return {name: rest.strip()}
    raise SettingsError(
        f"The credentials in the {where} are none of: bearer TOKEN, basic USER:PASSWORD, header NAME: VALUE."
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine.

    Examples:
        >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("10.0.0.1")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
