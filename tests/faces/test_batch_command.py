"""Facts about ``effvit-med batch``: what it says, what it returns, what it never tells, and that it calls nobody."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from effvit_med.batch import BatchEvent, read_manifest
from effvit_med.cli.batch_progress import BatchProgress
from tests.io.dicom_cases import make_series, save

ROOT = Path(__file__).parents[2]
MAIN = "from effvit_med.cli import main; main()"

NAME, ID, DATE = "Zyxwvut", "PID-739182", "19530417"
SECRETS = (NAME.lower(), "739182", DATE, "1953-04-17", "195304", "113619")

# Every audited connection or name look-up of the command or of a child leaves a line in a file.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind"):
        descriptor = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (event + "\\n").encode())
        os.close(descriptor)
sys.addaudithook(watch)
"""


def _call(*words: str | Path, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", MAIN, "batch", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _plant(index: int, dataset: Dataset) -> None:
    """A name, an id and a date wherever a file may hold them."""
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = f"{NAME}^Anna", ID, DATE
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = DATE
    dataset.SeriesDescription = dataset.StudyDescription = f"Abdomen {NAME} {DATE}"
    dataset.AccessionNumber, dataset.PatientComments = ID, f"{NAME} born {DATE}"
    root = f"1.2.840.113619.{DATE}"
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = f"{root}.1", f"{root}.4"
    dataset.SeriesInstanceUID = f"{root}.2.{dataset.SeriesNumber}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{root}.3.{dataset.SeriesNumber}.{index}"


@dataclass(frozen=True)
class _Ran:
    """A run over input that is full of secrets."""

    process: subprocess.CompletedProcess[str]
    output: Path
    watched: Path


@pytest.fixture(name="secret", scope="module")
def _secret(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, sample_data: Path) -> _Ran:
    folder = tmp_path_factory.mktemp("secret")
    source = folder / "in" / f"{NAME}_{DATE}"
    names = [f"{NAME} {ID} {index:02d}.dcm" for index in range(6)]
    save(source / ID, make_series(6, step=5.0, series=1), names, _plant)
    save(source / "gap", make_series(places=[0, 2, 6, 8], series=2), names[:4], _plant)
    broken = save(source / "broken", make_series(4, series=3), names[:4], _plant)
    broken[2].write_bytes(broken[2].read_bytes()[:-40])
    (source / f"{NAME}_empty.dcm").touch()
    shutil.copy(sample_data / "nifti" / "ct.nii.gz", source / f"{NAME}_{DATE}.nii.gz")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(WATCH)
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    words = (source, "-o", folder / "out", "--bundle", tiny_bundle, "--device", "cpu", "-v")
    process = _call(*words, PYTHONPATH=path, WATCHED=str(folder / "watched"), TMPDIR=str(folder))
    return _Ran(process, folder / "out", folder / "watched")


def test_what_it_returns(secret: _Ran) -> None:
    """Two are done, one has a gap, one a file that is cut off: exit code 2, one JSON document on stdout."""
    assert secret.process.returncode == 2, secret.process.stderr
    summary = json.loads(secret.process.stdout)
    assert summary["status"] == "partial"
    assert summary["counts"]["done"] == 2
    assert summary["counts"]["cases"] == 4
    assert "Not for clinical use" in summary["notice"]
    assert {case["code"] for case in summary["cases"]} == {"MISSING_SLICES", "UNREADABLE_PIXELS"}


def test_no_name_id_or_date_gets_out(secret: _Ran) -> None:
    """Not in logs, summaries, manifests, records, tables or names of files; DICOM results carry them, as they must."""
    texts = {"stderr": secret.process.stderr, "stdout": secret.process.stdout}
    for path in secret.output.rglob("*"):
        texts[f"name of {path}"] = str(path.relative_to(secret.output))
        if path.is_file() and path.suffix in {".json", ".jsonl", ".csv", ".lock", ".png", ".gz"}:
            texts[str(path)] = path.read_bytes().decode("latin-1")
    assert len([name for name in texts if name.endswith("record.json")]) >= 2
    leaks = [(name, secret_) for name, text in texts.items() for secret_ in SECRETS if secret_ in text.lower()]
    assert not leaks


def test_it_calls_nobody(secret: _Ran) -> None:
    """Neither the command nor a child connects, binds, sends or looks up a name."""
    assert not secret.watched.exists(), secret.watched.read_text()


def test_the_record_keeps_its_identity(secret: _Ran) -> None:
    """Hashed names do not change the digest of what decides the labels."""
    for row in read_manifest(secret.output):
        if row["status"] == "done":
            record = json.loads((secret.output / row["case_id"] / "record.json").read_text())
            assert record["identity"] == row["identity"]
            assert all(file["path"].startswith("file_") for file in record["source"]["files"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not here")
def test_it_works_without_any_network(sample_data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """In a network namespace without a route, not even loopback."""
    alone = ("unshare", "-n")
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let tests make a network namespace")
    words = (sample_data / "ct_nonsquare", "-o", tmp_path / "out", "--bundle", tiny_bundle, "--device", "cpu", "-q")
    done = _call(*words, before=alone)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-such-option"], "no-such-option"),
        (["--shard", "9/4"], "9/4"),
        (["--bundle", "no such folder"], "no such folder"),
        (["--device", "abacus"], "abacus"),
        (["--retry", "-1"], "-1"),
        ([], "--output"),
    ],
)
def test_wrong_usage_is_exit_code_1(words: list[str], said: str, sample_data: Path, tmp_path: Path) -> None:
    """2 would say that some cases failed; the message names what is wrong, and nothing is written."""
    output = ["-o", str(tmp_path / "out")] if words else []
    done = _call(sample_data / "ct_nonsquare", *output, *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*/record.json"))


def test_input_that_is_not_there_is_exit_code_1(tmp_path: Path) -> None:
    """One line that names it."""
    done = _call(tmp_path / "nowhere", "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nowhere does not exist" in done.stderr


def test_the_pace_is_of_this_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases of earlier runs do not make it look faster: 10 in a minute, 80 to go, are 8 minutes."""
    now = [100.0]
    monkeypatch.setattr("effvit_med.cli.batch_progress.time.monotonic", lambda: now[0])
    progress = BatchProgress(hidden=False)
    progress.show(BatchEvent("found", done=10, total=100))
    now[0] += 60
    assert progress.pace(20, 100) == "10.0/min, 0:08:00 left"
    assert progress.pace(10, 100) == ""


def test_progress_is_told_in_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The beginning and the end at least, on stderr."""
    with BatchProgress(hidden=False) as progress:
        progress.show(BatchEvent("found", done=0, total=2))
        progress.show(BatchEvent("finished", "CT_1", done=1, total=2))
        progress.show(BatchEvent("finished", "CT_2", done=2, total=2))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[0] == "0/2 cases"
    assert said.err.splitlines()[-1].startswith("2/2 cases")
