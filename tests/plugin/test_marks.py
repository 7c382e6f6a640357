"""Marks of prompts in napari's viewer model, without a window."""

from __future__ import annotations

import numpy as np
import pytest

from effvit_med.volume import Geometry
from effvit_med.volume.prompts import Prompt
from napari_effvit_med.layers import DisplayGrid

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.marks import PromptMarks  # noqa: E402  after the check above


def test_a_layer_that_was_prepared_takes_the_first_prompt() -> None:
    """It is there, empty and not active, before the first prompt, which then makes no second layer."""
    viewer = components.ViewerModel()
    labels = viewer.add_labels(np.zeros((4, 8, 8), np.uint8))
    marks = PromptMarks(viewer)
    marks.prepare(labels)
    assert len(marks.layer.data) == 0
    assert viewer.layers.selection.active is labels
    grid = DisplayGrid.of(Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), (4, 8, 8)))
    marks.add(Prompt("point", 1, False, ((1, 2, 3),)), grid, labels)
    assert len(viewer.layers) == 2
    assert marks.layer.data.tolist() == [grid.from_index((1, 2, 3)).tolist()]
    assert marks.layer.face_color[0].round(2).tolist() == [1.0, 0.36, 0.36, 1.0]
