"""`pull` and `push` over DIMSE, with pynetdicom on the other side, and what goes wrong on the way."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread
from pynetdicom.sop_class import SegmentationStorage

from effvit_med.cli import commands
from effvit_med.errors import PeerError, PeerUnreachableError
from effvit_med.pacs import Backoff, FoundSeries, Peer, PullOptions, Query, open_archive, pull, push
from effvit_med.pacs.pushing import PushJournal, find_results
from tests.pacs.archive_peer import archive_peer
from tests.pacs.parts import data_set, make_seg, make_series, storing_peer


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_pull_that_breaks_off_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    """The PACS aborts after two of five images: the next try asks for the other three only; all pixels are right."""
    uids = make_series(tmp_path / "pacs", "broken off")
    waits: list[float] = []
    with archive_peer(tmp_path / "pacs") as peer:
        peer.drop_after = 2
        options = PullOptions(backoff=Backoff(retries=1, first_s=7.0), sleep=waits.append)
        result = pull(open_archive(peer.peer), Query({"StudyInstanceUID": uids.study}), tmp_path / "in", options)
    assert result.exit_code == 0
    assert (waits, peer.gets) == ([7.0], [5, 3])
    want = {str(image.SOPInstanceUID): image.pixel_array for image in map(dcmread, (tmp_path / "pacs").rglob("*.dcm"))}
    got = {str(image.SOPInstanceUID): image.pixel_array for image in map(dcmread, (tmp_path / "in").rglob("*.dcm"))}
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[uid], want[uid]) for uid in want)


@pytest.mark.parametrize("limit", [4, 5])
def test_an_answer_to_a_query_without_end_is_cut_off(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With five matches, a limit of four is an error and one of five is none; the PACS answers the next caller."""
    uids = make_series(tmp_path / "pacs", "many")
    series = FoundSeries(uids.study, uids.series, "CT")
    with archive_peer(tmp_path / "pacs") as peer:
        archive = open_archive(peer.peer)
        monkeypatch.setattr("effvit_med.pacs.archives.MOST_FOUND", limit)
        if limit == 4:
            with pytest.raises(PeerError, match="more than 4 matches"):
                archive.list_instances(series)
        else:
            assert len(archive.list_instances(series)) == 5
        assert len(archive.find_series(Query({"StudyInstanceUID": uids.study}))) == 1


def test_a_pacs_that_stays_away_ends_with_75(tmp_path: Path) -> None:
    """Bounded tries with growing waits, then a temporary failure, with the address in the message."""
    waits: list[float] = []
    port = _free_port()
    archive = open_archive(Peer("PACS", "127.0.0.1", port))
    options = PullOptions(backoff=Backoff(retries=3, first_s=1.0, factor=3.0), sleep=waits.append)
    with pytest.raises(PeerUnreachableError, match=f"PACS@127.0.0.1:{port} does not answer") as caught:
        pull(archive, Query({"Modality": "CT"}), tmp_path, options)
    assert waits == [1.0, 3.0, 9.0]
    assert caught.value.exit_code == 75


def test_a_pacs_that_does_not_know_us_is_no_temporary_failure(tmp_path: Path) -> None:
    """A rejected association is not tried again: the message names our AE title and the option."""
    with storing_peer([SegmentationStorage]) as peer:
        archive = open_archive(Peer("STORE", "127.0.0.1", peer.port))
        with pytest.raises(PeerError, match="does not offer this service") as caught:
            archive.find_series(Query({"Modality": "CT"}))
    assert caught.value.exit_code == 1


def test_a_busy_pacs_is_asked_again_and_stored_files_are_not_sent_twice(tmp_path: Path) -> None:
    """A700 for the second of two files: one wait, then only that file goes."""
    make_seg(tmp_path, "first")
    make_seg(tmp_path, "second")
    waits: list[float] = []
    with storing_peer([SegmentationStorage]) as peer:
        peer.statuses = [0x0000, 0xA700]
        archive = open_archive(peer.peer)
        journal = PushJournal(tmp_path / "journal", archive.name)
        result = push(archive, find_results(tmp_path / "out"), journal, Backoff(1, 5.0), sleep=waits.append)
        assert (result.exit_code, result.counts["stored"]) == (0, 2)
        assert (waits, peer.asked) == ([5.0], 3)
        again = push(archive, find_results(tmp_path / "out"), journal, Backoff(0))
    assert (again.exit_code, again.already, peer.asked) == (0, 2, 3)


def test_a_changed_file_is_sent_again(tmp_path: Path) -> None:
    """The journal knows bytes, not names."""
    path = make_seg(tmp_path, "first")
    with storing_peer([SegmentationStorage]) as peer:
        archive = open_archive(peer.peer)
        journal = PushJournal(tmp_path / "journal", archive.name)
        push(archive, find_results(tmp_path / "out"), journal)
        dataset = dcmread(path)
        dataset.SeriesDescription = "changed"
        dataset.save_as(path)
        result = push(archive, find_results(tmp_path / "out"), journal)
    assert (result.already, result.counts["stored"]) == (0, 1)


def test_a_refused_file_does_not_stop_the_others(tmp_path: Path) -> None:
    """C000 for one: exit code 2, the other is stored, and the refusal carries its status."""
    make_seg(tmp_path, "first")
    make_seg(tmp_path, "second")
    with storing_peer([SegmentationStorage]) as peer:
        peer.statuses = [0xC000]
        archive = open_archive(peer.peer)
        result = push(archive, find_results(tmp_path / "out"), PushJournal(None, archive.name))
    assert (result.exit_code, result.counts["stored"], result.counts["refused"]) == (2, 1, 1)
    assert [each.code for each in result.outcomes if each.status == "refused"] == ["STATUS_C000"]


def test_the_bytes_on_the_wire_are_those_of_the_file(tmp_path: Path) -> None:
    """A compressed LABELMAP, which breaks an association when it is sent from memory, arrives as it lies on disk."""
    path = make_seg(tmp_path, "labelmap", "labelmap")
    with storing_peer(["1.2.840.10008.5.1.4.1.1.66.7"]) as peer:
        archive = open_archive(peer.peer)
        assert push(archive, find_results(path), PushJournal(None, archive.name)).exit_code == 0
    (content,) = peer.files.values()
    assert data_set(content) == data_set(path.read_bytes())


def test_a_push_to_nobody_keeps_the_files_and_ends_with_75(tmp_path: Path) -> None:
    """The JSON says how many wait; nothing is noted as stored."""
    make_seg(tmp_path, "first")
    arguments = ["pacs", "push", str(tmp_path / "out"), "--peer", f"STORE@127.0.0.1:{_free_port()}", "--retries", "0"]
    result = CliRunner().invoke(commands, arguments, standalone_mode=False)
    assert result.return_value == 75
    assert json.loads(result.stdout)["unsent"] == 1
    assert not (tmp_path / "out" / "journal").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pull", "-o", "x", "--study", "1.2"], "either --url"),
        (["pull", "-o", "x", "--url", "http://127.0.0.1/", "--peer", "A@b:1", "--study", "1.2"], "either --url"),
        (["pull", "-o", "x", "--peer", "A@b:1"], "whole PACS"),
        (["pull", "-o", "x", "--peer", "A@b:1", "--query", "Nonsense=1"], "no DICOM keyword"),
        (["pull", "-o", "x", "--peer", "A@b:1", "--study", "abc"], "not a UID"),
        (["pull", "-o", "x", "--peer", "b:1", "--study", "1.2"], "AET@host:port"),
        (["pull", "-o", "x", "--url", "http://u:p@127.0.0.1/", "--study", "1.2"], "carries a password"),
        (["pull", "-o", "x", "--url", "http://h/", "--study", "1.2", "--auth-env", "NOT_THERE"], "NOT_THERE"),
        (["push", "not_there", "--peer", "A@b:1"], "does not exist"),
        (["pull", "-o", "x", "--url", "http://[::1", "--study", "1.2"], "host or port"),
        (["pull", "-o", "x", "--url", "http://127.0.0.1:99999/x", "--study", "1.2"], "host or port"),
        (["pull", "-o", "x", "--peer", "A@b:1", "--study", "1.2", "--tls-ca", "ca.pem"], "--tls-ca: the connection"),
        (["push", ".", "--peer", "A@b:1", "--tls-cert", "c.pem", "--tls-key", "k.pem"], "--tls-cert, --tls-key: the"),
        (["push", ".", "--peer", "A@b:1", "--auth-file", "secret"], "--auth-file: credentials are for DICOMweb"),
        (["pull", "-o", "x", "--peer", "A@b:1", "--study", "1.2", "--auth-env", "A"], "--auth-env: credentials are"),
        (["push", ".", "--url", "http://127.0.0.1/", "--tls-ca", "ca.pem"], "--tls-ca: the connection would be plain"),
        (["push", ".", "--url", "http://127.0.0.1/", "--tls"], "--tls: the connection would be plain HTTP"),
        (["serve", "--spool", "x", "--allow-peer", "A", "--tls-cert", "c.pem"], "--tls-cert: no connection would use"),
        (["serve", "--spool", "x", "--allow-peer", "A", "--tls-ca", "c.pem", "--return", "A@b:1"], "--tls-ca: no"),
        (["serve", "--spool", "x", "--allow-peer", "A", "--return-tls"], "no --return peer"),
        (["serve", "--spool", "x", "--allow-peer", "A", "--auth-file", "secret"], "Add --return-url"),
        (["serve", "--spool", "x"], "--allow-peer"),
        (["serve", "--spool", "x", "--allow-peer", "A", "--return", "A@b:1", "--return-url", "http://c"], "not both"),
        (["nonsense"], "No such command"),
        (["pull", "--nonsense"], "No such option"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_1(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, a sentence that says what is wrong, and nothing is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["effvit-med"])
    result = CliRunner().invoke(commands, ["pacs", *arguments], standalone_mode=False)
    assert result.exception is not None
    assert result.exception.exit_code == 1
    assert message in getattr(result.exception, "message", str(result.exception))
    assert list(tmp_path.iterdir()) == []


def test_credentials_do_not_cross_a_network_in_the_clear(tmp_path: Path) -> None:
    """With http:// to another machine they are refused; the secret is in no message."""
    (tmp_path / "secret").write_text("bearer hidden-token")
    arguments = ["pacs", "pull", "--url", "http://pacs.example/", "-o", str(tmp_path / "x"), "--study", "1.2"]
    result = CliRunner().invoke(commands, [*arguments, "--auth-file", str(tmp_path / "secret")])
    assert result.exit_code == 1
    assert "https://" in str(result.exception)
    assert "hidden-token" not in str(result.exception) + result.output


@pytest.mark.parametrize(("library", "where"), [("pynetdicom", "--peer"), ("dicomweb_client", "--url")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    library: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, with pip."""
    monkeypatch.setitem(sys.modules, library, None)
    address = "A@127.0.0.1:1" if where == "--peer" else "http://127.0.0.1:1/"
    result = CliRunner().invoke(
        commands, ["pacs", "pull", where, address, "-o", str(tmp_path / "x"), "--study", "1.2"], standalone_mode=False
    )
    assert result.exception is not None
    assert "pip install 'effvit-med[pacs]'" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_folder_without_results_is_nothing_to_do(tmp_path: Path) -> None:
    """Images are no results: exit code 3."""
    make_series(tmp_path / "in", "images")
    arguments = ["pacs", "push", str(tmp_path / "in"), "--peer", "A@127.0.0.1:1"]
    assert CliRunner().invoke(commands, arguments, standalone_mode=False).return_value == 3
