"""The node and the service behind it, with pynetdicom on the other side."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, SegmentationStorage

from effvit_med.errors import SettingsError
from effvit_med.pacs import Backoff, Peer, TlsFiles, open_archive
from effvit_med.pacs.arrivals import Arrivals
from effvit_med.pacs.node import NodeOptions
from effvit_med.pacs.peers import AllowedPeer
from effvit_med.pacs.service import SegmentSeries, SeriesAnswer, Service, ServiceOptions
from effvit_med.pacs.spool import Spool, SpoolLimits
from tests.conftest import ROOT
from tests.pacs.parts import make_certificates, make_series, running_node, send, storing_peer, threshold, wait_until

QUICK = Backoff(retries=0, first_s=0.05, factor=1, longest_s=0.05)


def _states(spool: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(spool.glob("*/state.json"))]


def _final(spool: Path, count: int = 1) -> list[dict[str, object]]:
    """The states of all series, when none is on its way."""

    def ask() -> list[dict[str, object]]:
        states = _states(spool)
        done = [each for each in states if each["status"] != "running" and each["returned"] != "waiting"]
        return states if len(done) == len(states) == count else []

    return wait_until(ask)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def _noting(runs: list[Path]) -> SegmentSeries:
    """The threshold, with a note of every run."""

    def run(received: Path, results: Path) -> SeriesAnswer:
        runs.append(received)
        return threshold()(received, results)

    return run


def test_two_series_over_one_association_and_one_over_two_are_two_answers(tmp_path: Path) -> None:
    """Series are told apart by their UID, not by the association; each is segmented once, and returned once."""
    make_series(tmp_path / "a", "a")
    make_series(tmp_path / "b", "b")
    first, second = _files(tmp_path / "a"), _files(tmp_path / "b")
    counted: list[Path] = []
    with storing_peer([SegmentationStorage]) as peer:
        options = ServiceOptions(1.5, {}, open_archive(peer.peer), QUICK)
        with running_node(tmp_path / "spool", _noting(counted), options) as node:
            assert send([*first[:2], *second], node.port) == [0] * 7
            assert send(first[2:], node.port) == [0] * 3
            states = _final(tmp_path / "spool", 2)
    assert [len(state["instances"]) for state in states] == [5, 5]
    assert len(counted) == len(peer.files) == 2
    assert [_files(each) for each in (tmp_path / "spool").glob("*/received")] == [[], []]


def test_the_same_series_again_is_returned_again_but_not_segmented_again(tmp_path: Path) -> None:
    """The kept results go back once more, with the same UID."""
    make_series(tmp_path / "a", "again")
    runs: list[Path] = []
    with storing_peer([SegmentationStorage]) as peer:
        options = ServiceOptions(0.1, {}, open_archive(peer.peer), QUICK)
        with running_node(tmp_path / "spool", _noting(runs), options) as node:
            send(_files(tmp_path / "a"), node.port)
            _final(tmp_path / "spool")
            send(_files(tmp_path / "a"), node.port)
            wait_until(lambda: peer.asked == 2)
            wait_until(lambda: not any((tmp_path / "spool").glob("*/received/*.dcm")))
    assert len(runs) == 1
    assert len(peer.files) == 1


def test_a_result_that_was_refused_is_made_anew_after_a_restart(tmp_path: Path) -> None:
    """A peer that takes no LABELMAP gets a BINARY one when the node is started with that: the images were kept."""
    make_series(tmp_path / "a", "anew")
    with storing_peer([SegmentationStorage]) as peer:
        options = ServiceOptions(0.1, {}, open_archive(peer.peer), QUICK)
        with running_node(tmp_path / "spool", threshold("labelmap"), options) as node:
            send(_files(tmp_path / "a"), node.port)
            assert _final(tmp_path / "spool")[0]["returned"] == "refused"
        with running_node(tmp_path / "spool", threshold("binary"), options):
            wait_until(lambda: _final(tmp_path / "spool")[0]["returned"] == "stored")
    assert len(peer.files) == 1
    assert not any((tmp_path / "spool").glob("*/received/*.dcm"))


def test_late_images_of_an_answered_series_are_not_segmented_by_themselves(tmp_path: Path) -> None:
    """Part of a series would make a wrong result: it waits until the whole series is sent again."""
    make_series(tmp_path / "a", "late")
    files = _files(tmp_path / "a")
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(0.1)) as node:
        send(files[:4], node.port)
        assert len(_final(tmp_path / "spool")[0]["instances"]) == 4
        send(files[4:], node.port)
        send(files, node.port)
        wait_until(lambda: [len(state["instances"]) for state in _final(tmp_path / "spool")] == [5])


@pytest.mark.parametrize(
    ("allowed", "sender", "called"),
    [
        ("SENDER", "STRANGER", "EFFVIT"),
        ("SENDER", "SENDER", "OTHER"),
        ("SENDER@10.1.2.3", "SENDER", "EFFVIT"),
    ],
    ids=["unknown title", "wrong called title", "wrong address"],
)
def test_who_is_not_allowed_is_rejected(tmp_path: Path, allowed: str, sender: str, called: str) -> None:
    """An association from a stranger, for another title, or from another address does not come about."""
    title, _, host = allowed.partition("@")
    make_series(tmp_path / "a", "stranger")
    options = NodeOptions(port=0, allowed=(AllowedPeer(title, host),))
    with running_node(tmp_path / "spool", threshold(), None, options) as node:
        assert send(_files(tmp_path / "a"), node.port, sender, called) == []
    assert not any((tmp_path / "spool").glob("*/received/*"))


def test_a_node_that_nobody_may_call_does_not_start() -> None:
    """Without an allow-list the configuration is wrong, not open."""
    with pytest.raises(SettingsError, match="--allow-peer"):
        NodeOptions()


@pytest.mark.parametrize(
    "limits",
    [SpoolLimits(series_instances=3), SpoolLimits(spool_gb=2500 / 2**30), SpoolLimits(instance_mb=1000 / 2**20)],
    ids=["instances", "spool", "instance"],
)
def test_beyond_a_limit_the_sender_is_told_that_we_are_out_of_resources(tmp_path: Path, limits: SpoolLimits) -> None:
    """Status A700, and what was acknowledged before stays."""
    make_series(tmp_path / "a", "limits")
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(60.0), limits=limits) as node:
        codes = send(_files(tmp_path / "a"), node.port)
    assert 0xA700 in codes
    assert codes.count(0) == len(list((tmp_path / "spool").glob("*/received/*.dcm")))


def test_an_instance_far_beyond_the_limit_is_cut_off_while_it_comes(tmp_path: Path) -> None:
    """The association is aborted before the whole instance lies in memory."""
    make_series(tmp_path / "a", "huge")
    path = _files(tmp_path / "a")[0]
    dataset = dcmread(path)
    dataset.Rows, dataset.Columns = 2048, 2048
    dataset.PixelData = bytes(2 * 2048 * 2048)
    dataset.save_as(path)
    limits = SpoolLimits(instance_mb=0.5)
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(60.0), limits=limits) as node:
        assert send([path], node.port) == [-1]
        assert send(_files(tmp_path / "a")[1:2], node.port) == [0]  # the next caller is served


def test_no_more_callers_than_allowed_at_a_time(tmp_path: Path) -> None:
    """The second association is rejected while the first is open."""
    options = NodeOptions(port=0, allowed=(AllowedPeer("SENDER"),), max_associations=1)
    with running_node(tmp_path / "spool", threshold(), None, options) as node:
        ae = AE(ae_title="SENDER")
        ae.add_requested_context(CTImageStorage)
        first = ae.associate("127.0.0.1", node.port, ae_title="EFFVIT")
        assert first.is_established
        assert ae.associate("127.0.0.1", node.port, ae_title="EFFVIT").is_rejected
        first.release()


def test_nothing_in_the_logs_or_the_spool_names_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """File names, states and log lines carry digests; UIDs and names stay inside the images."""
    uids = make_series(tmp_path / "a", "private")
    with caplog.at_level(logging.DEBUG), running_node(tmp_path / "spool", threshold(), ServiceOptions(0.1)) as node:
        send(_files(tmp_path / "a"), node.port)
        _final(tmp_path / "spool")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("effvit_med.pacs"))
    names = "\n".join(str(path.relative_to(tmp_path)) for path in (tmp_path / "spool").rglob("*"))
    states = "\n".join(path.read_text() for path in (tmp_path / "spool").glob("*/*.json"))
    for text in (ours, names, states):
        assert text
        assert "secret" not in text.lower()
        assert uids.series not in text
        assert uids.study not in text


def test_a_segmentation_that_raises_costs_its_series_only(tmp_path: Path) -> None:
    """The state says failed, its images stay, and the next series is answered."""
    make_series(tmp_path / "a", "bad")
    make_series(tmp_path / "b", "good")

    def run(received: Path, results: Path) -> SeriesAnswer:
        if any("bad" in str(dcmread(path).SeriesDescription) for path in received.glob("*.dcm")):
            raise ZeroDivisionError
        return threshold()(received, results)

    with running_node(tmp_path / "spool", run, ServiceOptions(0.1)) as node:
        send(_files(tmp_path / "a"), node.port)
        send(_files(tmp_path / "b"), node.port)
        states = _final(tmp_path / "spool", 2)
    assert sorted(str(state["status"]) for state in states) == ["failed", "segmented"]
    assert len(list((tmp_path / "spool").glob("*/received/*.dcm"))) == 5


SERVE_AND_DIE = """
import os, sys
from pathlib import Path
from effvit_med.pacs.node import NodeOptions
from effvit_med.pacs.peers import AllowedPeer
from effvit_med.pacs.service import ServiceOptions
from effvit_med.pacs.serving import serve
from effvit_med.pacs.spool import Spool, SpoolLimits

def hang(received, results):
    print("segmenting", flush=True)
    sys.stdin.read()

spool = Spool(Path(sys.argv[1]), SpoolLimits())
with spool.held():
    node = NodeOptions(port=0, allowed=(AllowedPeer("SENDER"),))
    serve(spool, node, ServiceOptions(0.1), hang, on_start=lambda port: print(port, flush=True))
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """After kill -9 in the middle of a segmentation the next process answers the series, without half files."""
    make_series(tmp_path / "a", "killed")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVE_AND_DIE, str(tmp_path / "spool")]
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        assert send(_files(tmp_path / "a"), port) == [0] * 5
        assert process.stdout.readline() == "segmenting\n"
        process.send_signal(signal.SIGKILL)
    (received,) = (tmp_path / "spool").glob("*/received")
    (received / ".0123abcd.part-half.dcm").write_bytes(b"half")  # as a kill while receiving leaves it
    with storing_peer([SegmentationStorage]) as peer:
        options = ServiceOptions(0.1, {}, open_archive(peer.peer), QUICK)
        with running_node(tmp_path / "spool", threshold(), options):
            (state,) = _final(tmp_path / "spool")
    assert (state["status"], state["returned"], len(state["instances"])) == ("segmented", "stored", 5)
    assert len(peer.files) == 1
    assert list(received.iterdir()) == []


def test_a_series_that_always_ends_the_process_is_given_up(tmp_path: Path) -> None:
    """After three begun attempts it has failed, so that a restarted node does not die of it for ever."""
    make_series(tmp_path / "a", "deadly")
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(60.0)) as node:
        send(_files(tmp_path / "a"), node.port)
    (folder,) = (path for path in (tmp_path / "spool").iterdir() if path.is_dir())
    running = {"status": "running", "code": "", "message": "", "instances": [], "files": [], "returned": "none"}
    (folder / "state.json").write_text(json.dumps({**running, "attempts": 3}))
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(0.1)):
        (state,) = _final(tmp_path / "spool")
    assert (state["status"], state["code"]) == ("failed", "CRASHED")


def test_a_spool_belongs_to_one_node(tmp_path: Path) -> None:
    """A second node over the same folder is told so."""
    with (
        running_node(tmp_path, threshold()),
        pytest.raises(SettingsError, match="Another node"),
        Spool(tmp_path, SpoolLimits()).held(),
    ):
        pass


def test_results_that_cannot_be_returned_wait_longer_and_longer() -> None:
    """The waits grow to the longest and stay there; nothing is given up."""
    assert list(ServiceOptions().backoff.waits()) == [2.0, 6.0, 18.0, 54.0, 162.0]
    assert ServiceOptions().backoff.longest_s == 300.0


def test_a_return_is_tried_until_the_peer_is_there(tmp_path: Path) -> None:
    """Results of a peer that is down or busy are kept and go when it takes them."""
    make_series(tmp_path / "a", "kept")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    back = open_archive(Peer("STORE", "127.0.0.1", port))
    spool = Spool(tmp_path / "spool", SpoolLimits())
    now = [0.0]
    arrivals = Arrivals(lambda: now[0])
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(60.0)) as node:
        send(_files(tmp_path / "a"), node.port)
    with spool.held():
        options = ServiceOptions(5.0, {}, back, Backoff(retries=1, first_s=10.0, factor=1.0, longest_s=10.0))
        service = Service(spool, arrivals, threshold(), options, lambda: now[0])
        service.recover()
        assert not service.step()
        now[0] = 5.0
        assert service.step()
        assert service.unanswered() == 1
        with storing_peer([SegmentationStorage], port) as peer:
            assert not service.step()  # not due yet
            now[0] = 15.0
            peer.statuses = [0xA700]
            assert service.step()
            assert (service.unanswered(), peer.files) == (1, {})
            now[0] = 25.0
            assert service.step()
            assert (service.unanswered(), len(peer.files)) == (0, 1)


def test_a_node_with_tls_takes_only_who_shows_a_certificate(tmp_path: Path) -> None:
    """Files go both ways over TLS; plain DICOM and a client without certificate get no association."""
    files = make_certificates(tmp_path)
    make_series(tmp_path / "a", "tls")
    options = NodeOptions(port=0, allowed=(AllowedPeer("SENDER"),), tls=files)
    with storing_peer([SegmentationStorage], tls=files.server_context()) as peer:
        back = open_archive(Peer("STORE", "127.0.0.1", peer.port, tls=files))
        with running_node(tmp_path / "spool", threshold(), ServiceOptions(0.1, {}, back, QUICK), options) as node:
            assert send(_files(tmp_path / "a"), node.port) == []
            with pytest.raises(Exception, match="does not answer"):
                list(open_archive(_peer(node.port, TlsFiles(files.ca))).store(_files(tmp_path / "a")))
            outcomes = list(open_archive(_peer(node.port, files)).store(_files(tmp_path / "a")))
            assert [each.status for each in outcomes] == ["stored"] * 5
            (state,) = _final(tmp_path / "spool")
    assert state["returned"] == "stored"
    assert len(peer.files) == 1


def _peer(port: int, tls: TlsFiles) -> Peer:
    return Peer("EFFVIT", "127.0.0.1", port, "SENDER", tls)
