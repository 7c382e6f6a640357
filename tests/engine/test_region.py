"""Facts about `effvit_med.engine.region`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.engine import Segmenter, Settings, open_model
from effvit_med.engine.region import Box, BoxRows, find_body, find_organs
from effvit_med.engine.scoring import HeldRows, Scoring
from effvit_med.engine.tiling import Tiling
from effvit_med.training.phantom import make_case
from effvit_med.transforms import Intensity, Preprocess, network_grid
from effvit_med.volume import Geometry, Volume
from tests.geometries import geometries

AFFINE = np.array([[0, 0, 2.0, -80], [0, 2.0, 0, -80], [3.0, 0, 0, 10], [0, 0, 0, 1]])


def _scan(start: tuple[int, int, int], stop: tuple[int, int, int], inside: float = 40, air: float = -1000) -> Volume:
    array = np.full((40, 80, 80), air, np.int16)
    array[tuple(map(slice, start, stop))] = inside
    return Volume(array, Geometry(AFFINE, array.shape), "CT")


def _holds(box: Box, grid: Geometry, scan: Volume, index: np.ndarray) -> bool:
    found = grid.world_to_index(scan.geometry.index_to_world(index))
    return bool((found >= np.array(box.start) - 0.5).all() and (found <= np.array(box.stop) - 0.5).all())


@given(
    st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 60)),
    st.tuples(st.integers(4, 10), st.integers(8, 20), st.integers(8, 20)),
)
def test_the_box_holds_the_body(start, size) -> None:
    """Every voxel of the body lies inside the box, wherever it is."""
    stop = tuple(a + n for a, n in zip(start, size, strict=True))
    scan = _scan(start, stop)
    grid = network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))
    box = find_body(scan, grid)
    assert box is not None
    for corner in np.ndindex(2, 2, 2):
        assert _holds(box, grid, scan, np.where(corner, np.array(stop) - 1, start))


def test_the_box_leaves_out_air() -> None:
    """A small body in a large field of view gives a small box."""
    scan = _scan((15, 30, 30), (25, 50, 50))
    grid = network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))
    box = find_body(scan, grid)
    assert box is not None
    assert box.part_of(grid) < 0.25


def test_in_an_mr_the_body_is_what_is_bright() -> None:
    """Without Hounsfield units the threshold comes from the values."""
    scan = replace(_scan((15, 30, 30), (25, 50, 50), inside=300, air=10), modality="MR")
    grid = network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))
    box = find_body(scan, grid)
    assert box is not None
    assert box.part_of(grid) < 0.25
    assert _holds(box, grid, scan, np.array([20, 40, 40]))


def test_air_alone_has_no_body() -> None:
    """A scan without anything in it has no box."""
    scan = _scan((0, 0, 0), (0, 0, 0))
    assert find_body(scan, network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))) is None


@pytest.mark.parametrize("bright", [True, False])
def test_organs_are_where_the_network_finds_something(bright: bool) -> None:
    """The box is around what a network of one threshold finds at half the resolution; None where it finds nothing."""
    scan = _scan((15, 30, 30), (25, 50, 50), inside=200 if bright else -1000)
    preprocess = Preprocess((2.5, 2.5, 2.5), intensity=Intensity("window", -100, 300))
    grid = network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))
    scoring = Scoring(preprocess, Tiling((16, 16, 16)), (1, 1, 1))
    box = find_organs(scan, grid, lambda tiles: torch.cat([torch.zeros_like(tiles), tiles], dim=1), scoring)
    assert (box is not None) == bright
    if box is not None:
        assert box.part_of(grid) < 0.6
        assert _holds(box, grid, scan, np.array([15, 30, 30]))
        assert _holds(box, grid, scan, np.array([24, 49, 49]))


@given(geometries(), st.data())
def test_the_geometry_of_a_box_is_that_of_its_voxels(grid: Geometry, data) -> None:
    """Voxel i of the box stands where voxel start + i of the grid does, also between unequal slices."""
    start = tuple(data.draw(st.integers(0, size - 1)) for size in grid.shape)
    stop = tuple(data.draw(st.integers(a + 1, size)) for a, size in zip(start, grid.shape, strict=True))
    box = Box(start, stop)
    index = np.array(np.unravel_index(np.arange(np.prod(box.shape)), box.shape)).T
    assert np.allclose(box.crop(grid).index_to_world(index), grid.index_to_world(index + start), atol=1e-6)


def test_rows_of_a_box_are_those_of_the_whole() -> None:
    """Rows are counted from the start of the box and cut to its sides."""
    values = torch.randn(1, 8, 9, 10)
    part = BoxRows(HeldRows(values), Box((2, 3, 4), (7, 8, 9)))
    assert part.shape == (5, 5, 5)
    assert torch.equal(part.read(1, 3), values[:, 3:5, 3:8, 4:9])


def test_both_legs_are_body() -> None:
    """Parts that do not touch are all held, unless they are tiny."""
    array = np.full((40, 80, 80), -1000, np.int16)
    array[5:35, 30:50, 8:28] = 40
    array[5:35, 30:50, 50:72] = 40
    array[0:2, 0:2, 0:2] = 40  # a cable
    scan = Volume(array, Geometry(AFFINE, array.shape), "CT")
    grid = network_grid(scan.geometry, "SPL", (2.5, 2.5, 2.5))
    box = find_body(scan, grid)
    assert box is not None
    for index in ([5, 30, 8], [34, 49, 71]):
        assert _holds(box, grid, scan, np.array(index))
    assert box.start[1] > 0


def test_a_fading_mr_keeps_its_ends() -> None:
    """Towards the end of a coil the signal falls; what is still well above air stays in the box."""
    fall = 1000 * np.exp(-((np.arange(60) - 30) ** 2) / (2 * 15.0**2)) + 20
    array = np.full((60, 60, 60), 8.0, np.float32)
    array[:, 15:45, 15:45] = np.maximum(fall, 126)[:, None, None]
    scan = Volume(array, Geometry(np.diag([4.0, 4, 4, 1])[[2, 1, 0, 3]], array.shape), "MR")
    grid = network_grid(scan.geometry, "SPL", (4.0, 4.0, 4.0))
    box = find_body(scan, grid)
    assert box is not None
    assert box.shape[0] == 60


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=3, max_size=3),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(0, 3)] * 3),
)
def test_a_grown_box_holds_a_window_of_the_grid(parts, least, margin) -> None:
    """It holds the box and its margin, is at least as large as asked or the whole axis, and stays in the grid."""
    shape = tuple(start + size + 5 for start, size in parts)
    box = Box(tuple(start for start, _ in parts), tuple(start + size for start, size in parts))
    grown = box.grown(least, margin, shape)
    for axis in range(3):
        assert grown.start[axis] == 0 or grown.start[axis] <= box.start[axis] - margin[axis]
        assert grown.stop[axis] == shape[axis] or grown.stop[axis] >= box.stop[axis] + margin[axis]
        assert 0 <= grown.start[axis] < grown.stop[axis] <= shape[axis]
        assert grown.shape[axis] >= min(least[axis], shape[axis])


@pytest.mark.parametrize("region", ["body", "organs"])
def test_inside_the_region_labels_hardly_change(region: str) -> None:
    """The shipped model finds in the box what it finds in the whole scan, and the record says what was left out."""
    case = make_case(11, spacing_mm=(5.0, 4.0, 4.0), shape=(48, 90, 90))
    scan = Volume(case.hu, Geometry(case.affine_lps, case.hu.shape), "CT")
    whole = Segmenter(open_model(), Settings(device="cpu")).segment(scan)
    part = Segmenter(open_model(), Settings(device="cpu", region=region)).segment(scan)
    organs = whole.labels > 0
    assert np.mean(part.labels[organs] == whole.labels[organs]) > 0.97
    assert "REGION_ONLY" in {finding.code for finding in part.provenance.findings}
