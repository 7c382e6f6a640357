"""The marks of what was pointed at: at their voxels, in their colour, and in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.review.steps import Step
from effvit_med.volume.prompts import Prompt
from napari_effvit_med.marks import ADDS, MOST, REMOVES, PromptMarks, standing_prompts
from napari_effvit_med.opening import OpenedReview
from tests.plugin.parts import LIVER, SPLEEN, make_review

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")


class Scene:
    """Marks in a viewer with a review."""

    def __init__(self, folder: Path) -> None:
        self.viewer, self.opened = components.ViewerModel(), make_review(folder)
        opened: OpenedReview = self.opened
        data, arguments, _ = opened.layer
        self.labels: Any = self.viewer.add_labels(data, **arguments)
        self.marks = PromptMarks(self.viewer)

    def add(self, *prompts: Prompt) -> Any:
        """Mark prompts; the layer of marks."""
        for prompt in prompts:
            self.marks.add(prompt, self.opened.grid, self.labels)
        return self.marks.layer

    def indices(self) -> np.ndarray:
        """Where the marks lie in the scan."""
        return self.opened.grid.to_index(self.marks.layer.data)


@pytest.fixture(name="scene")
def _scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.opened.session.close()


def _point(*at: float, adds: bool = True, value: int = LIVER) -> Prompt:
    return Prompt("point", value, adds, (at,))  # type: ignore[arg-type]


def _step(prompt: Prompt) -> Step:
    return Step(prompt.kind, prompt.value, prompt=prompt.to_dict())


def test_points_lie_where_was_clicked_in_their_colour(scene: Scene) -> None:
    """Green adds and red removes, in the world of the labels."""
    from napari.utils.colormaps.standardize_color import transform_color

    layer = scene.add(_point(5, 18, 18), _point(2, 3, 4, adds=False))
    np.testing.assert_allclose(scene.indices(), [(5, 18, 18), (2, 3, 4)])
    np.testing.assert_allclose(layer.face_color, transform_color([ADDS, REMOVES]), atol=1e-6)
    np.testing.assert_allclose(layer.scale, scene.labels.scale)
    np.testing.assert_allclose(layer.translate, scene.labels.translate)
    assert layer.units == scene.labels.units


def test_lines_are_dotted_along_their_way(scene: Scene) -> None:
    """A scribble begins where it began; the dots of a box are on its edges, those of an outline go round."""
    scene.add(Prompt("scribble", LIVER, True, ((5.0, 10.0, 10.0), (5.0, 10.0, 22.0))))
    np.testing.assert_allclose(scene.indices(), [(5, 10, column) for column in (10, 14, 18, 22)])
    scene.marks.remove()
    scene.add(Prompt("box", LIVER, True, ((5.0, 10.0, 8.0), (5.0, 22.0, 20.0)), 0))
    dots = scene.indices()
    assert (np.isin(dots[:, 1], (10, 22)) | np.isin(dots[:, 2], (8, 20))).all()
    assert {(10.0, 8.0), (22.0, 8.0), (10.0, 20.0), (22.0, 20.0)} <= {tuple(dot) for dot in dots[:, 1:].tolist()}
    scene.marks.remove()
    scene.add(Prompt("lasso", LIVER, True, ((5.0, 4.0, 4.0), (5.0, 12.0, 4.0), (5.0, 12.0, 12.0)), 0))
    assert np.allclose(scene.indices()[0], (5, 4, 4))
    assert len(scene.indices()) == 7


def test_what_stands_is_shown_for_one_structure(scene: Scene) -> None:
    """Prompts of another structure and steps without one are no marks; no structure has none."""
    mine, other = _point(5, 18, 18), _point(2, 3, 4, value=SPLEEN)
    steps = [_step(mine), _step(other), Step("lock", LIVER), Step("brush", LIVER)]
    assert standing_prompts(steps, LIVER) == [mine]
    assert standing_prompts(steps, None) == []
    scene.add(other)
    scene.marks.show(steps, LIVER, scene.opened.grid, scene.labels)
    np.testing.assert_allclose(scene.indices(), [(5, 18, 18)])
    scene.marks.show(steps, None, scene.opened.grid, scene.labels)
    assert len(scene.marks.layer.data) == 0


def test_the_marks_are_never_active(scene: Scene) -> None:
    """Ctrl+Z and the mouse go on to the layer that they went to."""
    scene.viewer.layers.selection.active = scene.labels
    layer = scene.add(_point(5, 18, 18))
    assert scene.viewer.layers.selection.active is scene.labels
    assert set(scene.viewer.layers.selection) == {scene.labels}
    assert not layer.editable


def test_no_mark_is_no_layer(scene: Scene) -> None:
    """Showing nothing adds no layer."""
    scene.marks.show([], LIVER, scene.opened.grid, scene.labels)
    assert list(scene.viewer.layers) == [scene.labels]
    scene.marks.remove()


def test_only_the_newest_are_shown(scene: Scene) -> None:
    """A review of an hour does not slow the picture down."""
    steps = [_step(_point(5, 1, number % 40)) for number in range(MOST)] + [_step(_point(7, 2, 2))]
    scene.marks.show(steps, LIVER, scene.opened.grid, scene.labels)
    assert len(scene.marks.layer.data) == MOST
    np.testing.assert_allclose(scene.indices()[-1], (7, 2, 2))


def test_a_layer_that_was_deleted_is_made_anew(scene: Scene) -> None:
    """With all marks, not only those since."""
    scene.viewer.layers.remove(scene.add(_point(5, 18, 18)))
    assert scene.marks.layer is None
    scene.add(_point(6, 18, 18))
    assert len(scene.marks.layer.data) == 2
    scene.marks.remove()
    assert list(scene.viewer.layers) == [scene.labels]
