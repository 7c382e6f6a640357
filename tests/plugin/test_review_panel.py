"""The stages review and finish in a real viewer: what is pressed and typed reaches the review; all is given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.review import ReviewSession
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt
from tests.plugin.parts import AFFINE, LIVER, SHAPE, SPLEEN, make_review, make_scan

pytest.importorskip("napari", reason="napari is not here: pip install '.[napari]'")
pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding is here")
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_effvit_med.opening import OpenedReview
from napari_effvit_med.structures_view import LOCK, NAME
from napari_effvit_med.widget import SegmentationPanel
from tests.plugin.hand import LEFT, SHIFT, Hand, click_structure

Wait = Callable[[Callable[[], bool]], None]
KEYS = Qt.Key
MISSING = (5, 18, 18)


class Scene:
    """A panel with a review of a small scan, and a hand."""

    def __init__(self, viewer: Any, bot: Any, wait: Wait, folder: Path) -> None:
        self.viewer, self.bot, self.wait = viewer, bot, wait
        self.keys_before = dict(viewer.keymap)
        self.calls_before = list(viewer.mouse_drag_callbacks)
        self.panel = SegmentationPanel(viewer)
        viewer.window.add_dock_widget(self.panel, name="Segment and review", area="right")
        self.review, self.control = self.panel.review, self.panel.controller
        self.desk = self.control.desk
        self.control.show_volume(make_scan())
        self.opened: OpenedReview = make_review(folder)
        self.desk.open(self.opened)
        self.hand = Hand(viewer, bot)
        self.settle()

    @property
    def session(self) -> ReviewSession:
        """The review."""
        return self.opened.session

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self.wait(lambda: not self.control.running and not self.desk.settling)

    def press(self, button: Any) -> None:
        """Press a button that can be pressed, and wait for what follows."""
        assert button.isEnabled()
        self.bot.mouseClick(button, LEFT)
        self.settle()

    def type(self, key: Any, held: Any = Qt.KeyboardModifier.NoModifier) -> None:
        """Press a key over the picture, and wait for what follows."""
        self.hand.key(key, held)
        self.settle()

    def row(self, value: int, column: int = NAME) -> None:
        """Click on the row of a structure."""
        click_structure(self.review.structures, (LIVER, SPLEEN).index(value), column, self.bot)
        self.settle()

    def correct(self) -> None:
        """Add the missing part of the liver."""
        self.desk.prompt(Prompt("point", LIVER, True, (MISSING,)))
        self.settle()


@pytest.fixture(name="scene")
def _scene(viewer: Any, qtbot: Any, wait: Wait, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(viewer, qtbot, wait, tmp_path / "reviews")
    yield scene
    scene.panel.close()


def test_a_row_chooses_a_structure(scene: Scene) -> None:
    """The row that is clicked on becomes the structure that is painted and corrected."""
    scene.row(SPLEEN)
    assert (scene.desk.current, scene.desk.layer.selected_label) == (SPLEEN, SPLEEN)
    scene.row(LIVER)
    assert (scene.desk.current, scene.desk.layer.selected_label) == (LIVER, LIVER)
    scene.desk.layer.selected_label = SPLEEN  # with napari's own controls
    scene.settle()
    assert scene.review.structures.selected == SPLEEN


def test_accept_and_reject(scene: Scene) -> None:
    """The buttons settle the structure that is selected and take it back when they are pressed again."""
    table = scene.review.structures
    scene.row(LIVER)
    scene.press(table.accept_button)
    assert (scene.session.states[LIVER], scene.session.locked) == ("accepted", {LIVER})
    assert table.selected == SPLEEN
    scene.press(table.reject_button)
    assert scene.session.states[SPLEEN] == "rejected"
    scene.row(LIVER)
    assert table.accept_button.text() == "Reopen"
    scene.press(table.accept_button)
    assert (scene.session.states[LIVER], scene.session.locked) == ("looked", frozenset())


def test_the_lock_is_a_box(scene: Scene) -> None:
    """A click on it locks, another one unlocks."""
    scene.row(LIVER, LOCK)
    assert scene.session.locked == {LIVER}
    scene.row(LIVER, LOCK)
    assert scene.session.locked == frozenset()


def test_reset_undo_and_redo(scene: Scene) -> None:
    """Reset brings back the automatic result, and can be undone; the buttons can be pressed when there is something."""
    review = scene.review
    assert not review.undo_button.isEnabled()
    assert not review.redo_button.isEnabled()
    scene.correct()
    edited = scene.session.labels.copy()
    scene.row(LIVER)
    scene.press(review.structures.reset_button)
    np.testing.assert_array_equal(scene.session.labels, scene.session.automatic)
    scene.press(review.undo_button)
    np.testing.assert_array_equal(scene.session.labels, edited)
    assert review.redo_button.isEnabled()
    scene.press(review.redo_button)
    np.testing.assert_array_equal(scene.session.labels, scene.session.automatic)
    assert not review.redo_button.isEnabled()


def test_only_this_one(scene: Scene) -> None:
    """The others are not drawn while it is pressed."""
    scene.press(scene.review.structures.solo_button)
    assert scene.desk.layer.show_selected_label
    scene.press(scene.review.structures.solo_button)
    assert not scene.desk.layer.show_selected_label


def test_doubts_are_walked_and_dismissed(scene: Scene) -> None:
    """Next goes to the place in doubt; when it is right as it is, it is gone, and its undo brings it back."""
    doubts = scene.review.doubts
    assert doubts.list.count() == 1
    assert not doubts.dismiss_button.isEnabled()
    scene.press(doubts.next_button)
    assert (scene.desk.doubt, doubts.current) == (0, 0)
    assert scene.desk.slice_number() == scene.desk.doubt_rows()[0].slice_number
    scene.press(doubts.dismiss_button)
    assert doubts.list.count() == 0
    assert not doubts.next_button.isEnabled()
    assert [step.kind for step in scene.session.steps] == ["agree"]
    scene.press(scene.review.undo_button)
    assert doubts.list.count() == 1


def test_the_strip_goes_to_a_slice(scene: Scene) -> None:
    """A click on it changes the slice, and the slider moves its mark."""
    strip = scene.review.strip
    assert strip.isVisibleTo(scene.panel)
    for wanted in (0, 7, SHAPE[0] - 1):
        x = next(x for x in range(strip.width()) if strip.slice_at(x + 0.5) == wanted)
        scene.bot.mouseClick(strip, LEFT, pos=QPoint(x + strip.width() // SHAPE[0] // 2, strip.height() // 2))
        assert scene.desk.slice_number() == wanted
    scene.desk.go_to_slice(3)
    assert strip.current == 3


def test_the_tool_is_chosen(scene: Scene) -> None:
    """What dragging draws is what the box says."""
    box = scene.review.tool
    drawn = []
    for number in range(box.count()):
        box.setCurrentIndex(number)
        drawn.append(scene.review.pointer.tool)
    assert drawn == ["click", "box", "lasso"]


def test_keys_for_structures_and_doubts(scene: Scene) -> None:
    """N, K, J, Q, Shift+Q and D do what the table of keys says."""
    scene.type(KEYS.Key_N)
    assert scene.desk.doubt == 0
    scene.type(KEYS.Key_K)
    assert scene.desk.current == SPLEEN
    scene.type(KEYS.Key_J)
    assert scene.desk.current == LIVER
    scene.type(KEYS.Key_N, SHIFT)
    scene.type(KEYS.Key_D)
    assert scene.desk.doubts == ()
    scene.type(KEYS.Key_Q)
    assert scene.session.states[LIVER] == "accepted"
    scene.type(KEYS.Key_J)
    scene.type(KEYS.Key_Q, SHIFT)
    assert scene.session.states[LIVER] == "looked"


def test_keys_for_what_is_shown(scene: Scene) -> None:
    """U draws outlines, W takes the next window, full stop and comma go ten slices."""
    scene.type(KEYS.Key_U)
    assert scene.desk.layer.contour
    scene.type(KEYS.Key_U)
    assert not scene.desk.layer.contour
    scan, before = scene.viewer.layers[0], scene.panel.windows.currentIndex()
    limits = tuple(scan.contrast_limits)
    scene.type(KEYS.Key_W)
    assert scene.panel.windows.currentIndex() == before + 1
    assert tuple(scan.contrast_limits) != limits
    scene.desk.go_to_slice(1)
    scene.type(KEYS.Key_Period)
    assert scene.desk.slice_number() == 11
    scene.type(KEYS.Key_Comma)
    assert scene.desk.slice_number() == 1


def test_h_hides_while_it_is_held(scene: Scene) -> None:
    """The labels are away as long as the key is down."""
    scene.bot.keyPress(scene.hand.canvas, KEYS.Key_H)
    assert not scene.desk.layer.visible
    scene.bot.keyRelease(scene.hand.canvas, KEYS.Key_H)
    scene.bot.waitUntil(lambda: scene.desk.layer.visible, timeout=5000)


def test_saving_by_the_buttons(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types that are ticked are written, beside the journal or where the user says; no second time meanwhile."""
    review = scene.review
    review.seg_check.setChecked(False)
    scene.bot.mouseClick(review.save_button, LEFT)
    assert not review.save_button.isEnabled()
    assert not review.save_as_button.isEnabled()
    scene.settle()
    assert (scene.session.folder / "reviewed.nii.gz").is_file()
    assert review.save_button.isEnabled()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "elsewhere"))
    review.nifti_check.setChecked(False)
    scene.press(review.save_as_button)
    assert (tmp_path / "elsewhere" / "review.json").is_file()
    assert not (tmp_path / "elsewhere" / "reviewed.nii.gz").exists()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    said = scene.control.message
    scene.press(review.save_as_button)
    assert scene.control.message == said


def test_measuring_fills_the_table(scene: Scene) -> None:
    """It is there after the button, and goes with the next correction."""
    assert not scene.review.measurements.isVisibleTo(scene.panel)
    scene.press(scene.review.measure_button)
    assert scene.review.measurements.isVisibleTo(scene.panel)
    scene.correct()
    assert not scene.review.measurements.isVisibleTo(scene.panel)


@pytest.mark.parametrize("stop", [False, True])
def test_closing_the_window_while_files_are_written_asks(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    """No keeps the window; after yes the review goes with the window, and the files are there."""
    asked = []

    class Close:
        """What a click on the X of the window sends, or what follows when the window goes."""

        def __init__(self, kind: Any, *, spontaneous: bool) -> None:
            self._kind, self._spontaneous, self.ignored = kind, spontaneous, False

        def type(self) -> Any:
            return self._kind

        def spontaneous(self) -> bool:
            return self._spontaneous

        def ignore(self) -> None:
            self.ignored = True

    def answer(*arguments: Any) -> Any:
        asked.append(arguments[-1])
        return QMessageBox.StandardButton.Yes if stop else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    scene.review.seg_check.setChecked(False)
    scene.bot.mouseClick(scene.review.save_button, LEFT)
    event, window, folder = Close(QEvent.Type.Close, spontaneous=True), scene.panel.window(), scene.session.folder
    assert scene.panel.eventFilter(window, event) is not stop
    assert event.ignored is not stop
    assert asked == ["Saving is not finished. Wait for it and close?"]
    assert scene.desk.opened is not None  # napari itself may ask next, and be told no
    if stop:
        scene.panel.eventFilter(window, Close(QEvent.Type.Hide, spontaneous=False))
        assert scene.desk.opened is None
    scene.settle()
    assert (folder / "review.json").is_file()


def test_closing_the_panel_gives_everything_back(scene: Scene) -> None:
    """Keys and mouse callbacks are as before the panel, and the review can be continued."""
    scene.correct()
    labels, folder = scene.session.labels.copy(), scene.session.folder
    assert set(scene.viewer.keymap) != set(scene.keys_before)
    scene.panel.close()
    left = {key: call for key, call in scene.viewer.keymap.items() if call is not None}
    assert left == scene.keys_before
    assert scene.viewer.mouse_drag_callbacks == scene.calls_before
    assert not scene.viewer.layers[1].keymap
    scene.viewer.dims.set_point(0, -110.0)  # nobody listens any more
    with ReviewSession.resume(folder) as session:
        np.testing.assert_array_equal(session.labels, labels)


def test_continue_appears_for_the_scan_of_the_review(
    viewer: Any, qtbot: Any, wait: Wait, tmp_path: Path, home: Path
) -> None:
    """The button is there for a scan with an unfinished review, and not for another scan."""
    opened = make_review(home / "effvit-med" / "reviews")
    opened.session.close()
    panel = SegmentationPanel(viewer)
    viewer.window.add_dock_widget(panel, name="Segment and review", area="right")
    other = make_scan()
    panel.controller.show_volume(Volume(other.array + 1, Geometry(AFFINE, SHAPE), "CT"))
    qtbot.wait(200)
    assert not panel.continue_button.isVisibleTo(panel)
    panel.controller.show_volume(make_scan())
    panel.layers.setCurrentIndex(1)
    wait(lambda: panel.continue_button.isVisibleTo(panel))
    panel.layers.setCurrentIndex(0)
    wait(lambda: not panel.continue_button.isVisibleTo(panel))
    panel.layers.setCurrentIndex(1)
    wait(lambda: panel.continue_button.isVisibleTo(panel))
    qtbot.mouseClick(panel.continue_button, LEFT)
    wait(lambda: panel.controller.desk.opened is not None and not panel.controller.running)
    assert not panel.continue_button.isVisibleTo(panel)
    panel.close()
