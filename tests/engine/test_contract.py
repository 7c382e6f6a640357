"""Facts about `effvit_med.engine.contract`: what stands beside an exported model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.engine.contract import (
    CONTRACT_FILE,
    Contract,
    ContractFile,
    ContractParity,
    ContractTensor,
    check_files,
    describe_contract_model,
    is_exported,
    read_contract,
    write_contract,
)
from effvit_med.engine.model import read_model
from effvit_med.errors import InputError, OutputError, SettingsError, WeightsError

CONTENT = b"the network"


def _contract() -> Contract:
    model = read_model()
    axes = ("g0", "g1", "g2")
    return Contract(
        model=describe_contract_model(model),
        weights_sha256=model.weights_sha256,
        runtime="onnx",
        precision="float32",
        files=(ContractFile(name="model.onnx", sha256=hashlib.sha256(CONTENT).hexdigest()),),
        input=ContractTensor(name="image", axes=("batch", "channel", *axes), shape=(None, 1, None, None, None)),
        output=ContractTensor(name="output", axes=("batch", "class", *axes), shape=(None, 7, None, None, None)),
        window=(64, 96, 96),
        output_stride=(1, 1, 1),
        parity=ContractParity(
            case="a", voxels=10, agreement=1.0, least_agreement=0.9, dice={"liver": None}, computed_in="float32"
        ),
        versions={"torch": "2"},
    )


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    write_contract(tmp_path, _contract())
    return tmp_path


def _change(folder: Path, *where: str, value: Any) -> None:
    content = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    part = content
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    (folder / CONTRACT_FILE).write_text(json.dumps(content), encoding="utf-8")


def test_a_contract_is_read_as_it_was_written(folder: Path) -> None:
    """Nothing is lost on the way through the file."""
    assert is_exported(folder)
    assert read_contract(folder) == _contract()


def test_the_file_holds_plain_values(folder: Path) -> None:
    """A program without effvit-med finds preprocessing, tiling, labels and the notice in the JSON file."""
    content = json.loads((folder / CONTRACT_FILE).read_text(encoding="utf-8"))
    assert content["notice"] == NOT_FOR_CLINICAL_USE
    assert content["model"]["preprocess"]["spacing_mm"] == [2.5, 2.5, 2.5]
    assert content["model"]["preprocess"]["intensity"] == {"kind": "window", "low": -160, "high": 320}
    assert content["model"]["tiling"]["window"] == [64, 96, 96]
    assert [row["name"] for row in content["model"]["labels"]][:2] == ["liver", "spleen"]
    assert "Class 0 is background" in content["labelling"]


def test_the_model_of_a_contract_is_that_of_the_bundle(folder: Path) -> None:
    """Everything but the place of the weights is as in the bundle; records name the weights it was trained to."""
    model, found = read_model(), read_contract(folder).to_model(folder)
    assert (found.preprocess, found.tiling, found.labels) == (model.preprocess, model.tiling, model.labels)
    assert found.network == model.network
    assert found.weights == folder / "model.onnx"
    assert found.weights_sha256 == model.weights_sha256


def test_whole_files_pass(folder: Path) -> None:
    """Files with the bytes they were exported with are accepted."""
    check_files(folder, read_contract(folder))


def test_a_damaged_file_is_refused(folder: Path) -> None:
    """One changed byte is found, and the file is named."""
    (folder / "model.onnx").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged: its SHA-256 is [0-9a-f]{64}"):
        check_files(folder, read_contract(folder))


def test_a_missing_file_is_refused(folder: Path) -> None:
    """A file that the contract names and the folder has not is an error of ours."""
    (folder / "model.onnx").unlink()
    with pytest.raises(WeightsError, match=r"model\.onnx cannot be read"):
        check_files(folder, read_contract(folder))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("format_version",), 2, "format_version is 2"),
        (("surprise",), 1, "surprise is 1: Extra inputs"),
        (("runtime",), "tflite", "runtime is 'tflite'"),
        (("files",), [], r"files is \[\]"),
        (("files",), [{"name": "../model.onnx", "sha256": "0"}], "a file of the folder itself is needed"),
        (("model", "tiling", "overlap"), 2, "overlap is 2"),
        (("model", "preprocess", "spacing_mm"), [0, 1, 1], "spacing_mm is"),
    ],
)
def test_a_wrong_value_is_named(folder: Path, where: tuple[str, ...], value: Any, message: str) -> None:
    """A contract of another version, with unknown words or impossible values is refused by what is wrong in it."""
    _change(folder, *where, value=value)
    with pytest.raises(SettingsError, match=message):
        read_contract(folder)


def test_a_folder_without_a_contract_is_refused(tmp_path: Path) -> None:
    """A folder that was not exported is no exported model."""
    assert not is_exported(tmp_path)
    with pytest.raises(InputError, match=r"is no exported model: .*contract\.json cannot be read"):
        read_contract(tmp_path)


def test_a_contract_that_is_no_json_is_refused(tmp_path: Path) -> None:
    """A contract that was cut short is an error of ours."""
    (tmp_path / CONTRACT_FILE).write_text('{"format_', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"contract\.json: .*JSON"):
        read_contract(tmp_path)


def test_a_contract_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    """A folder that does not exist is named."""
    with pytest.raises(OutputError, match="absent"):
        write_contract(tmp_path / "absent", _contract())


def test_a_contract_that_was_edited_is_refused(folder: Path) -> None:
    """Another overlap did not go through the parity gate."""
    _change(folder, "model", "tiling", "overlap", value=0.25)
    with pytest.raises(SettingsError, match="was changed after the export"):
        read_contract(folder)
