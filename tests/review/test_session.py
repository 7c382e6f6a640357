"""The session: what is locked stays, everything is undone and done again, and a crash loses nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import GeometryError, InputError, OutputError, SettingsError
from effvit_med.review import ReviewSession
from effvit_med.review.automatic import AUTOMATIC_FILE
from effvit_med.review.journal import JOURNAL_FILE, Journal
from effvit_med.review.record import Effort
from effvit_med.volume import Volume
from effvit_med.volume.measurements import measure
from tests.review.scene import KIDNEY, LIVER, SPLEEN, make_automatic


@pytest.fixture(name="session")
def _session(tmp_path: Path):
    with ReviewSession.start(tmp_path / "review", make_automatic(), {"series": "1.3"}) as session:
        yield session


def places(session: ReviewSession, value: int) -> np.ndarray:
    return np.flatnonzero(session.labels == value)


def reopen(session: ReviewSession) -> ReviewSession:
    session.close()
    return ReviewSession.resume(session.folder)


def test_the_automatic_result_is_not_touched(tmp_path: Path) -> None:
    """The caller's array stays as it is, and the session's copy cannot be written."""
    automatic = make_automatic()
    before = automatic.labels.copy()
    with ReviewSession.start(tmp_path, automatic, {}) as session:
        session.apply(np.arange(50), LIVER, kind="brush", value=LIVER)
        assert np.array_equal(session.automatic, before)
        with pytest.raises(ValueError, match="read-only"):
            session.automatic[0] = 1
    assert np.array_equal(automatic.labels, before)


def test_an_accepted_structure_neither_gains_nor_loses(session: ReviewSession) -> None:
    """Accepting locks: an edit changes only voxels that neither are nor become it."""
    session.set_state(KIDNEY, "accepted")
    before = session.labels.copy()
    everywhere = np.arange(before.size)
    assert len(session.apply(everywhere, KIDNEY, kind="brush", value=KIDNEY)) == 0
    session.apply(everywhere, LIVER, kind="brush", value=LIVER)
    assert np.array_equal(session.labels, np.where(before == KIDNEY, KIDNEY, LIVER))


def test_taking_acceptance_back_unlocks(session: ReviewSession) -> None:
    """A structure that is opened again can be edited again."""
    session.set_state(KIDNEY, "accepted")
    assert session.locked == {KIDNEY}
    session.set_state(KIDNEY, "looked")
    assert session.locked == frozenset()
    assert len(session.apply(places(session, KIDNEY), 0, kind="erase", value=KIDNEY))


def test_an_edit_changes_states(session: ReviewSession) -> None:
    """What gains or loses voxels is edited; a rejected neighbour stays rejected; the rest is as it was."""
    session.set_state(KIDNEY, "rejected")
    session.apply(places(session, KIDNEY)[:2], LIVER, kind="click", value=LIVER)
    assert session.states == {LIVER: "edited", KIDNEY: "rejected", SPLEEN: "unseen"}


def test_states_and_locks_are_undone(session: ReviewSession) -> None:
    """Accepting is a step: undo opens and unlocks, redo accepts and locks."""
    session.set_state(LIVER, "accepted")
    assert len(session.undo()) == 0
    assert (session.states[LIVER], session.locked) == ("unseen", frozenset())
    session.redo()
    assert (session.states[LIVER], session.locked) == ("accepted", {LIVER})


def test_looking_keeps_what_can_be_redone(session: ReviewSession) -> None:
    """To look at a structure is no step: it is not undone, and what was undone can still be redone."""
    session.apply(places(session, 0)[:3], LIVER, kind="click", value=LIVER)
    session.undo()
    session.set_state(SPLEEN, "looked")
    assert not session.can_undo
    assert len(session.redo()) == 3
    assert session.states[SPLEEN] == "looked"


def test_nothing_to_undo_is_none(session: ReviewSession) -> None:
    """Neither undo nor redo does something at the end of its row."""
    assert session.undo() is None
    assert session.redo() is None


def test_an_edit_that_changes_nothing_is_no_step(session: ReviewSession) -> None:
    """What is so already is neither recorded nor undone, and keeps what can be redone."""
    session.apply(places(session, 0)[:3], LIVER, kind="click", value=LIVER)
    session.undo()
    assert len(session.apply(places(session, LIVER), LIVER, kind="click", value=LIVER)) == 0
    assert session.can_redo


def test_undo_crosses_a_restart(session: ReviewSession) -> None:
    """What was done before the program ended can be undone after it began again."""
    before = session.labels.copy()
    session.apply(places(session, 0)[:9], SPLEEN, kind="box", value=SPLEEN)
    session.set_state(SPLEEN, "accepted")
    with reopen(session) as again:
        again.undo()
        assert len(again.undo()) == 9
        assert np.array_equal(again.labels, before)


def test_a_stroke_is_adopted(session: ReviewSession) -> None:
    """What a brush wrote into the labels is one step, and undo takes it from the same array."""
    before, flat = session.labels.copy(), places(session, 0)[:5]
    session.labels.reshape(-1)[flat] = KIDNEY
    assert session.adopt(flat, kind="brush", value=KIDNEY).after.tolist() == [KIDNEY] * 5
    with reopen(session) as again:
        assert (again.labels.reshape(-1)[flat] == KIDNEY).all()
        again.undo()
        assert np.array_equal(again.labels, before)


def test_a_stroke_over_a_locked_structure_is_taken_back_there(session: ReviewSession) -> None:
    """The locked voxels have their value again; the rest of the stroke stays."""
    session.set_locked(LIVER, True)
    before = session.labels.copy()
    session.labels[...] = SPLEEN
    session.adopt(None, kind="fill", value=SPLEEN)
    assert np.array_equal(session.labels, np.where(before == LIVER, LIVER, SPLEEN))


def test_a_stroke_with_an_unknown_label_is_taken_back(session: ReviewSession) -> None:
    """A label that the table does not have is an error, and leaves nothing behind."""
    before = session.labels.copy()
    session.labels[0] = 99
    with pytest.raises(SettingsError, match="label value 99"):
        session.adopt(None, kind="brush", value=LIVER)
    assert np.array_equal(session.labels, before)


def test_painting_that_is_not_adopted_does_no_harm(session: ReviewSession) -> None:
    """What a brush is painting while a click arrives comes into the journal only when it is adopted."""
    flat = places(session, 0)[:6]
    session.labels.reshape(-1)[flat[:4]] = KIDNEY
    session.apply(flat[2:], LIVER, kind="click", value=LIVER)
    assert session.labels.reshape(-1)[flat].tolist() == [KIDNEY] * 4 + [LIVER] * 2
    session.undo()
    session.adopt(flat[:4], kind="brush", value=KIDNEY)
    now = session.labels.copy()
    with reopen(session) as again:
        assert np.array_equal(again.labels, now)


def test_reset_brings_a_structure_back(session: ReviewSession) -> None:
    """Gained voxels become what they were, lost ones come back, what other structures did elsewhere stays."""
    automatic = session.automatic
    gained, lost = places(session, KIDNEY)[:4], places(session, LIVER)[:4]
    elsewhere = places(session, SPLEEN)[:1]
    session.apply(gained, LIVER, kind="brush", value=LIVER)
    session.apply(lost, 0, kind="erase", value=LIVER)
    session.apply(elsewhere, 0, kind="erase", value=SPLEEN)
    session.reset(LIVER)
    assert np.array_equal(session.labels == LIVER, automatic == LIVER)
    assert np.flatnonzero(session.labels != automatic).tolist() == elsewhere.tolist()
    assert (session.states[LIVER], session.edited_fraction(LIVER)) == ("looked", 0.0)
    session.undo()
    assert (session.labels.reshape(-1)[gained] == LIVER).all()
    assert session.states[LIVER] == "edited"


@pytest.mark.parametrize("unequal", [False, True])
def test_volumes_are_those_of_the_measurements(tmp_path: Path, unequal: bool) -> None:
    """Live volumes equal what is measured of the whole array, also of slices at unequal distances."""
    automatic = make_automatic(unequal=unequal)
    with ReviewSession.start(tmp_path, automatic, {}) as session:
        session.apply(np.arange(30, 90), KIDNEY, kind="brush", value=KIDNEY)
        session.apply(np.arange(60), 0, kind="erase", value=LIVER)
        session.undo()
        rows = measure(Volume(np.zeros(automatic.labels.shape), automatic.geometry, "CT"), session.segmentation())
        assert session.volumes_ml() == pytest.approx({row.value: row.volume_ml for row in rows})


def test_the_record_says_what_was_done(session: ReviewSession) -> None:
    """Clicks, strokes, states and the overlap with the automatic result, structure by structure."""
    had = int((session.automatic == LIVER).sum())
    session.apply(places(session, 0)[:2], LIVER, kind="click", value=LIVER, prompt={"kind": "point"})
    session.apply(places(session, 0)[:1], LIVER, kind="click", value=LIVER)
    session.apply(places(session, 0)[:4], LIVER, kind="brush", value=LIVER, duration_s=1.5)
    session.undo()
    session.set_state(LIVER, "accepted")
    with reopen(session) as again:
        record = again.record()
    liver, kidney = record.structures[:2]
    assert (liver.state, liver.locked, liver.clicks, liver.strokes, liver.drawing_s) == ("accepted", True, 2, 1, 1.5)
    assert liver.dice == pytest.approx(2 * had / (2 * had + 3))
    assert liver.edited_fraction == pytest.approx(3 / (had + 3))
    assert (kidney.state, kidney.clicks, kidney.dice) == ("unseen", 0, 1.0)
    assert (record.sittings, record.undone, record.source_note) == (2, 1, {"series": "1.3"})


def test_what_the_review_started_from_comes_back(session: ReviewSession) -> None:
    """Table, geometry, confidence and provenance with its identity are there after a restart."""
    automatic = make_automatic()
    with reopen(session) as again:
        assert again.table == automatic.table
        assert again.geometry == automatic.geometry
        assert np.array_equal(again.confidence, automatic.confidence)
        assert again.provenance.identity() == automatic.provenance.identity()
        assert again.provenance.source.files[0].path == Path("a.dcm")


def test_many_labels_fit(tmp_path: Path) -> None:
    """Labels of two bytes are reviewed as those of one are."""
    with ReviewSession.start(tmp_path, make_automatic(np.uint16), {}) as session:
        session.apply([5, 6], SPLEEN, kind="click", value=SPLEEN)
        now = session.labels.copy()
        with reopen(session) as again:
            assert again.labels.dtype == np.uint16
            assert np.array_equal(again.labels, now)


def test_rejected_structures_can_be_left_out(session: ReviewSession) -> None:
    """A segmentation without a structure has background there; the session keeps it."""
    made = session.segmentation(without=frozenset({KIDNEY}))
    assert not (made.labels == KIDNEY).any()
    assert (session.labels == KIDNEY).any()
    assert made.provenance.steps[-1].name == "review"


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda session: session.apply([0], 99, kind="click", value=LIVER), SettingsError),
        (lambda session: session.apply([0], LIVER, kind="click", value=99), SettingsError),
        (lambda session: session.apply([0], LIVER, kind="reset", value=LIVER), SettingsError),
        (lambda session: session.apply([0], LIVER, kind="Two words", value=LIVER), SettingsError),
        (lambda session: session.apply([0], LIVER, kind="click", value=LIVER, prompt={"at": {1}}), SettingsError),
        (lambda session: session.apply([0], LIVER, kind="click", value=LIVER, duration_s=float("nan")), SettingsError),
        (lambda session: session.apply([10**6], LIVER, kind="click", value=LIVER), GeometryError),
        (lambda session: session.adopt([10**6], kind="brush", value=LIVER), GeometryError),
        (lambda session: session.reset(99), SettingsError),
        (lambda session: session.set_state(LIVER, "fine"), SettingsError),
        (lambda session: session.set_state(0, "accepted"), SettingsError),
        (lambda session: session.set_locked(0, True), SettingsError),
    ],
)
def test_a_mistake_changes_nothing(session: ReviewSession, act, error) -> None:
    """A wrong call is an error; labels and journal stay as they are."""
    assert session.labels[0, 0, 0] != LIVER
    before, journal = session.labels.copy(), (session.folder / JOURNAL_FILE).read_bytes()
    with pytest.raises(error):
        act(session)
    assert np.array_equal(session.labels, before)
    assert (session.folder / JOURNAL_FILE).read_bytes() == journal


def test_what_cannot_be_written_does_not_happen(session: ReviewSession, monkeypatch) -> None:
    """When the journal refuses, labels, states and undo are as they were."""

    def refuse(self, event) -> int:
        raise OutputError("The disk is full.")

    flat = places(session, 0)[:3]
    session.apply(flat, LIVER, kind="click", value=LIVER)
    before, states = session.labels.copy(), session.states
    monkeypatch.setattr(Journal, "append", refuse)
    session.labels[1] = KIDNEY
    for act in (
        lambda: session.adopt(None, kind="brush", value=KIDNEY),
        lambda: session.apply(flat, 0, kind="erase", value=LIVER),
        session.undo,
        lambda: session.reset(LIVER),
        lambda: session.set_state(LIVER, "accepted"),
    ):
        with pytest.raises(OutputError, match="disk is full"):
            act()
        assert np.array_equal(session.labels, before)
    assert session.states == states
    assert session.can_undo


def test_a_session_that_is_closed_takes_nothing(session: ReviewSession) -> None:
    """After closing an edit is an error, not lost in silence."""
    session.close()
    with pytest.raises(OutputError, match="closed"):
        session.apply([0, 1, 2, 3, 4, 5], LIVER, kind="click", value=LIVER)


def test_another_automatic_result_is_an_error(session: ReviewSession, tmp_path: Path) -> None:
    """A review is not replayed on labels that it did not start from, nor without them."""
    session.close()
    with ReviewSession.start(tmp_path / "other", make_automatic(seed=1), {}) as other:
        (other.folder / AUTOMATIC_FILE).replace(session.folder / AUTOMATIC_FILE)
    with pytest.raises(InputError, match="not the file that this review started from"):
        ReviewSession.resume(session.folder)
    (session.folder / AUTOMATIC_FILE).unlink()
    with pytest.raises(InputError, match="cannot be used"):
        ReviewSession.resume(session.folder)


def test_a_start_that_was_cut_short_can_be_made_again(tmp_path: Path) -> None:
    """Without a journal there is no review yet, whatever else lies in the folder."""
    (tmp_path / AUTOMATIC_FILE).write_bytes(b"half")
    with ReviewSession.start(tmp_path, make_automatic(), {}) as session:
        assert session.folder == tmp_path


def test_an_event_of_another_version_is_an_error(session: ReviewSession) -> None:
    """What this version does not know is not passed over: the line is named."""
    session._journal.append({"type": "dream", "time": "2024-01-01T00:00:00+00:00"})
    with pytest.raises(InputError, match=r"Line 2 of .* 'dream', which this version does not know"):
        reopen(session)


def test_numpy_values_are_written_down(session: ReviewSession) -> None:
    """Label values and prompts may come straight out of arrays."""
    liver = np.uint8(LIVER)
    session.apply(places(session, 0)[:2], liver, kind="click", value=liver, prompt={"index": np.array([0.5, 1.0])})
    session.set_state(liver, "accepted")
    session.set_locked(np.uint8(KIDNEY), np.bool_(True))
    with reopen(session) as again:
        assert again.locked == {LIVER, KIDNEY}
        assert again.record().structures[0].clicks == 1


def test_clicks_and_strokes_from_two_threads(session: ReviewSession) -> None:
    """While one thread clicks, another one paints and adopts: the journal holds what the labels show."""

    def click() -> None:
        draw = np.random.default_rng(1)
        for _ in range(150):
            session.apply(draw.integers(0, 192, 40), int(draw.choice([0, LIVER])), kind="click", value=LIVER)

    draw = np.random.default_rng(2)
    with ThreadPoolExecutor(1) as pool:
        clicks = pool.submit(click)
        for _ in range(150):
            flat = draw.integers(0, 192, 40)
            session.labels.reshape(-1)[flat] = int(draw.choice([SPLEEN, KIDNEY]))
            session.adopt(flat, kind="brush", value=SPLEEN)
        clicks.result()
    assert len(session.adopt(None, kind="brush", value=SPLEEN)) == 0
    now, volumes = session.labels.copy(), session.volumes_ml()
    with reopen(session) as again:
        assert np.array_equal(again.labels, now)
        assert again.volumes_ml() == pytest.approx(volumes)


def test_a_pause_counts_no_more_than_two_minutes() -> None:
    """Whoever goes to lunch does not review meanwhile, nor between two sittings."""
    effort = Effort()
    for word, time in (
        ("start", "10:00"),
        ("step", "10:01"),
        ("step", "11:30"),
        ("resume", "15:00"),
        ("undo", "15:00"),
    ):
        effort.note({"type": word, "kind": "brush", "value": LIVER, "time": f"2024-01-01T{time}:00+00:00"})
    assert effort.active_s == {LIVER: 60.0 + 120.0}
    assert (effort.strokes, effort.undone, effort.sittings) == ({LIVER: 2}, 1, 2)


def test_agreeing_is_a_step(session: ReviewSession) -> None:
    """That a place is right as it is changes no voxel and no state, can be undone, and is there after a restart."""
    before, states = session.labels.copy(), session.states
    session.agree(KIDNEY, ((0, 2), (1, 3), (2, 5)))
    (step,) = session.steps
    assert (step.kind, step.value, step.voxels()) == ("agree", KIDNEY, None)
    assert step.prompt is not None
    assert step.prompt["box"] == [[0, 2], [1, 3], [2, 5]]
    with reopen(session) as again:
        assert again.steps == (step,)
        assert (again.states, again.edited) == (states, frozenset())
        assert np.array_equal(again.labels, before)
        assert len(again.undo()) == 0
        assert again.steps == ()
        again.redo()
        assert again.steps == (step,)


def test_agreeing_to_a_place_of_nothing_in_particular(session: ReviewSession) -> None:
    """Background has the value 0; a structure that is not in the table is an error and no step."""
    session.agree(0, ((0, 1), (0, 1), (0, 1)))
    with pytest.raises(SettingsError, match="99"):
        session.agree(99, ((0, 1), (0, 1), (0, 1)))
    assert [step.value for step in session.steps] == [0]


def test_steps_are_those_that_stand(session: ReviewSession) -> None:
    """The oldest first; undone ones go, a look is none, and a new step takes the place of what was undone."""
    session.apply(places(session, 0)[:3], LIVER, kind="click", value=LIVER)
    session.set_state(SPLEEN, "looked")
    session.set_locked(KIDNEY, True)
    assert [step.kind for step in session.steps] == ["click", "lock"]
    session.undo()
    assert [step.kind for step in session.steps] == ["click"]
    session.agree(0, ((0, 1), (0, 1), (0, 1)))
    assert [step.kind for step in session.steps] == ["click", "agree"]
    voxels = session.steps[0].voxels()
    assert voxels is not None
    assert voxels.after.tolist() == [LIVER] * 3
