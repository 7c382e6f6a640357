"""Facts about `effvit_med.training.placing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from effvit_med.errors import InputError
from effvit_med.training.placing import place_weights


def test_weights_of_a_fold_lie_beside_those_of_the_first(tmp_path: Path) -> None:
    """So that folds do not replace one another; the folder is made."""
    best, named = tmp_path / "best.safetensors", tmp_path / "models" / "liver.safetensors"
    for fold in (0, 3):
        best.write_bytes(bytes([fold]))
        place_weights(best, named, fold)
    found = {path.name: path.read_bytes() for path in named.parent.iterdir()}
    assert found == {"liver.safetensors": b"\0", "liver_fold3.safetensors": b"\3"}


def test_a_run_without_weights_leaves_those_that_are_there(tmp_path: Path) -> None:
    """The error says why there are none."""
    (tmp_path / "liver.safetensors").write_bytes(b"old")
    with pytest.raises(InputError, match="before the first validation"):
        place_weights(tmp_path / "best.safetensors", tmp_path / "liver.safetensors")
    assert (tmp_path / "liver.safetensors").read_bytes() == b"old"
