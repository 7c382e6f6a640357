"""``effvit-med bundles`` and ``--bundle NAME``, called as their users call them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from effvit_med.cli import commands
from effvit_med.engine import shelf
from effvit_med.errors import SettingsError
from tests.photographs import colours, save, write_photograph_bundle


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf with a bundle for photographs beside the default one."""
    root = tmp_path_factory.mktemp("root")
    for folder, name in ((root, "abdomen-phantom"), (root / "bundles" / "vessels", "vessels")):
        write_photograph_bundle(folder, name)
        shelf.write_sums(folder)
    return root


@pytest.fixture(autouse=True)
def _on_the_shelf(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "shipped_bundle", lambda: root)


def run(*arguments: object) -> Result:
    """The command in this process; its errors are raised."""
    words = [*map(str, arguments)]
    return CliRunner().invoke(commands, words, standalone_mode=False, catch_exceptions=False)


def said(*arguments: object) -> Any:
    """What a command says on stdout."""
    return json.loads(run(*arguments).stdout)


def test_bundles_are_listed() -> None:
    """As a table, and as one JSON document with all that a program needs to choose."""
    plain = run("bundles")
    assert plain.stdout.splitlines()[1].split()[:3] == ["vessels", "0.0.1", "photographs"]
    document = said("bundles", "--json")
    assert [each["name"] for each in document["bundles"]] == ["abdomen-phantom", "vessels"]
    assert document["bundles"][1]["structures"] == ["vessel"]
    assert "Not for clinical use" in document["notice"]


def test_whole_bundles_are_verified_and_damage_is_exit_code_1(tmp_path: Path) -> None:
    """All, by name, or a folder."""
    assert run("bundles", "verify").return_value == 0
    assert said("bundles", "verify", "vessels", "--json")["bundles"][0] == {
        "name": "vessels",
        "checked": 2,
        "problems": [],
    }
    folder = write_photograph_bundle(tmp_path / "mine")
    unsealed = run("bundles", "verify", folder)
    assert unsealed.return_value == 1
    assert "cannot be verified" in unsealed.stdout
    run("bundles", "seal", folder)
    assert run("bundles", "verify", folder).return_value == 0
    (folder / "models" / "tiny.safetensors").write_bytes(b"other")
    damaged = run("bundles", "verify", folder)
    assert damaged.return_value == 1
    assert "models/tiny.safetensors has the SHA-256" in damaged.stdout


def test_a_bundle_is_described(root: Path) -> None:
    """Card and metadata; what it does even where it has neither."""
    document = said("bundles", "describe", "vessels", "--json")
    assert (document["name"], document["card"], document["metadata"]) == ("vessels", "", {})
    (root / "bundles" / "vessels" / "docs").mkdir()
    (root / "bundles" / "vessels" / "docs" / "README.md").write_text("# The card\n", encoding="utf-8")
    text = run("bundles", "describe", "vessels").stdout
    assert "structures: vessel" in text
    assert "# The card" in text


@pytest.mark.parametrize("command", ["info", "segment", "bundles describe", "bundles verify", "export", "bench"])
def test_an_unknown_name_is_told_with_the_nearest(command: str, tmp_path: Path) -> None:
    """Wherever a bundle is asked for."""
    save(colours(), tmp_path / "a.png")
    arguments: dict[str, list[object]] = {
        "info": ["--bundle", "vesels"],
        "segment": [tmp_path, "-o", tmp_path / "out", "--bundle", "vesels"],
        "export": [tmp_path / "out", "--bundle", "vesels"],
        "bench": [tmp_path, "--bundle", "vesels"],
    }
    with pytest.raises(SettingsError, match="nearest are vessels"):
        run(*command.split(), *arguments.get(command, ["vesels"]))
    assert not (tmp_path / "out").exists()


def test_a_batch_with_an_unknown_name_is_wrong_usage(tmp_path: Path) -> None:
    """Exit code 1, as its help says, with the nearest names."""
    save(colours(), tmp_path / "a.png")
    result = run("batch", tmp_path, "-o", tmp_path / "out", "--bundle", "vesels")
    assert result.return_value == 1
    assert "nearest are vessels" in result.output


def test_a_name_is_known_wherever_a_bundle_is_asked_for() -> None:
    """``info`` says what the bundle of the name does."""
    assert said("info", "--bundle", "vessels", "--json")["bundle"]["name"] == "vessels"


def test_a_folder_of_photographs_is_segmented_by_a_bundle_of_the_shelf(tmp_path: Path) -> None:
    """One folder per picture, named after it; pixels are counted in place of volumes."""
    for name in ("one.jpg", "one.png", "two.tif"):
        save(colours(), tmp_path / "in" / name)
    document = said("segment", tmp_path / "in", "-o", tmp_path / "out", "--bundle", "vessels", "-q")
    assert document["status"] == "ok"
    assert [case["case"] for case in document["cases"]] == ["one", "one_2", "two"]
    for case in document["cases"]:
        with Image.open(tmp_path / "out" / case["case"] / "segmentation.png") as image:
            assert image.size == (56, 40)
        assert set(case["pixels"]) == {"vessel"}
        assert "volume_ml" not in case


def test_one_photograph_is_an_input(tmp_path: Path) -> None:
    """Named after its file."""
    path = save(colours(), tmp_path / "eye.tiff")
    document = said("segment", path, "-o", tmp_path / "out", "--bundle", "vessels", "--output-type", "png", "-q")
    assert (tmp_path / "out" / "eye" / "segmentation.png").is_file()
    assert document["cases"][0]["outputs"]["png"].endswith("segmentation.png")


def test_a_type_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Exit code 3, and the words say which option to leave out."""
    path = save(colours(), tmp_path / "eye.png")
    result = run("segment", path, "-o", tmp_path / "out", "--bundle", "vessels", "--output-type", "nifti", "-q")
    assert result.return_value == 3
    assert "Leave out --output-type nifti" in json.loads(result.stdout)["cases"][0]["message"]


def test_a_folder_of_nifti_gives_one_result_each_on_its_own_grid(tmp_path: Path) -> None:
    """Odd orders of axes, and two endings of one stem: the shape and the affine are those of the input."""
    rng = np.random.default_rng(0)
    turns = {
        "ras.nii.gz": np.diag([1.0, 1.2, 3.0, 1.0]),
        "lpi.nii.gz": np.diag([-1.0, -1.2, -3.0, 1.0]),
        "turned.nii": np.array([[0, 0, 2.0, 5], [-1.5, 0, 0, 7], [0, 1.0, 0, -9], [0, 0, 0, 1]]),
        "turned.nii.gz": np.array([[0, -1.1, 0, 5], [0, 0, 1.3, 7], [2.0, 0, 0, -9], [0, 0, 0, 1]]),
    }
    (tmp_path / "in").mkdir()
    for name, affine in turns.items():
        values = rng.integers(0, 255, (7, 20, 13), np.int16)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "in" / name)
    document = said("segment", tmp_path / "in", "-o", tmp_path / "out", "--bundle", "vessels", "-q")
    found = {case["input"]: case["case"] for case in document["cases"]}
    assert found == {"ras.nii.gz": "ras", "lpi.nii.gz": "lpi", "turned.nii": "turned", "turned.nii.gz": "turned_2"}
    for name, case in found.items():
        image = nibabel.load(tmp_path / "out" / case / "segmentation.nii.gz")
        assert image.shape == (7, 20, 13)
        np.testing.assert_allclose(image.affine, turns[name], atol=1e-5)


def test_photographs_are_planned_and_inspected(tmp_path: Path) -> None:
    """As scans are."""
    path = save(colours(), tmp_path / "eye.png")
    (plan,) = said("segment", path, "--plan", "--bundle", "vessels", "-q")["plans"]
    assert plan["status"] == "planned"
    (entry,) = said("inspect", path, "--json")
    assert (entry["name"], entry["shape"]) == ("eye.png", [1, 40, 56])
