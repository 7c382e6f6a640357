"""Facts about ``effvit-med prompt``: a file of prompts and a scan in, the files of any segmentation out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from effvit_med.engine.prompting import PromptSession
from effvit_med.io import write_volume
from effvit_med.volume import Volume
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click, make_scan, write_bundle


@pytest.fixture(name="place", scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, a bundle and a file of prompts."""
    place = tmp_path_factory.mktemp("prompted")
    scan = make_scan()
    write_volume(Volume(scan.array, scan.geometry), place / "scan.nii.gz")
    write_bundle(place / "bundle")
    events = [click(20, 30).to_dict(), Prompt("box", 2, True, ((2, 5, 5), (2, 20, 25)), 0).to_dict()]
    (place / "prompts.json").write_text(json.dumps({"labels": {"1": "ball"}, "events": events}))
    return place


def _run(place: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "effvit_med.cli", "prompt", *map(str, words), "--bundle", str(place / "bundle")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_prompts_of_a_file_are_answered(place: Path, tmp_path: Path) -> None:
    """The labels are those of a session with the same prompts, on the scan's grid, with names, measures and record."""
    run = _run(place, place / "scan.nii.gz", place / "prompts.json", "-o", tmp_path, "--axis", 0)
    assert run.returncode == 0, run.stderr
    made = json.loads(run.stdout)
    labels = nibabel.load(made["outputs"]["nifti"])
    session = PromptSession(make_scan(), place / "bundle", axis=0, device="cpu")
    session.add(click(20, 30))
    session.add(Prompt("box", 2, True, ((2, 5, 5), (2, 20, 25)), 0))
    np.testing.assert_array_equal(np.asarray(labels.dataobj), session.predict().labels)
    assert set(made["voxels"]) == {"ball", "structure_2"}
    record = json.loads(Path(made["outputs"]["record"]).read_text())
    assert len(record["settings"]["events"]) == 2
    assert "clinical" in made["notice"]


def test_places_may_be_said_in_mm(place: Path, tmp_path: Path) -> None:
    """A prompt in LPS mm means the voxel that lies there."""
    geometry = make_scan().geometry
    event = {**click(20, 30).to_dict(), "world": geometry.index_to_world([[1, 20, 30]]).tolist()}
    del event["index"]
    found = []
    for name, events in (("world", [event]), ("index", [click(20, 30).to_dict()])):
        (tmp_path / f"{name}.json").write_text(json.dumps({"events": events}))
        run = _run(place, place / "scan.nii.gz", tmp_path / f"{name}.json", "-o", tmp_path / name, "--axis", 0, "-q")
        assert run.returncode == 0, run.stderr
        found.append(np.asarray(nibabel.load(json.loads(run.stdout)["outputs"]["nifti"]).dataobj))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ('{"prompts": []}', "no list of prompts under 'events'"),
        ('{"events": [{"kind": "dot", "value": 1, "adds": true, "index": [[1, 2, 3]]}]}', "entry 1: The kind"),
        ('{"events": [{"kind": "point", "value": 1, "adds": true, "index": [[1, 2, 300]]}]}', "outside the scan"),
        ('{"events": [{"kind": "carry", "value": 1, "detail": {"start": "x"}}]}', "holds numbers"),
    ],
)
def test_a_wrong_file_is_one_line(place: Path, tmp_path: Path, content: str, message: str) -> None:
    """What is wrong and where; nothing is written."""
    (tmp_path / "wrong.json").write_text(content)
    run = _run(place, place / "scan.nii.gz", tmp_path / "wrong.json", "-o", tmp_path / "out")
    assert run.returncode != 0
    assert message in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("out/*"))


def test_labels_of_another_grid_are_refused(place: Path, tmp_path: Path) -> None:
    """A result to correct must lie on the scan."""
    other = nibabel.Nifti1Image(np.zeros((3, 48, 50), np.uint8), np.eye(4))
    nibabel.save(other, tmp_path / "other.nii.gz")
    run = _run(
        place, place / "scan.nii.gz", place / "prompts.json", "-o", tmp_path, "--start", tmp_path / "other.nii.gz"
    )
    assert run.returncode != 0
    assert "shape" in run.stderr
