"""``effvit-med plan`` and ``effvit-med train``, called as their users call them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from effvit_med.cli import commands
from effvit_med.engine import Segmenter, Settings, read_model
from effvit_med.errors import EffvitError, InputError, OutputError, RefusedError, SettingsError
from effvit_med.io import read_nifti
from effvit_med.training.running import RunOptions, training_command
from tests.planning.parts import write_case, write_decathlon, write_folders

ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = ("--set", "preset=fullres_tiny", "--set", "patch=[8,16,16]", "--set", "window=[8,16,16]")


def _call(*arguments: object) -> Result:
    return CliRunner().invoke(
        commands, [str(each) for each in arguments], standalone_mode=False, catch_exceptions=False
    )


def test_a_plan_is_told_on_both_streams(tmp_path: Path) -> None:
    """People get every choice with its reason on stderr, programs one JSON line on stdout, and a bundle is there."""
    write_decathlon(tmp_path / "data")
    run = _call("plan", tmp_path / "data", "-o", tmp_path / "boxes", "--test", 1, *TINY)
    said = json.loads(run.stdout)
    assert (said["cases"], said["test"], said["structures"]) == (6, 1, ["head", "tail"])
    assert said["overridden"] == ["preset", "patch", "window"]
    assert "stage_strides" in run.stderr
    assert "Set by hand." in run.stderr
    assert "Not for clinical use" in run.stderr
    assert read_model(tmp_path / "boxes").tiling.window == (8, 16, 16)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    """And needs no output."""
    write_decathlon(tmp_path / "data")
    assert json.loads(_call("plan", tmp_path / "data", "--dry-run", "-q", *TINY).stdout)["files"] == {}
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_groups_names_and_left_out_cases_are_options(tmp_path: Path) -> None:
    """What folders do not tell, the command line does."""
    for seed, name in enumerate(("a_1", "a_2", "b_1", "b_2", "c_1")):
        write_case(tmp_path / "data", name, seed)
    (tmp_path / "data" / "images" / "c_1.nii.gz").write_bytes(b"damaged")
    told = ("--group", "^(.)_", "--structure", "1=Box", "--structure", "2=Other", "--leave-out-damaged")
    said = json.loads(_call("plan", tmp_path / "data", "-o", tmp_path / "b", "-q", *told, *TINY).stdout)
    assert (said["cases"], said["folds"], said["structures"]) == (4, 2, ["box", "other"])
    assert "LEFT_OUT" in said["findings"]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (("--set", "pach=[8,8,8]"), SettingsError, "Did you mean 'patch'"),
        (("--structure", "one=box"), SettingsError, "must be VALUE=NAME"),
        (("--group", "x"), SettingsError, "finds nothing in the name"),
        (("--labels", "nowhere"), InputError, "in it are images, labels"),
        (("--folds", "9"), SettingsError, "too few for 9 folds"),
    ],
)
def test_a_wrong_option_is_told_and_leaves_nothing(
    tmp_path: Path, more: tuple[str, ...], error: type[EffvitError], message: str
) -> None:
    """Each error names what is wrong; no folder is made."""
    write_folders(tmp_path / "data")
    with pytest.raises(error, match=message):
        _call("plan", tmp_path / "data", "-o", tmp_path / "b", "-q", *more)
    assert not (tmp_path / "b").exists()


def test_damaged_data_end_with_the_code_of_refusals(tmp_path: Path) -> None:
    """Exit code 3, and every damaged case with what to do."""
    write_folders(tmp_path / "data")
    for name in ("c1", "c4"):
        (tmp_path / "data" / "labels" / f"{name}.nii.gz").write_bytes(b"damaged")
    with pytest.raises(RefusedError, match=r"(?s)2 of 6 cases.*c1.*c4.*--leave-out-damaged") as told:
        _call("plan", tmp_path / "data", "-o", tmp_path / "b", "-q")
    assert told.value.exit_code == 3


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planned bundle, so small that an epoch takes a moment."""
    pytest.importorskip("monai", reason="training needs the extra [train]")
    folder = tmp_path_factory.mktemp("planned")
    write_decathlon(folder / "data")
    steps = (
        "--set",
        "steps_per_epoch=2",
        "--set",
        "epochs=2",
        "--set",
        "val_interval=1",
        "--folds",
        "3",
        "--test",
        "1",
    )
    _call("plan", folder / "data", "-o", folder / "boxes", "-q", *TINY, *steps)
    return folder / "boxes"


def test_a_planned_bundle_is_trained_and_segments(bundle: Path, tmp_path: Path) -> None:
    """Two commands lead from scans to weights that the engine uses, where model.yaml names them."""
    run = _call("train", bundle, "-q")
    said = json.loads(run.stdout)
    assert Path(said["weights"]) == read_model(bundle).weights
    assert 0 <= said["validation"] <= 1
    assert f"{said['validation']:.4f}" in run.stderr
    scan = read_nifti(bundle.parent / "data" / "images" / "c0.nii.gz")
    segmentation = Segmenter(read_model(bundle), Settings(device="cpu")).segment(scan)
    assert segmentation.labels.shape == scan.array.shape
    with pytest.raises(OutputError, match="holds a training already"):
        _call("plan", bundle.parent / "data", "-o", bundle, "-q", *TINY)


def test_train_is_what_monai_runs(bundle: Path) -> None:
    """The command line is that of ``python -m monai.bundle run``, with the options as its own."""
    command = training_command(bundle, RunOptions(2, resume=True, epochs=7, values={"batch_size": "4"}))
    plain = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(bundle / "configs" / "train.yaml")]
    assert command[:6] == plain
    assert command[6:] == [
        "--bundle_root", str(bundle), "--fold", "2", "--batch_size", "4", "--epochs", "7", "--resume", "true",
    ]  # fmt: skip


def test_a_key_that_train_yaml_has_not_is_refused_with_the_nearest(bundle: Path, tmp_path: Path) -> None:
    """Before MONAI is started; so is a folder without a plan."""
    with pytest.raises(SettingsError, match=r"no key 'batchsize'\. Did you mean 'batch_size'"):
        _call("train", bundle, "--set", "batchsize=4")
    with pytest.raises(InputError, match="is no effvit-med bundle"):
        _call("train", tmp_path)


def test_a_training_that_fails_says_why_in_one_line(bundle: Path) -> None:
    """The error of ours that stands deep in MONAI's traceback is the message."""
    with pytest.raises(EffvitError, match=r"The training failed: .*no validation cases"):
        _call("train", bundle, "-q", "--fold", "8")


@pytest.mark.slow
def test_an_interrupted_training_goes_on(bundle: Path) -> None:
    """Ctrl+C after an epoch ends with 130 and the command to go on with, which then ends as planned."""
    words = [
        "train",
        str(bundle),
        "--fold",
        "1",
        "--epochs",
        "40",
        "--set",
        f"output_dir={bundle / 'runs' / 'stopped'}",
    ]
    command = [sys.executable, "-W", "ignore", "-m", "effvit_med.cli", *words, "--set", "val_interval=40"]
    checkpoints = bundle / "runs" / "stopped" / "checkpoints"
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=ALONE) as process:
        while process.poll() is None and not list(checkpoints.glob("run_checkpoint_[2-9].pt")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said[-2000:]
    assert b"--resume" in said
    run = subprocess.run([*command, "--resume"], capture_output=True, check=False, timeout=300, env=ALONE)
    assert run.returncode == 0, run.stderr[-2000:]
    assert b"Epoch[40]" in run.stderr
    assert b"Epoch[1]" not in run.stderr
    assert (bundle / "models" / "boxes_fold1.safetensors").is_file()
