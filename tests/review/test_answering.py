"""A prompt becomes one step of the review, or an error that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import GeometryError, SettingsError
from effvit_med.review import RefineRequest, ReviewSession
from effvit_med.review.answering import answer_prompt, prompts_of
from effvit_med.volume import Volume
from effvit_med.volume.prompts import Prompt
from tests.review.scene import KIDNEY, LIVER, SPLEEN, make_automatic

AT = (2, 3, 4)


class AllOf:
    """A refiner that says that all it is shown belongs to the structure, or nothing; it keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[RefineRequest] = []

    def refine(self, request: RefineRequest) -> np.ndarray:
        """The whole crop or none of it."""
        self.requests.append(request)
        return np.full(request.labels.shape, request.prompts[-1].adds)


@pytest.fixture(name="session")
def _session(tmp_path: Path) -> Iterator[ReviewSession]:
    with ReviewSession.start(tmp_path, make_automatic(), {}) as session:
        yield session


@pytest.fixture(name="volume")
def _volume() -> Volume:
    automatic = make_automatic()
    return Volume(np.zeros(automatic.labels.shape, np.float32), automatic.geometry, "CT")


def _point(value: int = LIVER, *, adds: bool = True, at: tuple[float, float, float] = AT) -> Prompt:
    return Prompt("point", value, adds, (at,))


def test_an_answer_is_one_step(session: ReviewSession, volume: Volume) -> None:
    """It says what was pointed at and how long that took, and one undo takes it back."""
    before = session.labels.copy()
    change = answer_prompt(session, volume, _point(), AllOf(), 100.0, 1.5)
    assert len(change) == np.count_nonzero(session.labels != before) > 0
    (step,) = session.steps
    assert (step.kind, step.value, step.duration_s) == ("point", LIVER, 1.5)
    assert step.prompt is not None
    assert Prompt.from_dict(step.prompt) == _point()
    session.undo()
    np.testing.assert_array_equal(session.labels, before)


def test_locked_structures_stay(session: ReviewSession, volume: Volume) -> None:
    """An answer that would take their voxels takes only the others."""
    session.set_locked(KIDNEY, True)
    before = session.labels.copy()
    answer_prompt(session, volume, _point(), AllOf(), 100.0)
    np.testing.assert_array_equal(session.labels == KIDNEY, before == KIDNEY)
    assert np.count_nonzero(session.labels == LIVER) > np.count_nonzero(before == LIVER)


def test_a_locked_structure_is_not_corrected(session: ReviewSession, volume: Volume) -> None:
    """The message has its name, and the refiner is not asked."""
    session.set_locked(LIVER, True)
    refiner = AllOf()
    with pytest.raises(SettingsError, match="liver is locked"):
        answer_prompt(session, volume, _point(), refiner)
    assert refiner.requests == []
    assert [step.kind for step in session.steps] == ["lock"]


def test_an_unknown_structure_is_an_error(session: ReviewSession, volume: Volume) -> None:
    """Its value is in the message."""
    with pytest.raises(SettingsError, match="99"):
        answer_prompt(session, volume, _point(99), AllOf())


@pytest.mark.parametrize("at", [(-1.0, 3.0, 4.0), (4.0, 3.0, 4.0), (2.0, 3.0, 8.2)])
def test_outside_the_scan_is_an_error(session: ReviewSession, volume: Volume, at: tuple[float, float, float]) -> None:
    """Nothing is changed by a prompt that begins beside the scan."""
    with pytest.raises(GeometryError, match="outside"):
        answer_prompt(session, volume, _point(at=at), AllOf())
    assert session.steps == ()


def test_earlier_prompts_of_the_structure_are_heeded(session: ReviewSession, volume: Volume) -> None:
    """The refiner gets those that stand, of this structure alone, the newest last."""
    refiner = AllOf()
    second, third = _point(adds=False, at=(1, 2, 3)), _point(at=(1, 1, 1))
    answer_prompt(session, volume, _point(), refiner, 100.0)
    answer_prompt(session, volume, _point(SPLEEN, at=(0, 0, 0)), refiner, 100.0)
    answer_prompt(session, volume, second, refiner, 100.0)
    session.undo()
    answer_prompt(session, volume, third, refiner, 100.0)
    assert [each.adds for each in refiner.requests[2].prompts] == [True, False]
    assert [each.adds for each in refiner.requests[3].prompts] == [True, True]
    assert prompts_of(session.steps, LIVER) == [_point(), third][: len(prompts_of(session.steps, LIVER))]


def test_only_prompts_are_prompts(session: ReviewSession) -> None:
    """A place that was agreed to, a brush and a click without a prompt are none."""
    session.agree(LIVER, ((0, 1), (0, 2), (0, 2)))
    session.apply(np.flatnonzero(session.labels == 0)[:3], LIVER, kind="brush", value=LIVER)
    session.apply(np.flatnonzero(session.labels == 0)[:3], LIVER, kind="point", value=LIVER)
    assert prompts_of(session.steps, LIVER) == []


def test_what_is_so_already_is_no_step(session: ReviewSession, volume: Volume) -> None:
    """The same answer twice changes nothing the second time."""
    answer_prompt(session, volume, _point(), AllOf(), 100.0)
    assert len(answer_prompt(session, volume, _point(), AllOf(), 100.0)) == 0
    assert len(session.steps) == 1
