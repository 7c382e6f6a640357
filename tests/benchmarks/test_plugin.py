"""The benchmark of the plugin: what it spoils for the clicks, and what it says of what was noted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from benchmarks.plugin_clock import Clock, Notes
from benchmarks.plugin_report import summarise, to_markdown
from benchmarks.plugin_spoils import draw_spoils


def test_every_spoiled_voxel_is_wrong_in_the_way_that_is_told() -> None:
    """What is missing belongs to the structure, what is too much does not; the click goes to one of these voxels."""
    labels = np.zeros((30, 60, 60), np.uint8)
    labels[5:25, 10:30, 10:30], labels[5:25, 35:55, 35:55] = 1, 2
    spoils = list(draw_spoils(labels, (1.5, 1.0, 1.0), 8))
    assert {(spoil.value, spoil.missing) for spoil in spoils} == {(1, True), (1, False), (2, True), (2, False)}
    for spoil in spoils:
        assert ((labels.reshape(-1)[spoil.flat] == spoil.value) == spoil.missing).all()
        assert np.ravel_multi_index(spoil.index, labels.shape) in spoil.flat


def test_between_phases_nothing_is_noted() -> None:
    """A phase that comes again goes on with its own notes."""
    clock = Clock()
    for name in ("a", "", "b", "a", ""):
        clock.switch(name)
    assert list(clock.notes) == ["a", "b"]
    assert clock.notes["a"].seconds > 0


@pytest.fixture(name="noted")
def _noted() -> dict[str, Any]:
    """A sitting in which a call of 80 ms spent 60 of them in napari."""
    phase = asdict(Notes(2.0, gaps_ms=[5.0, 90.0], ours_ms=[80.0], ours_cpu_ms=[70.0], napari_ms=[60.0], peak_mib=900))
    slow = {"what": "call", "phase": "clicks at rest", "name": "ReviewDesk.prompt", "ms": 80.0, "cpu_ms": 70.0}
    slow |= {"within": {"napari Layer.refresh": 60.0}, "stack": "somewhere"}
    click = {
        "at_rest": True,
        "changed": 9,
        "overlay_ms": 140.0,
        "computed_ms": 90.0,
        "call_ms": 3.0,
        "painted_ms": None,
    }
    return {
        "phases": {"clicks at rest": phase},
        "seconds": {"save": 1.5},
        "memory_mib": {"saved": 800.0},
        "clicks": [click],
        "slow": [slow],
    }


def test_the_report_tells_ours_from_napari(noted: dict[str, Any]) -> None:
    """Of 80 ms, 20 are ours without napari's own work; only the first are over the limit."""
    started = {"napari_s": 2.0, "import_s": 0.2, "panel_s": 0.3, "torch": False}
    text = to_markdown((3, 4, 5), [started], noted)
    assert "| clicks at rest | 1 | 80.0 | 80.0 | 80.0 | 80.0 | 1 | 20.0 | 20.0 | 0 |" in text
    assert "| start of the plugin, s | 1.0 | 0.50 |" in text
    assert "TORCH" in to_markdown((3, 4, 5), [started | {"torch": True}], noted)


def test_the_file_of_figures_has_quantiles_and_no_stacks(noted: dict[str, Any]) -> None:
    """Thousands of ticks are not kept, nor the lines of code that were running."""
    kept = summarise(noted)
    assert kept["phases"]["clicks at rest"]["gaps_ms"] == {
        "p50": 47.5,
        "p95": 85.75,
        "p99": 89.15,
        "longest": 90.0,
        "times": 2,
    }
    assert "stack" not in kept["slow"][0]
