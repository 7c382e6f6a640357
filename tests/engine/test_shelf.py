"""Bundles by their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from effvit_med.engine import find_bundle, read_model, shelf, shipped_bundle
from effvit_med.engine.contract import open_model
from effvit_med.engine.prompting import read_prompt_model
from effvit_med.engine.shelf import (
    list_bundles,
    read_card,
    read_colour_weights,
    shipped_folders,
    verify_bundle,
    write_sums,
)
from effvit_med.errors import InputError, SettingsError
from tests.photographs import write_photograph_bundle


@pytest.fixture(name="root")
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the default bundle at its root and one more on the shelf."""
    root = tmp_path / "root"
    write_photograph_bundle(root, "abdomen-phantom")
    folder = write_photograph_bundle(root / "bundles" / "vessels", "vessels")
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# Card of vessels\n", encoding="utf-8")
    (folder / "configs" / "metadata.json").write_text('{"data_source": "CHASE"}', encoding="utf-8")
    (root / "bundles" / "README.md").write_text("no bundle", encoding="utf-8")
    (root / "bundles" / "empty").mkdir()
    write_sums(root)
    write_sums(folder)
    monkeypatch.setattr(shelf, "shipped_bundle", lambda: root)
    return root


def test_every_folder_with_a_model_is_a_bundle(root: Path) -> None:
    """The default one first."""
    assert shipped_folders() == {"abdomen-phantom": root, "vessels": root / "bundles" / "vessels"}
    default, other = list_bundles()
    assert (default.name, other.name) == ("abdomen-phantom", "vessels")
    assert (other.spatial_dims, other.structures, other.photographs, other.problem) == (2, ("vessel",), True, "")


def test_a_name_stands_for_its_folder(root: Path) -> None:
    """Wherever a model is read; also as a Path, as the command line gives it."""
    assert find_bundle(Path("vessels")) == root / "bundles" / "vessels"
    assert read_model("vessels").name == "vessels"
    assert open_model(Path("vessels")).weights.parent.parent == root / "bundles" / "vessels"
    assert find_bundle() == root


def test_a_path_still_works(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a relative one of one word; a name of the shelf wins over a folder of the same name."""
    monkeypatch.chdir(tmp_path)
    write_photograph_bundle(tmp_path / "mine", "mine")
    (tmp_path / "vessels").mkdir()
    assert read_model("mine").name == "mine"
    assert read_model(tmp_path / "mine").name == "mine"
    assert find_bundle("vessels") == root / "bundles" / "vessels"
    assert find_bundle("./vessels") in (Path("vessels"), root / "bundles" / "vessels")


def test_an_unknown_name_is_refused_with_the_nearest(root: Path) -> None:
    """And a path that is not there is told as a path."""
    with pytest.raises(SettingsError, match="no bundle or folder 'vesels'; the nearest are vessels"):
        find_bundle("vesels")
    with pytest.raises(InputError, match="no effvit-med bundle"):
        read_model("no/such/folder")


def test_the_colours_of_a_bundle_are_known_without_its_model(root: Path, tmp_path: Path) -> None:
    """Of a bundle and of an exported model; none for scans and for what cannot be read."""
    assert read_colour_weights("vessels") == (0.0, 1.0, 0.0)
    (tmp_path / "contract.json").write_text('{"model": {"colour_weights": [1, 0, 0]}}', encoding="utf-8")
    assert read_colour_weights(tmp_path) == (1.0, 0.0, 0.0)
    (tmp_path / "contract.json").write_text('{"model": {}}', encoding="utf-8")
    assert read_colour_weights(tmp_path) is None
    assert read_colour_weights(tmp_path / "none") is None


def test_a_whole_bundle_is_verified(root: Path) -> None:
    """Weights, configs and card agree with the list."""
    result = verify_bundle("vessels")
    assert result.problems == ()
    assert result.checked == 4


@pytest.mark.parametrize("file", ["models/tiny.safetensors", "configs/model.yaml"])
def test_a_changed_byte_is_found(root: Path, file: str) -> None:
    """The file is named with what it is and what it should be."""
    path = root / "bundles" / "vessels" / file
    path.write_bytes(path.read_bytes() + b"\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (problem,) = verify_bundle("vessels").problems
    assert problem.startswith(f"{file} has the SHA-256 {digest}")


def test_a_missing_file_and_one_too_many_are_found(root: Path) -> None:
    """What is listed must be there, and weights and configs must be listed."""
    folder = root / "bundles" / "vessels"
    (folder / "models" / "tiny.safetensors").unlink()
    (folder / "configs" / "extra.yaml").write_text("a: 1\n", encoding="utf-8")
    problems = verify_bundle("vessels").problems
    assert len(problems) == 2
    assert "models/tiny.safetensors cannot be read" in problems[0]
    assert "configs/extra.yaml is not in SHA256SUMS" in problems[1]
    assert "tiny.safetensors are not there" in list_bundles()[1].problem


@pytest.mark.parametrize("text", ["", "word\n", f"{'0' * 64}  ../model.yaml\n", f"{'0' * 64}  /etc/passwd\n"])
def test_a_list_that_is_none_is_an_error(root: Path, text: str) -> None:
    """Also one that leads out of the bundle."""
    (root / "bundles" / "vessels" / "SHA256SUMS").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="SHA256SUMS"):
        verify_bundle("vessels")


def test_the_card_is_that_of_the_bundle(root: Path) -> None:
    """Text and metadata; a bundle without a card still has its name."""
    card = read_card("vessels")
    assert card.text.startswith("# Card of vessels")
    assert card.metadata == {"data_source": "CHASE"}
    assert card.shipped.name == "vessels"
    assert read_card("abdomen-phantom").text == ""
    with pytest.raises(InputError, match="no effvit-med bundle"):
        read_card(root / "bundles" / "empty")


def test_a_damaged_bundle_does_not_hide_the_others(root: Path) -> None:
    """It is listed with what is wrong."""
    (root / "bundles" / "vessels" / "configs" / "model.yaml").write_text("a: [", encoding="utf-8")
    listed = {each.name: each.problem for each in list_bundles()}
    assert listed["abdomen-phantom"] == ""
    assert "cannot be understood" in listed["vessels"]


@pytest.mark.parametrize("name", list(shipped_folders()))
def test_what_comes_along_is_whole_and_has_a_card(name: str) -> None:
    """Every bundle of this checkout."""
    assert verify_bundle(name).problems == ()
    card = read_card(name)
    assert "Not for clinical use" in card.text
    assert card.shipped.problem == ""
    assert (read_prompt_model if card.shipped.prompts else read_model)(name).name == name
    assert shipped_bundle() in (card.shipped.folder, *card.shipped.folder.parents)
