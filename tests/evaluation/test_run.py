"""Scoring a folder, and what is written of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import SettingsError
from effvit_med.evaluation.pairs import find_references
from effvit_med.evaluation.report import differences, to_markdown, write_evaluation
from effvit_med.evaluation.run import Evaluation, EvaluationOptions, evaluate
from effvit_med.io import write_nifti, write_volume
from effvit_med.volume import Label, LabelTable, Volume
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from tests.evaluation.parts import TABLE, block, grid, labelled, write_labels

SHAPE = (12, 12, 12)
BOX = block(SHAPE, (2, 8), (2, 8), (2, 8))


def _score(folder: Path, options: EvaluationOptions | None = None, found: str = "ours") -> Evaluation:
    references = find_references(folder / "truth").with_images(folder / "scans")
    return evaluate(references, folder / found, options)


@pytest.fixture(name="cases")
def _cases(tmp_path: Path) -> Path:
    """Three cases: right, shifted, and on another grid; a fourth without a segmentation."""
    for name in "abcd":
        write_labels(tmp_path / "truth" / f"{name}.nii.gz", BOX)
        write_labels(tmp_path / "scans" / f"{name}.nii.gz", np.arange(12**3, dtype=np.int16).reshape(SHAPE))
    write_labels(tmp_path / "ours" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "b.nii.gz", np.roll(BOX, 2, 0))
    write_labels(tmp_path / "ours" / "c.nii.gz", BOX, (2, 2, 2))
    return tmp_path


def test_a_case_that_cannot_be_scored_does_not_stop_the_others(cases: Path) -> None:
    """It is named with its reason, as is one without a segmentation."""
    result = _score(cases)
    assert list(result.scores) == ["a", "b"]
    assert list(result.unscored) == ["c"]
    assert "mm apart" in result.unscored["c"]
    assert result.missing == ("d",)


def test_the_worst_case_comes_first(cases: Path) -> None:
    """By mean Dice."""
    assert _score(cases).worst(5) == ["b", "a"]


def test_progress_is_told_before_each_case(cases: Path) -> None:
    """Name, number and count, also for cases without a segmentation."""
    told: list[tuple[str, int, int]] = []
    evaluate(find_references(cases / "truth"), cases / "ours", on_case=lambda *each: told.append(each))
    assert told == [("a", 1, 4), ("b", 2, 4), ("c", 3, 4), ("d", 4, 4)]


def test_confidence_and_verdict_are_read_from_beside_our_own_results(tmp_path: Path) -> None:
    """The record's verdict and the confidence map are held against the truth."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", np.roll(BOX, 3, 0))
    write_labels(tmp_path / "ours" / "a" / "segmentation.confidence.nii.gz", np.full(SHAPE, 255, np.uint8))
    record = {"quality": {"verdict": "review"}, "measurements": [{"mean_confidence": 0.6}, {"mean_confidence": None}]}
    (tmp_path / "ours" / "a" / "record.json").write_text(json.dumps(record), encoding="utf-8")
    result = evaluate(find_references(tmp_path / "truth"), tmp_path / "ours")
    assert result.verdicts is not None
    assert (result.verdicts.bad, result.verdicts.caught) == (1, 1.0)
    assert result.reliability is not None
    assert result.reliability.expected_error > 0.1


@pytest.mark.parametrize(
    "record", ["", "[]", '{"quality": 3}', '{"measurements": [3]}', '{"quality": {"verdict": "x"}}']
)
def test_a_damaged_record_says_nothing(tmp_path: Path, record: str) -> None:
    """The scores are there all the same."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", BOX)
    (tmp_path / "ours" / "a" / "record.json").write_text(record, encoding="utf-8")
    result = evaluate(find_references(tmp_path / "truth"), tmp_path / "ours")
    assert result.verdicts is None
    assert result.mean_dice.mean == 1


def test_models_that_were_scored_differently_are_not_compared(cases: Path) -> None:
    """Another tolerance gives other figures."""
    with pytest.raises(SettingsError, match="tolerance_mm"):
        _score(cases).compare(_score(cases, EvaluationOptions(tolerance_mm=3)))


@pytest.mark.parametrize(
    ("tolerance_mm", "low_dice"), [(0, 0.8), (float("inf"), 0.8), (float("nan"), 0.8), (1, 0), (1, 1)]
)
def test_impossible_options_are_refused(tolerance_mm: float, low_dice: float) -> None:
    """Before anything is read."""
    with pytest.raises(SettingsError):
        EvaluationOptions(tolerance_mm, low_dice=low_dice)


def test_every_score_is_in_the_table(cases: Path, tmp_path: Path) -> None:
    """One row per case and structure, in full precision enough to make the means again."""
    result = _score(cases)
    files = write_evaluation(result, tmp_path / "out")
    rows = list(csv.DictReader(files["scores"].read_text(encoding="utf-8").splitlines()))
    assert [row["case"] for row in rows] == ["a", "b"]
    assert np.mean([float(row["dice"]) for row in rows]) == pytest.approx(result.mean_dice.mean, abs=1e-5)


def test_the_figures_are_json_without_nan(cases: Path, tmp_path: Path) -> None:
    """Every program can read them, with the notice and the comparison."""
    result = _score(cases)
    files = write_evaluation(result, tmp_path / "out", result.compare(result))

    def refuse(word: str) -> None:
        raise AssertionError(word)

    figures = json.loads(files["figures"].read_text(encoding="utf-8"), parse_constant=refuse)
    assert "Not for clinical use" in figures["notice"]
    assert figures["comparison"][0]["difference"] == 0
    assert figures["comparison"][0]["p_wilcoxon"] is None
    assert figures["unscored"]["c"]


def test_the_page_says_what_was_not_scored(cases: Path) -> None:
    """A mean over what went well only must not pass for all."""
    page = to_markdown(_score(cases))
    assert "2 cases scored, 1 without a segmentation, 1 that could not be scored" in page
    assert "no segmentation: d" in page


def test_the_worst_cases_are_drawn(cases: Path, tmp_path: Path) -> None:
    """A picture each, the worst first, shown in the page."""
    files = write_evaluation(_score(cases), tmp_path / "out", worst=1)
    assert files["failure_1"].name == "b.png"
    with Image.open(files["failure_1"]) as picture:
        assert picture.width == 1400
    assert "(failures/b.png)" in files["page"].read_text(encoding="utf-8")


def test_without_scans_there_are_no_pictures(cases: Path, tmp_path: Path) -> None:
    """The rest is written."""
    files = write_evaluation(evaluate(find_references(cases / "truth"), cases / "ours"), tmp_path / "out")
    assert list(files) == ["scores", "page", "figures"]


def test_differences_tell_four_kinds() -> None:
    """Agreed, too much, missed, another structure."""
    truth = np.array([[[0, 1, 1, 1, 0]]], np.uint8)
    ours = np.array([[[0, 1, 2, 0, 2]]], np.uint8)
    shown = differences(labelled(truth), labelled(ours))
    assert shown.labels.ravel().tolist() == [0, 1, 4, 3, 2]


def test_a_confidence_map_in_another_order_of_axes_is_turned(tmp_path: Path) -> None:
    """A cube's shape does not tell: sure where right and unsure where wrong must stay so."""
    ours = np.roll(BOX, 3, 0)
    confidence = np.where(ours == BOX, 255, 0).astype(np.uint8)
    places = [grid(SHAPE), grid(SHAPE).reoriented("SPL")]
    errors = []
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        write_labels(folder / "truth" / "a.nii.gz", BOX)
        (folder / "ours" / "a").mkdir(parents=True)
        for name, array in (("segmentation", ours), ("segmentation.confidence", confidence)):
            turned = grid(SHAPE).reorient_array(array, place.orientation)
            write_volume(Volume(turned, place), folder / "ours" / "a" / f"{name}.nii.gz")
        result = evaluate(find_references(folder / "truth"), folder / "ours")
        assert result.reliability is not None
        errors.append(result.reliability.expected_error)
    assert errors[0] == pytest.approx(errors[1])
    assert errors[0] < 0.3


def test_a_damaged_confidence_map_costs_no_score(tmp_path: Path) -> None:
    """The case is scored once, and the page says that its map was not used."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", BOX)
    (tmp_path / "ours" / "a" / "segmentation.confidence.nii.gz").write_bytes(b"half a file")
    result = evaluate(find_references(tmp_path / "truth"), tmp_path / "ours")
    assert (list(result.scores), result.unscored, list(result.unheeded)) == (["a"], {}, ["a"])
    assert "Confidence maps that were not used" in to_markdown(result)


def test_an_ignored_value_that_no_table_names_is_read(tmp_path: Path) -> None:
    """255 marks undecided voxels in many data sets whose list names only structures."""
    truth = BOX.copy()
    truth[8:10, 2:8, 2:8] = 255
    write_labels(tmp_path / "truth" / "a.nii.gz", truth)
    write_nifti(labelled(block(SHAPE, (2, 10), (2, 8), (2, 8))), _made(tmp_path / "ours") / "a.nii.gz")
    references = find_references(tmp_path / "truth")
    result = evaluate(replace(references, table=TABLE), tmp_path / "ours", EvaluationOptions(ignore=(255,)))
    assert result.mean_dice.mean == 1


def test_a_scan_that_cannot_be_read_costs_its_picture_only(cases: Path, tmp_path: Path) -> None:
    """The other pictures and the page are there."""
    (cases / "scans" / "b.nii.gz").write_bytes(b"no scan")
    files = write_evaluation(_score(cases), tmp_path / "out", worst=2)
    assert [path.name for name, path in files.items() if name.startswith("failure")] == ["a.png"]
    assert files["page"].is_file()


def test_ignored_voxels_are_not_drawn() -> None:
    """Nothing is said about them, so nothing is shown."""
    truth, ours = np.array([[[0, 1, 2, 2]]], np.uint8), np.array([[[0, 1, 1, 0]]], np.uint8)
    assert differences(labelled(truth), labelled(ours), ignore=(2,)).labels.ravel().tolist() == [0, 1, 0, 0]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_what_was_not_annotated_is_not_scored(cases: Path) -> None:
    """Neither as missed nor as a false alarm; and the confidence of such a case is not held against its truth."""
    references = find_references(cases / "truth")
    table = LabelTable((Label(1, "box", ANATOMICAL_STRUCTURE), Label(2, "other", ANATOMICAL_STRUCTURE)))
    references = replace(references, table=table, annotated={"a": ("other",)})
    scores = evaluate(references, cases / "ours").scores
    assert [row.structure for row in scores["a"]] == ["other"]
    assert [row.structure for row in scores["b"]] == ["box", "other"]


def test_what_the_references_ignore_is_ignored(cases: Path) -> None:
    """Without a word in the options: where the truth has the value, what was found does not count."""
    truth = np.where(np.roll(BOX, 2, 0) > BOX, 9, BOX).astype(np.uint8)
    write_labels(cases / "truth" / "b.nii.gz", truth)
    references = find_references(cases / "truth")
    references = replace(references, ignore=9, table=LabelTable((Label(1, "box", ANATOMICAL_STRUCTURE),)))
    result = evaluate(references, cases / "ours")
    found, box = np.roll(BOX, 2, 0) > 0, BOX > 0
    assert result.options.ignore == (9,)
    expected = 2 * (found & box).sum() / (box.sum() + (found & (truth != 9)).sum())
    assert [row.dice for row in result.scores["b"]] == [pytest.approx(expected)]


def test_the_confidence_of_a_partly_annotated_case_is_left_out(tmp_path: Path) -> None:
    """With its reason."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.confidence.nii.gz", np.full(SHAPE, 255, np.uint8))
    references = replace(find_references(tmp_path / "truth"), annotated={"a": ("other",)})
    result = evaluate(references, tmp_path / "ours")
    assert result.reliability is None
    assert "Not everything was annotated" in result.unheeded["a"]
