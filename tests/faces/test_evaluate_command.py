"""``effvit-med evaluate``, called as its users call it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from effvit_med.cli import commands
from effvit_med.errors import InputError
from tests.evaluation.parts import block, write_labels
from tests.photographs import colours, save

BOX = block((12, 12, 12), (2, 8), (2, 8), (2, 8))


def _folders(folder: Path) -> None:
    for name in "ab":
        write_labels(folder / "truth" / f"{name}.nii.gz", BOX)
        write_labels(folder / "ours" / f"{name}.nii.gz", np.roll(BOX, 1, 0))
        write_labels(folder / "theirs" / f"{name}.nii.gz", BOX)


def test_two_models_are_scored_and_compared(tmp_path: Path) -> None:
    """One JSON line, a page on stderr, the files on the disk, exit code 0."""
    _folders(tmp_path)
    arguments = ["evaluate", tmp_path / "ours", tmp_path / "truth", "-o", tmp_path / "out"]
    run = CliRunner().invoke(
        commands, [*map(str, arguments), "--against", str(tmp_path / "theirs")], standalone_mode=False
    )
    assert run.return_value == 0
    said = json.loads(run.stdout)
    assert (said["scored"], said["mean_dice"]) == (2, round(2 * 5 / 12, 4))
    assert "The other model against this one" in run.stderr
    assert "Not for clinical use" in said["notice"]
    assert all(Path(path).is_file() for path in said["files"].values())


def test_a_missing_segmentation_is_exit_code_1(tmp_path: Path) -> None:
    """A script must not take a part for the whole."""
    _folders(tmp_path)
    (tmp_path / "ours" / "b.nii.gz").unlink()
    arguments = ["evaluate", tmp_path / "ours", tmp_path / "truth", "-o", tmp_path / "out", "-q"]
    run = CliRunner().invoke(commands, [*map(str, arguments)], standalone_mode=False)
    assert run.return_value == 1
    assert json.loads(run.stdout)["missing"] == ["b"]


@pytest.mark.parametrize("wrong", ["--against", "--images"])
def test_a_wrong_folder_is_told_before_anything_is_scored(tmp_path: Path, wrong: str) -> None:
    """No output is written, and the error names the folder."""
    _folders(tmp_path)
    arguments = ["evaluate", tmp_path / "ours", tmp_path / "truth", "-o", tmp_path / "out", wrong, tmp_path / "none"]
    with pytest.raises(InputError, match="none is no folder"):
        CliRunner().invoke(commands, [*map(str, arguments)], standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "out").exists()


def test_photographs_are_scored_by_masks_of_another_name(tmp_path: Path) -> None:
    """References 0 and 255 or one bit, with a suffix behind the name of the case; results of ``segment``."""
    truth = np.zeros((40, 56), np.uint8)
    truth[5:20, 5:30] = 255
    for name in ("Image_01L", "Image_01R"):
        save(colours(), tmp_path / "images" / f"{name}.jpg")
        save(np.roll(truth, 1, 0) // 255, tmp_path / "ours" / name / "segmentation.png")
    save(truth, tmp_path / "truth" / "Image_01L_1stHO.png")
    Image.fromarray(truth > 0).save(tmp_path / "truth" / "Image_01R_1stHO.png")
    save(truth, tmp_path / "truth" / "Image_01L_2ndHO.png")
    arguments = ["evaluate", tmp_path / "ours", tmp_path / "truth", "-o", tmp_path / "out"]
    more = ["--reference-suffix", "_1stHO", "--images", str(tmp_path / "images")]
    run = CliRunner().invoke(commands, [*map(str, arguments), *more], standalone_mode=False, catch_exceptions=False)
    assert run.return_value == 0, run.stderr
    said = json.loads(run.stdout)
    assert (said["scored"], said["mean_dice"]) == (2, round(14 / 15, 4))
    assert (tmp_path / "out" / "failures" / "Image_01L.png").is_file()
