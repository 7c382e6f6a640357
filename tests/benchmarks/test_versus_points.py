"""Points of the tables, and who is ahead of whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.versus_plots import average_curves
from benchmarks.versus_points import Point, average, find_dominating, find_even, rival_of
from benchmarks.versus_report import to_markdown
from effvit_med.evaluation import StructureScore


def score(structure: str, dice: float) -> StructureScore:
    """A score with a Dice."""
    return StructureScore(structure, 1, 1.0, 1.0, dice, dice, None, None)


def make_point(model: str, family: str, dice: float, cpu_s: float, noise: int = 0) -> Point:
    """A point of twelve patients."""
    rng = np.random.default_rng(noise)
    scores = {f"p{number}": (score("anterior", dice + rng.normal() / 100),) for number in range(12)}
    result = {
        "parameters": 1e6,
        "steps": 10,
        "epochs": 1.0,
        "spent_s": 60.0,
        "train_peak_mib": 900.0,
        "hit_limit": False,
        "curve": [[0.0, 0.0], [60.0, dice]],
    }
    times = {"eager float32": {"cpu_s": cpu_s, "wall_2_s": cpu_s / 2, "peak_mib": 500.0, "agreement": 1.0}}
    return Point("hippocampus", "1 min", model, family, scores, 12, (dice,), (result,), times)


OURS = make_point("fullres_small", "ours", 0.85, 0.2)
BETTER = make_point("UNet 8", "MONAI UNet", 0.88, 0.1, 1)
SLOWER = make_point("UNet 16", "MONAI UNet", 0.88, 0.3, 2)
EVEN = make_point("SegResNet 8", "MONAI SegResNet", 0.85, 0.1, 3)


def test_only_a_faster_and_better_peer_is_ahead() -> None:
    """A slower one that is better is not, nor a faster one that is even."""
    found = find_dominating([OURS, BETTER, SLOWER, EVEN])
    assert [(peer.model, ours.model) for peer, ours, _ in found] == [("UNet 8", "fullres_small")]
    assert found[0][2].low > 0
    assert [peer.model for peer, _, _ in find_even([OURS, BETTER, SLOWER, EVEN])] == ["SegResNet 8"]


def test_rival_is_the_best_that_is_no_slower() -> None:
    """A slow peer is measured by the best of ours within its time, a fast one by our fastest."""
    small, large = make_point("a", "ours", 0.80, 0.15), make_point("b", "ours", 0.90, 0.25)
    ours = [small, OURS, large]
    assert rival_of(make_point("UNet 64", "MONAI UNet", 0.9, 0.22), ours) is OURS
    assert rival_of(make_point("UNet 8", "MONAI UNet", 0.9, 0.01), ours) is small
    assert rival_of(replace(BETTER, times={}), ours) is None


def test_a_runtime_that_labels_otherwise_is_not_the_best() -> None:
    """Speed at the price of labels does not count."""
    wrong = {"cpu_s": 0.01, "wall_2_s": 0.01, "peak_mib": 1.0, "agreement": 0.9}
    point = replace(OURS, times={**OURS.times, "openvino bfloat16": wrong, "openvino float32": {"skipped": "absent"}})
    assert point.runtime == "eager float32"
    assert point.cpu_s == 0.2


def test_cases_of_a_patient_count_once() -> None:
    """Two eyes are averaged, and two seeds."""
    groups = {"01L": "01", "01R": "01", "02L": "02"}
    seeds = [
        {"01L": (score("vessel", 0.6),), "01R": (score("vessel", 0.8),), "02L": (score("vessel", 0.5),)},
        {"01L": (score("vessel", 0.7),), "01R": (score("vessel", 0.9),), "02L": (score("vessel", 0.7),)},
    ]
    found = average(seeds, groups)
    assert {group: rows[0].dice for group, rows in found.items()} == pytest.approx({"01": 0.75, "02": 0.6})


def test_report_names_who_is_ahead_and_what_was_cut_short() -> None:
    """The verdict, the authors' own length and what failed stand in the text."""
    split = {"hippocampus 0": {"train": ["a"], "watched": ["b"], "test": ["c", "d"], "digest": "abc"}}
    text = to_markdown(
        [OURS, EVEN, BETTER], split, {}, {"nnU-Net on hippocampus, 1 min": "no memory"}, {"cardiac": "absent"}
    )
    assert "UNet 8 is faster than fullres_small and better beyond the interval" in text
    assert "SegResNet 8 (than fullres_small)" in text
    assert "SegResNet 8 10 steps, where its authors have 300 epochs" in text
    assert "Failed: nnU-Net on hippocampus, 1 min: no memory" in text
    assert "Left out: cardiac: absent" in text
    assert "1 trained on, 1 watched, 2 tested" in text
    calm = to_markdown([OURS, SLOWER], split, {}, {}, {})
    assert "No peer point is both faster than one of ours and better" in calm


def test_curves_are_averaged_over_the_time_that_all_reached() -> None:
    """A run that ended earlier ends the mean."""
    seconds, dice = average_curves([[[0, 0.0], [10, 0.5], [20, 1.0]], [[0, 0.0], [16, 0.8]]])
    assert seconds.tolist() == [0, 10, 16]
    assert dice.tolist() == pytest.approx([0.0, 0.5, 0.8])
