"""Facts about `effvit_med.volume.geometry`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.volume import Geometry
from tests.geometries import ORIENTATIONS, geometries

indices = st.lists(st.tuples(*[st.floats(-20, 20)] * 3), min_size=1, max_size=5)


@given(geometries(), indices)
def test_index_to_world_and_back_is_the_same_index(geometry: Geometry, index: list[tuple[float, ...]]) -> None:
    """World of an index leads back to the index, inside and outside the grid, tilted and irregular."""
    assert np.allclose(geometry.world_to_index(geometry.index_to_world(index)), index, atol=1e-6)


@given(geometries(), st.sampled_from(ORIENTATIONS), st.data())
def test_reorienting_keeps_every_voxel_where_it_is(geometry: Geometry, orientation: str, data: st.DataObject) -> None:
    """A voxel that is moved by transpose and flips has the world point it had."""
    axes, flips = geometry.reorienting(orientation)
    places = np.moveaxis(np.indices(geometry.shape), 0, -1)
    moved = np.flip(places.transpose(*axes, 3), [axis for axis in range(3) if flips[axis]])
    result = geometry.reoriented(orientation)
    where = data.draw(st.tuples(*[st.integers(0, size - 1) for size in result.shape]))
    assert np.allclose(result.index_to_world(where), geometry.index_to_world(moved[where]), atol=1e-6)


@given(geometries(oblique=False, tilt_degrees=0), st.sampled_from(ORIENTATIONS))
def test_reoriented_has_the_orientation_asked_for(geometry: Geometry, orientation: str) -> None:
    """The letters of the result are the letters that were asked for."""
    assert geometry.reoriented(orientation).orientation == orientation


@given(geometries(), st.sampled_from(ORIENTATIONS))
def test_reorienting_back_is_the_same_geometry(geometry: Geometry, orientation: str) -> None:
    """There and back again moves no voxel."""
    there = geometry.reoriented(orientation)
    axes, _ = geometry.reorienting(orientation)
    back = there.permuted(list(np.argsort(axes)))
    for axis in range(3):
        if np.dot(back.directions[:, axis], geometry.directions[:, axis]) < 0:
            back = back.flipped(axis)
    assert back.max_distance_mm(geometry) < 1e-6


@given(geometries())
def test_voxel_volumes_fill_the_grid(geometry: Geometry) -> None:
    """The volumes of all voxels add up to the volume between the outer edges."""
    low, high = (-0.5, geometry.shape[0] - 0.5)
    ends = geometry.index_to_world([[low, 0, 0], [high, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]])
    edges = np.stack([ends[1] - ends[0], *((ends[3:] - ends[2]) * [[geometry.shape[1]], [geometry.shape[2]]])])
    total = geometry.voxel_volumes_mm3().sum() * geometry.shape[1] * geometry.shape[2]
    assert total == pytest.approx(abs(np.linalg.det(edges)), rel=1e-6)


@given(geometries(irregular=False))
def test_without_shear_keeps_centre_and_spacing(geometry: Geometry) -> None:
    """The square grid has the same middle and spacing, and no shear."""
    square = geometry.without_shear()
    middle = (np.array(geometry.shape) - 1) / 2
    assert np.allclose(square.index_to_world(middle), geometry.index_to_world(middle), atol=1e-6)
    assert square.spacing_mm == pytest.approx(geometry.spacing_mm)
    assert square.shear_degrees < 1e-5


@given(geometries(irregular=False, tilt_degrees=0))
def test_a_square_grid_stays_where_it_is(geometry: Geometry) -> None:
    """Without shear there is nothing to undo."""
    assert geometry.without_shear().max_distance_mm(geometry) < 1e-6


def test_an_axial_scan_reads_superior_posterior_left() -> None:
    """Slices up, rows back, columns left is SPL; the world point of a voxel follows the columns of the affine."""
    affine = np.array([[0, 0, 0.7, -100], [0, 0.9, 0, -80], [5.0, 0, 0, 30], [0, 0, 0, 1]])
    geometry = Geometry(affine, (4, 5, 6))
    assert geometry.orientation == "SPL"
    assert geometry.index_to_world([2, 3, 1]).tolist() == pytest.approx([-99.3, -77.3, 40])


def test_an_irregular_slice_owns_half_the_way_to_its_neighbours() -> None:
    """Slices at 0, 2, 7 mm are 2, 3.5 and 5 mm thick."""
    geometry = Geometry(np.diag([2.0, 1.0, 1.0, 1.0]), (3, 4, 4), slice_offsets=(0.0, 1.0, 3.5))
    assert geometry.voxel_volumes_mm3().tolist() == pytest.approx([2.0, 3.5, 5.0])


def test_shear_is_the_tilt_angle() -> None:
    """Fifteen degrees of gantry tilt are fifteen degrees of shear."""
    affine = np.eye(4)[:, [2, 1, 0, 3]]
    affine[:3, 0] = [0, np.tan(np.radians(15)), 1]
    assert Geometry(affine, (2, 2, 2)).shear_degrees == pytest.approx(15)


@pytest.mark.parametrize(
    ("affine", "shape", "offsets", "message"),
    [
        (np.eye(3), (2, 2, 2), None, r"shape \(3, 3\)"),
        (np.diag([1, 1, np.nan, 1]), (2, 2, 2), None, "not finite"),
        (np.diag([1.0, 1, 0, 1]), (2, 2, 2), None, "zero or lie in one plane"),
        (np.eye(4), (2, 0, 2), None, r"shape is \(2, 0, 2\)"),
        (np.eye(4), (3, 2, 2), (0.0, 2.0, 1.0), "strictly increasing"),
        (np.eye(4), (2, 2, 2), (0.0, np.inf), "finite"),
        (np.eye(4), (3, 2, 2), (0.0, 1.0), "must be 3"),
    ],
)
def test_a_contradiction_is_refused_with_its_value(affine, shape, offsets, message: str) -> None:
    """A geometry that cannot be is an error that shows the value."""
    with pytest.raises(GeometryError, match=message):
        Geometry(affine, shape, slice_offsets=offsets)


def test_letters_must_name_three_axes() -> None:
    """RRS names the left-right axis twice and is refused."""
    with pytest.raises(GeometryError, match="'RRS'"):
        Geometry(np.eye(4), (2, 2, 2)).reoriented("RRS")


def test_equal_geometries_are_equal_and_hash_alike() -> None:
    """Two geometries of the same numbers are one key in a set."""
    assert len({Geometry(np.eye(4), (2, 2, 2)), Geometry(np.eye(4), (2, 2, 2)), Geometry(np.eye(4), (2, 2, 3))}) == 2


@given(geometries())
def test_slices_come_first_whichever_way_they_lie(geometry: Geometry) -> None:
    """The thick axis, or else that of slices, is the first, and nothing is flipped; doing it twice changes nothing."""
    axes, flips = geometry.reorienting("slices")
    result = geometry.reoriented("slices")
    assert not any(flips)
    spacing = geometry.spacing_mm
    coarse = max(range(3), key=lambda axis: spacing[axis])
    if spacing[coarse] > 1.5 * sorted(spacing)[1]:
        assert axes[0] == coarse
    else:
        assert axes[0] == geometry.slice_axis
    assert result.reoriented("slices") == result


def test_slices_of_a_nifti_file_come_as_those_of_dicom() -> None:
    """Column, row, slice becomes slice, row, column."""
    assert Geometry(np.eye(4), (4, 5, 6), slice_axis=2).reorienting("slices")[0] == (2, 1, 0)
    assert Geometry(np.eye(4), (4, 5, 6), slice_axis=0).reorienting("slices")[0] == (0, 1, 2)
