"""Doubt as a glow over the scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.plugin.parts import make_review, wait_for

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.controller import Controller  # noqa: E402  after the check above
from napari_effvit_med.desk import ReviewDesk  # noqa: E402
from napari_effvit_med.settings import PluginSettings  # noqa: E402
from napari_effvit_med.tasks import Task  # noqa: E402


def _desk(folder: Path, *, confidence: bool = True) -> ReviewDesk:
    desk = ReviewDesk(components.ViewerModel(), lambda *_, **__: None)
    desk.open(make_review(folder, confidence=confidence))
    return desk


def test_doubt_glows_where_the_network_was_unsure(tmp_path: Path) -> None:
    """The layer lies where the scan does, is bright in the missing half only, and the labels stay active."""
    desk = _desk(tmp_path)
    desk.viewer.layers.selection.active = desk.layer
    desk.show_doubt(True)
    wait_for(lambda: not desk.settling, desk.poll)
    layer = desk.viewer.layers["doubt"]
    assert desk.opened is not None
    bright = np.argwhere(desk.opened.grid.unview(layer.data) == 255 - 40)
    assert bright.min(axis=0).tolist() == [2, 8, 14]
    assert bright.max(axis=0).tolist() == [9, 29, 21]
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), desk.layer.data_to_world((1, 2, 3)))
    assert desk.viewer.layers.selection.active is desk.layer
    desk.show_doubt(False)
    assert "doubt" not in desk.viewer.layers
    desk.close()


def test_without_confidence_there_is_nothing_to_show(tmp_path: Path) -> None:
    """No layer is made."""
    desk = _desk(tmp_path, confidence=False)
    desk.show_doubt(True)
    wait_for(lambda: not desk.settling, desk.poll)
    assert "doubt" not in desk.viewer.layers
    desk.close()


def test_the_layer_of_doubt_is_no_scan(tmp_path: Path) -> None:
    """It is not offered to be segmented."""
    controller = Controller(
        components.ViewerModel(), start=Task.run_here, settings=PluginSettings(reviews_folder=tmp_path)
    )
    controller.desk.open(make_review(tmp_path / "reviews"))
    controller.desk.show_doubt(True)
    controller.poll()
    assert "doubt" in controller.viewer.layers
    assert controller.image_layers() == ()
    controller.close()
