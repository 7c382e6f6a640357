"""What users do to a viewer while the panel is open, and what it leaves behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.errors import EffvitError
from effvit_med.review import ReviewSession
from tests.plugin.parts import make_review

pytest.importorskip("napari", reason="napari is not here: pip install '.[napari]'")
pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import Qt

from napari_effvit_med.controller import Controller
from napari_effvit_med.sample import open_phantom, open_phantom_with_truth
from napari_effvit_med.settings import PluginSettings
from napari_effvit_med.widget import SegmentationPanel

Wait = Callable[[Callable[[], bool]], None]


def _dock(viewer: Any) -> tuple[SegmentationPanel, Any]:
    panel = SegmentationPanel(viewer)
    return panel, viewer.window.add_dock_widget(panel, name="Segment and review", area="right")


@pytest.fixture(name="panel")
def _panel(viewer: Any) -> Any:
    panel, _ = _dock(viewer)
    yield panel
    panel.close()


def _names(box: Any) -> list[str]:
    return [box.itemText(number) for number in range(box.count())]


def _scan(panel: SegmentationPanel) -> Any:
    ((data, arguments, _),) = open_phantom()
    return panel.viewer.add_image(data, **arguments)


def _bound(viewer: Any) -> dict[str, Any]:
    return {str(key): function for key, function in viewer.keymap.items()}


def test_the_panel_goes_with_the_light_theme(panel: SegmentationPanel, viewer: Any, qtbot: Any) -> None:
    """Its texts are dark on a light ground then, as it sets no colours of its own."""
    viewer.window._qt_window.show()
    brightness = {}
    for theme in ("dark", "light"):
        viewer.theme = theme
        qtbot.wait(50)
        picture = panel.grab().toImage()
        pixels = [picture.pixelColor(x, y).lightness() for x in range(0, 300, 5) for y in range(0, 200, 5)]
        brightness[theme] = float(np.median(pixels))
    assert brightness["dark"] < 100
    assert brightness["light"] > 150


def test_grid_mode_keeps_letters_and_choices(panel: SegmentationPanel, viewer: Any) -> None:
    """The scan and its labels side by side: both are listed, the letters stay, and so does the read-out."""
    for data, arguments, kind in open_phantom_with_truth():
        getattr(viewer, f"add_{kind}")(data, **arguments)
    grid = viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid
    grid.enabled = True
    assert panel.letters.shown is not None
    assert panel.letters.shown.left == "R"
    assert panel.layers.count() == 1
    viewer.cursor.position = (-12.0, -34.0, 56.0)
    assert panel.foot.place.text() == "L 56.0  A 34.0  S 12.0 mm"
    grid.enabled = False


def test_a_second_viewer_has_its_own_panel(viewer: Any, make_napari_viewer: Any) -> None:
    """What happens in one shows in one, and closing one leaves the other as it was."""
    other = make_napari_viewer()
    (first, _), (second, _) = _dock(viewer), _dock(other)
    _scan(first).name = "mine"
    assert (_names(first.layers), _names(second.layers)) == (["mine"], [])
    bound = _bound(other)
    first.close()
    assert _bound(other) == bound
    _scan(second).name = "yours"
    assert _names(second.layers) == ["yours"]
    assert second.letters.shown is not None
    second.close()


def test_renamed_duplicated_and_deleted_layers(panel: SegmentationPanel, viewer: Any) -> None:
    """The chosen scan stays chosen by what it is, not by its name; a copy is a scan of its own."""
    from napari.layers._layer_actions import _duplicate_layer

    scan = _scan(panel)
    scan.name = "one"
    viewer.layers.selection = {scan}
    _duplicate_layer(viewer.layers)
    assert _names(panel.layers) == ["one", "one copy"]
    viewer.layers[1].name = "two"
    panel.layers.setCurrentIndex(1)
    viewer.layers.remove(scan)
    assert _names(panel.layers) == ["two"]
    assert panel._layer() is viewer.layers[0]
    viewer.layers[0].name = "three"
    assert _names(panel.layers) == ["three"]


def test_the_chosen_scan_stays_chosen_when_layers_come_and_go(panel: SegmentationPanel, viewer: Any) -> None:
    """Deleting a layer above it, or adding one, does not change what will be segmented."""
    above, chosen = _scan(panel), _scan(panel)
    panel.layers.setCurrentIndex(1)
    assert panel._layer() is chosen
    viewer.layers.remove(above)
    assert panel._layer() is chosen
    last = _scan(panel)
    viewer.layers.move(viewer.layers.index(last), 0)
    assert panel._layer() is chosen


def test_a_deleted_scan_can_still_be_segmented_to_its_end(
    panel: SegmentationPanel, viewer: Any, qtbot: Any, wait: Wait, tiny_bundle: Any
) -> None:
    """The run has what it needs; its labels come, on the grid of the scan that is gone."""
    scan = _scan(panel)
    shape = scan.data.shape
    panel.controller.choose_model(tiny_bundle)
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    viewer.layers.remove(scan)
    wait(lambda: not panel.controller.running)
    assert not panel.controller.is_error, panel.foot.message.text()
    assert panel.controller.desk.layer.data.shape == shape


@pytest.mark.parametrize("way", ["close", "dock", "button"])
def test_a_closed_panel_gives_keys_and_mouse_back(viewer: Any, qtbot: Any, way: str) -> None:
    """However it is closed; a key that was the user's own is again."""

    def mine(_: Any) -> None:
        """The user's own."""

    viewer.bind_key("N", mine)
    before = (_bound(viewer), list(viewer.mouse_drag_callbacks), list(viewer.mouse_move_callbacks))
    panel, dock = _dock(viewer)
    viewer.window._qt_window.show()
    assert _bound(viewer) != before[0]
    if way == "close":
        panel.close()
    elif way == "dock":
        viewer.window.remove_dock_widget(dock)
    else:
        qtbot.mouseClick(dock.title.close_button, Qt.MouseButton.LeftButton)
    assert (_bound(viewer), list(viewer.mouse_drag_callbacks), list(viewer.mouse_move_callbacks)) == before
    assert panel.letters.shown is None
    assert not panel._timer.isActive()
    _scan(panel)  # nobody listens any more
    assert panel.layers.count() == 0


@pytest.mark.parametrize("way", ["dock", "window"])
def test_a_review_is_let_go_of_with_its_panel(viewer: Any, tmp_path: Path, way: str) -> None:
    """Another process, or the next panel, can go on with it."""
    panel, dock = _dock(viewer)
    viewer.window._qt_window.show()
    desk = panel.controller.desk
    desk.open(make_review(tmp_path / "review"))
    folder = desk.opened.session.folder
    with pytest.raises(EffvitError, match="Another program"):
        ReviewSession.resume(folder)
    if way == "dock":
        viewer.window.remove_dock_widget(dock)
    else:
        viewer.close()
    assert desk.opened is None
    ReviewSession.resume(folder).close()


def test_a_hidden_dock_keeps_its_panel(viewer: Any) -> None:
    """The eye in the title of a dock hides it; its keys work on, as a review goes on."""
    panel, dock = _dock(viewer)
    viewer.window._qt_window.show()
    bound = _bound(viewer)
    dock.hide()
    dock.show()
    assert _bound(viewer) == bound
    dock.setFloating(True)
    dock.setFloating(False)
    assert _bound(viewer) == bound
    assert panel._timer.isActive()
    panel.close()


def test_opening_the_panel_loads_nothing_heavy() -> None:
    """torch, MONAI, scikit-image's parts and SimpleITK come when they are used, in the worker."""
    code = """
import sys
import napari_effvit_med
from napari.components import ViewerModel
with_napari = set(sys.modules)
from qtpy.QtWidgets import QApplication
application = QApplication([])
from napari_effvit_med.widget import SegmentationPanel
panel = SegmentationPanel(ViewerModel())
panel.close()
heavy = ("torch", "monai", "SimpleITK", "numba", "scipy", "skimage", "highdicom", "pydicom", "nibabel")
print(sorted(name for name in heavy if name in sys.modules and name not in with_napari))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if run.returncode and "display" in run.stderr:
        pytest.skip("there is no display: run under xvfb-run")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_the_panel_shows_the_device_of_the_settings(viewer: Any) -> None:
    """What the user prefers is what is chosen, and what will be used."""
    panel = SegmentationPanel(viewer, Controller(viewer, settings=PluginSettings(device="cpu")))
    assert panel.device.currentText() == panel.controller.device == "cpu"
    panel.close()
