"""What must not happen to a review: lost corrections, wrong places, answers of another scan."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.errors import EffvitError
from effvit_med.review import ReviewSession
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt
from tests.plugin.parts import LIVER, SPLEEN, make_result, make_review, make_scan, wait_for

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.controller import Controller  # noqa: E402  after the check above
from napari_effvit_med.desk import ReviewDesk  # noqa: E402
from napari_effvit_med.layers import DisplayFrame  # noqa: E402
from napari_effvit_med.opening import resume_review  # noqa: E402
from napari_effvit_med.pointing import PromptPointer  # noqa: E402
from napari_effvit_med.settings import PluginSettings  # noqa: E402
from napari_effvit_med.tasks import Finished, Task  # noqa: E402

MISSING = (5, 18, 18)
"""A voxel of the part of the liver that the automatic result lacks."""


class Held:
    """A desk whose worker stands still until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.said: list[tuple[str, bool]] = []
        self.viewer = components.ViewerModel()
        self.desk = ReviewDesk(self.viewer, lambda text, error=False: self.said.append((text, error)))
        self.desk.open(make_review(folder))
        self.gate = threading.Event()

    def hold(self) -> None:
        """Let the worker of corrections wait."""
        assert self.desk._quick is not None
        self.desk._quick.put(self.gate.wait)

    def settle(self) -> None:
        """Let go, and wait until nothing is under way."""
        self.gate.set()
        wait_for(lambda: not self.desk.settling, self.desk.poll)

    @property
    def session(self) -> ReviewSession:
        """The review."""
        assert self.desk.opened is not None
        return self.desk.opened.session


@pytest.fixture(name="held")
def _held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path / "reviews")
    yield held
    held.gate.set()
    held.desk.close()


def _shown(held: Held, index: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    assert held.desk.opened is not None
    return tuple(np.array([int(at)]) for at in held.desk.opened.grid.from_index(index))


def _click(at: tuple[int, int, int] = MISSING) -> Prompt:
    return Prompt("point", LIVER, True, (at,))


def test_a_save_that_was_asked_for_is_done_though_the_review_closes(held: Held, tmp_path: Path) -> None:
    """Save while a correction is under way, then close at once: the files are there, with the correction."""
    held.hold()
    held.desk.prompt(_click())
    held.desk.save(tmp_path / "out", ["nifti"])
    held.gate.set()
    held.desk.close()
    assert (tmp_path / "out" / "review.json").is_file()
    assert '"clicks": 1' in (tmp_path / "out" / "review.json").read_text()


def test_corrections_outlive_a_close_that_does_not_wait(held: Held) -> None:
    """A correction that takes longer than closing waits is on the disk all the same, and then the folder is free."""
    folder = held.session.folder
    held.hold()
    held.desk.prompt(_click())
    quick = held.desk._quick
    held.desk.close(0)
    held.gate.set()
    assert quick is not None
    quick._thread.join(60)
    with ReviewSession.resume(folder) as session:
        assert session.labels[MISSING] == LIVER


def test_a_correction_that_fails_while_closing_is_told(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full as the review closes: the message is shown."""

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    held.hold()
    held.desk.prompt(_click())
    monkeypatch.setattr(os, "fsync", fail)
    held.gate.set()
    held.desk.close()
    assert any("No space left" in text and error for text, error in held.said)


@pytest.mark.parametrize("is_first_in_table", [True, False])
def test_painting_while_the_disk_is_slow_is_not_undone(
    held: Held, monkeypatch: pytest.MonkeyPatch, is_first_in_table: bool
) -> None:
    """A second stroke over the first, while that is being written: the second one counts, whatever it paints."""
    values = (LIVER, SPLEEN) if is_first_in_table else (SPLEEN, 0)
    place, began, go, real = _shown(held, (0, 0, 0)), threading.Event(), threading.Event(), os.fsync

    def slow(stream: int) -> None:
        began.set()
        go.wait(60)
        real(stream)

    layer = held.desk.layer
    layer.data_setitem(place, values[0])
    monkeypatch.setattr(os, "fsync", slow)
    held.desk.poll()
    assert began.wait(60)
    layer.data_setitem(place, values[1])
    go.set()
    held.settle()
    assert held.session.labels[0, 0, 0] == values[1]
    assert held.session.segmentation().labels[0, 0, 0] == values[1]


def test_labels_of_a_script_are_saved(held: Held, tmp_path: Path) -> None:
    """What somebody wrote into the layer's array without an event of napari is in what is saved, as it is shown."""
    held.desk.layer.data[_shown(held, (0, 0, 0))] = SPLEEN
    held.desk.save(tmp_path / "out", [])
    held.settle()
    assert held.session.segmentation().labels[0, 0, 0] == SPLEEN


def test_another_array_is_taken_over_without_a_stroke(held: Held) -> None:
    """After ``layer.data = other`` the review has what is shown, and shows what it has."""
    other = held.desk.layer.data.copy()
    other[_shown(held, (0, 0, 0))] = SPLEEN
    held.desk.layer.data = other
    held.desk.poll()
    held.settle()
    assert held.session.segmentation().labels[0, 0, 0] == SPLEEN
    assert np.shares_memory(held.desk.layer.data, held.session.labels)


def test_values_of_another_array_are_not_wrapped(held: Held) -> None:
    """257 is no liver: such labels are not taken, and the layer shows the review again."""
    before, other = held.session.segmentation().labels, held.desk.layer.data.astype(np.int32)
    other[_shown(held, (0, 0, 0))] = 256 + LIVER
    held.desk.layer.data = other
    held.desk.poll()
    held.settle()
    np.testing.assert_array_equal(held.session.segmentation().labels, before)
    np.testing.assert_array_equal(held.session.labels, before)
    assert np.shares_memory(held.desk.layer.data, held.session.labels)
    assert held.said[-1][1]


def test_measurements_from_before_a_correction_are_not_shown(held: Held) -> None:
    """Measuring includes corrections that were asked for before."""
    held.hold()
    held.desk.prompt(_click())
    held.desk.measure()
    held.settle()
    (liver, _) = held.desk.structure_rows()
    assert held.desk.measured[0].volume_ml == pytest.approx(liver.volume_ml)


class Event:
    """A mouse event of napari."""

    def __init__(self, position: tuple[float, ...]) -> None:
        self.position, self.type, self.button, self.modifiers = position, "mouse_press", 1, ("Shift",)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 1, 2)])
def test_a_series_in_time_beside_the_scan_moves_no_place(held: Held, order: tuple[int, ...]) -> None:
    """With a layer of four axes open, places, slices and clicks are still those of the scan's three."""
    held.viewer.add_image(np.zeros((3, *held.desk.layer.data.shape), np.uint8))
    held.viewer.dims.order = order
    held.desk.jump(0)
    assert held.desk.opened is not None
    grid, doubt = held.desk.opened.grid, held.desk.doubts[0]
    index = grid.to_index(held.desk.layer.world_to_data(held.viewer.dims.point[-3:]))
    assert np.round(index).astype(int).tolist() == list(doubt.index)
    along = grid.axes[order[1] - 1]
    assert len(held.desk.strip()) == grid.geometry.shape[along]
    held.desk.go_to_slice(3)
    assert held.desk.slice_number() == 3
    prompts: list[Prompt] = []
    held.desk.prompt = lambda prompt, *_: prompts.append(prompt)  # type: ignore[method-assign]
    pointer = PromptPointer(held.viewer, held.desk, lambda *_, **__: None)
    pointer.tool = "box"
    world = held.desk.layer.data_to_world(grid.from_index(MISSING))
    event = Event((0.0, *world))
    drag = pointer._drag(held.viewer, event)
    next(drag)
    far = np.array(grid.from_index(MISSING), dtype=float)
    for axis in order[2:]:
        far[axis - 1] += 5
    event.type, event.position = "mouse_move", (0.0, *held.desk.layer.data_to_world(far))
    next(drag)
    event.type = "mouse_release"
    with pytest.raises(StopIteration):
        next(drag)
    assert [prompt.axis for prompt in prompts] == [along]
    assert prompts[0].index[0] == pytest.approx(MISSING)


def _other_scan() -> Volume:
    scan = make_scan()
    return replace(scan, array=scan.array + 1)


@pytest.mark.parametrize("other", [_other_scan(), replace(make_scan(), geometry=Geometry(np.eye(4), (12, 40, 48)))])
def test_a_review_is_not_continued_on_another_scan(tmp_path: Path, other: Volume) -> None:
    """Other voxels or another place: the review is let go, and can be opened with its own scan."""
    opened = make_review(tmp_path)
    folder = opened.session.folder
    opened.session.close()
    with pytest.raises(EffvitError):
        resume_review(folder, other, DisplayFrame(), "other")
    resume_review(folder, make_scan(), DisplayFrame(), "scan").session.close()


def test_a_scan_without_dicom_is_saved_as_what_it_allows(bot: Any, tmp_path: Path) -> None:
    """With the settings of a new installation, saving a scan that is no DICOM saves NIfTI, and names no SEG."""
    from napari_effvit_med.review_panel import ReviewPanel

    viewer = components.ViewerModel()
    desk = ReviewDesk(viewer, lambda *_, **__: None, inline=True)
    panel = ReviewPanel(desk, PluginSettings(), lambda *_, **__: None)
    bot.addWidget(panel)
    desk.on_change = panel.update_all
    desk.open(make_review(tmp_path))
    assert panel.seg_check.isChecked()
    assert panel.output_types() == ["nifti"]
    assert "DICOM" in panel.seg_check.toolTip()
    panel.release()
    desk.close()


def _controller(tmp_path: Path, start: Callable[[Task], Task] = Task.run_here) -> Controller:
    return Controller(components.ViewerModel(), start, PluginSettings(reviews_folder=tmp_path / "reviews"))


def test_reviews_found_for_a_scan_are_not_offered_for_another(tmp_path: Path) -> None:
    """The answer for a scan comes after another one was chosen: it is not shown."""
    make_review(tmp_path / "reviews").session.close()
    control = _controller(tmp_path)
    for scan in (make_scan(), _other_scan()):
        control.show_volume(scan)
    answers: list[Any] = []
    control._aside.put = lambda work, then: answers.append((work, then))  # type: ignore[method-assign]
    for layer in control.viewer.layers:
        control.look_for_reviews(layer)
    work, then = answers[0]
    found = work()
    assert len(found) == 1
    then(Finished(found))
    assert control.found_review() is None
    control.close()


def test_a_review_of_a_plain_layer_can_be_continued(tmp_path: Path) -> None:
    """Also a layer that some other program opened has its reviews again."""
    scan = make_scan()
    control = _controller(tmp_path)
    image = control.viewer.add_image(np.ascontiguousarray(scan.array), scale=(4, 1.5, 1.5), name="plain")
    labels = control.viewer.add_labels(make_result().labels, scale=(4, 1.5, 1.5), name="drawn")
    control.review_labels(labels, image)
    control.poll()
    assert control.desk.opened is not None, control.message
    control.desk.close()
    control.look_for_reviews(image)
    control.poll()
    found = control.found_review()
    assert found is not None
    control.continue_review(found, image)
    control.poll()
    assert control.desk.opened is not None
    control.close()


def test_the_expected_time_is_that_of_the_chosen_scan(tmp_path: Path) -> None:
    """Another layer is chosen: what was measured for the one before is not said of it."""
    control = _controller(tmp_path)
    control.show_volume(make_scan())
    control.expected = "About 40 s"
    control.look_for_reviews(control.viewer.layers[0])
    assert control.expected == ""
    control.close()


def test_a_result_is_shown_though_no_review_can_begin(tmp_path: Path, tiny_bundle: Path) -> None:
    """The folder of reviews cannot be written: the labels are there all the same, and the message says why."""
    (tmp_path / "reviews").write_text("a file")
    control = _controller(tmp_path)
    control.choose_model(tiny_bundle)
    control.device = "cpu"
    control.show_volume(make_scan())
    control.segment(control.viewer.layers[0])
    control.poll()
    assert len(control.viewer.layers) == 2
    assert control.desk.opened is None
    assert control.is_error
    assert "reviews" in control.message
    control.close()


def test_a_review_that_nobody_waited_for_is_let_go(tmp_path: Path) -> None:
    """The panel closes between the end of the task and its answer: the folder is free."""
    control = _controller(tmp_path)
    image = control.viewer.add_image(make_scan().array, scale=(4, 1.5, 1.5))
    control.review_labels(control.viewer.add_labels(make_result().labels, scale=(4, 1.5, 1.5)), image)
    task = control._task
    assert task is not None
    control.close()
    (folder,) = (tmp_path / "reviews").iterdir()
    with ReviewSession.resume(folder):
        pass
    del task
