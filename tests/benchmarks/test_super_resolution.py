"""The table of super-resolution against interpolation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.super_resolution import (
    FULL,
    METHODS,
    TASKS,
    Score,
    compare,
    find_real_scans,
    interpolate,
    main,
    to_markdown,
)
from effvit_med.networks.super_resolution import build_super_resolution


@settings(max_examples=8)
@given(st.tuples(*[st.integers(1, 5)] * 3), st.sampled_from([(3, 1, 1), (1, 2, 2), (2, 3, 1)]))
def test_linear_interpolation_is_where_the_network_starts(size, scale) -> None:
    """The linear interpolation of scipy is what an untrained network gives: both stand on the same grid."""
    low = np.random.default_rng(0).normal(0, 1, size).astype(np.float32)
    network = build_super_resolution(3, 1, scale).eval()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(low)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(interpolate(low, scale, 1), wanted, atol=1e-5)


def test_cubic_interpolation_keeps_the_place() -> None:
    """A parabola stays where it is, away from the border: cubic splines follow it."""
    place = np.arange(40.0) - 19.5
    low = (place**2).reshape(-1, 1, 1).astype(np.float32)
    fine = (np.arange(120.0) - 59.5) / 3
    found = interpolate(low, (3, 1, 1), 3).ravel()
    np.testing.assert_allclose(found[36:84], fine[36:84] ** 2, atol=0.02)


def test_no_phantom_is_trained_on_and_measured_on() -> None:
    """The seeds of the two are apart."""
    assert not set(FULL.training_seeds) & set(FULL.seeds)


def test_equal_volumes_have_no_error() -> None:
    """PSNR is then infinite."""
    assert compare(np.ones((2, 2, 2), np.float32), np.ones((2, 2, 2), np.float32)) == (float("inf"), 0.0)


def test_the_table_averages_phantoms_and_names_patients() -> None:
    """Phantoms are one row of means; each real scan has its own; where the network is worse the table says so."""
    scores = [
        Score("t", scan, real, method, 30.0 + k, error)
        for scan, real, errors in (("p1", False, (4, 3, 1)), ("p2", False, (6, 5, 2)), ("lung", True, (4, 2, 3)))
        for k, (method, error) in enumerate(zip(METHODS, errors, strict=True))
    ]
    text = to_markdown(scores, {"t": "details"})
    assert "| t | phantoms (2) | 30.00 | 31.00 | 32.00 | 5.00 | 4.00 | 1.50 | 2 of 2 |" in text
    assert "| t | real CT: lung | 30.00 | 31.00 | 32.00 | 4.00 | 2.00 | 3.00 | 0 of 1 |" in text
    assert "- t: details" in text


def test_the_quick_path_measures_every_task_and_method(tmp_path: Path) -> None:
    """A few steps on tiny phantoms go from training to both files."""
    main(["--quick"], tmp_path)
    figures = json.loads((tmp_path / "super_resolution.json").read_text(encoding="utf-8"))
    found = {(score["task"], score["method"]) for score in figures["scores"]}
    assert found == {(task.name, method) for task in TASKS for method in METHODS}
    assert all(np.isfinite(score["psnr_db"]) for score in figures["scores"])
    assert "phantoms (1)" in (tmp_path / "super_resolution.md").read_text(encoding="utf-8")


def test_real_scans_come_slices_first(shared_data: Path) -> None:
    """The shared CTs that are there are read, turned so that axis 0 goes up."""
    scans = dict(find_real_scans(shared_data))
    if not scans:
        pytest.skip("none of the real CTs that this benchmark knows is in the folder")
    assert all(scan.geometry.orientation == "SPL" for scan in scans.values())


def test_a_folder_without_scans_gives_none(tmp_path: Path) -> None:
    """Nothing is made up where nothing is."""
    assert list(find_real_scans(tmp_path)) == []
