"""Facts about `effvit_med.batch.journal`: states, claims, and what killed runs leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effvit_med.batch.journal import Journal, describe_outputs
from effvit_med.batch.scratch import open_scratch

CASE = "CT_1_0a1b2c3d"


@pytest.fixture(name="journal")
def _journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.open()
    return journal


def test_a_case_has_one_claim(journal: Journal, tmp_path: Path) -> None:
    """A second run does not get it before the first lets go."""
    other = Journal(tmp_path)
    assert journal.claim(CASE)
    assert not other.claim(CASE)
    journal.release(CASE)
    assert other.claim(CASE)
    other.release(CASE)


def test_a_half_written_state_counts_as_none(journal: Journal) -> None:
    """Whatever is no state is not read."""
    (journal.folder / "jobs" / f"{CASE}.json").write_text('{"case_id": "CT')
    assert journal.read(CASE) is None
    assert not list(journal.states())


def test_what_a_killed_run_has_left_is_removed(journal: Journal, tmp_path: Path) -> None:
    """Its hidden folder and file go."""
    journal.write({"case_id": CASE, "status": "running"})
    (tmp_path / f".{CASE}.abc123.partial").mkdir()
    (journal.folder / "jobs" / f".deadbeef.part-{CASE}.json").write_text("{")
    assert journal.remove_leftovers() == 2
    assert not list(tmp_path.rglob(".*"))


def test_what_a_living_run_works_on_stays(journal: Journal, tmp_path: Path) -> None:
    """The folder of a claimed case is not touched."""
    other = Journal(tmp_path)
    other.write({"case_id": CASE, "status": "running"})
    assert other.claim(CASE)
    (tmp_path / f".{CASE}.abc123.partial").mkdir()
    assert journal.remove_leftovers() == 0
    other.release(CASE)


def test_what_is_not_ours_stays(journal: Journal, tmp_path: Path) -> None:
    """A hidden folder of a case that the journal does not know is somebody else's."""
    (tmp_path / ".other.abc123.partial").mkdir()
    assert journal.remove_leftovers() == 0
    assert (tmp_path / ".other.abc123.partial").is_dir()


def _finish(journal: Journal) -> dict[str, object]:
    folder = journal.output / CASE
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps({"a": 1}))
    (folder / "overlay.png").write_bytes(b"picture")
    return {"case_id": CASE, "status": "done", "outputs": describe_outputs(folder)}


def test_outputs_are_there_while_their_sizes_hold(journal: Journal) -> None:
    """A file that is gone or shorter means that the case is done again."""
    state = _finish(journal)
    assert journal.has_outputs(state)
    (journal.output / CASE / "overlay.png").write_bytes(b"pict")
    assert not journal.has_outputs(state)
    (journal.output / CASE / "overlay.png").unlink()
    assert not journal.has_outputs(state)


def test_a_changed_byte_is_found_when_asked_for(journal: Journal) -> None:
    """Sizes are quick and may deceive; hashes do not."""
    state = _finish(journal)
    (journal.output / CASE / "overlay.png").write_bytes(b"Picture")
    assert journal.has_outputs(state)
    assert not journal.has_outputs(state, verify=True)


def test_a_folder_without_a_record_is_not_done(journal: Journal) -> None:
    """The record comes last."""
    assert not journal.has_outputs({"case_id": CASE, "outputs": {}})


def test_scratch_of_killed_runs_is_removed(tmp_path: Path) -> None:
    """A new run removes the folders whose lock nobody holds, and leaves those in use."""
    dead = tmp_path / "effvit-med-batch-dead"
    dead.mkdir()
    (dead / "in-use.lock").touch()
    with open_scratch(tmp_path) as first, open_scratch(tmp_path) as second:
        assert not dead.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert not list(tmp_path.glob("effvit-med-batch-*"))
