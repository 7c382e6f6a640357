"""One whole review in a real viewer of napari, with real clicks and keys: from the DICOM folder to the DICOM SEG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from effvit_med.io.dicom_seg_reading import read_dicom_seg
from effvit_med.review import ReviewSession

pytest.importorskip("napari", reason="napari is not here: pip install '.[napari]'")
pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding is here")
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_effvit_med.structures_view import LOCK, NAME
from napari_effvit_med.widget import SegmentationPanel
from tests.plugin.hand import CTRL, LEFT, SHIFT, Hand, click_structure

Wait = Callable[[Callable[[], bool]], None]


class Reader:
    """Somebody who reviews: the panel in its viewer, and a hand."""

    def __init__(self, viewer: Any, bot: Any, wait: Wait) -> None:
        self.viewer, self.bot, self.wait = viewer, bot, wait
        self.panel = SegmentationPanel(viewer)
        self.dock = viewer.window.add_dock_widget(self.panel, name="Segment and review", area="right")
        self.desk = self.panel.controller.desk
        self.hand = Hand(viewer, bot)

    def press(self, button: Any) -> None:
        """Press a button and wait for all that follows."""
        assert button.isEnabled()
        self.bot.mouseClick(button, LEFT)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self.wait(lambda: not self.panel.controller.running and not self.desk.settling)

    def open(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        """Choose a folder and show its first scan."""
        patch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
        self.press(self.panel.folder_button)
        self.press(self.panel.open_button)

    def click_row(self, value: int, column: int) -> None:
        """Click on a cell of the table of structures."""
        values = [row.value for row in self.desk.structure_rows()]
        click_structure(self.panel.review.structures, values.index(value), column, self.bot)
        self.settle()

    @property
    def session(self) -> ReviewSession:
        """The review."""
        assert self.desk.opened is not None
        return self.desk.opened.session


def _voxels(seg: Path, session: ReviewSession) -> np.ndarray:
    """What a DICOM SEG on the disk says at every voxel under review: by place, and by the names of its segments."""
    read = read_dicom_seg(seg)
    places = session.geometry.index_to_world(np.indices(read.labels.shape).reshape(3, -1).T)
    index = np.rint(read.geometry.world_to_index(places)).astype(int)
    assert sorted(read.labels.shape) == sorted(session.labels.shape)
    values = {label.name: label.value for label in session.table}
    lookup = np.zeros(read.labels.max() + 1, session.labels.dtype)
    for label in read.table:
        lookup[label.value] = values[label.name]
    return lookup[read.labels[tuple(index.T)]].reshape(session.labels.shape)


def _algorithms(seg: Path) -> dict[str, str]:
    return {item.SegmentLabel: item.SegmentAlgorithmType for item in pydicom.dcmread(seg).SegmentSequence}


def _expect(reader: Reader, labels: np.ndarray) -> None:
    reader.settle()
    np.testing.assert_array_equal(reader.session.labels, labels)


def _jump(reader: Reader, value: int) -> tuple[int, int, int]:
    """Go to the next place in doubt by its key; where that is."""
    reader.hand.key(Qt.Key.Key_N)
    reader.settle()
    assert reader.desk.doubt is not None
    doubt = reader.desk.doubts[reader.desk.doubt]
    assert reader.desk.current == doubt.value == value
    return doubt.index


def _correct(reader: Reader, value: int, place: tuple[int, int, int]) -> None:
    """Take away, undo, redo, add, undo, redo, scribble: each changes what it should, and nothing else."""
    session, hand, layer = reader.session, reader.hand, reader.desk.layer
    assert reader.desk.opened is not None
    grid, start = reader.desk.opened.grid, session.labels.copy()
    hand.click(hand.look_at(layer, grid.from_index(place)), CTRL)
    reader.settle()
    removed = session.labels.copy()
    assert (start[place], removed[place]) == (value, 0)
    hand.key(Qt.Key.Key_Z, CTRL)
    _expect(reader, start)
    hand.key(Qt.Key.Key_Z, CTRL | SHIFT)
    _expect(reader, removed)

    missing = np.argwhere((removed == 0) & (start == 0))
    back = tuple(map(int, missing[np.abs(missing - place).sum(axis=1).argmin()]))
    hand.click(hand.look_at(layer, grid.from_index(back)), SHIFT)
    reader.settle()
    assert session.labels[back] == value
    added = session.labels.copy()
    hand.key(Qt.Key.Key_Z, CTRL)
    _expect(reader, removed)
    reader.press(reader.panel.review.redo_button)
    _expect(reader, added)

    world = hand.look_at(layer, grid.from_index(place))
    hand.drag([np.add(world, (0, 0, across)) for across in (0, 12, 24, 36)], CTRL)
    reader.settle()
    assert session.steps[-1].kind == "scribble"
    assert (session.labels != added).any()


def _finish(reader: Reader, value: int, other: int) -> None:
    """Accept the one by its key, save, reject the other, save again: the file has what stands, and says how."""
    session, review = reader.session, reader.panel.review
    names = {label.value: label.name for label in session.table}
    reader.hand.key(Qt.Key.Key_Q)
    reader.settle()
    assert session.states[value] == "accepted"
    assert session.locked == {value, other}
    assert reader.desk.current != value
    reader.press(review.save_button)
    seg = session.folder / "reviewed.seg.dcm"
    assert reader.panel.foot.message.text().startswith("Saved reviewed.seg.dcm")
    np.testing.assert_array_equal(_voxels(seg, session), session.labels)
    assert session.edited == {value}
    assert _algorithms(seg) == {names[value]: "SEMIAUTOMATIC", names[other]: "AUTOMATIC"}

    reader.click_row(other, NAME)
    reader.press(review.structures.reject_button)
    assert session.states[other] == "rejected"
    reader.press(review.save_button)
    np.testing.assert_array_equal(_voxels(seg, session), np.where(session.labels == other, 0, session.labels))
    assert _algorithms(seg) == {names[value]: "SEMIAUTOMATIC"}


def test_case_30_a_whole_review(
    viewer: Any,
    qtbot: Any,
    wait: Wait,
    sample_data: Path,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Open, segment, jump, correct, undo, accept, save, reopen: files and the reopened review have every voxel."""
    reader = Reader(viewer, qtbot, wait)
    reader.open(sample_data / "ct_nonsquare", monkeypatch)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tiny_bundle))
    reader.press(reader.panel.model_button)
    reader.press(reader.panel.run_button)
    session = reader.session
    value = reader.desk.doubts[0].value
    (other,) = {each for each, volume in session.volumes_ml().items() if volume} - {value}
    reader.click_row(other, LOCK)  # so that it stays as it is
    assert session.locked == {other}
    _correct(reader, value, _jump(reader, value))
    _finish(reader, value, other)

    labels, folder, states, steps = session.labels.copy(), session.folder, session.states, len(session.steps)
    reader.panel.close()
    again = Reader(request.getfixturevalue("make_napari_viewer")(), qtbot, wait)
    again.open(sample_data / "ct_nonsquare", monkeypatch)
    wait(lambda: again.panel.continue_button.isVisibleTo(again.panel))
    assert again.panel.continue_button.text().startswith("Continue the review of ")
    again.press(again.panel.continue_button)
    assert again.session.folder == folder
    np.testing.assert_array_equal(again.session.labels, labels)
    assert (again.session.states, len(again.session.steps)) == (states, steps)
    again.press(again.panel.review.save_button)
    seg = folder / "reviewed.seg.dcm"
    np.testing.assert_array_equal(_voxels(seg, again.session), np.where(labels == other, 0, labels))
    again.panel.close()
