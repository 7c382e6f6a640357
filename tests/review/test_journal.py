"""The journal: whole lines or none, and damage is found where it is."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import InputError, OutputError, SettingsError
from effvit_med.review.journal import JOURNAL_FILE, TORN_LINE, Journal


def write(folder: Path, count: int) -> Path:
    """A journal of some events."""
    with Journal.create(folder) as journal:
        journal.begin({"kind": "start"})
        for number in range(1, count):
            journal.append({"kind": "edit", "size": number, "text": "ü" * number})
    return folder / JOURNAL_FILE


def read(folder: Path) -> list[dict]:
    with Journal.open(folder) as journal:
        return [event for _, event in journal.read()]


@given(st.integers(1, 200), st.integers(0, 3))
@settings(max_examples=60)
def test_a_torn_last_line_is_cut_off(tmp_path_factory, cut, more) -> None:
    """Whatever part of the last line is missing, all lines before it are there, and writing goes on after them."""
    folder = tmp_path_factory.mktemp("journal")
    path = write(folder, 4)
    content = path.read_bytes()
    last = len(content) - content[:-1].rfind(b"\n") - 1
    path.write_bytes(content[: len(content) - min(cut, last - 1)])
    with Journal.open(folder) as journal:
        assert len(list(journal.read())) == 3
        assert [finding.code for finding in journal.findings] == [TORN_LINE]
        for _ in range(more):
            journal.append({"kind": "more"})
    assert [event["kind"] for event in read(folder)] == ["start", "edit", "edit", *["more"] * more]


@given(st.data())
@settings(max_examples=60)
def test_a_changed_byte_in_the_middle_is_an_error(tmp_path_factory, data) -> None:
    """Any byte that changes before the last line is found, and the line is named."""
    folder = tmp_path_factory.mktemp("journal")
    path = write(folder, 4)
    content = bytearray(path.read_bytes())
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    place = data.draw(st.integers(0, ends[-2]))
    content[place] ^= data.draw(st.sampled_from([1, 2, 4, 64]))
    path.write_bytes(content)
    line = sum(end < place for end in ends) + 1
    with pytest.raises(InputError, match=f"damaged in line {line} "):
        read(folder)


def test_a_line_that_was_taken_out_is_an_error(tmp_path: Path) -> None:
    """Lines are numbered and hold the digest of the one before: none can go unnoticed."""
    path = write(tmp_path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2] + lines[3])
    with pytest.raises(InputError, match="damaged in line 2"):
        read(tmp_path)


def test_a_torn_line_of_zeros_is_cut_off(tmp_path: Path) -> None:
    """After a power failure a file may be longer than what was written into it."""
    path = write(tmp_path, 3)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert len(read(tmp_path)) == 3
    assert path.read_bytes().count(0) == 0


def test_a_second_one_is_refused(tmp_path: Path) -> None:
    """While a journal is open nobody else opens it."""
    write(tmp_path, 2)
    with Journal.open(tmp_path), pytest.raises(SettingsError, match="Another program reviews"):
        Journal.open(tmp_path)


def test_a_journal_is_not_overwritten(tmp_path: Path) -> None:
    """A folder that holds a review takes no new one, and lets go of its lock."""
    path = write(tmp_path, 2)
    content = path.read_bytes()
    with pytest.raises(OutputError, match="holds a review already"):
        Journal.create(tmp_path)
    assert path.read_bytes() == content
    assert len(read(tmp_path)) == 2


def test_no_journal_is_an_error(tmp_path: Path) -> None:
    """A folder without a review says so, and gets no files."""
    with pytest.raises(InputError, match="holds no review"):
        Journal.open(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch, failing: str) -> None:
    """A line that cannot be written whole is taken back, and the next one follows the line before it."""
    write(tmp_path, 2)
    real_write = os.write

    def half(stream: int, content) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(stream, content[: len(content) // 2])

    def refuse(stream: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal.open(tmp_path) as journal:
        list(journal.read())
        before = journal.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, failing, half if failing == "write" else refuse)
            with pytest.raises(OutputError, match="could not be written"):
                journal.append({"kind": "lost"})
        assert journal.path.read_bytes() == before
        journal.append({"kind": "kept"})
    assert [event["kind"] for event in read(tmp_path)] == ["start", "edit", "kept"]


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    """Other programs can read a journal line by line."""
    lines = [json.loads(line) for line in write(tmp_path, 3).read_text(encoding="ascii").splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert [line["before"] for line in lines[1:]] == [line["digest"] for line in lines[:-1]]
