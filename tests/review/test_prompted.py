"""Facts about `effvit_med.review.prompted`: a promptable network answers the prompts of a review."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from effvit_med.review import NetworkRefiner, ReviewSession, ScanRefiner
from effvit_med.review.answering import answer_prompt
from effvit_med.volume import Volume
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import write_bundle
from tests.review.scene import KIDNEY, LIVER, make_automatic

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
