"""Letters stand at the right edges, windows have sane limits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_effvit_med.letters import describe_world, edge_letters
from napari_effvit_med.windows import OTHER_WINDOWS, WINDOWS, Window, windows_for

OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((0, 1, 2), ("A", "P", "R", "L", "axial")),
        ((1, 0, 2), ("S", "I", "R", "L", "coronal")),
        ((2, 0, 1), ("S", "I", "A", "P", "sagittal")),
    ],
)
def test_views_look_as_radiologists_expect(order: tuple[int, ...], expected: tuple[str, ...]) -> None:
    """The patient's right is on the left, the head up, the face to the left in a sagittal view."""
    letters = edge_letters(order)
    assert letters is not None
    assert (letters.top, letters.bottom, letters.left, letters.right, letters.plane) == expected


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("orientation", list(itertools.product(("up", "down"), ("left", "right"))))
def test_opposite_edges_have_opposite_letters(order: tuple[int, ...], orientation: tuple[str, str]) -> None:
    """However the axes are rolled and the camera looks; turning the camera over swaps the letters."""
    letters, usual = edge_letters(order, orientation), edge_letters(order)
    assert letters is not None
    assert usual is not None
    assert (OPPOSITE[letters.top], OPPOSITE[letters.left]) == (letters.bottom, letters.right)
    assert (letters.top == usual.top) == (orientation[0] == "down")
    assert (letters.left == usual.left) == (orientation[1] == "right")


def test_four_axes_have_no_letters() -> None:
    """A viewer with another number of axes shows none rather than wrong ones."""
    assert edge_letters((0, 1, 2, 3)) is None


def test_a_point_is_read_out_in_words() -> None:
    """The letters say the side, the numbers carry no sign."""
    assert describe_world((-1.0, 2.0, -3.0)) == "R 1.0  P 2.0  I 3.0 mm"


@pytest.mark.parametrize("modality", ["CT", "MR", "PT", ""])
@pytest.mark.parametrize("values", [np.zeros((3, 3, 3)), np.arange(27.0).reshape(3, 3, 3), np.full((3, 3, 3), -5)])
def test_limits_always_rise(modality: str, values: np.ndarray) -> None:
    """Also for an empty scan."""
    for window in windows_for(modality):
        low, high = window.limits_of(values)
        assert high > low


def test_a_large_scan_is_sampled_across() -> None:
    """The percentiles of a ramp are near those of the whole."""
    ramp = np.broadcast_to(np.arange(400.0)[:, None, None], (400, 100, 100))
    assert Window("x", percentiles=(1, 99)).limits_of(ramp) == pytest.approx((4, 395), abs=6)


def test_names_are_unique_within_a_modality() -> None:
    """A preset is chosen by its name."""
    for presets in (*WINDOWS.values(), OTHER_WINDOWS):
        assert len({window.name for window in presets}) == len(presets)
