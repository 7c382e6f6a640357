"""Facts about `effvit_med.training.quality_reference`: making what a bundle knows of its training data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.engine import Segmenter, Settings, read_model
from effvit_med.engine.quality_reference import QUALITY_FILE, QualityReference
from effvit_med.errors import InputError
from effvit_med.io import write_volume
from effvit_med.training.quality_reference import draw_phantoms, main, make_reference
from effvit_med.volume import Volume
from tests.engine.quality_scene import KIDNEY_LEFT, LIVER, VOXEL_ML, organs, scan


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(read_model(tiny_bundle), Settings(device="cpu"))


def _cases(count: int) -> list[tuple[Volume, np.ndarray]]:
    return [(scan(seed=seed), organs()) for seed in range(count)]


def test_what_training_cases_show_is_kept(segmenter: Segmenter) -> None:
    """Volumes, borders, parts and sides are those of the exact labels; what is never there has no volume."""
    labels = organs()
    labels[labels == KIDNEY_LEFT] = 0
    cases = [*_cases(3), (scan(), labels)]
    known = make_reference(cases, [scan(seed=9)], segmenter, "boxes", "tests")
    liver = known.structures["liver"]
    assert liver.volume_ml is not None
    assert liver.volume_ml.median == pytest.approx(np.count_nonzero(organs() == LIVER) * VOXEL_ML)
    assert (liver.present, liver.touching, liver.fragments, liver.hole_share) == (4, 0, 1, 0)
    assert (known.structures["spine"].present, known.structures["spine"].touching) == (4, 4)
    assert known.structures["spine"].volume_ml is None
    assert known.structures["kidney_left"].present == 3
    assert known.structures["spleen"].volume_ml is None
    assert ("kidney_left", "liver") in {(side.left, side.right) for side in known.sides}
    assert ("liver", "kidney_left") not in {(side.left, side.right) for side in known.sides}


def test_scores_of_the_training_cases_are_about_one(segmenter: Segmenter) -> None:
    """The unit of the score is the spread of the training cases themselves."""
    spread = np.linspace(-30, 30, 12).astype(np.int16)
    cases = [
        (replace(case, array=case.array + step), labels)
        for (case, labels), step in zip(_cases(12), spread, strict=True)
    ]
    known = make_reference(cases, [scan(seed=20), scan(seed=21)], segmenter, "boxes", "tests").intensity
    assert known is not None
    assert 0.5 < known.training_scores.median < 1.5
    assert (known.training_scores.cases, known.unseen_scores.cases) == (12, 2)


def test_without_unseen_cases_there_is_no_score(segmenter: Segmenter) -> None:
    """What a case that was not trained on scores is not guessed; shapes are kept all the same."""
    known = make_reference(_cases(3), [], segmenter, "boxes", "tests")
    assert known.intensity is None
    assert known.structures["liver"].confidence is None
    assert known.confidence_cases == 0


def test_no_case_is_an_error(segmenter: Segmenter) -> None:
    """A reference of nothing is not made."""
    with pytest.raises(InputError, match="no training case"):
        make_reference([], [scan()], segmenter, "boxes", "tests")


def test_the_command_makes_the_file_of_any_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    """From a data list comes a file that the bundle reads, named by its data list and not by folders."""
    rows = []
    for seed in range(3):
        names = {"image": f"image_{seed}.nii.gz", "label": f"label_{seed}.nii.gz"}
        write_volume(scan(seed=seed), tmp_path / names["image"])
        write_volume(replace(scan(), array=organs(), modality=""), tmp_path / names["label"])
        rows.append(names)
    datalist = tmp_path / "dataset.json"
    datalist.write_text(json.dumps({"training": rows[:2], "validation": rows[2:]}), encoding="utf-8")
    output = tmp_path / "quality.json"
    arguments = ["--bundle", str(tiny_bundle), "--datalist", str(datalist), "--output", str(output)]
    assert main(arguments) == 0
    known = QualityReference.model_validate_json(output.read_text(encoding="utf-8"))
    assert (known.training_cases, known.confidence_cases) == (2, 1)
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    assert not (tiny_bundle / QUALITY_FILE).exists()


def test_a_wrong_data_list_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    """A data list that is not there ends with an exit code and writes nothing."""
    output = tmp_path / "quality.json"
    missing = str(tmp_path / "missing.json")
    assert main(["--bundle", str(tiny_bundle), "--datalist", missing, "--output", str(output)]) == 1
    assert not output.exists()


def test_phantoms_are_those_of_training() -> None:
    """A drawn phantom has the grid and the labels that training has for its seed."""
    ((volume, labels),) = draw_phantoms([3])
    assert volume.modality == "CT"
    assert volume.geometry.orientation == "SPL"
    assert set(np.unique(labels)) <= set(range(7))
