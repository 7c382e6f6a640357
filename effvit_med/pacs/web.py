"""A PACS that speaks DICOMweb: queries, retrieves and stores over HTTP."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4
from xml.etree.ElementTree import ParseError, fromstring

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.web import _load_xml_dataset, _Transaction

from effvit_med.errors import InputError, PeerError, PeerUnreachableError
from effvit_med.pacs.archives import FoundSeries, Keep, StoreOutcome, check_count, label
from effvit_med.pacs.identities import read_identity
from effvit_med.pacs.peers import WebServer
from effvit_med.pacs.queries import Query

TIMEOUT_S = (10.0, 120.0)
PAGE = 1000
MOST_JSON_MB = 256.0
_BUSY = frozenset({408, 425, 429, 502, 503, 504, 507})
_AS_STORED = (("application/dicom", "*"),)
_SERIES_TAGS = ("0020000D", "0020000E", "00080060")  # Study and Series Instance UID, Modality
_SOP_UID, _SOP_CLASS = "00080018", "00080016"
_STORED, _FAILED = "00081199", "00081198"  # Referenced SOP Sequence, Failed SOP Sequence
_STORED_UID, _REASON = "00081155", "00081197"  # in an item: Referenced SOP Instance UID, Failure Reason


class _Client(DICOMwebClient):  # type: ignore[misc]
    """dicomweb-client, with files as the bytes they are: it decodes what it fetches and encodes what it stores."""

    def iter_files(self, series: FoundSeries, sop_uid: str | None) -> Iterator[bytes]:
        """Each DICOM file of a series, or one instance of it."""
        url = self._get_instances_url(_Transaction.RETRIEVE, series.study_uid, series.series_uid, sop_uid)
        if sop_uid is None:
            url = self._get_series_url(_Transaction.RETRIEVE, series.study_uid, series.series_uid)
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        response = self._http_get(url, headers={"Accept": accept}, stream=True)
        yield from (bytes(part) for part in self._decode_multipart_message(response, stream=True))

    def _http_get(self, url: str, params: Any = None, headers: Any = None, stream: bool = False) -> Any:
        """As the library, but with wildcards as they are: servers in use (Orthanc's plugin 1.7) do not decode them."""
        pairs = [
            f"{key}={quote(str(each), safe='*?')}"
            for key, value in (params or {}).items()
            for each in (value if isinstance(value, (list, tuple)) else [value])
        ]
        return super()._http_get(f"{url}?{'&'.join(pairs)}" if pairs else url, None, headers, stream)

    def store_file(self, content: bytes) -> Mapping[str, Any]:
        """Store one DICOM file; the answer as DICOM JSON, empty if it is of another kind."""
        kind = f'multipart/related; type="application/dicom"; boundary="{uuid4()}"'
        body = self._encode_multipart_message([content], kind)
        response = self._http_post(self._get_studies_url(_Transaction.STORE), body, headers={"Content-Type": kind})
        media_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        answer: Any = {}
        if response.content and media_type in ("application/dicom+json", "application/json"):
            answer = response.json()
        elif response.content and media_type in ("application/dicom+xml", "application/xml"):
            tree = fromstring(response.content)  # noqa: S314 - expat bounds entities; no others are fetched
            answer = _load_xml_dataset(tree).to_json_dict()
        return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer


class WebArchive:
    """A DICOMweb server as `effvit_med.pacs.Archive`.

    Args:
        server: where it is and how to speak to it.
        max_answer_mb: an answer with images of more MiB is cut off; others are at `MOST_JSON_MB`.
    """

    def __init__(self, server: WebServer, max_answer_mb: float) -> None:
        self.name = server.name
        self._limit = max_answer_mb
        session = requests.Session()
        session.trust_env = False  # neither proxies nor passwords that nobody named here
        session.headers.update(server.headers)
        session.max_redirects = 0  # only the address that was named is spoken to
        server.tls.client_context()  # raises for files that cannot be used
        session.verify = str(server.tls.ca) if server.tls.ca else True
        if server.tls.certificate:
            session.cert = (str(server.tls.certificate), str(server.tls.key or server.tls.certificate))
        url = urlsplit(server.url).geturl().rstrip("/")  # HTTP:// as http://
        self._client = _Client(url, session=session, callback=self._limit_answer, timeout=TIMEOUT_S)
        self._client.set_http_retry_params(retry=False)

    def find_series(self, query: Query) -> list[FoundSeries]:
        """The series that match, by QIDO-RS.

        Raises:
            PeerError: if the server refuses, does not answer, or answers without end.
        """
        found: dict[str, FoundSeries] = {}
        while True:
            with self._translated("the query"):
                page = self._client.search_for_series(
                    search_filters=dict(query.keys), fields=["StudyInstanceUID"], limit=PAGE, offset=len(found)
                )
                items = [FoundSeries(*(_value(item, tag) for tag in _SERIES_TAGS)) for item in page]
            before = len(found)
            for series in items:
                if series.study_uid and series.series_uid:
                    found.setdefault(series.series_uid, series)
                    check_count(len(found), self.name)
                if len(found) == query.limit:
                    return list(found.values())
            if len(page) < PAGE or len(found) == before:
                return list(found.values())

    def list_instances(self, series: FoundSeries) -> Mapping[str, str]:
        """The instances of a series, by QIDO-RS.

        Raises:
            PeerError: if the server refuses, does not answer, or answers without end.
        """
        found: dict[str, str] = {}
        while True:
            with self._translated("the list of instances"):
                page = self._client.search_for_instances(
                    series.study_uid, series.series_uid, limit=PAGE, offset=len(found)
                )
                items = {_value(item, _SOP_UID): _value(item, _SOP_CLASS) for item in page}
            before = len(found)
            found.update({uid: sop_class for uid, sop_class in items.items() if uid})
            check_count(len(found), self.name)
            if len(page) < PAGE or len(found) == before:
                return found

    def fetch(self, series: FoundSeries, instances: Mapping[str, str], keep: Keep, *, whole: bool) -> None:
        """Get a whole series in one answer, or each of some instances by itself, by WADO-RS.

        Raises:
            PeerError: if the server refuses, does not answer, or answers with more than the limit.
        """
        for sop_uid in [None] if whole else instances:
            with self._translated("the images"):
                for content in self._client.iter_files(series, sop_uid):
                    keep(content)

    def store(self, files: Sequence[Path]) -> Iterator[StoreOutcome]:
        """Send files one by one, by STOW-RS.

        Raises:
            PeerError: if the server does not answer, answers with something that is no DICOMweb, or refuses the whole
                request for want of permission.
        """
        for path in files:
            yield self._store(path)

    def _store(self, path: Path) -> StoreOutcome:
        content = path.read_bytes()
        try:
            sop_uid = read_identity(content).sop_uid
            with self._translated("the file", pass_on=True):
                return self._judge(path, sop_uid, self._client.store_file(content))
        except InputError:
            return StoreOutcome(path, "refused", "DAMAGED", f"{label(path)} is no whole DICOM file.")
        except requests.HTTPError as error:
            status = error.response.status_code
            return StoreOutcome(path, "refused", f"HTTP_{status}", f"{self.name} refuses {label(path)}: HTTP {status}.")

    def _judge(self, path: Path, sop_uid: str, answer: Mapping[str, Any]) -> StoreOutcome:
        """What an answer says of a file: stored is only what it names as stored (PS3.18 section 10.5.3)."""
        failed = answer.get(_FAILED, {}).get("Value") or []
        if failed:
            reason = int(_value(failed[0], _REASON) or 0)
            busy = reason & 0xFF00 == 0xA700
            message = f"{self.name} does not store {label(path)}: failure reason 0x{reason:04X}."
            return StoreOutcome(path, "busy" if busy else "refused", f"STATUS_{reason:04X}", message)
        if any(_value(item, _STORED_UID) == sop_uid for item in answer.get(_STORED, {}).get("Value") or []):
            return StoreOutcome(path, "stored")
        message = f"{self.name} does not say that it has stored {label(path)}. Is the URL that of DICOMweb?"
        return StoreOutcome(path, "refused", "NO_CONFIRMATION", message)

    @contextmanager
    def _translated(self, what: str, *, pass_on: bool = False) -> Iterator[None]:
        """What goes wrong over HTTP as an error of ours; addresses with UIDs in them stay out of the message."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code
            if status in _BUSY:
                raise PeerUnreachableError(f"{self.name} is busy: HTTP {status}.") from error
            if status in (401, 403):
                raise PeerError(f"{self.name} wants other credentials: HTTP {status}. See --auth-file.") from error
            if pass_on:
                raise
            raise PeerError(f"{self.name} refuses {what}: HTTP {status}. Is the URL right?") from error
        except requests.exceptions.SSLError as error:
            raise PeerError(f"{self.name} and we do not agree on TLS: {_reason(error)}. See --tls-ca.") from error
        except requests.exceptions.JSONDecodeError as error:
            raise PeerError(f"{self.name} answers {what} with no JSON. Is the URL that of DICOMweb?") from error
        except requests.TooManyRedirects as error:
            raise PeerError(f"{self.name} sends us elsewhere. Name the URL that it leads to.") from error
        except requests.exceptions.InvalidURL as error:
            raise PeerError(f"{self.name} is no URL that can be spoken to.") from error
        except requests.RequestException as error:
            raise PeerUnreachableError(f"{self.name} does not answer ({type(error).__name__}).") from error
        except (ValueError, LookupError, TypeError, AttributeError, ParseError, RecursionError) as error:
            raise PeerError(f"{self.name} answers {what} with something that is no DICOMweb.") from error

    def _limit_answer(self, response: requests.Response, *_: Any, stream: bool = False, **__: Any) -> requests.Response:
        """Count the bytes of an answer while they come in; only images are streamed."""
        original, limit_mb = response.iter_content, self._limit if stream else MOST_JSON_MB
        remedy = "Raise --max-series-mb." if stream else "Ask for less: narrow the query."
        message = f"{self.name} sends more than {limit_mb:g} MiB at once. {remedy}"

        def iterate(*args: Any, **options: Any) -> Iterator[bytes]:
            size = 0
            for chunk in original(*args, **options):
                size += len(chunk)
                if size > limit_mb * 2**20:
                    raise PeerError(message)
                yield chunk

        response.iter_content = iterate
        return response


def _value(item: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute in DICOM JSON."""
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0]).strip()


def _reason(error: BaseException) -> str:
    """What OpenSSL says of a failed handshake."""
    cause: BaseException | None = error
    for _ in range(6):
        if isinstance(cause, ssl.SSLError):
            return str(getattr(cause, "verify_message", "") or cause.reason or type(cause).__name__)
        arguments = [each for each in getattr(cause, "args", ()) if isinstance(each, BaseException)]
        cause = getattr(cause, "reason", None) or (arguments[0] if arguments else None)
        if not isinstance(cause, BaseException):
            break
    return type(error).__name__
