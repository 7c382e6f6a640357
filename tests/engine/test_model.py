"""Facts about `effvit_med.engine.model` and `effvit_med.engine.settings`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from effvit_med.engine import Settings, read_model
from effvit_med.errors import InputError, SettingsError, WeightsError
from effvit_med.networks import save_weights


@pytest.fixture(name="edited")
def _edited(tiny_bundle: Path, tmp_path: Path):
    """A function that copies the tiny bundle with one part of its model.yaml changed."""

    def edit(part: str, **changes: object) -> Path:
        folder = tmp_path / "bundle"
        shutil.copytree(tiny_bundle, folder)
        path = folder / "configs" / "model.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        (content[part] if part else content).update(changes)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return folder

    return edit


def test_the_shipped_model_has_a_class_for_each_label() -> None:
    """The network's outputs are background and the rows of the label table."""
    model = read_model()
    assert model.network["out_channels"] == len(model.labels) + 1


def test_the_shipped_weights_belong_to_the_shipped_network() -> None:
    """The weights that come along load into the network that model.yaml describes."""
    network = read_model().load_network()
    assert network.out_channels == 7


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("", {"colour": "blue"}, "colour is 'blue'"),
        ("preprocess", {"spacing_mm": [1, 1]}, "spacing_mm"),
        ("preprocess", {"orientation": 3}, "orientation is 3"),
        ("tiling", {"overlap": "wide"}, "overlap is 'wide'"),
        ("preprocess", {"neighbors": 1}, "neighbors"),
        ("tiling", {"overlapp": 0.1}, "overlapp"),
        ("preprocess", {"orientation": "SPX"}, "'SPX'"),
        ("preprocess", {"spacing_mm": [float("inf"), 1.0, 1.0]}, "inf"),
        ("network", {"out_channels": 3}, "network.out_channels is 3, but preprocess and labels need 7"),
        ("preprocess", {"spatial_dims": 2}, "network.spatial_dims is 3, but preprocess and labels need 2"),
    ],
)
def test_a_wrong_value_in_model_yaml_is_named(edited, part: str, changes: dict[str, object], message: str) -> None:
    """The error says where in the file and what stands there."""
    with pytest.raises(SettingsError, match=message):
        read_model(edited(part, **changes))


def test_label_rows_out_of_order_are_refused(edited, tiny_bundle: Path) -> None:
    """Class i is the i-th row, so rows must rise by value."""
    rows = yaml.safe_load((tiny_bundle / "configs" / "model.yaml").read_text(encoding="utf-8"))["labels"]
    with pytest.raises(SettingsError, match="must rise"):
        read_model(edited("", labels=rows[::-1]))


def test_values_and_classes_lead_to_each_other(edited, tiny_bundle: Path) -> None:
    """Label values that are not 1..n become classes and come back."""
    rows = yaml.safe_load((tiny_bundle / "configs" / "model.yaml").read_text(encoding="utf-8"))["labels"]
    model = read_model(edited("", labels=[{**row, "value": 50 * row["value"]} for row in rows]))
    values = np.array([0, 50, 300, 150])
    assert model.values_of(model.classes_of(values, "a")).tolist() == values.tolist()
    with pytest.raises(InputError, match=r"a has the label values \[7\]"):
        model.classes_of(np.array([7]), "a")


def test_other_weights_are_the_ones_that_are_named(tiny_bundle: Path, tmp_path: Path) -> None:
    """With weights given, the hash of the record is theirs."""
    other = tmp_path / "other.safetensors"
    save_weights(read_model(tiny_bundle).build_network(), other, {"other": "yes"})
    assert read_model(tiny_bundle, other).weights_sha256 != read_model(tiny_bundle).weights_sha256


def test_an_unknown_network_argument_is_named(edited) -> None:
    """A word that build_network does not know is named when the network is built."""
    with pytest.raises(SettingsError, match="turbo"):
        read_model(edited("network", turbo=True)).build_network()


def test_a_folder_without_model_yaml_is_no_bundle(tmp_path: Path) -> None:
    """The error names the file that is missing."""
    with pytest.raises(InputError, match=r"is no effvit-med bundle: .*model\.yaml"):
        read_model(tmp_path)


def test_weights_of_another_network_are_refused(edited) -> None:
    """Weights that do not fit the preset are an error, not a half-loaded network."""
    with pytest.raises(WeightsError, match="safetensors"):
        read_model(edited("network", preset="efficientvit_b1")).load_network()


def test_missing_weights_are_named(edited) -> None:
    """A weights file that is not there is an error that names it."""
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        read_model(edited("", weights="models/gone.safetensors")).load_network()


@pytest.mark.parametrize(
    ("values", "message"),
    [({"overlap": 1.5}, "overlap is 1.5"), ({"speed": 9}, "speed is 9"), ({"batch_size": 0}, "batch_size is 0")],
)
def test_a_wrong_setting_is_named(values: dict[str, object], message: str) -> None:
    """The error says which setting and what its value was."""
    with pytest.raises(SettingsError, match=message):
        Settings.from_values(**values)
