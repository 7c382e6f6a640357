"""A DICOMweb server that misbehaves, as a plain HTTP server plays it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from effvit_med.errors import InputError, PeerError, PeerUnreachableError, SettingsError
from effvit_med.pacs import Backoff, FoundSeries, PullOptions, Query, TlsFiles, WebServer, open_archive, pull, web
from effvit_med.pacs.identities import read_identity
from tests.pacs.parts import make_certificates, make_seg, make_series

QUERY = Query({"Modality": "CT"})
SERIES = FoundSeries("1.2", "1.2.3", "CT")


class Script:
    """What the server answers, in order; the last answer is repeated."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str, bytes]] = []
        self.asked: list[str] = []
        self.url = ""
        self.location = ""
        self.http: Any = None

    def say(self, status: int, content: bytes = b"", kind: str = "application/dicom+json") -> None:
        """Add an answer."""
        self.answers.append((status, kind, content))


@pytest.fixture(name="server")
def _server() -> Iterator[Script]:
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            script.asked.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, content = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if script.location:
                self.send_header("Location", script.location)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            """Answer a query or a retrieve."""
            self._answer()

        def do_POST(self) -> None:
            """Answer a store."""
            self._answer()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        script.http = http
        script.url = f"http://127.0.0.1:{http.server_address[1]}/dicom-web"
        yield script
        http.shutdown()
        thread.join()


def _series(uid: str) -> dict[str, Any]:
    return {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "0020000E": {"vr": "UI", "Value": [uid]}}


def _parts(*files: bytes) -> bytes:
    return b"".join(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files) + b"--x--"


MULTIPART = 'multipart/related; type="application/dicom"; boundary=x'


def test_a_busy_server_is_asked_again(server: Script, tmp_path: Path) -> None:
    """503 twice, then an empty answer: two waits, and nothing matches."""
    server.say(503)
    server.say(503)
    server.say(200, b"[]")
    waits: list[float] = []
    options = PullOptions(backoff=Backoff(retries=2, first_s=2.0, factor=2.0), sleep=waits.append)
    assert pull(open_archive(WebServer(server.url)), QUERY, tmp_path, options).exit_code == 3
    assert waits == [2.0, 4.0]


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (404, b"", "Is the URL right"),
        (401, b"", "other credentials"),
        (200, b"<html>", "no JSON"),
        (200, b'["text"]', "no DICOMweb"),
    ],
)
def test_a_wrong_answer_is_no_temporary_failure(server: Script, status: int, content: bytes, message: str) -> None:
    """It is not tried again, and the message says what may be wrong without the values asked for."""
    server.say(status, content)
    with pytest.raises(PeerError, match=message) as caught:
        open_archive(WebServer(server.url)).find_series(Query({"PatientID": "SECRET"}))
    assert not isinstance(caught.value, PeerUnreachableError)
    assert len(server.asked) == 1
    assert "SECRET" not in str(caught.value)


def test_pages_of_an_answer_are_all_fetched_also_where_the_server_repeats_them(server: Script) -> None:
    """A server that ignores the offset does not make us ask for ever."""
    server.say(200, json.dumps([_series(f"1.2.{number}") for number in range(1000)]).encode())
    assert len(open_archive(WebServer(server.url)).find_series(QUERY)) == 1000
    assert len(server.asked) == 2


def test_an_answer_without_end_is_cut_off(server: Script) -> None:
    """More than --max-series-mb is not read into memory."""
    server.say(200, _parts(bytes(3 * 2**20)), MULTIPART)
    with pytest.raises(PeerError, match="--max-series-mb"):
        open_archive(WebServer(server.url), 1.0).fetch(SERIES, {"1": ""}, lambda _: None, whole=True)


def test_images_that_nobody_asked_for_are_left_out(server: Script, tmp_path: Path) -> None:
    """An instance of another series does not get into the folder: the series is incomplete, and says so."""
    uids = make_series(tmp_path / "other", "other", slices=1)
    (path,) = (tmp_path / "other").iterdir()
    server.say(200, json.dumps([_series("1.2.3")]).encode())
    server.say(200, json.dumps([{"00080018": {"vr": "UI", "Value": [uids.instances[0]]}}]).encode())
    server.say(200, _parts(path.read_bytes()), MULTIPART)
    result = pull(open_archive(WebServer(server.url)), QUERY, tmp_path / "in")
    assert result.exit_code == 2
    assert [each.status for each in result.series] == ["incomplete"]
    assert not list((tmp_path / "in").rglob("*.dcm"))


JSON = "application/dicom+json"


def _failed(reason: int | str) -> bytes:
    item = {"00081197": {"vr": "LO" if isinstance(reason, str) else "US", "Value": [reason]}}
    return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()


def _stored(uid: str) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": [uid]}}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def _stored_xml(uid: str) -> bytes:
    inner = f'<DicomAttribute keyword="ReferencedSOPInstanceUID" vr="UI"><Value number="1">{uid}</Value>'
    outer = '<DicomAttribute keyword="ReferencedSOPSequence" vr="SQ"><Item number="1">'
    close = "</DicomAttribute></Item></DicomAttribute></NativeDicomModel>"
    return f"<NativeDicomModel>{outer}{inner}{close}".encode()


@pytest.mark.parametrize(
    ("status", "content", "kind", "expected"),
    [
        (200, _failed(0xA700), JSON, "busy STATUS_A700"),
        (200, _failed(0xA900), JSON, "refused STATUS_A900"),
        (200, _failed(0xA900), f"{JSON}; charset=utf-8", "refused STATUS_A900"),
        (409, b"", JSON, "refused HTTP_409"),
        (200, b"<html>welcome</html>", "text/html", "refused NO_CONFIRMATION"),
        (200, b"", JSON, "refused NO_CONFIRMATION"),
        (200, b"{}", JSON, "refused NO_CONFIRMATION"),
        (200, _stored("1.2.3"), JSON, "refused NO_CONFIRMATION"),
        (200, b"MINE", JSON, "stored "),
        (200, b"MINE", "Application/DICOM+JSON;charset=utf-8", "stored "),
        (200, b"MINE", "application/dicom+xml", "stored "),
    ],
    ids=["busy", "failed", "charset", "409", "html", "empty", "{}", "another", "JSON", "JSON charset", "XML"],
)
def test_a_file_is_stored_only_if_the_server_names_it_as_stored(
    server: Script, tmp_path: Path, status: int, content: bytes, kind: str, expected: str
) -> None:
    """A failure reason, another instance, a web page or nothing in a 200 are no success."""
    path = make_seg(tmp_path, "seg")
    if content == b"MINE":
        uid = str(dcmread(path).SOPInstanceUID)
        content = _stored_xml(uid) if kind.endswith("xml") else _stored(uid)
    server.say(status, content, kind)
    (outcome,) = open_archive(WebServer(server.url)).store([path])
    assert f"{outcome.status} {outcome.code}" == expected


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (_failed("abc"), JSON),
        (b'{"00081198": 5}', JSON),
        (b'{"00081199": {"Value": ["text"]}}', JSON),
        (b"[" * 100_000, JSON),
        (b"<html>", JSON),
        (b"<html>", "application/dicom+xml"),
    ],
    ids=["reason", "number", "text", "deep", "html as JSON", "html as XML"],
)
def test_an_answer_to_a_store_that_makes_no_sense_is_an_error_of_the_peer(
    server: Script, tmp_path: Path, content: bytes, kind: str
) -> None:
    """No traceback, and nothing counts as stored."""
    server.say(200, content, kind)
    with pytest.raises(PeerError, match=r"no DICOMweb|no JSON") as caught:
        list(open_archive(WebServer(server.url)).store([make_seg(tmp_path, "seg")]))
    assert not isinstance(caught.value, PeerUnreachableError)


def _damaged(path: Path) -> bytes:
    """An image whose Modality, two bytes long, claims to be a number of four bytes."""
    content = path.read_bytes()
    assert content.count(b"\x08\x00\x60\x00CS\x02\x00") == 1
    return content.replace(b"\x08\x00\x60\x00CS\x02\x00", b"\x08\x00\x60\x00UL\x02\x00")


def test_a_damaged_image_costs_its_series_only(server: Script, tmp_path: Path) -> None:
    """Bytes at which pydicom raises an error of its own kind: the series fails, and the next one is fetched."""
    uids = make_series(tmp_path / "pacs", "whole", slices=1)
    (path,) = (tmp_path / "pacs").iterdir()
    for uid in ("1.2.3", uids.series):
        server.say(200, json.dumps([{"00080018": {"vr": "UI", "Value": [uids.instances[0]]}}]).encode())
        server.say(200, _parts(_damaged(path) if uid == "1.2.3" else path.read_bytes()), MULTIPART)
    server.answers.insert(0, (200, JSON, json.dumps([_series("1.2.3"), _series(uids.series)]).encode()))
    result = pull(open_archive(WebServer(server.url)), QUERY, tmp_path / "in")
    assert [each.status for each in result.series] == ["failed", "fetched"]
    assert result.exit_code == 2


def test_a_received_file_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """No other error than the one for wrong input leaves the reading of an identity."""
    uids = make_series(tmp_path, "cut", slices=1)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for end in range(700):
        try:
            assert read_identity(content[:end]).sop_uid == uids.instances[0]
        except InputError:
            continue


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999/x", "http://127.0.0.1:0/x", "http://127.0.0.1:secret/x"]
)
def test_a_url_without_a_real_host_and_port_is_a_wrong_setting(url: str) -> None:
    """One line, before anything is sent; what stands where the port should be may be a password, and is not shown."""
    with pytest.raises(SettingsError, match="host or port") as caught:
        WebServer(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_answer_to_a_query_has_a_limit_of_its_own(server: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read into memory up to --max-series-mb, which is for images."""
    monkeypatch.setattr(web, "MOST_JSON_MB", 1.0)
    server.say(200, b"[" + b" " * 2**20 + b"]")
    with pytest.raises(PeerError, match=r"1 MiB at once\. Ask for less"):
        open_archive(WebServer(server.url), 100.0).find_series(QUERY)
    monkeypatch.undo()
    assert open_archive(WebServer(server.url), 1.0).find_series(QUERY) == []


def test_pages_without_end_are_cut_off(server: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that always has one more page of other series does not fill the memory."""
    monkeypatch.setattr("effvit_med.pacs.archives.MOST_FOUND", 2500)
    for page in range(5):
        server.say(200, json.dumps([_series(f"1.2.{page}.{number}") for number in range(1000)]).encode())
    with pytest.raises(PeerError, match="more than 2500 matches"):
        open_archive(WebServer(server.url)).find_series(QUERY)
    assert len(server.asked) == 3


def test_wildcards_reach_the_server_as_they_are(server: Script) -> None:
    """A server that does not decode %2A understands them; blanks are encoded as HTTP wants it."""
    server.say(200, b"[]")
    open_archive(WebServer(server.url)).find_series(Query({"SeriesDescription": "thin?slices*", "StationName": "a b"}))
    assert "SeriesDescription=thin?slices*" in server.asked[0]
    assert "StationName=a%20b" in server.asked[0]


def test_a_server_is_trusted_by_the_given_certificates_only(server: Script, tmp_path: Path) -> None:
    """With its own authority https works; without, the certificate is refused, and that is no temporary failure."""
    files = make_certificates(tmp_path)
    server.http.socket = files.server_context().wrap_socket(server.http.socket, server_side=True)
    server.say(200, b"[]")
    url = server.url.replace("http:", "https:")
    assert open_archive(WebServer(url, tls=files)).find_series(QUERY) == []
    with pytest.raises(PeerError, match="do not agree on TLS") as caught:
        open_archive(WebServer(url)).find_series(QUERY)
    assert not isinstance(caught.value, PeerUnreachableError)
    with pytest.raises(SettingsError, match="cannot be used"):
        open_archive(WebServer(url, tls=TlsFiles(ca=tmp_path / "key.pem")))


def test_a_server_does_not_send_us_elsewhere(server: Script) -> None:
    """A redirect is not followed: only the address that was named is spoken to."""
    server.say(302)
    server.location = "http://127.0.0.1:9/"
    with pytest.raises(PeerError, match="sends us elsewhere"):
        open_archive(WebServer(server.url)).find_series(QUERY)
    assert len(server.asked) == 1
