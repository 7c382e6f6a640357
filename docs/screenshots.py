"""Makes the pictures of the plugin for the documentation, from the running plugin: `make screenshots`.

Research use only. Not for clinical use.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from effvit_med.volume.prompts import Prompt
from napari_effvit_med.controller import Controller
from napari_effvit_med.sample import sample_folder
from napari_effvit_med.settings import PluginSettings
from napari_effvit_med.widget import SegmentationPanel

HERE = Path(__file__).parent / "images"
SIZE = (1440, 900)
MOST_S = 600


def main() -> None:
    """Open the phantom, segment it, correct it, and take a picture of each stage."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        viewer = napari.Viewer(show=True)
        viewer.window.resize(*SIZE)
        viewer.theme = "dark"
        settings = PluginSettings(reviews_folder=Path(folder))
        panel = SegmentationPanel(viewer, Controller(viewer, settings=settings))
        viewer.window.add_dock_widget(panel, name="Segment and review", area="right")
        viewer.window.resize(*SIZE)
        control, desk = panel.controller, panel.controller.desk

        control.look(sample_folder() / "ct_axial")
        _wait(lambda: not control.running)
        control.open_scan(control.rows[0])
        _wait(lambda: not control.running)
        control.measure_time(viewer.layers[0])
        _wait(lambda: not control.running)
        _shoot(viewer, panel, out / "napari_study.png", top=True)

        control.segment(viewer.layers[0])
        _wait(lambda: not control.running and not desk.settling)
        desk.choose(desk.structure_rows()[0].value)
        _wait(lambda: not desk.settling)
        _correct(panel)
        _wait(lambda: not desk.settling)
        _shoot(viewer, panel, out / "napari_corrected.png", widget=panel.review.doubts)

        desk.accept(desk.structure_rows()[0].value)
        desk.measure()
        _wait(lambda: not desk.settling)
        panel.review.update_all()
        _shoot(viewer, panel, out / "napari_finish.png", widget=panel.review.finish_box)

        viewer.dims.order = (1, 0, 2)
        viewer.reset_view()
        _shoot(viewer, panel, out / "napari_coronal.png", widget=panel.review.structures)
        panel.close()
        viewer.close()


def _correct(panel: SegmentationPanel) -> None:
    """Take a bite out of the liver as a stray stroke would, and give it back by one click."""
    desk = panel.controller.desk
    if desk.opened is None:
        raise RuntimeError("no review is open")
    labels, value = desk.opened.session.labels, desk.structure_rows()[0].value
    places = np.argwhere(labels == value)
    middle = places[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()]
    desk.prompt(Prompt("point", value, False, (tuple(float(at) for at in middle),)))  # type: ignore[arg-type]
    _wait(lambda: not desk.busy)


def _wait(holds: Callable[[], bool]) -> None:
    loop, timer, left = QEventLoop(), QTimer(), [MOST_S * 20]

    def look() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise TimeoutError("the plugin did not come to rest")
        if holds():
            loop.quit()

    timer.timeout.connect(look)
    timer.start(50)
    loop.exec_() if hasattr(loop, "exec_") else loop.exec()


def _shoot(viewer: Any, panel: SegmentationPanel, path: Path, *, top: bool = False, widget: Any = None) -> None:
    if top:
        panel.area.verticalScrollBar().setValue(0)
    if widget is not None:
        QApplication.processEvents()
        panel.area.ensureWidgetVisible(widget)
    for _ in range(10):
        QApplication.processEvents()
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    print(path)


if __name__ == "__main__":
    main()
