"""What the tests of a PACS share: small series, a node in a thread, a peer of pynetdicom, and waiting with a limit."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

from effvit_med.errors import RefusedError
from effvit_med.io import SegOptions, open_input, read_case, write_dicom_seg
from effvit_med.pacs.node import NodeOptions
from effvit_med.pacs.peers import AllowedPeer, Peer, TlsFiles
from effvit_med.pacs.service import SegmentSeries, SeriesAnswer, ServiceOptions
from effvit_med.pacs.serving import ServeResult, serve
from effvit_med.pacs.spool import Spool, SpoolLimits
from tests.io.source_series import axial, segment, write_series

Value = TypeVar("Value")


def wait_until(ask: Callable[[], Value], timeout_s: float = 60.0) -> Value:
    """What ``ask`` returns as soon as it is true; a test that waits for longer fails."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = ask()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{ask} did not become true in {timeout_s} s")


@dataclass(frozen=True)
class Uids:
    """The UIDs of a small series."""

    study: str
    series: str
    instances: tuple[str, ...]


def make_series(folder: Path, name: str, slices: int = 5, study: str = "") -> Uids:
    """A small CT series on disk; every name gives other UIDs, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    study_uid = generate_uid(entropy_srcs=["study", study or name])
    series_uid = generate_uid(entropy_srcs=["series", name])
    uids = [generate_uid(entropy_srcs=["sop", name, str(k)]) for k in range(slices)]

    def change(k: int, dataset: Dataset) -> None:
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, uids[k]
        dataset.SeriesDescription, dataset.PatientID, dataset.PatientName = name, "SECRET-ID", "Secret^Name"

    write_series(folder, axial((slices, 12, 10)), change)
    return Uids(study_uid, series_uid, tuple(uids))


def threshold(kind: str = "binary") -> SegmentSeries:
    """A segmentation that needs no model: what is above 50 is liver."""

    def run(received: Path, results: Path) -> SeriesAnswer:
        with open_input(received) as found:
            if found.refused:
                return SeriesAnswer("refused", found.refused[0].code, found.refused[0].message)
            try:
                volume = read_case(found.cases[0])
            except RefusedError as error:
                return SeriesAnswer("refused", error.code, str(error))
            labels = (volume.array > 50).astype(np.uint8)
            (results / "case").mkdir()
            path = results / "case" / "segmentation.seg.dcm"
            write_dicom_seg(segment(volume, labels), path, SegOptions(segmentation_type=kind))
        return SeriesAnswer("segmented")

    return run


class RunningNode:
    """A node of ours in a thread."""

    def __init__(self) -> None:
        self.port = 0
        self.result: ServeResult | None = None
        self.stopping = threading.Event()


@contextmanager
def running_node(
    spool: Path,
    run: SegmentSeries,
    options: ServiceOptions | None = None,
    node: NodeOptions | None = None,
    limits: SpoolLimits | None = None,
) -> Iterator[RunningNode]:
    """A node that listens while the block runs."""
    place, running = Spool(spool, limits or SpoolLimits()), RunningNode()
    started = threading.Event()

    def note(port: int) -> None:
        running.port = port
        started.set()

    def work() -> None:
        with place.held():
            running.result = serve(
                place,
                node or NodeOptions(port=0, allowed=(AllowedPeer("SENDER"),)),
                options or ServiceOptions(stable_s=0.2),
                run,
                stopped=running.stopping.is_set,
                on_start=note,
            )

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert started.wait(20)
        yield running
    finally:
        running.stopping.set()
        thread.join(30)
        assert not thread.is_alive()


def send(files: list[Path], port: int, sender: str = "SENDER", called: str = "EFFVIT") -> list[int]:
    """Send CT files by C-STORE; the status of each, or an empty list if the association was rejected."""
    ae = AE(ae_title=sender)
    ae.add_requested_context(CTImageStorage, [ExplicitVRLittleEndian])
    association = ae.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return []
    codes = []
    for path in files:
        status = association.send_c_store(dcmread(path)) if association.is_established else Dataset()
        codes.append(int(status.get("Status", -1)))
    if association.is_established:
        association.release()
    return codes


@dataclass
class StoringPeer:
    """A node of pynetdicom that keeps what it is sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    asked: int = 0
    port: int = 0

    @property
    def peer(self) -> Peer:
        """Where it is."""
        return Peer("STORE", "127.0.0.1", self.port)


@contextmanager
def storing_peer(classes: list[str], port: int = 0, tls: Any = None) -> Iterator[StoringPeer]:
    """A node that takes these SOP classes; its statuses are used up first, then all is well."""
    peer = StoringPeer()

    def take(event: Any) -> int:
        peer.asked += 1
        status = peer.statuses.pop(0) if peer.statuses else 0x0000
        if status == 0x0000:
            peer.files[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
        return status

    ae = AE(ae_title="STORE")
    for sop_class in classes:
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, RLELossless])
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)], ssl_context=tls)
    peer.port = server.server_address[1]
    try:
        yield peer
    finally:
        ae.shutdown()


def make_seg(folder: Path, name: str, kind: str = "binary") -> Path:
    """A SEG of a small series, as a batch leaves it: in the folder of a case."""
    source = folder / "source" / name
    make_series(source, name)
    out = folder / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    with open_input(source) as found:
        volume = read_case(found.cases[0])
    path = out / ("segmentation.seg.dcm" if kind == "binary" else "segmentation.labelmap.seg.dcm")
    write_dicom_seg(segment(volume, (volume.array > 50).astype(np.uint8)), path, SegOptions(segmentation_type=kind))
    return path


def data_set(content: bytes) -> bytes:
    """The bytes after the file meta information, which names who wrote the file and not what is in it."""
    assert content[128:132] == b"DICM"
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def make_certificates(folder: Path) -> TlsFiles:
    """A certificate for this machine that signs itself."""
    program = shutil.which("openssl")
    if not program:
        pytest.skip("openssl is not installed")
    command = [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return TlsFiles(folder / "cert.pem", folder / "cert.pem", folder / "key.pem")
