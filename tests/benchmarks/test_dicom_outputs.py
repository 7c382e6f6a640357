"""The benchmark of large results: its phantom, one measurement, and its verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.dicom_outputs import KINDS, SMALL_SHAPE, draw_labels, measure_kind, to_markdown, write_scan


def test_every_structure_of_the_phantom_is_there() -> None:
    """No ellipsoid hides another."""
    assert np.unique(draw_labels((24, 64, 96), 104)).tolist() == list(range(105))


@pytest.mark.parametrize("kind", ["labelmap", "rtstruct", "sr"])
def test_a_kind_is_written_and_measured(tmp_path: Path, kind: str) -> None:
    """A small result of a kind gives its figures."""
    write_scan(tmp_path, SMALL_SHAPE)
    found = measure_kind(kind, str(tmp_path), small=True)
    assert (found["kind"], found["structures"]) == (kind, 12)
    assert found["file_mb"] > 0


def test_a_missed_target_is_named() -> None:
    """The verdict names what is too slow or too large."""
    result = {"structures": 104, "wall_s": 1.0, "cpu_s": 1.0, "file_mb": 1.0, "extra_mib": 10.0}
    good = [{**result, "kind": kind} for kind in KINDS]
    assert "All targets are met" in to_markdown(good, (1, 2, 3), 3)
    slow, large = {**result, "kind": "labelmap", "cpu_s": 3.5}, {**result, "kind": "nrrd", "extra_mib": 600.0}
    assert "Missed: labelmap, nrrd." in to_markdown([slow, large], (1, 2, 3), 3)
