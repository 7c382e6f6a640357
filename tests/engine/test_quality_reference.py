"""Facts about `effvit_med.engine.quality_reference`: what a bundle knows of its training data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.accuracy import TRAINED_ON
from effvit_med.engine import read_model
from effvit_med.engine.contract import CONTRACT_FILE, describe_contract_model
from effvit_med.engine.quality_reference import QUALITY_FILE, read_reference
from effvit_med.errors import SettingsError
from effvit_med.training.quality_reference import TRAINING_SEEDS, UNSEEN_SEEDS
from tests.conftest import ROOT


def test_the_shipped_bundle_keeps_one() -> None:
    """It has every structure of the label table, intensities, and the confidence of the weights that ship."""
    model = read_model()
    known = model.quality
    assert known is not None
    assert set(known.structures) == {label.name for label in model.labels}
    assert known.weights_sha256 == model.weights_sha256
    assert known.intensity is not None
    assert all(row.confidence is not None for row in known.structures.values())


def test_it_was_made_from_training_cases_and_no_evaluated_one() -> None:
    """Shapes come from the seeds of training; confidence from others, none of which a benchmark evaluates."""
    known = read_model().quality
    assert known is not None
    assert set(TRAINING_SEEDS) <= set(TRAINED_ON)
    assert not set(UNSEEN_SEEDS) & {*TRAINED_ON, *range(500)}
    assert (known.training_cases, known.confidence_cases) == (len(TRAINING_SEEDS), len(UNSEEN_SEEDS))


def test_a_bundle_may_have_none(tiny_bundle: Path) -> None:
    """A bundle without the file is read as ever."""
    assert read_model(tiny_bundle).quality is None


@pytest.mark.parametrize(
    ("text", "match"), [("{", "quality.json"), ('{"format": "x"}', "format"), ('{"unknown": 1}', "unknown")]
)
def test_a_broken_one_is_named(text: str, match: str, tmp_path: Path) -> None:
    """A file that is not what it should be is an error that names it, not a bundle without one."""
    (tmp_path / "configs").mkdir()
    (tmp_path / QUALITY_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=match):
        read_reference(tmp_path)


def test_it_travels_with_an_exported_model() -> None:
    """The contract of an exported model holds the same reference."""
    model = read_model()
    assert describe_contract_model(model).quality == model.quality


def test_it_is_shipped_with_the_package(tmp_path: Path) -> None:
    """The file lies in the folder that a wheel takes along, and reads from anywhere."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    assert read_reference(tmp_path) == read_model().quality
    assert json.loads((ROOT / QUALITY_FILE).read_text(encoding="utf-8"))["made_by"].startswith("python -m effvit_med")
    assert CONTRACT_FILE not in {path.name for path in (ROOT / "configs").iterdir()}
