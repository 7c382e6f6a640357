"""Facts about ``effvit-med inspect``: one JSON document or a table, and the right exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydicom.dataset import Dataset

from effvit_med.cli import commands
from effvit_med.errors import InputError
from tests.io.dicom_cases import make_series, save


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(commands, ["inspect", *map(str, arguments)])


def _entries(*arguments: object) -> list[dict[str, object]]:
    result = _run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))  # type: ignore[no-any-return]


def test_stdout_is_one_json_list(tmp_path: Path) -> None:
    """With --json stdout holds one document in UTF-8 and nothing else."""
    save(tmp_path, make_series(3), ["ä.dcm", "b.dcm", "c.dcm"])
    (tmp_path / "ö.txt").write_text("x")
    code = "from effvit_med.cli import main; main()"
    command = [sys.executable, "-W", "ignore", "-c", code, "inspect", str(tmp_path), "--json"]
    run = subprocess.run(command, capture_output=True, check=False)
    entries = json.loads(run.stdout.decode("utf-8"))
    assert (run.returncode, [entry["kind"] for entry in entries]) == (0, ["series", "file"])
    assert entries[1]["name"] == "ö.txt"


def test_refusal_is_no_failure(tmp_path: Path) -> None:
    """An input of which all is refused was looked at: the exit code is 0."""
    save(tmp_path, make_series(places=[0, 2, 4, 8]))
    (entry,) = _entries(tmp_path)
    assert (entry["status"], entry["codes"]) == ("refused", ["MISSING_SLICES"])


def test_allowance_is_that_of_segment(tmp_path: Path) -> None:
    """With --allow gaps the same series is read."""
    save(tmp_path, make_series(places=[0, 2, 4, 8]))
    assert _entries(tmp_path, "--allow", "gaps")[0]["status"] == "findings"


def test_folder_without_images_is_no_failure(tmp_path: Path) -> None:
    """An empty folder gives an empty list, a text an entry."""
    assert _entries(tmp_path) == []
    (tmp_path / "a.txt").write_text("hello")
    assert [entry["codes"] for entry in _entries(tmp_path / "a.txt")] == [["TEXT"]]


def test_missing_path_fails(tmp_path: Path) -> None:
    """A path that does not exist is our error with exit code 1, and nothing is on stdout."""
    result = _run(tmp_path / "nowhere", "--json")
    assert isinstance(result.exception, InputError)
    assert (result.exception.exit_code, result.stdout) == (1, "")


def test_table_tells_a_person(tmp_path: Path) -> None:
    """Without --json there are a grid, the code in words and what to do."""
    save(tmp_path / "a", make_series(3))
    save(tmp_path / "b", make_series(places=[0, 2, 4, 8], series=2))
    result = _run(tmp_path)
    assert "3 x 8 x 10 voxels of 2 x 0.9 x 0.7 mm, axes SPL" in result.stdout
    assert "MISSING_SLICES: 1 slice is missing" in result.stdout
    assert "-> Send the series again" in result.stdout
    assert "Not for clinical use" in result.stderr


def test_no_patient_is_told(tmp_path: Path) -> None:
    """Neither name, number nor dates of the patient are in the document."""

    def identify(_: int, dataset: Dataset) -> None:
        dataset.PatientBirthDate = dataset.StudyDate = "19700102"

    save(tmp_path, make_series(3), edit=identify)
    save(tmp_path / "b", make_series(1, series=2), edit=identify)
    text = _run(tmp_path, "--json").stdout.upper() + _run(tmp_path).stdout.upper()
    assert "SECRET" not in text
    assert "19700102" not in text


def test_names_obey_no_terminal(tmp_path: Path) -> None:
    """Control characters in a file name are not sent to the terminal."""
    (tmp_path / "a\x1b[31mred.txt").write_text("x")
    assert "\x1b" not in _run(tmp_path).stdout
