"""A review with napari's viewer model and no window: choosing, correcting, undoing, saving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from effvit_med.review import ReviewSession
from effvit_med.volume.prompts import Prompt
from tests.plugin.parts import LIVER, SPLEEN, make_review, make_scan, wait_for

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.desk import ReviewDesk  # noqa: E402  after the check above

MISSING = (5, 18, 18)
"""A voxel of the part of the liver that the automatic result lacks."""


class Desk:
    """A desk and what it said."""

    def __init__(self, folder: Path) -> None:
        self.said: list[tuple[str, bool]] = []
        self.viewer = components.ViewerModel()
        self.desk = ReviewDesk(self.viewer, lambda text, error=False: self.said.append((text, error)))
        self.desk.open(make_review(folder))

    def settle(self) -> None:
        """Wait until nothing is under way."""
        wait_for(lambda: not self.desk.settling, self.desk.poll)

    @property
    def labels(self) -> np.ndarray:
        """The labels under review."""
        assert self.desk.opened is not None
        return self.desk.opened.session.labels


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "reviews")
    yield made
    made.desk.close()


def _click(value: int = LIVER, *, adds: bool = True, at: tuple[int, int, int] = MISSING) -> Prompt:
    return Prompt("point", value, adds, (at,))


def test_the_layer_shows_the_memory_of_the_session(made: Desk) -> None:
    """What is painted on the layer is in the session's labels, and the other way round; nothing is a copy."""
    assert np.shares_memory(made.desk.layer.data, made.labels)
    assert [row.name for row in made.desk.structure_rows()] == ["liver", "spleen"]


def test_a_click_brings_back_the_missing_part(made: Desk) -> None:
    """One click adds a good part of the missing half, to the layer and to the journal; the volume follows."""
    before = made.desk.structure_rows()[0].volume_ml or 0
    made.desk.prompt(_click())
    made.settle()
    after = made.desk.structure_rows()[0].volume_ml or 0
    assert made.labels[MISSING] == LIVER
    assert 1.2 * before < after < 2.1 * before
    assert made.desk.structure_rows()[0].state == "edited"
    assert not any(error for _, error in made.said)


def test_the_place_in_doubt_goes_when_it_was_corrected(made: Desk) -> None:
    """The queue begins with the missing half; each click takes its part of the doubt away, from the strip, too."""
    (before,) = made.desk.doubt_rows()
    strip = made.desk.strip().sum()
    made.desk.prompt(_click())
    made.settle()
    changed_ml = (made.desk.structure_rows()[0].volume_ml or 0) - 12.672
    assert sum(row.expected_wrong_ml for row in made.desk.doubt_rows()) < before.expected_wrong_ml
    assert strip - made.desk.strip().sum() == pytest.approx(changed_ml * (255 - 40) / 510, rel=1e-3)


def test_undo_and_redo_go_across_structures(made: Desk) -> None:
    """Two edits of two structures are undone in turn, and made again; the doubt comes back with the first."""
    start = made.labels.copy()
    made.desk.prompt(_click())
    made.desk.choose(SPLEEN)
    made.desk.prompt(_click(SPLEEN, adds=False, at=(5, 18, 36)))
    made.settle()
    edited = made.labels.copy()
    made.desk.undo()
    made.settle()
    assert (made.labels == SPLEEN).sum() == (start == SPLEEN).sum()
    while made.desk.opened is not None and made.desk.opened.session.can_undo:
        made.desk.undo()
        made.settle()
    np.testing.assert_array_equal(made.labels, start)
    assert len(made.desk.doubt_rows()) == 1
    for _ in range(2):
        made.desk.redo()
    made.settle()
    np.testing.assert_array_equal(made.labels, edited)


def test_what_napari_painted_is_a_step(made: Desk) -> None:
    """A stroke of napari's own brush is adopted and can be undone."""
    layer = made.desk.layer
    layer.mode = "paint"
    layer.selected_label = LIVER
    layer.brush_size = 3
    assert made.desk.opened is not None
    shown = made.desk.opened.grid.from_index(MISSING)
    layer.paint(shown, LIVER)
    made.settle()
    assert made.labels[MISSING] == LIVER
    assert [step.kind for step in made.desk.opened.session.steps] == ["brush"]
    made.desk.undo()
    made.settle()
    assert made.labels[MISSING] == 0


def test_painting_over_an_accepted_structure_changes_nothing(made: Desk) -> None:
    """It is locked: the stroke is gone from the layer, too."""
    made.desk.accept(SPLEEN)
    made.settle()
    before = made.labels.copy()
    assert made.desk.opened is not None
    made.desk.layer.data_setitem(
        tuple(np.full(1, at) for at in map(int, made.desk.opened.grid.from_index((5, 18, 36)))), 1
    )
    made.settle()
    np.testing.assert_array_equal(made.labels, before)


def test_correcting_a_locked_structure_says_why_not(made: Desk) -> None:
    """The message names the structure and what to do."""
    made.desk.set_locked(LIVER, True)
    made.desk.prompt(_click())
    made.settle()
    assert made.said[-1] == ("liver is locked, so it cannot be corrected. Unlock or reopen it first.", True)


def test_an_array_given_by_somebody_else_is_taken_over(made: Desk) -> None:
    """After ``layer.data = other`` the next stroke brings the other's voxels into the review, which goes on."""
    layer = made.desk.layer
    other = layer.data.copy()
    other[0, 0, 0] = LIVER
    layer.data = other
    layer.data_setitem((np.array([0]), np.array([0]), np.array([1])), LIVER)
    made.settle()
    assert made.desk.opened is not None
    view = made.desk.opened.grid.view(made.labels)
    assert (view[0, 0, 0], view[0, 0, 1]) == (LIVER, LIVER)
    assert np.shares_memory(layer.data, made.labels)


def test_accepting_goes_on_to_the_next_structure(made: Desk) -> None:
    """The accepted one is locked; taking it back unlocks it."""
    made.desk.choose(LIVER)
    made.desk.accept(LIVER)
    made.settle()
    assert made.desk.current == SPLEEN
    assert made.desk.structure_rows()[0].locked
    made.desk.reopen(LIVER)
    made.settle()
    row = made.desk.structure_rows()[0]
    assert (row.locked, row.state) == (False, "looked")


def test_jumping_shows_the_slice_of_the_doubt(made: Desk) -> None:
    """The slider stands where the doubtful voxel is, also where the array is shown upside down."""
    made.desk.step_doubt(1)
    assert made.desk.opened is not None
    doubt = made.desk.doubts[0]
    assert made.desk.opened.grid.flips[0]
    index = made.desk.opened.grid.to_index(made.desk.layer.world_to_data(made.viewer.dims.point))
    assert round(float(index[0])) == doubt.index[0]
    assert made.desk.slice_number() == made.desk.doubt_rows()[0].slice_number


def test_a_dismissed_doubt_stays_away_until_that_is_undone(made: Desk) -> None:
    """Saying that a place is right is a step of the review."""
    made.desk.dismiss(0)
    made.settle()
    assert made.desk.doubt_rows() == ()
    made.desk.undo()
    made.settle()
    assert len(made.desk.doubt_rows()) == 1


def test_the_strip_is_in_the_order_of_the_slider(made: Desk) -> None:
    """Slices in doubt are those of the missing half, as they are shown: from the head down."""
    strip = made.desk.strip()
    assert np.flatnonzero(strip > 0.01).tolist() == list(range(2, 10))
    made.viewer.dims.order = (2, 0, 1)
    assert np.flatnonzero(made.desk.strip() > 0.01).tolist() == list(range(14, 22))


def test_saving_writes_what_is_shown(made: Desk, tmp_path: Path) -> None:
    """NIfTI, measurements and the record, with the click counted."""
    made.desk.prompt(_click())
    made.desk.save(tmp_path / "out", ["nifti"])
    made.settle()
    assert made.said[-1][0].startswith("Saved ")
    record = json.loads((tmp_path / "out" / "review.json").read_text())
    assert [row["clicks"] for row in record["structures"]] == [1, 0]
    assert (tmp_path / "out" / "reviewed.nii.gz").is_file()


def test_dicom_seg_of_a_scan_without_dicom_says_why_not(made: Desk, tmp_path: Path) -> None:
    """The message is that of the writer, and the desk can save again."""
    made.desk.save(tmp_path / "out", ["dicom-seg"])
    made.settle()
    assert made.said[-1][1]
    assert not made.desk.saving


def test_measuring_fills_the_table(made: Desk) -> None:
    """Volumes are those of the labels now."""
    made.desk.measure()
    made.settle()
    assert made.desk.measured[0].volume_ml == pytest.approx(made.desk.structure_rows()[0].volume_ml)


def test_removing_the_layer_closes_the_review_and_loses_nothing(made: Desk, tmp_path: Path) -> None:
    """The folder is free, and the review can be continued from it."""
    made.desk.prompt(_click())
    made.settle()
    assert made.desk.opened is not None
    folder, labels = made.desk.opened.session.folder, made.labels.copy()
    made.viewer.layers.remove(made.desk.layer)
    assert made.desk.opened is None
    assert "Nothing is lost" in made.said[-1][0]
    with ReviewSession.resume(folder) as session:
        np.testing.assert_array_equal(session.labels, labels)


def test_closing_waits_for_corrections_that_are_under_way(tmp_path: Path) -> None:
    """Three clicks and an immediate close: all three are in the journal."""
    made = Desk(tmp_path / "reviews")
    assert made.desk.opened is not None
    folder = made.desk.opened.session.folder
    for column in (16, 18, 20):
        made.desk.prompt(_click(at=(5, 18, column)))
    made.desk.close()
    with ReviewSession.resume(folder) as session:
        assert session.labels[MISSING] == LIVER


def test_the_layers_own_keys_come_back_when_the_review_closes(made: Desk) -> None:
    """While it is open Ctrl+Z is the review's; later it is napari's own again."""
    layer = made.desk.layer
    assert len(layer.keymap) == 2
    made.desk.close()
    assert len(layer.keymap) == 0
    assert list(made.viewer.layers) == [layer]


def test_prompts_are_marked_on_a_layer_that_is_not_active(made: Desk) -> None:
    """A green point where was clicked; it goes with undo, and the labels stay active."""
    made.viewer.layers.selection.active = made.desk.layer
    made.desk.prompt(_click())
    made.settle()
    points = made.viewer.layers["prompts"]
    assert made.viewer.layers.selection.active is made.desk.layer
    assert made.desk.opened is not None
    np.testing.assert_allclose(points.data, [made.desk.opened.grid.from_index(MISSING)])
    made.desk.undo()
    made.settle()
    assert len(points.data) == 0


def test_the_marks_can_be_deleted(made: Desk) -> None:
    """Who deletes the layer of prompts gets another one with the next."""
    made.desk.prompt(_click())
    made.viewer.layers.remove(made.viewer.layers["prompts"])
    made.desk.prompt(_click(at=(6, 18, 18)))
    made.settle()
    assert "prompts" in made.viewer.layers


def test_the_scan_of_a_test_is_as_the_labels_say() -> None:
    """The block that the click grows into is bright."""
    assert make_scan().array[MISSING] > 80


def test_resetting_a_locked_structure_says_why_not(made: Desk) -> None:
    """Nothing happens in silence."""
    made.desk.set_locked(LIVER, True)
    made.settle()
    made.desk.reset(LIVER)
    assert made.said[-1] == ("liver is locked, so it is not reset. Unlock it first.", True)


def test_another_review_hides_the_labels_of_the_one_before(made: Desk, tmp_path: Path) -> None:
    """Nobody paints by mistake on labels that no review follows any more."""
    before = made.desk.layer
    made.desk.open(make_review(tmp_path / "others"))
    assert not before.visible
    assert made.desk.layer.visible


def test_an_answer_that_comes_late_does_not_move_the_view(made: Desk) -> None:
    """Who chose a structure and went elsewhere stays there."""
    made.desk.choose(SPLEEN)
    made.desk.go_to_slice(11)
    made.settle()
    assert made.desk.slice_number() == 11
