"""Runs of the comparison: their folders, and a whole call on made-up scans."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from benchmarks import versus
from benchmarks.versus_models import CONTENDERS, Contender
from benchmarks.versus_prediction import predict_scores
from benchmarks.versus_recipe import Sampler, make_loss
from benchmarks.versus_runs import Run, RunFolder, describe_network, read_request
from benchmarks.versus_sets import SETS, list_cases, split_cases
from benchmarks.versus_training import Training
from tests.benchmarks.test_versus_recipe import make_case


def write_set(data: Path, cases: int) -> None:
    """A set in the layout of the hippocampus: two bright boxes in noise."""
    rng = np.random.default_rng(0)
    for number in range(cases):
        labels = np.zeros((12, 14, 10), np.uint8)
        labels[3:9, 3:7, 2:8] = 1
        labels[3:9, 7:11, 2:8] = 2
        image = labels * 50.0 + rng.normal(size=labels.shape)
        for folder, array in (("images", image.astype(np.float32)), ("labels", labels)):
            path = data / SETS["hippocampus"].folder / folder / f"hippocampus_{number:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)


def mark(contender: Contender) -> object:
    """The first of each family is tried always, wider ones with the slow tests."""
    first = next(each for each in CONTENDERS if each.family == contender.family)
    return pytest.param(contender, id=contender.name, marks=() if contender is first else pytest.mark.slow)


@pytest.mark.parametrize("contender", [mark(each) for each in CONTENDERS])
@pytest.mark.parametrize("set_name", ["hippocampus", "vessels"])
def test_every_network_learns_resumes_and_labels_images_of_any_size(
    contender: Contender, set_name: str, tmp_path: Path
) -> None:
    """A step changes the weights, a checkpoint keeps them, and logits have the size of an image of odd sides."""
    patch = (16, 16, 40) if set_name == "hippocampus" else (1, 32, 64)
    small = replace(SETS[set_name], patch=patch, batch=1)
    shape = (19, 33, 21) if small.spatial_dims == 3 else (1, 49, 75)
    case = make_case(shape)
    training = Training.begin(Run(set_name, contender.name, 1))
    before = [value.clone() for value in training.network.parameters()]
    training.learn(Sampler(small, [case], seed=0), make_loss(), 1.0)
    assert any(not torch.equal(*pair) for pair in zip(before, training.network.parameters(), strict=True))
    training.save(tmp_path / "checkpoint.pt")
    resumed = Training.begin(Run(set_name, contender.name, 1))
    resumed.load(tmp_path / "checkpoint.pt")
    assert resumed.step == 1
    with torch.inference_mode():
        first, again = (
            predict_scores(small, each.predict, torch.from_numpy(case.values)) for each in (training, resumed)
        )
    assert first.shape == (len(small.structures) + 1, *shape)
    assert first.isfinite().all()
    assert torch.equal(first, again)


def test_folder_of_a_run_changes_with_all_that_decides_it(tmp_path: Path) -> None:
    """Another seed, fold, budget, split, network or number of cases is another run; the same is the same."""
    write_set(tmp_path, 12)
    run = Run("hippocampus", "UNet 8", 10)
    others = [
        run,
        replace(run, seed=1),
        replace(run, fold=1),
        replace(run, minutes=20),
        replace(run, converge=True),
        replace(run, few=3),
        replace(run, model="UNet 16"),
    ]
    folders = [RunFolder(each, describe_network(each), tmp_path, tmp_path / "runs") for each in others]
    before = [folder.path for folder in folders]
    assert len(set(before)) == len(before)
    assert read_request(json.loads(json.dumps(folders[0].request()))).path == before[0]
    assert RunFolder(run, "another network", tmp_path, tmp_path / "runs").path != before[0]
    write_set(tmp_path, 13)
    assert folders[0].path != before[0]


def test_first_seed_is_run_on_all_sets_before_the_second() -> None:
    """An interrupted call has something of everything."""
    options = versus.parse(["--seeds", "0", "1", "--only", "UNet 8", "--converge", "--limit", "30"])
    runs = list(versus.list_runs(options, ["hippocampus", "cardiac"]))
    assert [run.seed for run in runs] == [0] * 8 + [1] * 8
    assert {(run.minutes, run.converge) for run in runs} == {(10, False), (30, True)}
    assert [run.fold for run in runs if run.set_name == "cardiac" and not run.converge][:3] == [0, 1, 2]


@pytest.mark.slow  # processes of their own, each with torch and MONAI
def test_a_call_trains_times_and_reports_and_a_further_one_does_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From files to the table; sets that are not there are told; what is done is kept."""
    write_set(tmp_path / "data", 15)
    monkeypatch.setattr(versus, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path / "results")
    words = ["versus", "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--cases", "2"]
    words += ["--minutes", "0.02", "--only", "UNet 8"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(
        versus, "write_report", lambda name, text, figures, made: (tmp_path / "text.md").write_text(text)
    )
    versus.main()
    text = (tmp_path / "text.md").read_text()
    assert "UNet 8" in text
    assert "Left out: vessels" in text
    (result,) = (tmp_path / "runs").glob("*/*/*/result.json")
    before = result.stat().st_mtime_ns
    assert (tmp_path / "results" / "versus_hippocampus_0.02min_front.png").exists()
    versus.main()
    assert result.stat().st_mtime_ns == before
    kept = json.loads(result.read_text())
    assert kept["steps"] > 0
    assert len(kept["scores"]) == 2
    assert set(kept["split"]["train"]).isdisjoint(kept["split"]["test"])
    split = split_cases(SETS["hippocampus"], list_cases(SETS["hippocampus"], tmp_path / "data"), 0, 2)
    assert kept["split"]["test"] == [case.name for case in split.test]


@pytest.mark.parametrize("set_name", list(SETS))
def test_every_network_is_described_by_itself(set_name: str) -> None:
    """Each can be built for each set, and no two have the same digest, so that no run is taken for another's."""
    runs = [Run(set_name, contender.name, 1) for contender in CONTENDERS]
    assert len({describe_network(run) for run in runs}) == len(CONTENDERS)
