"""Facts about `effvit_med.batch.manifest`: one row per case, for programs and for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from effvit_med.batch import collect_manifest, read_manifest
from effvit_med.batch.journal import Journal
from effvit_med.batch.manifest import write_set_aside
from effvit_med.engine.concealment import Concealment
from effvit_med.errors import InputError
from effvit_med.io import SetAside

DONE = {
    "case_id": "CT_1_aaaaaaaa",
    "status": "done",
    "findings": ["PADDING", "SHEARED"],
    "shape": [2, 3, 4],
    "volumes_ml": {"liver": 1500.25, "spleen": None},
    "seconds": {"read": 1.5},
    "outputs": {"record": {"file": "record.json", "bytes": 3, "sha256": "ab"}},
    "quality": {"verdict": "review"},
}
REFUSED = {"case_id": "CT_2_bbbbbbbb", "status": "refused", "code": "MISSING_SLICES", "message": "a, b"}


@pytest.fixture(name="output")
def _output(tmp_path: Path) -> Path:
    journal = Journal(tmp_path)
    journal.open()
    journal.write(REFUSED)
    journal.write(DONE)
    return tmp_path


def test_every_state_is_a_row(output: Path) -> None:
    """In the order of the names, whichever run wrote it."""
    rows = read_manifest(collect_manifest(output))
    assert [row["case_id"] for row in rows] == [DONE["case_id"], REFUSED["case_id"]]
    assert rows[0]["volumes_ml"] == DONE["volumes_ml"]


def test_the_table_has_a_column_per_structure(output: Path) -> None:
    """Volumes, hashes and the verdict stand in cells of their own; what is not there is empty."""
    collect_manifest(output)
    done, refused = csv.DictReader(io.StringIO((output / "manifest.csv").read_text()))
    assert (done["liver ml"], done["spleen ml"], done["record sha256"]) == ("1500.25", "", "ab")
    assert (done["findings"], done["shape"], done["quality"]) == ("PADDING SHEARED", "2 3 4", "review")
    assert (refused["code"], refused["message"], refused["liver ml"]) == ("MISSING_SLICES", "a, b", "")


def test_a_folder_that_no_batch_wrote_is_an_error(tmp_path: Path) -> None:
    """There is nothing to collect, and nothing is made."""
    with pytest.raises(InputError, match="no journal"):
        collect_manifest(tmp_path)
    with pytest.raises(InputError, match="no manifest"):
        read_manifest(tmp_path)


def test_files_set_aside_are_listed_without_names(tmp_path: Path) -> None:
    """Their names are digests, in the reason too."""
    aside = SetAside(Path("/arch/DOE/Report DOE.pdf"), "UNKNOWN_FORMAT", "Report DOE.pdf is neither.")
    assert write_set_aside(tmp_path, [aside], Concealment(frozenset({"Report DOE.pdf"}))) == 1
    text = (tmp_path / "set_aside.jsonl").read_text()
    assert "DOE" not in text
    assert json.loads(text)["code"] == "UNKNOWN_FORMAT"
