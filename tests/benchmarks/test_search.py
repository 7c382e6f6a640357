"""The search over layouts: its candidates, and how its runs become a table."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from benchmarks import versus_sets
from benchmarks.search import merge_seeds, time_anew, to_markdown
from benchmarks.search_data import SearchSet
from benchmarks.search_space import Peer, list_candidates
from benchmarks.versus_models import find_contender


def _run(name: str, dice: list[float], seed: int, time_ms: float) -> dict[str, Any]:
    return {
        "set": "made",
        "candidate": {"name": name, "layout": {"widths": [8, 16]}},
        "steps": 600,
        "seed": seed,
        "parameters": 1000,
        "dice": dice,
        "training_s": 60.0,
        "latency_ms": {"eager": time_ms},
    }


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_candidate_answers_at_full_size(spatial_dims: int) -> None:
    """Each can be built, under a name of its own, and gives logits of the image's size, odd or not."""
    candidates = list_candidates(spatial_dims)
    assert len({candidate.name for candidate in candidates}) == len(candidates)
    image = torch.zeros(1, 1, *(33, 40, 35)[:spatial_dims])
    with torch.inference_mode():
        for candidate in candidates:
            network = candidate.build(spatial_dims, 3).eval()
            assert network(image).shape == (1, 3, *image.shape[2:]), candidate.name


def test_a_peer_takes_images_of_any_size() -> None:
    """The yardstick is padded to what it needs within its own call, as in the accuracy benchmark."""
    peer = Peer(find_contender("UNet 8"), versus_sets.SETS["hippocampus"])
    assert peer.build(3, 3).eval()(torch.zeros(1, 1, 33, 40, 35)).shape == (1, 3, 33, 40, 35)


def test_seeds_of_a_candidate_become_one_row() -> None:
    """Dice is the mean over seeds case by case, time the least; the fastest candidate comes first."""
    runs = [_run("slow", [0.8, 0.9], 0, 30.0), _run("fast", [0.5, 0.5], 0, 10.0), _run("slow", [0.6, 1.0], 1, 20.0)]
    fast, slow = merge_seeds(runs)
    assert (fast["candidate"]["name"], fast["seeds"]) == ("fast", 1)
    assert slow["dice"] == pytest.approx([0.7, 0.95])
    assert (slow["latency_ms"], slow["seeds"]) == ({"eager": 20.0}, 2)


def test_the_front_is_bold() -> None:
    """A candidate that another beats in time and Dice is in plain letters."""
    runs = [_run("beaten", [0.6, 0.6], 0, 30.0), _run("best", [0.7, 0.7], 0, 20.0), _run("quick", [0.5, 0.6], 0, 10.0)]
    table = to_markdown(runs)
    assert "**best**" in table
    assert "**quick**" in table
    assert "| beaten |" in table


def test_times_are_taken_anew_of_layouts_that_are_still_candidates() -> None:
    """Seeds share one measurement, other sets keep theirs, a layout that nobody can build any more is left out."""
    candidate = list_candidates(2)[0]
    kept = {**_run("start", [0.5], 0, 1e9), "candidate": json.loads(json.dumps(candidate.to_dict()))}
    other = {**_run("start", [0.5], 0, 7.0), "set": "elsewhere"}
    case = (torch.zeros(1, 32, 32), torch.zeros(32, 32, dtype=torch.long))
    data = SearchSet("made", 2, 2, (32, 32), (case,), (case,), ())
    first, second, third = time_anew([kept, {**kept, "seed": 1}, _run("gone", [0.5], 0, 7.0), other], [candidate], data)
    assert first["latency_ms"] == second["latency_ms"]
    assert 0 < first["latency_ms"]["eager"] < 1e9
    assert third == other
