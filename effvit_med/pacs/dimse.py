"""A PACS that speaks DIMSE: C-FIND, C-GET and C-STORE over an association."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from effvit_med.errors import EffvitError, PeerError, PeerUnreachableError
from effvit_med.pacs.archives import FoundSeries, Keep, StoreOutcome, check_count, label
from effvit_med.pacs.peers import Peer
from effvit_med.pacs.queries import Query

CONNECT_TIMEOUT_S = 15.0
ANSWER_TIMEOUT_S = 120.0
MOST_CONTEXTS = 120  # the standard has room for 128 (PS3.8 section 9.3.2.2)
FALLBACK_CLASS = "1.2.840.10008.5.1.4.1.1.2"  # CT, for a PACS that does not say

_REJECTIONS = {
    1: "without a reason",
    2: "the application context",
    3: "our AE title is not known there",
    7: "its AE title is another",
}


class _NothingAcceptedError(PeerError):
    """The association came about, but no presentation context of it."""


class DimseArchive:
    """A DICOM node as `effvit_med.pacs.Archive`.

    Args:
        peer: where it is and how to speak to it.
    """

    def __init__(self, peer: Peer) -> None:
        self.name = peer.name
        self._peer = peer
        self._tls = (peer.tls.client_context(), peer.host) if peer.tls else None

    def find_series(self, query: Query) -> list[FoundSeries]:
        """The series that match, by C-FIND: studies first, then the series of each.

        Raises:
            PeerError: if the node refuses, does not answer, or answers without end.
        """
        found: dict[str, FoundSeries] = {}
        with self._associated([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            studies = self._find(association, "STUDY", {"StudyInstanceUID": "", **query.study_keys})
            for study in studies:
                keys = {"SeriesInstanceUID": "", "Modality": "", **query.series_keys}
                uid = _text(study, "StudyInstanceUID")
                for item in self._find(association, "SERIES", {**keys, "StudyInstanceUID": uid}):
                    series = FoundSeries(uid, _text(item, "SeriesInstanceUID"), _text(item, "Modality"))
                    if series.series_uid:
                        found.setdefault(series.series_uid, series)
                        check_count(len(found), self.name)
                    if len(found) == query.limit:
                        return list(found.values())
        return list(found.values())

    def list_instances(self, series: FoundSeries) -> Mapping[str, str]:
        """The instances of a series, by C-FIND.

        Raises:
            PeerError: if the node refuses, does not answer, or answers without end.
        """
        keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}
        with self._associated([build_context(StudyRootQueryRetrieveInformationModelFind)]) as association:
            items = self._find(association, "IMAGE", {**keys, "SOPInstanceUID": "", "SOPClassUID": ""})
            uids = {_text(item, "SOPInstanceUID"): _text(item, "SOPClassUID") for item in items}
        return {uid: sop_class for uid, sop_class in uids.items() if uid}

    def fetch(self, series: FoundSeries, instances: Mapping[str, str], keep: Keep, *, whole: bool) -> None:
        """Get instances by C-GET, each in the transfer syntax it is stored in.

        Raises:
            PeerError: if the node refuses or does not answer.
        """
        classes = sorted({sop_class or FALLBACK_CLASS for sop_class in instances.values()})
        syntaxes = list(ALL_TRANSFER_SYNTAXES)[: max(1, (MOST_CONTEXTS - 1) // len(classes))]
        contexts = [build_context(each, syntax) for each in classes for syntax in syntaxes]
        contexts.append(build_context(StudyRootQueryRetrieveInformationModelGet))
        failures: list[BaseException] = []

        def take(event: Any) -> int:
            try:
                keep(event.encoded_dataset())
            except (EffvitError, OSError) as error:
                failures.append(error)
                return 0xA700  # out of resources: the rest will fail alike
            return 0x0000

        roles = [build_role(each, scp_role=True) for each in classes]
        with self._associated(contexts, roles, [(evt.EVT_C_STORE, take)]) as association:
            request = _dataset({"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid})
            request.QueryRetrieveLevel = "SERIES" if whole else "IMAGE"
            if not whole:
                request.SOPInstanceUID = list(instances)
            last = Dataset()
            for status, _ in association.send_c_get(request, StudyRootQueryRetrieveInformationModelGet):
                last = status
                if failures:
                    association.abort()
                    break
        if failures:
            raise failures[0]
        self._check(last, "the images")

    def store(self, files: Sequence[Path]) -> Iterator[StoreOutcome]:
        """Send files by C-STORE, as their bytes stand on disk.

        Raises:
            PeerError: if the node refuses the association or does not answer.
        """
        metas = {path: _read_meta(path) for path in files}
        for some in _split(files, metas):
            try:
                yield from self._store_some(some, metas)
            except _NothingAcceptedError:
                yield from (self._not_accepted(path, metas[path]) for path in some)

    def _store_some(self, files: list[Path], metas: Mapping[Path, tuple[str, str]]) -> Iterator[StoreOutcome]:
        contexts = [build_context(*pair) for pair in sorted({metas[path] for path in files})]
        with self._associated(contexts) as association:
            accepted = {(each.abstract_syntax, each.transfer_syntax[0]) for each in association.accepted_contexts}
            for path in files:
                if metas[path] in accepted:
                    yield self._store(association, path)
                else:
                    yield self._not_accepted(path, metas[path])

    def _store(self, association: Any, path: Path) -> StoreOutcome:
        status = association.send_c_store(path)
        if "Status" not in status:
            raise PeerUnreachableError(f"{self.name} broke off while it was sent a file.")
        code = int(status.Status)
        if code == 0x0000 or code & 0xF000 == 0xB000:
            return StoreOutcome(path, "stored")
        message = f"{self.name} does not store {label(path)}: status 0x{code:04X}."
        return StoreOutcome(path, "busy" if code & 0xFF00 == 0xA700 else "refused", f"STATUS_{code:04X}", message)

    def _not_accepted(self, path: Path, meta: tuple[str, str]) -> StoreOutcome:
        kind, syntax = (UID(each).name for each in meta)
        message = f"{self.name} does not take {kind} in {syntax} ({label(path)})."
        return StoreOutcome(path, "refused", "SOP_CLASS_NOT_ACCEPTED", message)

    def _find(self, association: Any, level: str, keys: Mapping[str, str]) -> list[Dataset]:
        request = _dataset(keys)
        request.QueryRetrieveLevel = level
        items, last = [], Dataset()
        for status, item in association.send_c_find(request, StudyRootQueryRetrieveInformationModelFind):
            last = status
            if item is not None:
                items.append(item)
            try:
                check_count(len(items), self.name)
            except PeerError:
                association.abort()  # a release would wait for the rest
                raise
        self._check(last, "the query")
        return items

    def _check(self, status: Dataset, what: str) -> None:
        """Raise unless an operation ended well."""
        if "Status" not in status:
            raise PeerUnreachableError(f"{self.name} broke off during {what}.")
        code = int(status.Status)
        if code & 0xFF00 == 0xA700:
            raise PeerUnreachableError(f"{self.name} is out of resources for {what}: status 0x{code:04X}.")
        if code != 0x0000 and code & 0xF000 != 0xB000:
            raise PeerError(f"{self.name} refuses {what}: status 0x{code:04X}.")

    @contextmanager
    def _associated(
        self, contexts: list[Any], roles: Iterable[Any] = (), handlers: Iterable[Any] = ()
    ) -> Iterator[Any]:
        """An association for a few operations."""
        ae = AE(ae_title=self._peer.own_ae_title)
        ae.connection_timeout = CONNECT_TIMEOUT_S
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S, ANSWER_TIMEOUT_S
        try:
            association = ae.associate(
                self._peer.host,
                self._peer.port,
                contexts,
                ae_title=self._peer.ae_title,
                ext_neg=list(roles),
                evt_handlers=list(handlers),
                tls_args=self._tls,
            )
        except OSError as error:
            raise PeerUnreachableError(f"{self.name} cannot be found: {error.strerror or error}.") from error
        if not association.is_established:
            self._explain(association)
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _explain(self, association: Any) -> None:
        """Raise for an association that did not come about."""
        answer = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            reason = _REJECTIONS.get(answer.diagnostic, f"diagnostic {answer.diagnostic}")
            if answer.result == 2 or answer.result_source == 3:  # transient, or its limit of associations
                raise PeerUnreachableError(f"{self.name} takes no association now.")
            raise PeerError(
                f"{self.name} refuses the association of {self._peer.own_ae_title}: {reason}. "
                "Compare --peer and --aet with what is configured there."
            )
        if answer is not None and answer.result == 0 and not association.accepted_contexts:
            raise _NothingAcceptedError(f"{self.name} does not offer this service.")
        secured = " Does it expect TLS, and do the certificates fit?" if self._peer.tls else ""
        raise PeerUnreachableError(f"{self.name} does not answer.{secured}")


def _dataset(keys: Mapping[str, str]) -> Dataset:
    dataset = Dataset()
    if not all(value.isascii() for value in keys.values()):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    for key, value in keys.items():
        setattr(dataset, key, value.split("\\") if "\\" in value else value)
    return dataset


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _read_meta(path: Path) -> tuple[str, str]:
    meta = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"]).file_meta
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)


def _split(files: Sequence[Path], metas: Mapping[Path, tuple[str, str]]) -> Iterator[list[Path]]:
    """Files in groups, each with no more kinds than an association has room for."""
    group: list[Path] = []
    kinds: set[tuple[str, str]] = set()
    for path in files:
        if len(kinds | {metas[path]}) > MOST_CONTEXTS:
            yield group
            group, kinds = [], set()
        group.append(path)
        kinds.add(metas[path])
    if group:
        yield group
