"""Facts about `effvit_med.engine.head`: what the outputs of a network stand for, and what the engine makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from effvit_med.engine import Segmenter, Settings, read_model
from effvit_med.engine.contract import describe_contract_model
from effvit_med.engine.head import Head, Region, read_nnunet_labels
from effvit_med.engine.model import IGNORED, Model
from effvit_med.engine.region import find_organs
from effvit_med.engine.scoring import Scoring, grid_stride, score_volume
from effvit_med.errors import InputError, SettingsError
from effvit_med.io import read_scan
from effvit_med.networks import save_weights
from effvit_med.transforms import PreparedRows, resample, strided_grid
from effvit_med.transforms.decision import Decision

REGIONS: dict[str, Any] = {
    "kind": "regions",
    "regions": [
        {"name": "all", "values": [1, 2, 3]},
        {"name": "middle", "values": [2, 3]},
        {"name": "core", "values": [3]},
    ],
    "order": [1, 2, 3],
}
OVERLAPPING: dict[str, Any] = {"kind": "overlapping"}


def _make(tiny_bundle: Path, folder: Path, head: dict[str, Any], values: list[int]) -> Model:
    shutil.copytree(tiny_bundle, folder)
    path = folder / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    code = ["91723000", "SCT", "Anatomical Structure"]
    content["labels"] = [{"value": value, "name": f"part{value}", "type": code} for value in values]
    content["network"]["out_channels"] = 3
    content["head"] = head
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    model = read_model(folder)
    torch.manual_seed(1)
    save_weights(model.build_network(), model.weights, {})
    return model


@pytest.fixture(name="scan", scope="module")
def _scan(sample_data: Path):
    return read_scan(sample_data / "ct_axial")


def _scores(model: Model, scan) -> np.ndarray:
    """All outputs at every voxel of the scan, held at full size."""
    network = model.load_network()
    rows = PreparedRows(scan, model.preprocess)
    scoring = Scoring(model.preprocess, model.tiling, grid_stride(network.output_stride))
    with torch.inference_mode():
        scores = score_volume(rows.read(0, rows.grid.shape[0]), network.logits, scoring)
    nodes = strided_grid(rows.grid, scoring.stride)
    return torch.stack([resample(score, nodes, scan.geometry) for score in scores]).numpy()


def _centred(model: Model, scan) -> np.ndarray:
    """Weights whose outputs lie around 0, so that every output is there in places and not in others; their scores."""
    network = model.load_network()
    scores = _scores(model, scan)
    last = [module for module in network.modules() if getattr(module, "bias", None) is not None][-1]
    with torch.no_grad():
        last.bias -= torch.from_numpy(np.median(scores, axis=(1, 2, 3)))
    save_weights(network, model.weights, {})
    return _scores(model, scan)


def test_regions_are_written_in_their_order(tiny_bundle: Path, scan, tmp_path: Path) -> None:
    """The label map of the streaming engine is that of nnU-Net's loop over whole probability maps."""
    model = _make(tiny_bundle, tmp_path / "b", REGIONS, [1, 2, 3])
    scores = _centred(model, scan)
    result = Segmenter(read_model(tmp_path / "b"), Settings(device="cpu", runtime="eager")).segment(scan)
    expected = np.zeros(scan.geometry.shape, np.uint8)
    for score, value in zip(scores, model.head.order, strict=True):
        expected[1 / (1 + np.exp(-score)) > 0.5] = value
    clear = np.abs(scores).min(axis=0) > 1e-3
    assert clear.mean() > 0.9
    assert len(np.unique(expected)) == 4
    assert (result.labels[clear] == expected[clear]).all()
    deciding = np.arange(3)[:, None, None, None] >= expected.astype(int) - 1
    margin = np.where(deciding, np.abs(scores), np.inf).min(axis=0)
    assert np.abs(result.confidence - 255 * np.tanh(margin / 2))[clear].max() <= 1
    assert result.provenance.settings["head"]["order"] == (1, 2, 3)


def test_structures_that_overlap_are_summed(tiny_bundle: Path, scan, tmp_path: Path) -> None:
    """Every voxel has the sum of the values of what is there, and the table names each sum that occurs."""
    model = _make(tiny_bundle, tmp_path / "b", OVERLAPPING, [1, 2, 4])
    scores = _centred(model, scan)
    result = Segmenter(read_model(tmp_path / "b"), Settings(device="cpu", runtime="eager")).segment(scan)
    expected = sum((score > 0).astype(int) << number for number, score in enumerate(scores))
    clear = np.abs(scores).min(axis=0) > 1e-3
    assert (result.labels[clear] == expected[clear]).all()
    both = [label for label in result.table if label.members == (1, 2)]
    assert [label.value for label in both] == [3]
    assert both[0].name == "part1+part2"


def test_a_quick_look_finds_what_is_above_0(tiny_bundle: Path, scan, tmp_path: Path) -> None:
    """Outputs below 0 everywhere give no box, though one of them is the highest; one above 0 gives the whole."""
    model = _make(tiny_bundle, tmp_path / "b", REGIONS, [1, 2, 3])
    grid = PreparedRows(scan, model.preprocess).grid
    scoring = Scoring(model.preprocess, model.tiling, (1, 1, 1))

    def predict(level: float):
        return lambda tiles: (
            torch.full((len(tiles), 3, *tiles.shape[2:]), level) + torch.arange(3.0)[:, None, None, None]
        )

    assert find_organs(scan, grid, predict(-4.0), scoring, decision=Decision.LAST) is None
    box = find_organs(scan, grid, predict(1.0), scoring, decision=Decision.LAST)
    assert box is not None
    assert box.shape == grid.shape


def test_a_head_goes_into_the_contract_of_an_export(tiny_bundle: Path, tmp_path: Path) -> None:
    """What an exported model says about its regions is what the bundle said."""
    model = _make(tiny_bundle, tmp_path / "b", REGIONS, [1, 2, 3])
    assert describe_contract_model(model).head == model.head


@pytest.mark.parametrize(
    ("head", "values", "message"),
    [
        ({"kind": "regions"}, [1, 2, 3], "needs a list of regions"),
        ({"kind": "softmax", "order": [1]}, [1, 2, 3], "belong to the kind regions"),
        ({"kind": "nested"}, [1, 2, 3], "head"),
        ({**REGIONS, "order": [1, 2]}, [1, 2, 3], "order has 2 label values for 3 regions"),
        (
            {**REGIONS, "order": [3, 2, 1]},
            [1, 2, 3],
            "the label value 1 would be written as 3",
        ),
        (REGIONS, [1, 2, 4], r"region 'all' has the label values \[1, 2, 3\]"),
        (REGIONS, [1, 2, 3, 4], "the label value 4 lies in no region"),
        (OVERLAPPING, [1, 2, 3], r"need \[1, 2, 4\]"),
        ({"kind": "softmax"}, [1, 2, 3], "network.out_channels is 3, but preprocess and labels need 4"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    tiny_bundle: Path, tmp_path: Path, head: dict[str, Any], values: list[int], message: str
) -> None:
    """The error says which value and why."""
    with pytest.raises(SettingsError, match=message):
        _make(tiny_bundle, tmp_path / "b", head, values)


def test_the_class_numbers_of_regions_come_from_the_label_table(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each output is present at the classes of its values."""
    model = _make(tiny_bundle, tmp_path / "b", REGIONS, [1, 2, 3])
    assert model.head.truth_of(model.labels) == ((1, 2, 3), (2, 3), (3,))


def test_an_ignored_value_becomes_a_class_of_its_own(tiny_bundle: Path) -> None:
    """It is not in the table and no error; another unknown value is."""
    model = read_model(tiny_bundle)
    assert model.classes_of(np.array([0, 6, 9]), "a", ignore=9).tolist() == [0, 6, IGNORED]
    with pytest.raises(InputError, match=r"a has the label values \[9\]"):
        model.classes_of(np.array([0, 6, 9]), "a", ignore=8)


def test_plain_labels_of_nnunet_are_a_softmax_head() -> None:
    """Names by value, background left out."""
    names, head, ignore = read_nnunet_labels({"background": 0, "liver": 2, "spleen": 1})
    assert (names, head, ignore) == ({1: "spleen", 2: "liver"}, Head(), None)


def test_regions_of_nnunet_are_read_with_their_order() -> None:
    """The tumour of BraTS as its documentation writes it."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}
    names, head, ignore = read_nnunet_labels(labels, [1, 2, 3])
    regions = (Region("whole", (1, 2, 3)), Region("core", (2, 3)), Region("enhancing", (3,)))
    assert (names, head, ignore) == ({1: "whole", 2: "core", 3: "enhancing"}, Head("regions", regions, (1, 2, 3)), 4)


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"background": 0, "a": "x"}, None, "are not names with values"),
        ({"background": 0, "a": [1, 2], "b": 2}, None, "regions_class_order must give one value for each"),
        ({"background": 0, "a": 1, "b": 1}, None, "one value to two names"),
    ],
)
def test_labels_of_nnunet_that_contradict_themselves_are_refused(labels, order, message: str) -> None:
    """The error shows the labels."""
    with pytest.raises(SettingsError, match=message):
        read_nnunet_labels(labels, order)
