"""Cases that are prepared once."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from effvit_med.errors import InputError
from effvit_med.training.cases import PreparedCases


class _Preparation:
    """Turns a file of one letter into tensors, and counts how often."""

    def __init__(self, label: float = 1.0) -> None:
        self.count = 0
        self.label = label

    def __call__(self, files: Mapping[str, Any]) -> dict[str, Any]:
        self.count += 1
        value = float(len(Path(files["image"]).read_text()))
        return {"image": torch.full((1, 4, 4, 4), value), "label": torch.full((1, 4, 4, 4), self.label), "air": 0.5}


def _cases(tmp_path: Path, preparation: _Preparation, settings: str = "") -> PreparedCases:
    source = tmp_path / "image.txt"
    if not source.exists():
        source.write_text("abc")
    return PreparedCases([{"image": str(source)}], preparation, tmp_path / "prepared", settings)


def test_a_case_is_prepared_once(tmp_path: Path) -> None:
    """Asked for twice, and again by another run, it is prepared once and the same."""
    preparation = _Preparation()
    first = _cases(tmp_path, preparation)
    case, again = first[0], _cases(tmp_path, preparation)[0]
    first[0]
    assert preparation.count == 1
    assert torch.equal(case["image"], again["image"])
    assert (float(case["image"].max()), case["air"]) == (3.0, 0.5)


def test_a_case_is_prepared_anew_where_its_file_changed(tmp_path: Path) -> None:
    """A file written anew with other content makes another case."""
    preparation = _Preparation()
    _cases(tmp_path, preparation)[0]
    (tmp_path / "image.txt").write_text("abcd")
    assert float(_cases(tmp_path, preparation)[0]["image"].max()) == 4.0
    os.utime(tmp_path / "image.txt", ns=(1, 1))
    _cases(tmp_path, preparation)[0]
    assert preparation.count == 3


def test_a_case_is_prepared_anew_under_other_settings(tmp_path: Path) -> None:
    """Another spacing, say, makes another case."""
    preparation = _Preparation()
    _cases(tmp_path, preparation, "1 mm")[0]
    _cases(tmp_path, preparation, "2 mm")[0]
    assert preparation.count == 2


@pytest.mark.parametrize(("value", "kind"), [(3.0, torch.uint8), (0.5, torch.float32), (300.0, torch.float32)])
def test_labels_are_bytes_where_nothing_is_lost(tmp_path: Path, value: float, kind: torch.dtype) -> None:
    """Whole numbers below 256 become bytes; others stay as they are."""
    label = _cases(tmp_path, _Preparation(value))[0]["label"]
    assert label.dtype == kind
    assert float(label.max()) == value


def test_worker_processes_open_the_files_themselves(tmp_path: Path) -> None:
    """What is sent to another process holds no case, and gives the same there."""
    cases = _cases(tmp_path, _Preparation())
    case = cases[0]
    sent = pickle.dumps(cases)
    assert len(sent) < 2000
    assert torch.equal(pickle.loads(sent)[0]["image"], case["image"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error says which file cannot be read."""
    cases = PreparedCases([{"image": str(tmp_path / "absent.nii")}], _Preparation(), tmp_path / "prepared")
    with pytest.raises(InputError, match=r"absent\.nii"):
        cases[0]


def test_there_is_nothing_behind_the_last_case(tmp_path: Path) -> None:
    """A loop over the cases ends."""
    assert len(list(_cases(tmp_path, _Preparation()))) == 1
