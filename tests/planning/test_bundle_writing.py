"""Facts about `effvit_med.planning.bundle_writing`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from effvit_med.bundle.metatensor import to_metatensor
from effvit_med.engine import read_model
from effvit_med.engine.head import Head, Region
from effvit_med.errors import OutputError, SettingsError
from effvit_med.planning.bundle_writing import write_bundle
from effvit_med.planning.choice import read_overrides
from effvit_med.planning.plan import Plan, SplitOptions, make_plan
from effvit_med.training.data import read_datalist
from effvit_med.volume import Geometry, Volume
from tests.conftest import ROOT
from tests.planning.parts import SMALL, examined, write_decathlon

SCHEMA = ROOT / "tests" / "faces" / "metadata_schema.json"


@pytest.fixture(name="plan", scope="module")
def _plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    examination = examined(write_decathlon(tmp_path_factory.mktemp("boxes"), 8))
    return make_plan(examination, SMALL, SplitOptions(3, 2), read_overrides(["preset=fullres_tiny", "epochs=3"]))


def test_the_bundle_is_read_as_it_was_planned(plan: Plan, tmp_path: Path) -> None:
    """`read_model` finds network, grid, window and labels; the network builds."""
    write_bundle(plan, tmp_path / "boxes")
    model = read_model(tmp_path / "boxes")
    assert (model.name, model.modalities) == ("boxes", ("MR",))
    assert model.weights == tmp_path / "boxes" / "models" / "boxes.safetensors"
    assert model.tiling.window == plan.values["window"]
    assert model.tiling.mirror_axes == plan.values["mirror_axes"]
    assert model.labels.to_dicts() == plan.table.to_dicts()
    model.build_network()


def test_every_planned_value_stands_in_the_configs(plan: Plan, tmp_path: Path) -> None:
    """What plan.md promises, train.yaml and model.yaml hold."""
    write_bundle(plan, tmp_path / "boxes")
    train = yaml.safe_load((tmp_path / "boxes" / "configs" / "train.yaml").read_text())
    named = ["batch_size", "steps_per_epoch", "epochs", "val_interval", "learning_rate", "foreground_share"]
    assert {name: train[name] for name in named} == {name: plan.values[name] for name in named}
    assert train["patch"] == list(plan.values["patch"])
    assert train["mirror_axes"] == list(plan.values["mirror_axes"])
    assert train["rotate_range"] == pytest.approx([0.5236] * 3, abs=1e-4)


def test_the_datalist_gives_each_part_its_cases(plan: Plan, tmp_path: Path) -> None:
    """Folds and test are those of the split, and the files are there."""
    write_bundle(plan, tmp_path / "boxes")
    path = tmp_path / "boxes" / "configs" / "datalist.json"
    parts = {part: read_datalist(path, part, fold=1) for part in ("training", "validation", "test")}
    names = {part: {Path(row["image"]).name.split(".")[0] for row in rows} for part, rows in parts.items()}
    assert names["test"] == plan.split.test
    assert names["validation"] == {name for name, fold in plan.split.folds.items() if fold == 1}
    assert names["training"] == {name for name, fold in plan.split.folds.items() if fold not in (1, None)}
    assert all(Path(path).is_file() for rows in parts.values() for row in rows for path in row.values())
    assert not Path(json.loads(path.read_text())["training"][0]["image"]).is_absolute()


def test_metadata_obeys_monais_schema(plan: Plan, tmp_path: Path) -> None:
    """And names the channels of the model."""
    write_bundle(plan, tmp_path / "boxes")
    metadata = json.loads((tmp_path / "boxes" / "configs" / "metadata.json").read_text())
    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    assert outputs["channel_def"] == {"0": "background", "1": "head", "2": "tail"}


def test_the_page_gives_a_reason_for_every_choice(plan: Plan, tmp_path: Path) -> None:
    """One row for each, in a table that Markdown understands; what was set by hand is bold."""
    write_bundle(plan, tmp_path / "boxes")
    page = (tmp_path / "boxes" / "plan.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert rows == [choice.name for choice in plan.choices]
    assert "| `epochs` | Epochs | **3** | Set by hand." in page
    assert "Not for clinical use" in page
    told = json.loads((tmp_path / "boxes" / "plan.json").read_text())
    assert [choice["name"] for choice in told["choices"]] == rows
    assert str(tmp_path.parent) not in (tmp_path / "boxes" / "plan.json").read_text()


def test_a_training_is_not_overwritten(plan: Plan, tmp_path: Path) -> None:
    """An untrained plan may be made again; weights are lost only when that is asked for."""
    folder = tmp_path / "boxes"
    write_bundle(plan, folder)
    write_bundle(plan, folder)
    weights = folder / "models" / "boxes.safetensors"
    weights.write_bytes(b"hours of work")
    with pytest.raises(OutputError, match=r"holds a training already \(models/boxes.safetensors\)"):
        write_bundle(plan, folder)
    assert weights.read_bytes() == b"hours of work"
    write_bundle(plan, folder, overwrite=True)
    assert not weights.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["boxes"]


def test_a_folder_of_something_else_is_left_alone(plan: Plan, tmp_path: Path) -> None:
    """Even with --overwrite."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="no plan has written"):
        write_bundle(plan, tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        write_bundle(plan, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_cannot_be_used_is_not_written(plan: Plan, tmp_path: Path) -> None:
    """A wrong value leaves neither a bundle nor half of one."""
    wrong = read_overrides(["preset=fullres_tiny", "intensity={kind: window, low: 3, high: 1}"])
    folder = plan.training_set.root
    with pytest.raises(SettingsError, match="bounds"):
        write_bundle(make_plan(examined(folder), SMALL, None, wrong), tmp_path / "boxes")
    assert not list(tmp_path.iterdir())


def test_the_scans_may_move(plan: Plan, tmp_path: Path) -> None:
    """One line of the list says where they lie."""
    write_bundle(plan, tmp_path / "boxes")
    path = tmp_path / "boxes" / "configs" / "datalist.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "root": "/elsewhere"}))
    assert all(row["label"].startswith("/elsewhere/labels/") for row in read_datalist(path, "test"))


def test_a_bundle_of_regions_is_planned(tmp_path: Path) -> None:
    """The network has an output for each region, and `read_model` knows what it stands for."""
    folder = write_decathlon(tmp_path / "boxes", 4)
    examination = examined(folder)
    head = Head("regions", (Region("whole", (1, 2)), Region("inner", (2,))), (1, 2))
    found = replace(examination, training_set=replace(examination.training_set, head=head))
    write_bundle(make_plan(found, SMALL, SplitOptions(2), read_overrides(["preset=fullres_tiny"])), tmp_path / "made")
    model = read_model(tmp_path / "made")
    assert (model.head, model.network["out_channels"]) == (head, 2)
    metadata = json.loads((tmp_path / "made" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "whole", "1": "inner"}


def test_the_planned_evaluation_leaves_out_what_is_ignored(plan: Plan, tmp_path: Path) -> None:
    """Where the label map has the ignored value, neither it nor the prediction has a structure that could be scored."""
    ignoring = replace(plan, training_set=replace(plan.training_set, ignore=9))
    write_bundle(ignoring, tmp_path / "boxes")
    parser = ConfigParser()
    parser.read_config(tmp_path / "boxes" / "configs" / "evaluate.yaml")
    parser["bundle_root"] = str(tmp_path / "boxes")
    steps = [parser.get_parsed_content(f"{name}processing#transforms#1") for name in ("pre", "post")]
    grid = Volume(np.zeros((1, 1, 4), np.float32), Geometry(np.eye(4), (1, 1, 4)))
    maps = {"image": [0, 0, 0, 0], "pred": [1, 1, 2, 0], "label": [1, 9, 9, 2]}
    found = {
        key: to_metatensor(torch.tensor(row).float()[None, None, None], grid.geometry, grid)
        for key, row in maps.items()
    }
    for step in steps:
        found = step(found)
    assert {key: found[key][1:].flatten(1).tolist() for key in ("pred", "label")} == {
        "pred": [[1, 0, 0, 0], [0, 0, 0, 0]],
        "label": [[1, 0, 0, 0], [0, 0, 0, 1]],
    }
