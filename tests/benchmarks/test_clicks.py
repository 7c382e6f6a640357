"""The click benchmark: its made-up reader, its sets, and how its runs become a table."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.click_sets import CLICK_SETS, ClickSet, Target, list_learnt, list_targets
from benchmarks.clicks import (
    answer_by_carrying,
    count_clicks,
    list_flat,
    name_method,
    spoil_target,
    to_markdown,
    try_target,
)
from effvit_med.engine.prompting import read_prompt_model
from effvit_med.review import NetworkRefiner
from effvit_med.transforms.drawing import draw_prompts
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click, write_bundle
from tests.engine.prompting.test_answering import Threshold


def _target() -> Target:
    y, x = np.mgrid[:60, :60]
    mask = ((((y - 30) / 20) ** 2 + ((x - 28) / 12) ** 2) < 1)[None]
    return Target("made", "one", Volume(mask.astype(np.float32), Geometry(np.eye(4), mask.shape)), mask)


def test_a_method_that_is_right_needs_one_prompt() -> None:
    """Whatever the first prompt is, and nothing is asked after it."""
    target = _target()
    asked: list[Prompt] = []

    def know(_: Target, __: np.ndarray, prompts: list[Prompt]) -> np.ndarray:
        asked.append(prompts[-1])
        return target.mask

    row = try_target(target, know, 4)
    assert row["clicks"] == [1.0] * 4
    assert (row["box"], row["scribble"]) == (1.0, 1.0)
    assert [each.kind for each in asked] == ["point", "point", "box", "scribble"]
    assert 0.4 < row["mended"][0] < 0.85
    assert row["mended"][1:] == [1.0] * 4
    assert len(row["seconds"]) == 1


def test_the_reader_clicks_into_what_is_wrong() -> None:
    """A method that believes the prompts alone gets better with each, by voxels that are truly the object's."""
    target = _target()

    def believe(_: Target, now: np.ndarray, prompts: list[Prompt]) -> np.ndarray:
        adds, removes, _ = draw_prompts(prompts[-1:], now.shape, (0.0, 3.0, 3.0))
        return (now | (adds > 0)) & (removes == 0)

    after = try_target(target, believe, 6)["clicks"]
    assert after == sorted(after)
    assert 0 < after[0] < after[-1] < 1


def test_a_spoiled_mask_is_the_same_each_time() -> None:
    """So that every method corrects the same one; of another object it is another."""
    target = _target()
    first, again = spoil_target(target), spoil_target(target)
    assert first is not None
    assert again is not None
    np.testing.assert_array_equal(first, again)
    other = spoil_target(Target(target.set_name, "two", target.volume, target.mask))
    assert other is not None
    assert (other != first).any()


def test_volumes_are_left_to_what_knows_blocks() -> None:
    """Of a network for slices alone a click would give one slice."""
    options = Namespace(bundle="prompt", label="", sam=None)
    assert list_flat(options) == {"random walker", name_method(read_prompt_model("prompt"))}


def test_clicks_to_a_goal_are_counted() -> None:
    """One more than were made where it is never reached."""
    assert count_clicks([0.2, 0.85, 0.84], 0.85) == 2
    assert count_clicks([0.2, 0.3], 0.85) == 3


def test_a_method_has_a_row_for_each_set_and_one_for_all() -> None:
    """Pictures and volumes apart; the mean is over sets, not over objects."""
    run = {"method": "m", "flat": True, "box": 0.5, "scribble": 0.5, "seconds": [0.1, 0.05]}
    runs = [{**run, "set": "a", "name": str(n), "clicks": [0.2] * 3} for n in range(3)]
    runs += [{**run, "set": "b", "name": "x", "clicks": [0.8] * 3, "mended": [0.7, 0.8, 0.85, 0.9]}]
    runs += [{**run, "set": "c", "name": "y", "clicks": [0.4] * 3, "flat": False}]
    table = to_markdown(runs)
    assert "| m | a | 3 | 0.200 |" in table
    assert "| 4 | 0.500 | 0.500 |" in table
    assert "| 0.700 | 0.900 | 4.0 |" in table
    assert table.index("## Volumes") < table.index("| m | c | 1 | 0.400 |")


def test_objects_of_a_set_are_found(tmp_path: Path) -> None:
    """Single cells of an instance map, the same ones each time; a set that is not there has none."""
    nuclei = next(each for each in CLICK_SETS if each.name == "nuclei")
    folder = tmp_path / "seg2d" / "nuclei_dsb2018"
    labels = np.zeros((40, 50), np.uint16)
    for number in range(5):
        labels[5:15, 10 * number : 10 * number + 8] = number + 1
    for name, array in (("images", labels.astype(np.uint8) * 40), ("labels_instance16", labels)):
        (folder / name).mkdir(parents=True)
        Image.fromarray(array).save(folder / name / "a.png")
    first, again = (list(list_targets(nuclei, tmp_path, 3, 2)) for _ in range(2))
    assert [int(each.mask.sum()) for each in first] == [80, 80]
    assert [each.name for each in first] == [each.name for each in again]
    assert first[0].volume.array.shape == first[0].mask.shape == (1, 40, 50)
    assert list(list_targets(CLICK_SETS[0], tmp_path, 3, 2)) == []


@pytest.mark.parametrize("chosen", CLICK_SETS, ids=lambda each: each.name)
def test_no_two_sets_have_one_name(chosen: object) -> None:
    """Runs are kept by it."""
    assert [each.name for each in CLICK_SETS].count(chosen.name) == 1  # type: ignore[attr-defined]


def test_nothing_of_a_tried_patient_is_learnt_from(tmp_path: Path) -> None:
    """Of eyes 1 to 4, left and right, two images are tried: the other eye of both is left out as well."""
    for number in range(1, 5):
        for side in "LR":
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / f"eye{number}{side}.png")
    chosen = ClickSet("eyes", "eye*.png", "{folder}/{stem}.png", 2, patient=r".*/eye\d+")
    learnt = [path.stem for path in list_learnt(chosen, tmp_path, 2)]
    assert learnt == ["eye2L", "eye2R", "eye3L", "eye3R"]


def test_an_answer_in_a_slice_is_carried_through_the_volume(tmp_path: Path) -> None:
    """One click finds a block in all its slices, whatever was thought of them before."""
    values = np.zeros((12, 40, 40), np.float32)
    values[3:9, 10:30, 12:28] = 100
    target = Target("a set", "a block", Volume(values, Geometry(np.diag([3.0, 1, 1, 1]), values.shape)), values > 0)
    refiner = NetworkRefiner(write_bundle(tmp_path / "made"), "cpu")
    refiner._speakers[2] = Threshold()  # type: ignore[assignment]
    now = np.zeros(values.shape, bool)
    now[4, 11:30, 12:28] = True
    found = answer_by_carrying(refiner, target, now, [click(20, 20, number=6)])
    np.testing.assert_array_equal(found, values > 0)
