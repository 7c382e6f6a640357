"""Where the viewer looks for a place, in every view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_effvit_med.looking import CLOSEST_MM, camera_of, canvas_size, find_middle, look_at
from napari_effvit_med.opening import OpenedReview
from tests.plugin.parts import make_review

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")


@pytest.fixture(name="shown")
def _shown(tmp_path: Path) -> Iterator[tuple[Any, Any, OpenedReview]]:
    viewer, opened = components.ViewerModel(), make_review(tmp_path)
    data, arguments, _ = opened.layer
    yield viewer, viewer.add_labels(data, **arguments), opened
    opened.session.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_the_place_is_in_its_slice_and_in_the_middle(
    shown: tuple[Any, Any, OpenedReview], order: tuple[int, ...]
) -> None:
    """The slider stands at the voxel, and the camera looks at it."""
    viewer, layer, _ = shown
    viewer.dims.order = order
    index = (3, 11, 30)
    look_at(viewer, layer, index, [(2, 8, 20), (4, 14, 40)])
    world = np.array(layer.data_to_world(index))
    np.testing.assert_allclose(np.array(viewer.dims.point)[order[0]], world[order[0]])
    np.testing.assert_allclose(camera_of(viewer).center[-2:], world[list(order[1:])])


def test_what_is_large_is_seen_whole_and_what_is_small_from_afar(shown: tuple[Any, Any, OpenedReview]) -> None:
    """A box of 1 mm is shown with 150 mm about it, one of 600 mm with twice as much."""
    viewer, layer, _ = shown
    size = canvas_size(viewer)
    if size is None:
        pytest.skip("napari before 0.9 does not tell how large the canvas is")
    look_at(viewer, layer, (3, 11, 30), [(3, 11, 30), (3, 11, 31)])
    assert camera_of(viewer).zoom == pytest.approx(min(size) / CLOSEST_MM)
    look_at(viewer, layer, (3, 11, 30), [(3, 0, 0), (3, 0, 400)])
    assert camera_of(viewer).zoom == pytest.approx(min(size) / 1200)


def test_three_dimensions_look_at_the_place(shown: tuple[Any, Any, OpenedReview]) -> None:
    """The camera turns about it."""
    viewer, layer, _ = shown
    viewer.dims.ndisplay = 3
    look_at(viewer, layer, (3, 11, 30), [(2, 8, 20), (4, 14, 40)])
    np.testing.assert_allclose(camera_of(viewer).center, layer.data_to_world((3, 11, 30)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_middle_is_in_the_fullest_slice(axis: int) -> None:
    """As counting each slice says, along each axis, and the corners hold the structure there."""
    labels = np.random.default_rng(5).choice([0, 0, 0, 3], (5, 6, 7)).astype(np.uint8)
    found = find_middle(labels, axis, 3)
    assert found is not None
    index, corners = found
    counts = (labels == 3).sum(axis=tuple(other for other in range(3) if other != axis))
    assert index[axis] == counts.argmax()
    places = np.argwhere(labels == 3)
    places = places[places[:, axis] == index[axis]]
    np.testing.assert_array_equal(corners, [places.min(axis=0), places.max(axis=0)])
    np.testing.assert_array_equal(index, places.mean(axis=0).astype(int))
