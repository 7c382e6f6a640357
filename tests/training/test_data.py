"""Data lists, and what a run says on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effvit_med.errors import InputError, SettingsError
from effvit_med.training.data import is_on, read_datalist, share_batch


def _write(folder: Path, folds: list[int | None]) -> Path:
    rows = [
        {"image": f"i{number}.nii", "label": f"l{number}.nii", **({} if fold is None else {"fold": fold})}
        for number, fold in enumerate(folds)
    ]
    (folder / "datalist.json").write_text(json.dumps({"training": rows}))
    return folder / "datalist.json"


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_a_fold_validates_and_the_others_train(tmp_path: Path, fold: int) -> None:
    """Every case is in one of the two parts, those of the fold in validation."""
    path = _write(tmp_path, [0, 1, 2, 0, 1, 2])
    validation = read_datalist(path, "validation", fold=fold)
    assert [Path(case["image"]).name for case in validation] == [f"i{fold}.nii", f"i{fold + 3}.nii"]
    training = read_datalist(path, "training", fold=fold)
    assert {case["image"] for case in training}.isdisjoint(case["image"] for case in validation)
    assert len(training) + len(validation) == 6


def test_a_fold_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Nothing would validate."""
    with pytest.raises(InputError, match="no validation cases"):
        read_datalist(_write(tmp_path, [0, 1]), "validation", fold=5)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    """Three patches for two processes; the error says what would do."""
    with pytest.raises(SettingsError, match="--batch_size 4"):
        share_batch(3, 2)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_is_true_or_false(value: object) -> None:
    """Anything else is refused, and never taken for true."""
    with pytest.raises(SettingsError, match="true or false"):
        is_on(value)
