"""Every voxel is shown at its place and comes back to its place."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.volume import Geometry
from napari_effvit_med.layers import (
    METADATA_KEY,
    DisplayFrame,
    DisplayGrid,
    LayerRecord,
    foreign_grid,
    record_of,
)
from tests.geometries import ORIENTATIONS, geometries

AXIAL = Geometry(np.diag([5.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]], (4, 6, 8))


def _all_indices(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)


def _places(grid: DisplayGrid) -> np.ndarray:
    """Where napari draws each voxel of what is shown."""
    return np.array(grid.translate) + _all_indices(grid.shape) * grid.scale


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_straight_scan_is_shown_at_minus_z_y_x(orientation: str) -> None:
    """Each voxel of each of the 48 axis orders is drawn at (-z, y, x) of its centre."""
    geometry = AXIAL.reoriented(orientation)
    grid = DisplayGrid.of(geometry)
    world = geometry.index_to_world(grid.to_index(_all_indices(grid.shape)))
    np.testing.assert_allclose(_places(grid), world[..., ::-1] * [-1, 1, 1], atol=1e-6)


@given(geometries(irregular=False, tilt_degrees=0))
def test_an_oblique_scan_is_shown_straight_about_its_centre(geometry: Geometry) -> None:
    """The picture is the patient turned rigidly: the centre stays, and every voxel is where the frame puts it."""
    grid = DisplayGrid.of(geometry)
    world = geometry.index_to_world(grid.to_index(_all_indices(grid.shape)))
    np.testing.assert_allclose(_places(grid), grid.frame.to_shown(world), atol=max(0.06, grid.error_mm))
    assert grid.error_mm <= 0.06
    centre = world.reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(_places(grid).reshape(-1, 3).mean(axis=0), centre[::-1] * [-1, 1, 1], atol=1e-5)


@given(geometries())
def test_no_voxel_is_shown_mirrored(geometry: Geometry) -> None:
    """The turn of the frame is a rotation, whatever the handedness of the array's axes."""
    rotation = DisplayFrame.of(geometry).rotation
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)


@given(geometries())
def test_the_error_is_that_of_the_worst_voxel(geometry: Geometry) -> None:
    """No voxel of a sheared or irregular scan is shown farther from its place than the grid says."""
    grid = DisplayGrid.of(geometry)
    world = geometry.index_to_world(grid.to_index(_all_indices(grid.shape)))
    apart = np.linalg.norm(_places(grid) - grid.frame.to_shown(world), axis=-1)
    assert apart.max() <= grid.error_mm + 1e-6


@given(geometries())
def test_a_point_of_the_picture_leads_to_its_true_place(geometry: Geometry) -> None:
    """Where a voxel is drawn is read out as its centre in the patient, also where slices lean or differ."""
    grid = DisplayGrid.of(geometry)
    world = geometry.index_to_world(grid.to_index(_all_indices(grid.shape)))
    np.testing.assert_allclose(grid.to_world(_places(grid)), world, atol=1e-5)


@given(geometries())
def test_indices_go_there_and_back(geometry: Geometry) -> None:
    """from_index and to_index undo each other."""
    grid = DisplayGrid.of(geometry)
    index = _all_indices(geometry.shape)
    np.testing.assert_array_equal(grid.to_index(grid.from_index(index)), index)


@given(geometries())
def test_what_is_shown_is_the_same_memory(geometry: Geometry) -> None:
    """A voxel painted in the picture is the voxel of the source grid at that index, without a copy."""
    labels = np.zeros(geometry.shape, np.uint8)
    grid = DisplayGrid.of(geometry)
    shown = grid.view(labels)
    assert np.shares_memory(shown, labels)
    for number, index in enumerate(np.ndindex(*grid.shape), start=1):
        shown[index] = number % 251
        source = tuple(grid.to_index(index).astype(int))
        assert labels[source] == number % 251


@given(geometries())
def test_labels_come_back_voxel_for_voxel(geometry: Geometry) -> None:
    """What is shown, and a copy of it, come back to the grid of the source."""
    labels = np.arange(np.prod(geometry.shape), dtype=np.uint16).reshape(geometry.shape)
    grid = DisplayGrid.of(geometry)
    np.testing.assert_array_equal(grid.unview(grid.view(labels)), labels)
    np.testing.assert_array_equal(grid.unview(grid.view(labels).copy()), labels)


@given(geometries(irregular=False, tilt_degrees=0), st.tuples(*[st.floats(-80, 80)] * 3))
def test_two_series_of_equal_directions_overlay(geometry: Geometry, shift_mm: tuple[float, float, float]) -> None:
    """A point of the patient is drawn at one place in both, though each has its own centre and field of view."""
    affine = geometry.affine.copy()
    affine[:3, 3] += shift_mm
    other = Geometry(affine, (3, 4, 5))
    first = DisplayGrid.of(geometry)
    second = DisplayGrid.of(other, first.frame)
    world = other.index_to_world(second.to_index(_all_indices(second.shape)))
    np.testing.assert_allclose(_places(second), first.frame.to_shown(world), atol=second.error_mm + 1e-6)
    if first.frame.angle_degrees > 0:
        assert second.agrees


def test_a_series_of_other_directions_does_not_agree() -> None:
    """A tilted series is not shown in the frame of a straight one as if it were straight."""
    turn = np.radians(12)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    grid = DisplayGrid.of(Geometry(affine, (64, 64, 64)), DisplayFrame())
    assert not grid.agrees


def test_rounded_direction_cosines_are_straight() -> None:
    """Noise of 1e-6 in the headers makes no oblique scan."""
    affine = AXIAL.affine.copy()
    affine[:3, :3] += 1e-6
    assert DisplayFrame.of(Geometry(affine, AXIAL.shape)).angle_degrees == 0


def test_a_turned_scan_says_so() -> None:
    """A frame turned by more than a degree is remarked upon, with the angle."""
    turn = np.radians(12)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    remarks = DisplayGrid.of(Geometry(affine, (8, 8, 8))).remarks()
    assert len(remarks) == 1
    assert "12.0 degrees" in remarks[0]


def test_a_layer_that_is_not_ours_lies_where_napari_draws_it() -> None:
    """Its grid shows each voxel where its own affine does."""
    affine = np.diag([-3.0, 2.0, 1.0, 1.0])
    affine[:3, 3] = [7, 8, 9]
    grid = foreign_grid(affine, (3, 4, 5))
    index = _all_indices((3, 4, 5))
    drawn = index @ affine[:3, :3].T + affine[:3, 3]
    shown = np.array(grid.translate) + grid.from_index(index) * grid.scale
    np.testing.assert_allclose(shown, drawn)


def test_a_flat_layer_has_no_place_in_the_patient() -> None:
    """A picture of two axes is refused in words."""
    with pytest.raises(GeometryError, match="three sizes"):
        foreign_grid(np.eye(4), (3, 4))


def test_a_copied_layer_keeps_its_record() -> None:
    """Metadata are copied where napari duplicates a layer."""
    record = LayerRecord(DisplayGrid.of(AXIAL))
    metadata = copy.deepcopy({METADATA_KEY: record})
    assert record_of(metadata) is not None
    assert record_of({"other": 1}) is None
    assert record_of({METADATA_KEY: "text"}) is None
