"""Rendering: exact labels on any grid, slice thickness, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.training.phantom import draw_anatomy, render
from effvit_med.training.phantom_shapes import rotation

ANATOMY = draw_anatomy(31)


def grid(spacing_mm: tuple[float, float, float], turn_deg: tuple[float, float, float], tilt: float = 0.0) -> np.ndarray:
    """A turned and sheared affine around the middle of the abdomen."""
    axes = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, tilt, 0.0]]) * np.array(spacing_mm)
    affine = np.eye(4)
    affine[:3, :3] = rotation(turn_deg) @ axes
    return affine


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    turn_deg=st.tuples(*[st.floats(-40.0, 40.0)] * 3),
    tilt=st.floats(-0.4, 0.4),
    factor=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_labels_do_not_depend_on_the_grid(
    turn_deg: tuple[float, float, float], tilt: float, factor: tuple[int, int, int]
) -> None:
    """A finer grid, read at the points of the coarse one, has the coarse one's labels."""
    shape = (8, 18, 24)
    coarse = grid((24.0, 12.0, 12.0), turn_deg, tilt)
    coarse[:3, 3] = -coarse[:3, :3] @ (np.array(shape) / 2.0)
    fine = coarse.copy()
    fine[:3, :3] = coarse[:3, :3] / np.array(factor)
    finer = tuple(int(n) for n in (np.array(shape) - 1) * factor + 1)
    a = render(ANATOMY, coarse, shape, seed=0).labels
    b = render(ANATOMY, fine, (finer[0], finer[1], finer[2]), seed=1).labels
    assert np.unique(a).size > 3
    np.testing.assert_array_equal(a, b[:: factor[0], :: factor[1], :: factor[2]])


def test_axis_order_is_free() -> None:
    """A sagittal grid through the same points has the same labels, axes exchanged."""
    affine = grid((15.0, 12.0, 12.0), (0.0, 0.0, 0.0))
    affine[:3, 3] = -120.0, -90.0, -100.0
    axial = render(ANATOMY, affine, (14, 16, 20), seed=0).labels
    sagittal = render(ANATOMY, affine[:, [2, 1, 0, 3]], (20, 16, 14), seed=0).labels
    np.testing.assert_array_equal(axial, sagittal.transpose(2, 1, 0))


def test_labels_do_not_depend_on_the_window() -> None:
    """A part of a grid, rendered alone, has the labels of the whole: no bounding box cuts a structure."""
    affine = grid((20.0, 10.0, 10.0), (0.0, 0.0, 0.0))
    affine[:3, 3] = -150.0, -100.0, -130.0
    whole = render(ANATOMY, affine, (13, 21, 31), seed=0).labels
    part = affine.copy()
    part[:3, 3] = affine[:3, :3] @ np.array([3, 4, 5]) + affine[:3, 3]
    np.testing.assert_array_equal(render(ANATOMY, part, (6, 10, 20), seed=0).labels, whole[3:9, 4:14, 5:25])


@pytest.mark.parametrize("seed", [2, 31, 40])
def test_bounds_hold_their_shapes(seed: int) -> None:
    """No point inside a shape lies outside the box that the shape states."""
    rng = np.random.default_rng(0)
    x, y, z = (rng.uniform(-reach, reach, 40000) for reach in (230.0, 200.0, 230.0))
    for solid in draw_anatomy(seed).solids:
        inside = solid.shape.distance(x, y, z) < 0.0
        points = np.stack([x[inside], y[inside], z[inside]], axis=1)
        low, high = solid.shape.bounds
        assert (points >= low).all(), solid.name
        assert (points <= high).all(), solid.name


def test_thick_slices_blur_along_the_slice_axis() -> None:
    """The top of the liver is sharper from thin slices than from thick ones."""
    anatomy = draw_anatomy(31)
    affine = grid((2.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    affine[:3, 3] = -110.0, -60.0, 60.0
    thin, thick = (render(anatomy, affine, (40, 24, 24), seed=0, thickness_mm=mm).hu for mm in (1.0, 16.0))
    step = [np.abs(np.diff(hu.astype(float).mean(axis=2), axis=0)).max() for hu in (thin, thick)]
    assert step[1] < 0.8 * step[0]


@pytest.mark.parametrize("thickness_mm", [2.0, 6.0, 10.0])
def test_last_digit_of_the_thickness_does_not_matter(thickness_mm: float) -> None:
    """A slice is averaged over as many sub-slices wherever rounding puts its thickness."""
    anatomy, affine = draw_anatomy(5), np.diag([2.0, 8.0, 8.0, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = -100.0
    low, high = (np.nextafter(thickness_mm, end) for end in (0.0, 20.0))
    scans = [render(anatomy, affine, (2, 24, 24), seed=1, thickness_mm=float(each)) for each in (low, high)]
    assert np.array_equal(scans[0].hu, scans[1].hu)


def test_noise_seed_leaves_labels_alone() -> None:
    """Another noise seed changes the image and not the labels."""
    affine = grid((40.0, 12.0, 12.0), (0.0, 0.0, 0.0))
    affine[:3, 3] = -120.0, -90.0, -80.0
    first, second = (render(ANATOMY, affine, (4, 16, 20), seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(first.labels, second.labels)
    assert (first.hu != second.hu).mean() > 0.8


def test_flat_affine_is_refused() -> None:
    """An affine without volume is refused with its numbers."""
    with pytest.raises(GeometryError, match=r"invertible 4x4 matrix, not \[\[0\.0"):
        render(ANATOMY, np.zeros((4, 4)), (2, 2, 2), seed=0)
