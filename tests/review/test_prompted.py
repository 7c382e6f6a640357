"""Facts about `effvit_med.review.prompted`: a promptable network answers the prompts of a review."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import CancelledError, SettingsError
from effvit_med.review import NetworkRefiner, ReviewSession, ScanRefiner
from effvit_med.review.answering import answer_prompt, carry_structure
from effvit_med.volume import Geometry, Segmentation, Volume
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import write_bundle
from tests.engine.prompting.test_answering import Threshold
from tests.review.scene import KIDNEY, LIVER, MADE, TABLE, make_automatic

HERE = (1.0, 3.0, 4.0)


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("prompt") / "untrained")


@pytest.fixture(name="session")
def _session(tmp_path: Path) -> Iterator[ReviewSession]:
    with ReviewSession.start(tmp_path, make_automatic(), {}) as session:
        yield session


def _scan() -> Volume:
    automatic = make_automatic()
    values = np.random.default_rng(0).normal(40, 20, automatic.labels.shape).astype(np.float32)
    return Volume(values, automatic.geometry, "CT")


def _click(adds: bool) -> Prompt:
    return Prompt("point", LIVER, adds, (HERE,))


def test_a_prompt_is_obeyed_and_undone(session: ReviewSession, bundle: Path) -> None:
    """The voxel that was pointed at changes as was said, in its slice alone, in one step."""
    refiner, scan = NetworkRefiner(bundle, "cpu"), _scan()
    assert isinstance(refiner, ScanRefiner)
    place = tuple(int(at) for at in HERE)
    before = session.labels.copy()
    for adds in (False, True, False):
        answer_prompt(session, scan, _click(adds), refiner)
        assert (session.labels[place] == LIVER) == adds
    axis = scan.geometry.slice_axis
    changed = (session.labels != before).any(axis=tuple(other for other in range(3) if other != axis))
    assert set(np.flatnonzero(changed)) <= {place[axis]}
    for _ in range(3):
        session.undo()
    np.testing.assert_array_equal(session.labels, before)


def test_locked_structures_stay(session: ReviewSession, bundle: Path) -> None:
    """An answer takes none of their voxels."""
    session.set_locked(KIDNEY, True)
    before = session.labels.copy()
    answer_prompt(session, _scan(), _click(True), NetworkRefiner(bundle, "cpu"))
    np.testing.assert_array_equal(session.labels == KIDNEY, before == KIDNEY)


def test_a_box_may_lie_across_any_axis(session: ReviewSession, bundle: Path) -> None:
    """It is answered in the slice in which it was drawn."""
    box = Prompt("box", LIVER, True, ((0.0, 2.0, 1.0), (3.0, 2.0, 6.0)), 1)
    change = answer_prompt(session, _scan(), box, NetworkRefiner(bundle, "cpu"))
    rows = np.unravel_index(change.flat, session.labels.shape)[1]
    assert set(rows) <= {2}


def test_features_of_a_scan_are_kept(session: ReviewSession, bundle: Path) -> None:
    """From click to click, but not for another scan."""
    refiner, scan = NetworkRefiner(bundle, "cpu"), _scan()
    answer_prompt(session, scan, _click(True), refiner)
    cache = refiner._cache
    assert cache is not None
    assert cache.bytes > 0
    answer_prompt(session, scan, _click(False), refiner)
    assert refiner._cache is cache
    answer_prompt(session, _scan(), _click(True), refiner)
    assert refiner._cache is not cache


ROD = Geometry(np.diag([3.0, 1.0, 1.0, 1.0]), (12, 40, 40))


@pytest.fixture(name="begun")
def _begun(tmp_path: Path) -> Iterator[ReviewSession]:
    """A review in which the liver was found in slice 5 alone, and a kidney crosses its way in slice 7."""
    labels = np.zeros(ROD.shape, np.uint8)
    labels[5, 10:30, 12:28] = LIVER
    labels[7, 10:12] = KIDNEY
    with ReviewSession.start(tmp_path / "begun", Segmentation(labels, ROD, TABLE, MADE), {}) as session:
        yield session


def _rod() -> Volume:
    """A bright block from slice 2 to 9."""
    values = np.zeros(ROD.shape, np.float32)
    values[2:10, 10:30, 12:28] = 100
    return Volume(values, ROD, "MR")


def _seeing(bundle: Path) -> NetworkRefiner:
    """With a network that is right where contrast is all."""
    refiner = NetworkRefiner(bundle, "cpu")
    refiner._speakers[2] = Threshold()  # type: ignore[assignment]
    return refiner


def test_a_structure_is_carried_through_slices_in_one_step(begun: ReviewSession, bundle: Path) -> None:
    """To both ends of what the scan shows, around what is locked; one undo takes it back."""
    begun.set_locked(KIDNEY, True)
    before = begun.labels.copy()
    change, found = carry_structure(begun, _rod(), LIVER, (0, 5), _seeing(bundle))
    expected = _rod().array > 0
    expected[7, 10:12] = False
    np.testing.assert_array_equal(begun.labels == LIVER, expected)
    assert sorted(found.answers) == [2, 3, 4, 6, 7, 8, 9]
    assert {number for number, _ in found.ended.values()} == {1, 10}
    assert len(change) == int((begun.labels != before).sum())
    begun.undo()
    np.testing.assert_array_equal(begun.labels, before)


def test_a_slice_that_was_pointed_at_ends_the_way(begun: ReviewSession, bundle: Path) -> None:
    """What a reader has said of a slice is not written over."""
    refiner = _seeing(bundle)
    answer_prompt(begun, _rod(), Prompt("point", LIVER, True, ((8.0, 20.0, 20.0),)), refiner)
    _, found = carry_structure(begun, _rod(), LIVER, (0, 5), refiner)
    assert sorted(found.answers) == [2, 3, 4, 6, 7]
    assert found.ended[1] == (8, "it has prompts of its own")


@pytest.mark.parametrize(
    ("number", "locked", "message"), [(4, False, "no voxel in slice 4"), (5, True, "liver is locked")]
)
def test_what_cannot_be_carried_is_said(
    begun: ReviewSession, bundle: Path, number: int, locked: bool, message: str
) -> None:
    """And changes nothing."""
    begun.set_locked(LIVER, locked)
    before = begun.labels.copy()
    with pytest.raises(SettingsError, match=message):
        carry_structure(begun, _rod(), LIVER, (0, number), _seeing(bundle))
    np.testing.assert_array_equal(begun.labels, before)


def test_carrying_can_be_stopped(begun: ReviewSession, bundle: Path) -> None:
    """After two slices; then nothing has changed."""
    before, told = begun.labels.copy(), []
    with pytest.raises(CancelledError):
        carry_structure(
            begun,
            _rod(),
            LIVER,
            (0, 5),
            _seeing(bundle),
            lambda: len(told) == 2,
            lambda phase, done, total: told.append((phase, done, total)),
        )
    assert told == [("slices", 1, 11), ("slices", 2, 11)]
    np.testing.assert_array_equal(begun.labels, before)
