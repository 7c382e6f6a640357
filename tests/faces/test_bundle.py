"""Facts about the MONAI bundle at the root of the repository, run as its users run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import safetensors.numpy
import yaml

from effvit_med.engine import Job, Segmenter, Settings, read_model, segment_input
from tests.conftest import ROOT

pytest.importorskip("monai", reason="the bundle needs the extra [train]")

SCHEMA = Path(__file__).with_name("metadata_schema.json")


def _monai(*arguments: object, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command of monai.bundle at the repository root."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(name="tiny_root")
def _tiny_root(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle root with the real configs and the tiny model."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "configs", root / "configs")
    shutil.copytree(tiny_bundle, root, dirs_exist_ok=True)
    return root


def _make_2d(root: Path, neighbours: int) -> None:
    """Turn the tiny model into a 2D or 2.5D one, in model.yaml alone."""
    path = root / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["preprocess"].update(spatial_dims=2, neighbours=neighbours, spacing_mm=[None, 8.0, 8.0])
    content["network"].update(spatial_dims=2, in_channels=2 * neighbours + 1)
    content["tiling"]["window"] = [4, 32, 32]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_metadata_passes_monais_own_check(tmp_path: Path) -> None:
    """`monai.bundle verify_metadata` finds nothing wrong."""
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    run = _monai("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", schema)
    assert run.returncode == 0, run.stderr
    assert "verified with no error" in run.stdout + run.stderr


def test_metadata_that_lacks_a_key_is_caught(tmp_path: Path) -> None:
    """The check can fail: without the version it does."""
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    del metadata["version"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")
    run = _monai("verify_metadata", "--meta_file", tmp_path / "metadata.json", "--filepath", schema)
    assert run.returncode != 0


def test_metadata_agrees_with_the_model() -> None:
    """Channels, patch size, labels and versions in metadata.json are those of model.yaml."""
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    model = read_model(ROOT)
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert list(pred["channel_def"].values()) == ["background", *(label.name for label in model.labels)]
    assert pred["num_channels"] == model.network["out_channels"]
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == list(model.tiling.window)
    assert (metadata["name"], metadata["version"]) == (model.name, model.version)


@pytest.mark.parametrize("config", ["train", "inference", "evaluate"])
def test_configs_have_the_properties_that_monai_demands(config: str, tiny_root: Path, tmp_path: Path) -> None:
    """MONAI's own check of required properties, which makes each of them, finds none missing."""
    from monai.bundle import ConfigWorkflow

    own = {"dataset_dir": str(ROOT / "sample_data" / "nifti")} if config == "inference" else {}
    workflow = ConfigWorkflow(
        config_file=str(tiny_root / "configs" / f"{config}.yaml"),
        meta_file=str(tiny_root / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="train" if config == "train" else "infer",
        bundle_root=str(tiny_root),
        **(own or {"datalist": str(_tiny_dataset(tmp_path))}),
    )
    workflow.initialize()
    assert not workflow.check_properties()


def test_the_network_has_the_shapes_of_the_metadata() -> None:
    """`monai.bundle verify_net_in_out` runs the network on the metadata's shapes."""
    run = _monai(
        "verify_net_in_out", "network_def", "--meta_file", "configs/metadata.json",
        "--config_file", "configs/inference.yaml", "--device", "cpu",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "verified with no error" in run.stdout + run.stderr


def _training(root: Path, folder: Path, **options: object) -> list[object]:
    """The arguments of a training run on three coarse phantoms."""
    command = ["run", "--config_file", root / "configs" / "train.yaml", "--bundle_root", root]
    values = {
        "datalist": _tiny_dataset(folder), "batch_size": 2, "steps_per_epoch": 1, "warmup_steps": 1, "val_interval": 2,
        "place_weights": False, **options,
    }  # fmt: skip
    return [*command, *(part for name, value in values.items() for part in (f"--{name}", value))]


@pytest.mark.parametrize("neighbours", [None, 0, 1], ids=["3D", "2D", "2.5D"])
def test_training_exports_weights_that_fit(tiny_root: Path, tmp_path: Path, neighbours: int | None) -> None:
    """Two epochs on phantoms leave curves, and weights that the model loads."""
    if neighbours is not None:
        _make_2d(tiny_root, neighbours)
    run = _monai(*_training(tiny_root, tmp_path, epochs=2))
    assert run.returncode == 0, run.stderr[-3000:]
    shutil.copy(tiny_root / "runs" / "train" / "model.safetensors", read_model(tiny_root).weights)
    read_model(tiny_root).load_network()
    assert list((tiny_root / "runs" / "train").glob("events.out.tfevents*"))


def test_a_killed_training_goes_on_where_it_was(tiny_root: Path, tmp_path: Path) -> None:
    """Killed after an epoch, the run resumes with the next one and ends as planned."""
    arguments = [str(part) for part in _training(tiny_root, tmp_path, epochs=15, val_interval=15)]
    checkpoints = tiny_root / "runs" / "train" / "checkpoints"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", *arguments],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        while process.poll() is None and not list(checkpoints.glob("run_checkpoint_[2-9].pt")):
            time.sleep(0.01)
        process.kill()
    again = _monai(*arguments, "--resume", "true")
    assert again.returncode == 0, again.stderr[-3000:]
    told = again.stdout + again.stderr
    assert "Epoch[15]" in told
    assert "Epoch[1]" not in told


def test_training_starts_from_given_weights(tiny_root: Path, tmp_path: Path) -> None:
    """With a learning rate of nearly nought, the weights that come out are those that were given."""
    given = read_model(tiny_root).weights
    run = _monai(*_training(tiny_root, tmp_path, epochs=2, learning_rate=1e-12, initial_weights=given))
    assert run.returncode == 0, run.stderr[-3000:]
    before, after = (safetensors.numpy.load_file(path) for path in (given, tiny_root / "runs/train/model.safetensors"))
    name = next(name for name in before if name.endswith("conv.weight"))
    assert np.allclose(before[name], after[name], atol=1e-6)


def test_a_run_of_another_length_is_not_resumed(tiny_root: Path, tmp_path: Path) -> None:
    """The learning rate follows the whole run, so going on with more epochs is refused with the number to use."""
    assert _monai(*_training(tiny_root, tmp_path, epochs=2)).returncode == 0
    run = _monai(*_training(tiny_root, tmp_path, epochs=3, resume="true"))
    assert run.returncode != 0
    assert "--epochs 2" in run.stderr


def _tiny_dataset(folder: Path) -> Path:
    """Three coarse phantoms as an MSD-style data set without a validation list."""
    from effvit_med.io import write_volume
    from effvit_med.training.phantom import make_case
    from effvit_med.volume import Geometry, Volume

    rows = []
    for seed in (1, 2, 3):
        case = make_case(seed, spacing_mm=(12.0, 8.0, 8.0), shape=(20, 48, 48))
        geometry = Geometry(case.affine_lps, (20, 48, 48))
        names = {"image": f"image_{seed}.nii.gz", "label": f"label_{seed}.nii.gz"}
        write_volume(Volume(case.hu, geometry), folder / names["image"])
        write_volume(Volume(case.labels, geometry), folder / names["label"])
        rows.append(names)
    (folder / "dataset.json").write_text(json.dumps({"training": rows}))
    return folder / "dataset.json"


def test_the_bundle_and_the_engine_give_the_same_labels(tiny_root: Path, sample_data: Path, tmp_path: Path) -> None:
    """MONAI's inference of a NIfTI file gives, voxel for voxel, what the engine gives."""
    run = _monai(
        "run", "--config_file", tiny_root / "configs" / "inference.yaml", "--bundle_root", tiny_root,
        "--dataset_dir", sample_data / "nifti", "--pattern", "ct.nii.gz", "--output_dir", tmp_path / "monai",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    segmenter = Segmenter(read_model(tiny_root), Settings(device="cpu"))
    (case,) = segment_input(sample_data / "nifti" / "ct.nii.gz", tmp_path / "engine", segmenter, Job()).cases
    ours = nibabel.load(case.outputs["nifti"])
    theirs = nibabel.load(tmp_path / "monai" / case.case_id / "segmentation.nii.gz")
    assert np.mean(np.asarray(ours.dataobj) == np.asarray(theirs.dataobj)) > 0.9999
    assert np.allclose(ours.affine, theirs.affine)
    record = json.loads((tmp_path / "monai" / case.case_id / "record.json").read_text(encoding="utf-8"))
    assert "Not for clinical use" in json.dumps(record)


def test_evaluation_refuses_labels_of_another_place(tiny_root: Path, tmp_path: Path) -> None:
    """A label map that lies elsewhere is an error with both names, not a Dice of nought."""
    datalist = _tiny_dataset(tmp_path)
    label = nibabel.load(tmp_path / "label_1.nii.gz")
    affine = label.affine.copy()
    affine[0, 3] += 300
    for number in (1, 2, 3):
        nibabel.save(nibabel.Nifti1Image(np.asarray(label.dataobj), affine), tmp_path / f"label_{number}.nii.gz")
    run = _monai(
        "run", "--config_file", tiny_root / "configs" / "evaluate.yaml", "--bundle_root", tiny_root,
        "--datalist", datalist, "--output_dir", tmp_path / "eval",
    )  # fmt: skip
    assert run.returncode != 0
    assert "mm apart" in run.stderr


def test_files_of_one_name_get_folders_of_their_own(tiny_root: Path, sample_data: Path, tmp_path: Path) -> None:
    """MONAI inference over two patients' ct.nii.gz leaves two results."""
    for patient in ("p1", "p2"):
        (tmp_path / "in" / patient).mkdir(parents=True)
        shutil.copy(sample_data / "nifti" / "ct.nii.gz", tmp_path / "in" / patient)
    run = _monai(
        "run", "--config_file", tiny_root / "configs" / "inference.yaml", "--bundle_root", tiny_root,
        "--dataset_dir", tmp_path / "in", "--pattern", "*/ct.nii.gz", "--output_dir", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(list((tmp_path / "out").glob("*/segmentation.nii.gz"))) == 2


def test_evaluation_reports_dice(tiny_root: Path, tmp_path: Path) -> None:
    """The evaluation config writes a Dice for each case."""
    run = _monai(
        "run", "--config_file", tiny_root / "configs" / "evaluate.yaml", "--bundle_root", tiny_root,
        "--datalist", _tiny_dataset(tmp_path), "--output_dir", tmp_path / "eval",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "mean" in (tmp_path / "eval" / "mean_dice_summary.csv").read_text()
