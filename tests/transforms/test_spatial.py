"""Facts about `effvit_med.transforms.spatial`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.transforms import label_grid, map_axes, network_grid, resample, strided_grid
from effvit_med.volume import Geometry
from tests.geometries import ORIENTATIONS, geometries

spacings = st.tuples(*[st.floats(0.5, 6.0)] * 3)
spacings_or_none = st.tuples(*[st.none() | st.floats(0.5, 6.0)] * 3)


def _ramp(geometry: Geometry, slope: tuple[float, float, float]) -> torch.Tensor:
    """A value at each voxel that is linear in world, so that linear interpolation of it is exact."""
    places = np.moveaxis(np.indices(geometry.shape), 0, -1)
    return torch.from_numpy(geometry.index_to_world(places) @ np.array(slope) / 100).float()


def _inside(geometry: Geometry, target: Geometry, margin: float) -> np.ndarray:
    """The voxels of the target that lie that many source voxels inside the source's end centres."""
    places = target.index_to_world(np.moveaxis(np.indices(target.shape), 0, -1))
    index = geometry.world_to_index(places)
    return ((index >= margin) & (index <= np.array(geometry.shape) - 1 - margin)).all(axis=-1)


@given(geometries(irregular=False, tilt_degrees=0), st.sampled_from(ORIENTATIONS), spacings)
def test_a_ramp_stays_a_ramp_on_the_network_grid(geometry: Geometry, orientation: str, spacing) -> None:
    """A linear function of world, resampled, has the right value at every point away from the ends."""
    slope = (1.0, -2.0, 0.5)
    grid = network_grid(geometry, orientation, spacing)
    result = resample(_ramp(geometry, slope), geometry, grid)
    reach = max(1.0, *(np.array(grid.spacing_mm) / geometry.reoriented(orientation).spacing_mm))
    inside = _inside(geometry, grid, reach)
    assert np.allclose(result.numpy()[inside], _ramp(grid, slope).numpy()[inside], atol=2e-3)


@given(geometries(tilt_degrees=20), spacings)
def test_a_tilted_irregular_ramp_is_right_where_nothing_is_thinned(geometry: Geometry, spacing) -> None:
    """Tilt and unequal slices are undone to the true world point; fine targets need no averaging."""
    fine = min(*geometry.spacing_mm, *spacing)
    if geometry.slice_offsets is not None and len(geometry.slice_offsets) > 1:
        fine *= min(1.0, float(np.diff(geometry.slice_offsets).min()))
    fine = max(fine, max(np.ptp(geometry.corners_world(), axis=0)) / 24)
    if fine > min(geometry.spacing_mm):
        return
    grid = network_grid(geometry, None, (fine, fine, fine))
    result = resample(_ramp(geometry, (1.0, 1.0, 1.0)), geometry, grid)
    inside = _inside(geometry, grid, 0.0)
    assert np.allclose(result.numpy()[inside], _ramp(grid, (1.0, 1.0, 1.0)).numpy()[inside], atol=5e-3)


@given(geometries(), st.sampled_from([None, *ORIENTATIONS]), spacings_or_none)
def test_the_network_grid_covers_the_scan(geometry: Geometry, orientation: str | None, spacing) -> None:
    """Every corner of the scan lies inside the outer edges of the network's grid."""
    grid = network_grid(geometry, orientation, spacing)
    corners = grid.world_to_index(geometry.corners_world())
    assert (corners > -0.5 - 1e-3).all()
    assert (corners < np.array(grid.shape) - 0.5 + 1e-3).all()


@given(geometries(), st.sampled_from(ORIENTATIONS), spacings)
def test_the_network_grid_is_regular_and_right_angled(geometry: Geometry, orientation: str, spacing) -> None:
    """Whatever the scan, the network sees a regular grid without tilt, of the spacing asked for."""
    grid = network_grid(geometry, orientation, spacing)
    assert grid.is_regular
    assert grid.shear_degrees < 0.21
    assert grid.spacing_mm == pytest.approx(spacing)


@given(st.floats(-25, 25), st.sampled_from(ORIENTATIONS))
def test_tilted_labels_are_in_the_right_place(tilt_degrees: float, orientation: str) -> None:
    """A half-space scored on the network's grid comes back as the same half-space on a tilted scan."""
    affine = np.array([[0, 0, 2.0, -40], [0, 2.0, 0, -40], [3.0, 0, 0, 10], [0, 0, 0, 1]])
    affine[1, 0] = 3 * np.tan(np.radians(tilt_degrees))
    scan = Geometry(affine, (12, 40, 40))
    grid = network_grid(scan, orientation, (2.0, 2.0, 2.0))
    normal = (0.3, 1.0, -0.4)
    score = _ramp(grid, normal)
    labels = label_grid(torch.stack([torch.zeros_like(score), score]), grid, scan).bool()
    truth = _ramp(scan, normal)
    clear = truth.abs() > 0.02  # 2 mm from the border
    assert (labels[clear] == (truth > 0)[clear]).all()


def test_thinning_averages_noise() -> None:
    """Four times coarser keeps the mean and at most a third of the noise's deviation: no voxel is skipped."""
    noise = torch.randn(8, 64, 64, generator=torch.Generator().manual_seed(0)) * 20 + 40
    source = Geometry(np.diag([1.0, 1, 1, 1]), (8, 64, 64))
    thin = resample(noise, source, network_grid(source, None, (1.0, 4.0, 4.0)))
    assert float(thin.mean()) == pytest.approx(40, abs=0.5)
    assert float(thin.std()) < 20 / 3


@given(geometries(), st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_a_block_of_slices_lies_at_their_mean(grid: Geometry, stride: tuple[int, int, int]) -> None:
    """Also where slices are unequally far apart, a whole block stands at the mean of its slices."""
    blocks = strided_grid(grid, stride)
    rows = np.array([[row, (stride[1] - 1) / 2, (stride[2] - 1) / 2] for row in range(stride[0])])
    if grid.shape[0] >= stride[0]:
        middle = grid.index_to_world(rows).mean(axis=0)
        assert np.allclose(blocks.index_to_world([0, 0, 0]), middle, atol=1e-6)


@given(geometries(irregular=False), st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
def test_a_strided_voxel_lies_in_the_middle_of_its_block(grid: Geometry, stride: tuple[int, int, int]) -> None:
    """Output index 0 of stride s stands at the mean of the s first input voxels."""
    middle = [(step - 1) / 2 for step in stride]
    assert np.allclose(strided_grid(grid, stride).index_to_world([0, 0, 0]), grid.index_to_world(middle), atol=1e-6)


def test_oblique_grids_are_not_parallel() -> None:
    """Ten degrees apart, no axis of one grid runs along an axis of the other."""
    turned = np.eye(4)
    cosine, sine = np.cos(np.radians(10)), np.sin(np.radians(10))
    turned[:2, :2] = [[cosine, -sine], [sine, cosine]]
    assert map_axes(Geometry(turned, (9, 9, 9)), Geometry(np.eye(4), (9, 9, 9))) is None


def test_an_axis_that_is_kept_keeps_its_irregular_slices() -> None:
    """Spacing None leaves the slices of a scan where they are, and their values as they are."""
    scan = Geometry(np.diag([2.0, 1, 1, 1]), (3, 8, 8), slice_offsets=(0.0, 1.0, 4.0))
    grid = network_grid(scan, None, (None, 2.0, 2.0))
    values = torch.arange(3.0)[:, None, None].expand(3, 8, 8)
    assert grid.slice_offsets == (0.0, 1.0, 4.0)
    assert torch.allclose(resample(values, scan, grid)[:, 0, 0], torch.arange(3.0))


def test_more_than_256_classes_do_not_wrap() -> None:
    """Label 300 comes back as 300."""
    grid = Geometry(np.eye(4), (2, 2, 2))
    scores = torch.zeros(301, 2, 2, 2)
    scores[300] = 1
    assert (label_grid(scores, grid, grid) == 300).all()
