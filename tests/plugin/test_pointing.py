"""What Shift and Ctrl with the mouse say: the right voxels in every view, and nothing where another tool is at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.volume.prompts import Prompt
from tests.plugin.parts import LIVER, make_review

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari.utils.interactions import (  # noqa: E402  after the check above
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_effvit_med.desk import ReviewDesk  # noqa: E402
from napari_effvit_med.pointing import PromptPointer, Tool  # noqa: E402

AT = (5, 18, 18)
CORONAL, SAGITTAL = (1, 0, 2), (2, 0, 1)


@dataclass
class Event:
    """A mouse event, as far as anybody looks at it."""

    type: str
    position: tuple[float, ...]
    modifiers: tuple[str, ...] = ()
    button: int = 1
    handled: bool = False
    is_dragging: bool = True
    pos: tuple[float, float] = (0.0, 0.0)

    @property
    def __wrapped__(self) -> Event:
        """Napari keeps the event of the press, and puts each later one into it."""
        return self

    @__wrapped__.setter
    def __wrapped__(self, later: Event) -> None:
        vars(self).update(vars(later))


class RecordingDesk(ReviewDesk):
    """A desk that keeps the prompts that it is given."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.prompts: list[Prompt] = []

    def prompt(self, prompt: Prompt, duration_s: float | None = None) -> None:
        """Keep it, and correct."""
        self.prompts.append(prompt)
        super().prompt(prompt, duration_s)


class Scene:
    """A viewer with a review in it, and a mouse without a window."""

    def __init__(self, folder: Path) -> None:
        self.said: list[tuple[str, bool]] = []
        self.viewer = components.ViewerModel()
        say = lambda text, error=False: self.said.append((text, error))  # noqa: E731
        self.desk = RecordingDesk(self.viewer, say, inline=True)
        self.opened = make_review(folder)
        self.desk.open(self.opened)
        self.desk.choose(LIVER, jump=False)
        self.pointer = PromptPointer(self.viewer, self.desk, say)

    def world(self, index: Sequence[float]) -> tuple[float, ...]:
        """Where a voxel of the scan lies in napari's world."""
        return tuple(float(at) for at in self.desk.layer.data_to_world(self.opened.grid.from_index(index)))

    def drag(self, *indices: Sequence[float], held: Sequence[str] = ("Shift",), button: int = 1) -> list[Prompt]:
        """Press at the first, go along the others, let go at the last; what was asked for by that."""
        places = [self.world(index) for index in indices]
        before = len(self.desk.prompts)
        mouse_press_callbacks(self.viewer, Event("mouse_press", places[0], tuple(held), button))
        for place in places[1:]:
            mouse_move_callbacks(self.viewer, Event("mouse_move", place, tuple(held), button))
        mouse_release_callbacks(self.viewer, Event("mouse_release", places[-1], tuple(held), button))
        self.desk.poll()
        return self.desk.prompts[before:]

    def choose_tool(self, tool: Tool) -> None:
        """Take a tool."""
        self.pointer.tool = tool


@pytest.fixture(name="scene")
def _scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.pointer.remove()
    scene.desk.close()


def _indices(prompt: Prompt) -> np.ndarray:
    return np.asarray(prompt.index, dtype=float)


@pytest.mark.parametrize(("key", "adds"), [("Shift", True), ("Control", False)])
def test_a_click_adds_or_removes(scene: Scene, key: str, adds: bool) -> None:
    """Shift adds and Ctrl removes, at the voxel of the scan, though the grid is shown upside down."""
    assert any(scene.opened.grid.flips)
    (prompt,) = scene.drag(AT, held=(key,))
    assert (prompt.kind, prompt.value, prompt.adds) == ("point", LIVER, adds)
    np.testing.assert_allclose(_indices(prompt), [AT])


@pytest.mark.parametrize("order", [CORONAL, SAGITTAL, (0, 2, 1)])
def test_a_click_is_right_in_every_view(scene: Scene, order: tuple[int, ...]) -> None:
    """A coronal or sagittal view, and one with its axes exchanged, means the same voxel."""
    scene.viewer.dims.order = order
    (prompt,) = scene.drag(AT)
    np.testing.assert_allclose(_indices(prompt), [AT])


def test_a_short_way_is_a_click(scene: Scene) -> None:
    """A hand that shakes by a voxel clicks where it began."""
    (prompt,) = scene.drag(AT, (5, 18.4, 19.2))
    assert prompt.kind == "point"
    np.testing.assert_allclose(_indices(prompt), [AT])


def test_a_drag_is_a_scribble_along_its_way(scene: Scene) -> None:
    """Both ends are in it, in one slice, and it removes with Ctrl."""
    (prompt,) = scene.drag(AT, (5, 20, 20), (5, 26, 20), held=("Control",))
    assert (prompt.kind, prompt.adds) == ("scribble", False)
    np.testing.assert_allclose(_indices(prompt), [AT, (5, 20, 20), (5, 26, 20)], atol=0.01)


def test_where_the_button_is_let_go_is_the_end(scene: Scene) -> None:
    """The canvas leaves out moves that follow each other quickly, perhaps the last one: the release counts."""
    places = [scene.world(AT), scene.world((5, 18, 22)), scene.world((5, 24, 25))]
    mouse_press_callbacks(scene.viewer, Event("mouse_press", places[0], ("Shift",)))
    mouse_move_callbacks(scene.viewer, Event("mouse_move", places[1], ("Shift",)))
    mouse_release_callbacks(scene.viewer, Event("mouse_release", places[2], ("Shift",)))
    np.testing.assert_allclose(_indices(scene.desk.prompts[-1])[-1], (5, 24, 25), atol=0.01)


@pytest.mark.parametrize(
    ("order", "axis", "ends"),
    [
        ((0, 1, 2), 0, ((5, 10, 8), (5, 24, 20))),
        (CORONAL, 1, ((3, 18, 8), (8, 18, 20))),
        (SAGITTAL, 2, ((3, 10, 16), (8, 24, 16))),
    ],
)
@pytest.mark.parametrize("key", ["Shift", "Control"])
def test_a_box_has_the_axis_of_the_view(
    scene: Scene, order: tuple[int, ...], axis: int, ends: tuple[tuple[int, ...], ...], key: str
) -> None:
    """Its corners are where the drag began and ended, its axis is the scan's that the slider moves along."""
    scene.choose_tool("box")
    scene.viewer.dims.order = order
    middle = np.mean(ends, axis=0)
    (prompt,) = scene.drag(ends[0], middle, ends[1], held=(key,))
    assert (prompt.kind, prompt.axis, prompt.adds) == ("box", axis, key == "Shift")
    np.testing.assert_allclose(_indices(prompt), ends, atol=0.01)


@pytest.mark.parametrize(("order", "axis"), [((0, 1, 2), 0), (CORONAL, 1), (SAGITTAL, 2)])
def test_an_outline_has_the_axis_of_the_view(scene: Scene, order: tuple[int, ...], axis: int) -> None:
    """Its vertices are the way of the mouse, all in the slice that was looked at."""
    scene.choose_tool("lasso")
    scene.viewer.dims.order = order
    way = np.array([(4.0, 12.0, 10.0)] * 4)
    across = [each for each in range(3) if each != axis]
    way[1, across[0]] += 4
    way[2, across] += 4
    way[3, across[1]] += 4
    (prompt,) = scene.drag(*way)
    assert (prompt.kind, prompt.axis) == ("lasso", axis)
    np.testing.assert_allclose(_indices(prompt), way, atol=0.01)


def test_the_voxels_of_a_box_change(scene: Scene) -> None:
    """A box about a part of the liver that is taken away leaves none of it there, and all of it elsewhere."""
    scene.choose_tool("box")
    before = scene.opened.session.labels.copy()
    scene.drag((5, 10, 8), (5, 20, 12), held=("Control",))
    changed = np.argwhere(scene.opened.session.labels != before)
    assert len(changed)
    assert set(changed[:, 0]) == {5}
    assert ((changed >= (5, 9, 7)) & (changed <= (5, 21, 13))).all()


@pytest.mark.parametrize("held", [(), ("Alt",), ("Shift", "Control"), ("Shift", "Alt")])
def test_other_keys_are_not_ours(scene: Scene, held: tuple[str, ...]) -> None:
    """No key, another key, or two of them: the viewer does what it always does."""
    assert scene.drag(AT, held=held) == []
    assert scene.said == []


@pytest.mark.parametrize("button", [2, 3])
def test_other_buttons_are_not_ours(scene: Scene, button: int) -> None:
    """Only the left one corrects."""
    assert scene.drag(AT, button=button) == []


@pytest.mark.parametrize("mode", ["paint", "erase", "fill", "pick", "polygon", "transform"])
def test_another_tool_is_left_alone(scene: Scene, mode: str) -> None:
    """While the labels layer paints, fills or picks, Shift and Ctrl are napari's."""
    scene.viewer.layers.selection.active = scene.desk.layer
    scene.desk.layer.mode = mode
    assert scene.drag(AT) == []
    scene.desk.layer.mode = "pan_zoom"
    assert len(scene.drag(AT)) == 1


def test_a_points_layer_that_is_active_is_left_alone(scene: Scene) -> None:
    """Shift selects points there."""
    points = scene.viewer.add_points(np.zeros((1, 3)))
    scene.viewer.layers.selection.active = points
    assert scene.drag(AT) == []
    scene.viewer.layers.selection.clear()
    assert len(scene.drag(AT)) == 1


def test_three_dimensions_say_why_not(scene: Scene) -> None:
    """A place in three dimensions is a line: nothing is asked, and the message says what to press."""
    scene.viewer.dims.ndisplay = 3
    assert scene.drag(AT) == []
    assert scene.said == [("Corrections by clicking work in the flat view; press the 2D/3D button first.", True)]


@pytest.mark.parametrize("index", [(5, -2, 18), (5, 18, 60), (-3, 18, 18)])
def test_outside_the_scan_says_so(scene: Scene, index: tuple[int, ...]) -> None:
    """A click beside the scan is no correction at its border."""
    assert scene.drag(index) == []
    assert scene.said == [("You pointed outside the scan.", True)]


def test_a_way_that_leaves_the_scan_ends_at_its_border(scene: Scene) -> None:
    """Dragging on over the border is no mistake."""
    (prompt,) = scene.drag(AT, (5, 18, 40), (5, 18, 70))
    np.testing.assert_allclose(_indices(prompt)[-1], (5, 18, 47), atol=0.01)


def test_what_is_removed_listens_no_more(scene: Scene) -> None:
    """The viewer has no callback of ours, and removing twice is no error."""
    scene.pointer.remove()
    scene.pointer.remove()
    assert scene.drag(AT) == []
    assert not any("PromptPointer" in str(call) for call in scene.viewer.mouse_drag_callbacks)


def test_without_a_review_nothing_happens(scene: Scene) -> None:
    """After the review was closed a click with Shift is napari's."""
    world = scene.world(AT)
    scene.desk.close()
    mouse_press_callbacks(scene.viewer, Event("mouse_press", world, ("Shift",)))
    mouse_release_callbacks(scene.viewer, Event("mouse_release", world, ("Shift",)))
    assert (scene.desk.prompts, scene.said) == ([], [])


@pytest.mark.parametrize("order", [(0, 1, 2), CORONAL])
def test_real_events_of_the_mouse(
    viewer: Any, qtbot: Any, wait: Callable[[Callable[[], bool]], None], tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Shift and Ctrl held on the real canvas mean the voxel under the mouse; the view stays where it is."""
    from tests.plugin.hand import CTRL, SHIFT, Hand

    desk = RecordingDesk(viewer, lambda *_, **__: None)
    opened = make_review(tmp_path)
    desk.open(opened)
    pointer = PromptPointer(viewer, desk, lambda *_, **__: None)
    hand = Hand(viewer, qtbot)
    viewer.dims.order = order
    viewer.reset_view()
    world = hand.look_at(desk.layer, opened.grid.from_index(AT))
    centre = hand.camera.center
    hand.click(world, SHIFT)
    hand.click(world, CTRL)
    hand.click(world)
    assert [(prompt.kind, prompt.adds) for prompt in desk.prompts] == [("point", True), ("point", False)]
    for prompt in desk.prompts:
        np.testing.assert_allclose(_indices(prompt), [AT], atol=0.5)
    step = np.zeros(3)
    step[viewer.dims.displayed[1]] = 1.5
    hand.drag([world, world + 4 * step, world + 8 * step], SHIFT)
    assert hand.camera.center == centre
    scribble = desk.prompts[-1]
    assert scribble.kind == "scribble"
    moved = _indices(scribble)[-1] - AT
    assert np.abs(moved).max() == pytest.approx(8, abs=0.7)
    pointer.remove()
    desk.close()
