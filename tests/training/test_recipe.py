"""The training recipe as a whole: the template that every planned bundle gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
import yaml
from ignite.engine import Events
from safetensors.torch import load_file

from effvit_med.io import write_volume
from effvit_med.volume import Geometry, Volume
from tests.conftest import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # of MONAI's own parser

TEMPLATES = ROOT / "effvit_med" / "planning" / "templates"

IN_3D = "@model.preprocess.spatial_dims == 3 else"
PHANTOMS = {
    "dataset_dir": "$os.path.join(@bundle_root, 'runs', 'phantoms')",
    "datalist": "$data.write_phantom_dataset(@dataset_dir, range(1000, 1064), range(500, 506))",
    "patch": f"$list(@model.tiling.window) if {IN_3D} [@model.preprocess.slices_per_input, *@model.tiling.window[1:]]",
    "steps_per_epoch": 32,
    "epochs": 30,
    "val_interval": 5,
    "mirror_axes": [],
    "rotate_range": f"$[0.2, 0.1, 0.1] if {IN_3D} [0.2, 0, 0]",
    "scale_range": f"$[0.15, 0.15, 0.15] if {IN_3D} [0, 0.15, 0.15]",
    "place_weights": False,
}
"""What the bundle at the root of the repository decides."""


def _render(name: str, **values: Any) -> str:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.get_template(f"{name}.yaml.j2").render(values)


@pytest.mark.parametrize("name", ["train", "multi_gpu_train"])
def test_the_repositorys_own_configs_are_rendered(name: str) -> None:
    """`configs/` holds what the templates give for phantoms, to the letter."""
    assert (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8") == _render(name, **PHANTOMS)


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny network for cubes in noise, with four cases in two folds."""
    root = tmp_path_factory.mktemp("recipe")
    (root / "configs").mkdir()
    model = yaml.safe_load((ROOT / "configs" / "model.yaml").read_text(encoding="utf-8"))
    model["network"] = {
        "preset": "fullres_tiny", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "norm": "instance",
    }  # fmt: skip
    model["preprocess"] |= {"spacing_mm": [1.0, 1.0, 1.0], "intensity": {"kind": "percentile", "low": 1, "high": 99}}
    model["tiling"]["window"] = [16, 16, 16]
    model["labels"] = model["labels"][:2]
    (root / "configs" / "model.yaml").write_text(yaml.safe_dump(model), encoding="utf-8")
    rows = []
    for number in range(4):
        rng = np.random.default_rng(number)
        labels = np.zeros((18, 20, 16), dtype=np.uint8)
        labels[3:9, 4:10, 2:8], labels[10:15, 9:16, 7:13] = 1, 2
        image = (rng.normal(0, 1, labels.shape) + 2 * labels).astype(np.float32)
        geometry = Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), labels.shape)
        names = {kind: f"{kind}_{number}.nii.gz" for kind in ("image", "label")}
        write_volume(Volume(image, geometry), root / names["image"])
        write_volume(Volume(labels, geometry), root / names["label"])
        rows.append({**names, "fold": number % 2})
    document = {"root": str(root), "training": rows}
    (root / "configs" / "datalist.json").write_text(json.dumps(document), encoding="utf-8")
    values = {"patch": [16, 16, 16], "steps_per_epoch": 2, "epochs": 4, "val_interval": 2, "warmup_steps": 2}
    (root / "configs" / "train.yaml").write_text(_render("train", **values), encoding="utf-8")
    (root / "configs" / "multi_gpu_train.yaml").write_text(_render("multi_gpu_train"), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _calm() -> Iterator[None]:
    """What a run fixes for its process is undone."""
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


class _Killed(BaseException):
    """Ends a run as abruptly as a signal would, between two lines of it."""


def _kill() -> None:
    raise _Killed


def _train(bundle: Path, run: str, kill_at: int | None = None, **options: Any) -> dict[str, Any]:
    """Run the recipe in this process, up to a step; gives the newest checkpoint."""
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "train.yaml"),
        logging_file=False,
        workflow_type="train",
        bundle_root=str(bundle),
        output_dir=str(bundle / "runs" / run),
        **options,
    )
    workflow.initialize()
    if kill_at is not None:
        trainer = workflow.parser.get_parsed_content("train#trainer")
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=kill_at), _kill)
        with pytest.raises(_Killed):
            workflow.run()
    else:
        workflow.run()
    newest = max((bundle / "runs" / run / "checkpoints").glob("*.pt"), key=lambda path: int(path.stem.split("_")[-1]))
    return torch.load(newest, weights_only=True)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(bundle: Path) -> None:
    """Killed in the third of four epochs and resumed, weights, averages, optimizer and counts are the same bits.

    Both give the same best weights too, and a run with another seed does not.
    """
    straight = _train(bundle, "straight", patience=3)
    killed = _train(bundle, "killed", kill_at=5, patience=3)
    assert killed["trainer"]["iteration"] == 4
    resumed = _train(bundle, "killed", resume=True, patience=3)
    assert [part for part in straight if not _same(straight[part], resumed[part])] == []
    assert straight["stopping"]["counter"] >= 0
    assert _same(*(load_file(bundle / "runs" / run / "model.safetensors") for run in ("straight", "killed")))
    assert not _same(straight["model"], _train(bundle, "other", seed=1, val_interval=9, place_weights=False)["model"])


def test_the_average_is_what_is_kept(bundle: Path) -> None:
    """The best weights are those of the averaged network, without the heads of deep supervision."""
    checkpoint = _train(bundle, "average", epochs=1, val_interval=1)
    kept = load_file(bundle / "runs" / "average" / "model.safetensors")
    assert _same(kept, checkpoint["average"])
    assert any(name.startswith("heads.") for name in checkpoint["model"])
    placed = load_file(bundle / "models" / "abdomen_phantom.safetensors")
    assert _same(kept, placed)


def test_everything_can_be_switched_off(bundle: Path) -> None:
    """Without augmentation, deep supervision, average, clipping and mirroring the recipe still trains."""
    off = {"augmentation": 0, "deep_supervision": 1, "ema_decay": 0, "gradient_clip": 0, "mirror_axes": []}
    checkpoint = _train(bundle, "bare", epochs=1, val_interval=1, **off)
    assert checkpoint["average"] == {}
    assert not any(name.startswith("heads.") for name in checkpoint["model"])


@pytest.mark.slow
def test_two_processes_learn_what_one_does(bundle: Path, tmp_path: Path) -> None:
    """Under torchrun over gloo, SGD on a shared batch gives the weights of one process, but for rounding.

    AdamW would not do here: it turns the rounding of gradients that are all but nought into steps of full length.
    """
    (tmp_path / "sgd.yaml").write_text(
        "optimizer: { _target_: torch.optim.SGD, params: $@training_network.parameters(), lr: 0.01, momentum: 0.9 }\n"
        "batch_dice: false\n"
    )
    ends = []
    for run, launcher, extra in (
        ("one", ["-m", "monai.bundle"], []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "monai.bundle"],
         [str(bundle / "configs" / "multi_gpu_train.yaml")]),
    ):  # fmt: skip
        files = [str(bundle / "configs" / "train.yaml"), *extra, str(tmp_path / "sgd.yaml")]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *launcher, "run", "--config_file", str(files),
             "--bundle_root", str(bundle), "--output_dir", str(bundle / "runs" / run),
             "--val_interval", "4", "--place_weights", "False"],
            capture_output=True, text=True, timeout=600, check=False, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        ends.append(torch.load(bundle / "runs" / run / "checkpoints" / "run_checkpoint_4.pt", weights_only=True))
    for part in ("model", "average"):
        for name, value in ends[0][part].items():
            assert torch.allclose(value, ends[1][part][name], atol=2e-5), name
    assert len(list((bundle / "runs" / "two").glob("events*"))) == len(list((bundle / "runs" / "one").glob("events*")))
