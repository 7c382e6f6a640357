"""Facts about `effvit_med.engine.predictor`: folds, runtimes, windows."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from effvit_med.engine import Segmenter, Settings, open_model, read_model
from effvit_med.engine.export import export_model
from effvit_med.engine.predictor import Predictor
from effvit_med.errors import SettingsError, WeightsError
from effvit_med.networks import save_weights
from effvit_med.volume import Geometry, Volume

CPU = torch.device("cpu")


@pytest.fixture(name="folds", scope="module")
def _folds(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with two different sets of weights."""
    folder = tmp_path_factory.mktemp("folds") / "bundle"
    shutil.copytree(tiny_bundle, folder)
    path = folder / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["weights"] = ["models/one.safetensors", "models/two.safetensors"]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    for seed, weights in enumerate(read_model(folder).folds):
        torch.manual_seed(seed)
        save_weights(read_model(folder).build_network(), weights, {})
    return folder


def _logits(folder: Path, tile: torch.Tensor, **settings: object) -> torch.Tensor:
    model = read_model(folder)
    chosen = Settings.from_values(device="cpu", **settings)
    if chosen.fold:
        model = model.with_fold(chosen.fold)
    return Predictor(model, chosen, CPU).open((32, 32, 32), 1)(tile)


def test_folds_are_averaged(folds: Path) -> None:
    """The logits of two folds are the mean of theirs, and the folds differ."""
    tile = torch.randn(1, 1, 32, 32, 32)
    one, two = (_logits(folds, tile, fold=number) for number in (1, 2))
    assert not torch.allclose(one, two, atol=1e-2)
    assert torch.allclose(_logits(folds, tile), (one + two) / 2, atol=1e-5)


def test_the_digest_of_folds_is_that_of_all(folds: Path) -> None:
    """With several weights the record's digest depends on each of them."""
    model = read_model(folds)
    digests = {model.weights_sha256, model.with_fold(1).weights_sha256, model.with_fold(2).weights_sha256}
    assert len(digests) == 3


def test_a_fold_that_is_not_there_is_refused(folds: Path) -> None:
    """The error says how many there are."""
    with pytest.raises(SettingsError, match="The fold is 3; tiny has 2"):
        Segmenter(open_model(folds), Settings(device="cpu", fold=3))


def test_a_missing_fold_is_refused(folds: Path, tmp_path: Path) -> None:
    """All weights are loaded before anything is segmented."""
    copy = tmp_path / "bundle"
    shutil.copytree(folds, copy)
    (copy / "models" / "two.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"two\.safetensors"):
        Segmenter(open_model(copy), Settings(device="cpu"))


def test_tiles_of_another_size_are_taken(tiny_bundle: Path) -> None:
    """A smaller window, as memory may ask for, opens the runtime for that size."""
    predict = Predictor(read_model(tiny_bundle), Settings(device="cpu"), CPU).open((32, 32, 32), 1)
    assert predict(torch.zeros(1, 1, 16, 32, 32)).shape[2:] == (8, 16, 16)


def test_windows_do_not_fall_below_the_deepest_stride(tiny_bundle: Path) -> None:
    """A window holds at least one voxel of the coarsest map."""
    assert Predictor(read_model(tiny_bundle), Settings(device="cpu"), CPU).smallest_window == (32, 32, 32)


def test_the_record_says_what_ran(tiny_bundle: Path) -> None:
    """Runtime, precision and number of folds are described."""
    predictor = Predictor(read_model(tiny_bundle), Settings(device="cpu"), CPU)
    predictor.open((32, 32, 32), 1)
    described = predictor.describe()
    assert described["runtime"] == "eager"
    assert described["folds"] == 1


def test_memory_counts_the_weights_of_all_folds(folds: Path) -> None:
    """Two folds hold twice the weights of one."""
    shape = (1, 1, 32, 32, 32)
    both = Predictor(read_model(folds), Settings(device="cpu"), CPU).memory(shape)
    one = Predictor(read_model(folds).with_fold(1), Settings(device="cpu"), CPU).memory(shape)
    assert both.weights_bytes == 2 * one.weights_bytes
    assert both.activations_bytes == one.activations_bytes


def test_folds_are_not_exported_as_one(folds: Path, tmp_path: Path) -> None:
    """A file holds one network: an ensemble is refused, and nothing is written."""
    with pytest.raises(SettingsError, match="tiny has 2 folds; a file holds one network"):
        export_model(read_model(folds), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"fold": 1}, {"mirror": True}, {"precision": "bfloat16"}, {"overlap": 0.25}])
def test_what_changes_labels_changes_the_identity(folds: Path, settings: dict[str, object]) -> None:
    """A run with another fold, with mirrors, in another arithmetic or tiling is another job."""
    scan = Volume(np.zeros((8, 16, 16), np.int16), Geometry(np.diag([4.0, 4, 4, 1]), (8, 16, 16)), "CT")
    plain, other = (
        Segmenter(open_model(folds), Settings.from_values(device="cpu", **chosen)).segment(scan).provenance
        for chosen in ({}, settings)
    )
    assert plain.identity() != other.identity()


def test_how_much_goes_through_at_once_does_not(folds: Path) -> None:
    """Batch size, threads and memory are no part of the identity."""
    scan = Volume(np.zeros((8, 16, 16), np.int16), Geometry(np.diag([4.0, 4, 4, 1]), (8, 16, 16)), "CT")
    plain, other = (
        Segmenter(open_model(folds), Settings.from_values(device="cpu", **chosen)).segment(scan).provenance
        for chosen in ({}, {"batch_size": 3, "memory_gb": 20.0})
    )
    assert plain.identity() == other.identity()
