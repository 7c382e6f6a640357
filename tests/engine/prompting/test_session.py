"""Facts about `effvit_med.engine.prompting.session`."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.engine.prompting import PromptSession, StopRule
from effvit_med.errors import CancelledError, GeometryError, InputError, SettingsError
from effvit_med.volume import Label, Segmentation
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click, make_scan, write_bundle


@pytest.fixture(name="bundle", scope="module")
def _bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("prompt") / "untrained", blocks=True)


def _session(bundle: Path, **options: object) -> PromptSession:
    return PromptSession(make_scan(), bundle, spatial_dims=2, device="cpu", **options)  # type: ignore[arg-type]


prompts = st.builds(
    click,
    st.integers(0, 47),
    st.integers(0, 55),
    adds=st.booleans(),
    number=st.integers(0, 2),
    value=st.integers(1, 3),
)
steps = st.lists(st.one_of(prompts, st.sampled_from(["undo", "redo", "predict"])), min_size=1, max_size=12)


@given(steps=steps)
@settings(max_examples=20, deadline=None)
def test_a_log_does_the_same_again(bundle: Path, steps: list[Prompt | str]) -> None:
    """Whatever was added, undone, redone, and whenever it was answered: the log gives the same labels, bit for bit."""
    session = _session(bundle)
    for step in steps:
        if isinstance(step, Prompt):
            session.add(step)
        else:
            getattr(session, step)()
    again = _session(bundle).replay(session.events)
    np.testing.assert_array_equal(again.labels, session.predict().labels)


@given(steps=steps)
@settings(max_examples=20, deadline=None)
def test_undoing_everything_leaves_what_there_was(bundle: Path, steps: list[Prompt | str]) -> None:
    """And doing it all again gives the same as before."""
    session = _session(bundle)
    for step in steps:
        if isinstance(step, Prompt):
            session.add(step)
    before = session.predict().labels
    while session.undo():
        pass
    assert not session.predict().labels.any()
    while session.redo():
        pass
    np.testing.assert_array_equal(session.predict().labels, before)


def test_a_point_is_obeyed_where_it_lies(bundle: Path) -> None:
    """Whatever the network says: inside where it adds, outside where it removes."""
    session = _session(bundle)
    session.add(click(20, 30))
    assert session.predict().labels[1, 20, 30] == 1
    session.add(click(20, 30, adds=False))
    assert session.predict().labels[1, 20, 30] == 0


def test_other_slices_stay_as_they_were(bundle: Path) -> None:
    """A network that sees slices changes the slice of the prompt and no other."""
    session = _session(bundle)
    session.add(click(20, 30))
    assert session.predict().labels.any(axis=(1, 2)).tolist() == [False, True, False]


def test_locked_structures_lose_nothing(bundle: Path) -> None:
    """Neither to a prompt about another structure, nor by one about themselves."""
    start = np.zeros((3, 48, 56), np.uint8)
    start[:, 10:30, 10:40] = 2
    first = _segmentation(bundle, start)
    session = _session(bundle, start=first, locked=[2])
    session.add(click(20, 45))
    assert (session.predict().labels == 2).sum() == (start == 2).sum()
    with pytest.raises(SettingsError, match="locked"):
        session.add(click(20, 30, value=2))


def _segmentation(bundle: Path, labels: np.ndarray) -> Segmentation:
    session = _session(bundle)
    session.name(Label(2, "liver", ANATOMICAL_STRUCTURE))
    made = session.predict()
    return Segmentation(labels, made.geometry, made.table, made.provenance)


def test_a_result_to_correct_stays_where_nobody_points(bundle: Path) -> None:
    """Voxels in other slices, and of other structures in places that the answer does not take."""
    start = np.zeros((3, 48, 56), np.uint8)
    start[0, 10:30, 10:40] = 2
    session = _session(bundle, start=_segmentation(bundle, start))
    session.add(click(20, 30, number=2, value=2))
    assert (session.predict().labels[0] == start[0]).all()


def test_answers_can_be_had_without_a_segmentation(bundle: Path) -> None:
    """The labels change with each answer, and nobody else can write them."""
    session = _session(bundle)
    session.add(click(20, 30))
    assert session.labels[1, 20, 30] == 0
    session.answer()
    assert session.labels[1, 20, 30] == 1
    np.testing.assert_array_equal(session.labels, session.predict().labels)
    with pytest.raises(ValueError, match="read-only"):
        session.labels[0, 0, 0] = 3


def test_the_record_says_what_was_done(bundle: Path) -> None:
    """Bundle, digest of the weights, every prompt, a step for each answer, and that it is not for clinical use."""
    session = _session(bundle)
    session.name(Label(1, "liver", ANATOMICAL_STRUCTURE))
    session.add(click(20, 30))
    made = session.predict()
    assert made.table.by_value(1).name == "liver"
    record = made.provenance
    assert (record.bundle, len(record.weights_sha256)) == ("untrained", 64)
    assert record.settings["events"] == [{"kind": "prompt", "prompt": click(20, 30).to_dict()}]
    assert [(step.name, step.detail["structure"]) for step in record.steps] == [("answer prompt", "liver")]
    assert "clinical" in record.notice


def test_features_are_made_once(bundle: Path) -> None:
    """The second prompt in the same view encodes nothing."""
    session = _session(bundle)
    session.add(click(20, 30))
    session.add(click(25, 35))
    steps = session.predict().provenance.steps
    assert [step.detail["encoded"] for step in steps] == [1, 0]


def test_cancelling_keeps_what_waits(bundle: Path) -> None:
    """A prediction that is ended from another thread changes nothing; the next one answers the prompt."""
    session = _session(bundle)
    session.add(click(20, 30))
    told: list[int] = []

    def stop(_: str, done: int, __: int) -> None:
        told.append(done)
        thread = threading.Thread(target=session.cancel)
        thread.start()
        thread.join()

    with pytest.raises(CancelledError):
        session.predict(stop)
    assert told == [0]
    assert session.structures[1].waiting == 1
    assert session.predict().labels.any()
    assert session.structures[1].waiting == 0


def test_what_was_undone_leads_nowhere(bundle: Path) -> None:
    """A prompt that was answered and taken back has no say in what later prompts look at."""

    def make() -> PromptSession:
        return PromptSession(make_scan((1, 700, 700)), bundle, spatial_dims=2, device="cpu")

    plain, wandering = make(), make()
    for session in (plain, wandering):
        session.add(click(100, 100, number=0))
        session.predict()
    wandering.add(click(400, 420, number=0))
    wandering.predict()
    wandering.undo()
    for session in (plain, wandering):
        session.add(click(380, 380, number=0))
    np.testing.assert_array_equal(plain.predict().labels, wandering.predict().labels)
    assert plain.predict().provenance.settings == wandering.predict().provenance.settings


def test_memory_of_features_is_bounded(bundle: Path) -> None:
    """However many slices are pointed at, no more is kept than was allowed."""
    session = PromptSession(make_scan((9, 64, 64)), bundle, spatial_dims=2, device="cpu", memory_gb=1e-3)
    for number in range(9):
        session.add(click(30, 30, number=number))
        session.predict()
    assert 0 < session._cache.bytes <= 2**30 * 1e-3


def test_a_ct_is_seen_through_a_window_about_what_was_pointed_at(bundle: Path) -> None:
    """The record says which."""
    scan = make_scan(modality="CT")
    session = PromptSession(scan, bundle, spatial_dims=2, device="cpu")
    session.add(click(24, 28))
    low, high = session.predict().provenance.settings["clip"]["1"]
    assert high - low == 500
    assert low < scan.array[1, 24, 28] < high


def test_the_window_is_that_of_the_first_prompt_that_stands(bundle: Path) -> None:
    """One that was answered and taken back leaves no window behind."""
    session = PromptSession(make_scan(modality="CT"), bundle, spatial_dims=2, device="cpu")
    session.add(click(24, 28))
    session.predict()
    session.undo()
    session.add(click(2, 2))
    fresh = PromptSession(make_scan(modality="CT"), bundle, spatial_dims=2, device="cpu")
    fresh.add(click(2, 2))
    first, second = session.predict(), fresh.predict()
    assert first.provenance.settings["clip"] == second.provenance.settings["clip"]
    np.testing.assert_array_equal(first.labels, second.labels)


def test_blocks_are_for_volumes(bundle: Path) -> None:
    """With enough slices and a network for blocks, a click makes a structure of several slices."""
    session = PromptSession(make_scan((12, 40, 40)), bundle, device="cpu")
    assert session.spatial_dims == 3
    assert _session(bundle).spatial_dims == 2
    session.add(click(20, 20, number=6))
    assert session.predict().labels[6, 20, 20] == 1
    with pytest.raises(SettingsError, match="blocks"):
        session.carry(1)


def test_carrying_is_one_step(bundle: Path) -> None:
    """It stops by its rule, is told in the record, and is undone at once."""
    session = PromptSession(make_scan((9, 64, 64)), bundle, spatial_dims=2, device="cpu")
    session.add(click(30, 30, number=4))
    first = session.predict().labels.copy()
    session.carry(1, rule=StopRule(overlap=0.0, growth=1e9, least=0, slices=2))
    made = session.predict()
    assert made.labels.any(axis=(1, 2))[2:7].sum() >= 1
    assert made.provenance.steps[-1].detail["slices"] <= 4
    session.undo()
    np.testing.assert_array_equal(session.predict().labels, first)


def test_a_saved_log_is_replayed(bundle: Path, tmp_path: Path) -> None:
    """With the names of the structures, by a session that did not know them."""
    session = _session(bundle)
    session.name(Label(1, "liver", ANATOMICAL_STRUCTURE))
    session.add(Prompt("box", 1, True, ((1, 10, 10), (1, 40, 45)), 0))
    session.add(click(12, 12, adds=False))
    made = session.predict()
    session.save_log(tmp_path / "log.json")
    again = _session(bundle).replay(tmp_path / "log.json")
    np.testing.assert_array_equal(again.labels, made.labels)
    assert again.table.by_value(1).name == "liver"


def test_wrong_prompts_are_refused(bundle: Path) -> None:
    """With the place, and what there is."""
    session = _session(bundle)
    with pytest.raises(GeometryError, match="outside the scan"):
        session.add(click(80, 30))
    with pytest.raises(SettingsError, match="no prompt"):
        session.carry(1)
    session.add(click(20, 30))
    with pytest.raises(GeometryError, match="no slice 7"):
        session.carry(1, 7)
    with pytest.raises(SettingsError, match="across axis 1"):
        session.add(Prompt("box", 1, True, ((0, 10, 10), (2, 10, 40)), 1))
    with pytest.raises(SettingsError, match="300"):
        session.add(click(20, 20, value=300))


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    """It names the file that is missing."""
    with pytest.raises(InputError, match=r"prompt\.yaml"):
        PromptSession(make_scan(), tmp_path)
