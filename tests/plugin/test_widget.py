"""The plugin in a real viewer of napari: the manifest, the panel, reading and saving, with real clicks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.io.dicom_seg_reading import read_dicom_seg
from tests.conftest import ROOT

pytest.importorskip("napari", reason="napari is not here: pip install '.[napari]'")
pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QMessageBox

from napari_effvit_med.layers import METADATA_KEY
from napari_effvit_med.sample import open_phantom_with_truth
from napari_effvit_med.widget import SegmentationPanel

MANIFEST = ROOT / "napari_plugin" / "napari_effvit_med" / "napari.yaml"
Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture(name="panel")
def _panel(viewer: Any) -> Iterator[SegmentationPanel]:
    panel = SegmentationPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Segment and review", area="right")
    yield panel
    panel.close()


@pytest.fixture(name="plugin")
def _plugin(request: pytest.FixtureRequest, viewer: Any) -> Any:
    """The plugin as napari knows it once it is installed."""
    with request.getfixturevalue("npe2pm").tmp_plugin(manifest=str(MANIFEST)) as plugin:
        yield plugin


def _open(panel: SegmentationPanel, folder: Path, bot: Any, wait: Wait) -> None:
    panel.controller.look(folder)
    wait(lambda: not panel.controller.running)
    bot.mouseClick(panel.open_button, Qt.MouseButton.LeftButton)
    wait(lambda: not panel.controller.running)


def test_the_manifest_names_what_is_there() -> None:
    """Every command can be imported and called."""
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.contributions.commands is not None
    assert len(manifest.contributions.commands) == 6


def test_napari_opens_a_folder_and_saves_labels(viewer: Any, plugin: Any, sample_data: Path, tmp_path: Path) -> None:
    """File > Open and File > Save go through the plugin, and a painted voxel is in the SEG at its place."""
    (image,) = viewer.open(str(sample_data / "ct_nonsquare"), plugin=plugin.name)
    labels = viewer.add_labels(
        np.zeros(image.data.shape, np.uint8), scale=image.scale, translate=image.translate, units=image.units
    )
    labels.data_setitem((np.array([4, 4, 4, 5]), np.array([10, 10, 11, 10]), np.array([30, 31, 30, 30])), 1)
    (saved,) = viewer.layers.save(str(tmp_path / "a.dcm"), selected=True, plugin=plugin.name)
    read = read_dicom_seg(Path(saved))
    world = image.metadata[METADATA_KEY].grid.to_world(labels.data_to_world((4, 10, 30)))
    index = tuple(np.rint(read.geometry.world_to_index(world)).astype(int))
    assert read.labels[index] == 1
    assert np.count_nonzero(read.labels) == 4
    (again,) = viewer.open(saved, plugin=plugin.name)
    np.testing.assert_allclose(again.data_to_world(np.argwhere(again.data)[0]), labels.data_to_world((4, 10, 30)))


def test_the_sample_study_is_in_the_menu(viewer: Any, plugin: Any) -> None:
    """File > Open Sample shows the phantom with the names and colours of its labels."""
    viewer.open_sample(plugin.name, "phantom_truth")
    labels = viewer.layers[1]
    assert list(labels.features["structure"])[1] == "liver"
    np.testing.assert_allclose(labels.get_color(1)[:3], np.array([221, 130, 101]) / 255, atol=0.01)
    assert labels.axis_labels == ("S→I", "A→P", "R→L")


def test_a_scan_is_opened_and_segmented_by_clicks(
    panel: SegmentationPanel, qtbot: Any, wait: Wait, sample_data: Path, tiny_bundle: Path
) -> None:
    """List, show, segment: the table has every structure and the labels lie over the scan."""
    _open(panel, sample_data / "ct_nonsquare", qtbot, wait)
    assert panel.scans.count() == 1
    assert panel.layers.currentText() == panel.viewer.layers[0].name
    panel.controller.choose_model(tiny_bundle)
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    assert not panel.run_button.isEnabled()
    wait(lambda: not panel.controller.running)
    assert panel.table.rowCount() == 6
    assert panel.table.item(0, 0).text() == "liver"
    scan, labels = panel.viewer.layers[:2]
    assert labels.data.shape == scan.data.shape
    assert panel.run_button.isEnabled()


def test_cancel_ends_the_run_without_a_layer(
    panel: SegmentationPanel, qtbot: Any, wait: Wait, sample_data: Path, tiny_bundle: Path
) -> None:
    """The button stops within a window, and the next run works."""
    _open(panel, sample_data / "ct_nonsquare", qtbot, wait)
    panel.controller.choose_model(tiny_bundle)
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(panel.foot.stop_button, Qt.MouseButton.LeftButton)
    wait(lambda: not panel.controller.running)
    assert panel.foot.message.text() == "Stopped."
    assert len(panel.viewer.layers) == 1
    qtbot.mouseClick(panel.run_button, Qt.MouseButton.LeftButton)
    wait(lambda: not panel.controller.running)
    assert panel.controller.desk.layer in panel.viewer.layers


def test_the_list_of_layers_follows_the_viewer(panel: SegmentationPanel) -> None:
    """Renaming, deleting, labels and colour pictures: only scans are offered, by their present names."""
    viewer = panel.viewer
    first = viewer.add_image(np.zeros((3, 8, 8), np.float32), name="one")
    viewer.add_image(np.zeros((3, 8, 8), np.float32), name="two")
    viewer.add_image(np.zeros((3, 8, 8, 3), np.uint8), rgb=True, name="colours")
    viewer.add_labels(np.zeros((3, 8, 8), np.uint8), name="labels")
    first.name = "uno"
    assert [panel.layers.itemText(number) for number in range(panel.layers.count())] == ["uno", "two"]
    viewer.layers.remove(first)
    assert [panel.layers.itemText(number) for number in range(panel.layers.count())] == ["two"]
    viewer.layers.clear()
    assert panel.layers.count() == 0
    assert not panel.run_button.isEnabled()


def test_a_window_preset_sets_the_contrast(panel: SegmentationPanel) -> None:
    """Lung is from -1350 to 150 HU."""
    (data, arguments, _), _ = open_phantom_with_truth()
    layer = panel.viewer.add_image(data, **arguments)
    assert tuple(layer.contrast_limits) == (-160, 240)
    number = panel.windows.findText("lung")
    panel.windows.setCurrentIndex(number)
    panel.windows.activated.emit(number)
    assert tuple(layer.contrast_limits) == (-1350, 150)


def test_the_place_of_the_mouse_is_read_out(panel: SegmentationPanel) -> None:
    """It is the place in the patient, in letters and mm; without a scan there is none."""
    panel.viewer.cursor.position = (1.0, 2.0, 3.0)
    assert panel.foot.place.text() == ""
    (data, arguments, _), _ = open_phantom_with_truth()
    panel.viewer.add_image(data, **arguments)
    panel.viewer.cursor.position = (-12.0, -34.0, 56.0)
    assert panel.foot.place.text() == "L 56.0  A 34.0  S 12.0 mm"


def test_letters_follow_the_view(panel: SegmentationPanel) -> None:
    """Rolling the axes changes the letters, three dimensions have none, closing the panel removes them."""
    viewer = panel.viewer
    viewer.add_image(np.zeros((3, 8, 8), np.float32))
    assert panel.letters.shown is not None
    assert panel.letters.shown.plane == "axial"
    viewer.dims.order = (1, 0, 2)
    assert (panel.letters.shown.top, panel.letters.shown.left) == ("S", "R")
    if hasattr(viewer, "canvas"):  # napari 0.9
        texts = {key: overlay.text for key, overlay in viewer.canvas.overlays.items() if "letter" in key}
        assert sorted(texts.values()) == ["I", "L", "R", "S"]
    viewer.dims.ndisplay = 3
    assert panel.letters.shown is None
    panel.close()
    if hasattr(viewer, "canvas"):
        assert not [key for key in viewer.canvas.overlays if "letter" in key]
    viewer.dims.ndisplay = 2  # nobody listens any more
    assert panel.letters.shown is None


def test_closing_the_panel_lets_go_of_a_running_task(
    panel: SegmentationPanel, qtbot: Any, wait: Wait, sample_data: Path
) -> None:
    """What a task says after the panel was closed changes nothing."""
    panel.controller.look(sample_data / "ct_axial")
    panel.close()
    assert not panel.controller.running
    qtbot.wait(200)
    assert len(panel.viewer.layers) == 0


def test_closing_the_window_on_a_running_task_asks(
    panel: SegmentationPanel, monkeypatch: pytest.MonkeyPatch, sample_data: Path
) -> None:
    """No keeps the window and the task."""
    asked = []

    class Close:
        """What a click on the X of the window sends."""

        ignored = False

        def type(self) -> Any:
            return QEvent.Type.Close

        def spontaneous(self) -> bool:
            return True

        def ignore(self) -> None:
            self.ignored = True

    def answer(*arguments: Any) -> Any:
        asked.append(arguments[-1])
        return QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    monkeypatch.setattr(type(panel.controller), "running", property(lambda _: "Segmenting"))
    panel._window = panel.window()
    event = Close()
    assert panel.eventFilter(panel._window, event)
    assert event.ignored
    assert asked == ["Segmenting is not finished. Stop it and close?"]


def test_the_liver_is_on_the_left_of_the_screen(viewer: Any) -> None:
    """A picture of the phantom's truth shows the liver's colour in the left half, in the axial and coronal view."""
    viewer.window._qt_window.show()
    for data, arguments, kind in open_phantom_with_truth():
        getattr(viewer, f"add_{kind}")(data, **arguments)
    viewer.layers[0].visible = False
    viewer.layers[1].opacity = 1
    for order in ((0, 1, 2), (1, 0, 2)):
        viewer.dims.order = order
        viewer.reset_view()
        picture = viewer.screenshot(canvas_only=True, flash=False).astype(int)
        liver = np.abs(picture[..., :3] - [221, 130, 101]).sum(axis=-1) < 30
        columns = np.flatnonzero(liver.any(axis=0))
        assert len(columns) > 20
        assert columns.mean() < picture.shape[1] / 2
