"""Acceptance cases seen from `effvit-med batch`: one run over good, odd and bad series, and a second one over the same.

What dies, is killed or runs in shards is case 29, which tests/batch holds with cheap stages; here the whole command
runs with a real exported model in its three processes.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.acceptance.enhanced import make_enhanced
from tests.acceptance.judging import assert_labels_true, open_image, read_with_dcmqi
from tests.acceptance.series import Ids, Stack, save, save_stack
from tests.acceptance.test_outputs import SECRETS, STACK, edit_deidentified, save_without
from tests.acceptance.threshold import write_threshold_bundle
from tests.conftest import ROOT

TILTED = Stack(tilt_degrees=12)
ENHANCED = Stack((0.0, 1.0, 0.0, 0.0, 0.0, -1.0), spacing_mm=(0.9, 1.3))
RUN = "import sys; from effvit_med.cli import main; sys.exit(main())"


@dataclass(frozen=True, eq=False)
class Finished:
    """What a run of the command left.

    Attributes:
        code: its exit code.
        summary: the JSON on stdout.
        said: all of stdout and stderr.
        output: the folder of results.
        rows: the manifest by series number.
    """

    code: int
    summary: dict[str, Any]
    said: str
    output: Path
    rows: dict[str, dict[str, Any]]


def run_batch_command(source: Path, output: Path, bundle: Path, *options: str) -> Finished:
    """The command in a process of its own, as a user starts it."""
    words = ["batch", str(source), "-o", str(output), "--bundle", str(bundle), "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words, *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    rows = [json.loads(line) for line in (output / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    by_number = {row["case_id"].split("_")[1]: row for row in rows}
    return Finished(done.returncode, json.loads(done.stdout), done.stdout + done.stderr, output, by_number)


@pytest.fixture(name="places", scope="module")
def _places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder with six series and junk, the model, and where results go."""
    folder = tmp_path_factory.mktemp("batch")
    source = folder / "in"
    save_stack(source / "Secret1^Name" / "scan", STACK, Ids(series=1), edit_deidentified)
    save_without(source / "empty", lambda labels: labels > 0, Ids(series=2))
    cut = save_stack(source / "cut", STACK, Ids(series=3)) / "0004.dcm"
    cut.write_bytes(cut.read_bytes()[:-300])
    save_stack(source / "gap", STACK.without(7), Ids(series=4))
    save_stack(source / "tilt", TILTED, Ids(series=5))
    order = [(5 * index) % len(ENHANCED.places_mm) for index in range(len(ENHANCED.places_mm))]
    assert len(set(order)) == len(order)
    save(source / "enhanced", [make_enhanced(ENHANCED, order, ids=Ids(series=6))])
    (source / "readme.txt").write_text("hello\n")
    return source, folder / "out", write_threshold_bundle(folder / "bundle")


@pytest.fixture(name="finished", scope="module")
def _finished(places: tuple[Path, Path, Path]) -> Finished:
    return run_batch_command(places[0], places[1], places[2], "--output-type", "dicom-seg", "--output-type", "nifti")


def test_case_23_bad_series_do_not_stop_the_batch(finished: Finished) -> None:
    """The cut-off series and the one with a gap are refused with their codes; all others are done; exit code 2."""
    assert finished.code == finished.summary["exit_code"] == 2
    assert {number: row["status"] for number, row in finished.rows.items()} == {
        "1": "done", "2": "done", "3": "refused", "4": "refused", "5": "done", "6": "done",
    }  # fmt: skip
    assert finished.rows["3"]["code"] == "UNREADABLE_PIXELS"


def test_case_07_the_manifest_names_the_gap(finished: Finished) -> None:
    """The refused series stands in the manifest with MISSING_SLICES and the remedy."""
    assert finished.rows["4"]["code"] == "MISSING_SLICES"
    assert "gaps" in finished.rows["4"]["message"]


def test_case_19_each_series_is_a_job_and_the_rest_is_listed(finished: Finished) -> None:
    """Six series are six rows, in JSONL and CSV; the text file is listed as set aside."""
    with (finished.output / "manifest.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(finished.rows) == 6
    assert '"TEXT"' in (finished.output / "set_aside.jsonl").read_text(encoding="utf-8")


def _folder(finished: Finished, number: str) -> Path:
    return finished.output / finished.rows[number]["case_id"]


def test_case_06_the_manifest_says_that_a_scan_is_sheared(finished: Finished) -> None:
    """The tilted series is done, with the finding SHEARED in its row."""
    assert "SHEARED" in json.dumps(finished.rows["5"]["findings"])


def test_case_22_the_enhanced_series_is_right(finished: Finished, tmp_path: Path) -> None:
    """A shuffled multi-frame file through the whole command: Dice 1.000 in dcmqi and SimpleITK."""
    assert_labels_true(read_with_dcmqi(_folder(finished, "6") / "segmentation.seg.dcm", tmp_path / "dcmqi"), ENHANCED)
    assert_labels_true(open_image(_folder(finished, "6") / "segmentation.nii.gz"), ENHANCED)


def test_case_27_a_deidentified_series_is_right(finished: Finished, tmp_path: Path) -> None:
    """With half of its header gone the series is segmented, and Dice is 1.000 in dcmqi."""
    assert_labels_true(read_with_dcmqi(_folder(finished, "1") / "segmentation.seg.dcm", tmp_path / "dcmqi"), STACK)


def test_case_26_the_manifest_says_that_nothing_was_found(finished: Finished) -> None:
    """The series without structures is done, and its row says so."""
    assert "No structure was found" in json.dumps(finished.rows["2"])


def _texts(output: Path) -> Sequence[Path]:
    return [path for path in output.rglob("*") if path.is_file() and path.suffix != ".dcm"]


def test_case_27_nothing_of_the_patient_leaves_the_dicom_files(finished: Finished) -> None:
    """No name, id, date, comment or folder name of the patient in logs, manifests, records and names of files."""
    assert not [secret for secret in SECRETS if secret in finished.said]
    for path in _texts(finished.output):
        content = path.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], path.name
    for path in finished.output.rglob("*"):
        assert not [secret for secret in SECRETS if secret in str(path.relative_to(finished.output))]


def test_case_27_research_use_only(finished: Finished) -> None:
    """Every row of the manifest and every record says that it is not for clinical use."""
    records = list(finished.output.glob("*/record.json"))
    assert len(records) == 4
    for text in (*map(json.dumps, finished.rows.values()), *(path.read_text(encoding="utf-8") for path in records)):
        assert "Not for clinical use" in text


def _segmentations(output: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in output.glob("*/segmentation.seg.dcm")}


def test_case_29_results_made_anew_are_the_same_files(finished: Finished, places: tuple[Path, Path, Path]) -> None:
    """Done all over again, each case gives the SEG of before but for the time: the UIDs that an archive goes by."""
    before = {name: _uids(content) for name, content in _segmentations(finished.output).items()}
    again = run_batch_command(*places, "--output-type", "dicom-seg", "--output-type", "nifti", "--again")
    assert again.code == 2
    assert len(again.rows) == 6
    assert {name: _uids(content) for name, content in _segmentations(finished.output).items()} == before


def _uids(content: bytes) -> tuple[str, ...]:
    seg = pydicom.dcmread(io.BytesIO(content))
    tracking = [item.get("TrackingUID", "") for item in seg.SegmentSequence]
    return (seg.SOPInstanceUID, seg.SeriesInstanceUID, *tracking)
