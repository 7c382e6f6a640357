"""Any order of edits, undo, redo, locks, resets and crashes: the labels are those of a plain model."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from effvit_med.review import STATES, ReviewSession
from effvit_med.review.journal import JOURNAL_FILE
from effvit_med.review.saving import save_review
from effvit_med.volume import Volume
from tests.review.scene import KIDNEY, LIVER, SHAPE, SPLEEN, TABLE, make_automatic

VALUES = st.sampled_from([LIVER, KIDNEY, SPLEEN])
LABELS = st.sampled_from([0, LIVER, KIDNEY, SPLEEN])
PLACES = st.lists(st.integers(0, int(np.prod(SHAPE)) - 1), min_size=1, max_size=40)


class ReviewMachine(RuleBasedStateMachine):
    """A session beside a model that keeps a whole copy of everything for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="review-"))

    @initialize(seed=st.integers(0, 3), unequal=st.booleans())
    def begin(self, seed: int, unequal: bool) -> None:
        """A review of random labels."""
        automatic = make_automatic(seed=seed, unequal=unequal)
        self.session = ReviewSession.start(self.folder, automatic, {})
        self.automatic = automatic.labels.copy()
        self.labels = automatic.labels.copy()
        self.states = {label.value: "unseen" for label in TABLE}
        self.locked: set[int] = set()
        self.past: list[tuple] = []
        self.future: list[tuple] = []
        self.volume = Volume(np.zeros(SHAPE, np.float32), automatic.geometry, "CT", automatic.provenance.source)

    def teardown(self) -> None:
        """Nothing stays on the disk."""
        if hasattr(self, "session"):
            self.session.close()
        shutil.rmtree(self.folder)

    def snapshot(self) -> tuple:
        """All that the model knows."""
        return self.labels.copy(), dict(self.states), set(self.locked)

    def keep(self, before: tuple) -> None:
        """A step of the model, if something is other than before."""
        if not np.array_equal(before[0], self.labels) or before[1:] != (self.states, self.locked):
            self.past.append(before)
            self.future.clear()

    def assign(self, wanted: np.ndarray, value: int) -> bool:
        """Give the model other labels where no locked structure is touched."""
        frozen = np.isin(self.labels, list(self.locked)) | np.isin(wanted, list(self.locked))
        changed = (wanted != self.labels) & ~frozen
        touched = set(self.labels[changed]) | set(wanted[changed])
        for each in touched - {0}:
            if each == value or self.states[each] != "rejected":
                self.states[each] = "edited"
        self.labels = np.where(changed, wanted, self.labels)
        return bool(changed.any())

    @rule(flat=PLACES, label=LABELS, value=VALUES)
    def edit(self, flat: list[int], label: int, value: int) -> None:
        """A click."""
        before, wanted = self.snapshot(), self.labels.copy()
        wanted.reshape(-1)[flat] = label
        self.assign(wanted, value)
        self.keep(before)
        self.session.apply(flat, label, kind="click", value=value, prompt={"kind": "point"})

    @rule(flat=PLACES, label=LABELS, value=VALUES, everywhere=st.booleans())
    def paint(self, flat: list[int], label: int, value: int, everywhere: bool) -> None:
        """A brush that writes into a view of the labels, which are then adopted."""
        before, wanted = self.snapshot(), self.labels.copy()
        wanted.reshape(-1)[flat] = label
        self.assign(wanted, value)
        self.keep(before)
        view = self.session.labels.transpose(2, 1, 0)[::-1]  # as a viewer has it
        view[tuple(np.array(np.unravel_index(flat, SHAPE))[::-1] * [[-1], [1], [1]] + [[SHAPE[2] - 1], [0], [0]])] = (
            label
        )
        self.session.adopt(None if everywhere else flat, kind="brush", value=value)

    @rule()
    def undo(self) -> None:
        """One step back."""
        if self.past:
            self.future.append(self.snapshot())
            self.labels, self.states, self.locked = self.past.pop()
        self.session.undo()

    @rule()
    def redo(self) -> None:
        """One step forward."""
        if self.future:
            self.past.append(self.snapshot())
            self.labels, self.states, self.locked = self.future.pop()
        self.session.redo()

    @rule(value=VALUES, locked=st.booleans())
    def lock(self, value: int, locked: bool) -> None:
        """A lock is switched."""
        before = self.snapshot()
        (self.locked.add if locked else self.locked.discard)(value)
        self.keep(before)
        self.session.set_locked(value, locked)

    @rule(value=VALUES, state=st.sampled_from(["accepted", "accepted", *STATES]))
    def judge(self, value: int, state: str) -> None:
        """A structure gets a state."""
        before, was = self.snapshot(), self.states[value]
        if (was, state) == ("unseen", "looked"):
            return  # no step; it has a test of its own
        self.states[value] = state
        if state == "accepted" and was != state:
            self.locked.add(value)
        if was == "accepted" and was != state:
            self.locked.discard(value)
        self.keep(before)
        self.session.set_state(value, state)

    @rule(value=VALUES)
    def reset(self, value: int) -> None:
        """A structure is brought back."""
        before = self.snapshot()
        mine = (self.labels == value) | (self.automatic == value)
        if self.assign(np.where(mine, self.automatic, self.labels), value):
            self.states[value] = "looked"
        self.keep(before)
        self.session.reset(value)

    @rule(value=st.sampled_from([0, LIVER, KIDNEY, SPLEEN]), start=st.integers(0, 3))
    def agree(self, value: int, start: int) -> None:
        """A place is right as it is: a step that changes nothing."""
        self.past.append(self.snapshot())
        self.future.clear()
        self.session.agree(value, ((start, start + 1), (0, 2), (1, 3)))
        assert self.session.steps[-1].kind == "agree"

    @rule()
    def save(self) -> None:
        """Saving changes nothing of the review, and the record says what the review came to."""
        steps = self.session.steps
        made = save_review(self.session, self.volume, self.folder / "saved", ())
        record = json.loads(made.files["record"].read_text(encoding="utf-8"))
        assert {row["value"]: row["state"] for row in record["structures"]} == self.states
        assert self.session.steps == steps
        _, segmentation = self.session.snapshot()
        rejected = [value for value, state in self.states.items() if state == "rejected"]
        assert np.array_equal(segmentation.labels, np.where(np.isin(self.labels, rejected), 0, self.labels))

    @precondition(lambda self: hasattr(self, "session"))
    @rule(torn=st.binary(max_size=30), unadopted=st.booleans())
    def crash(self, torn: bytes, unadopted: bool) -> None:
        """The process ends without a word, perhaps in the middle of a line or of a stroke."""
        if unadopted:
            self.session.labels[0] = SPLEEN
        self.session._journal.close()
        with (self.folder / JOURNAL_FILE).open("ab") as stream:
            stream.write(torn.replace(b"\n", b""))
        self.session = ReviewSession.resume(self.folder)
        assert bool(self.session.findings) == bool(torn.replace(b"\n", b""))

    @invariant()
    def equal_to_the_model(self) -> None:
        """Labels, states, locks, volumes and what can be undone are those of the model."""
        if not hasattr(self, "session"):
            return
        assert np.array_equal(self.session.labels, self.labels)
        assert self.session.states == self.states
        assert self.session.locked == self.locked
        assert (self.session.can_undo, self.session.can_redo) == (bool(self.past), bool(self.future))
        for value in self.states:
            now, was = self.labels == value, self.automatic == value
            either = (now | was).sum()
            assert self.session.edited_fraction(value) == 1 - (now & was).sum() / either if either else True
            per_slice = now.sum(axis=(1, 2)) @ self.session.geometry.voxel_volumes_mm3() / 1000
            assert np.isclose(self.session.volumes_ml()[value], per_slice)


class LongReviewMachine(ReviewMachine):
    """The same for long."""


TestReview = ReviewMachine.TestCase
TestReview.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
TestLongReview = pytest.mark.slow(LongReviewMachine.TestCase)
TestLongReview.settings = settings(max_examples=220, stateful_step_count=50, deadline=None)  # above 10 000 steps
