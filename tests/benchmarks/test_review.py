"""The benchmark of a review goes through all of it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.review import make_automatic, measure_review, to_markdown


def test_a_small_review_is_measured(tmp_path: Path) -> None:
    """Each act has its times, and the labels come back as they were."""
    shape = (12, 40, 48)
    times, figures = measure_review(tmp_path, make_automatic(shape), 12)
    assert figures["same_labels"] == 1.0
    assert {name: len(seconds) for name, seconds in times.items()} == {
        "start": 1,
        "click": 12,
        "adopt a stroke": 12,
        "volumes": 12,
        "undo": 20,
        "redo": 20,
        "accept": 20,
        "open an accepted one": 20,
        "look for a stroke everywhere": 20,
        "reset a structure": 12,
        "open again": 1,
    }
    assert "the same, voxel for voxel" in to_markdown(times, figures, shape)
