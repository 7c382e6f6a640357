"""What answers a click in the plugin: as the user has chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.engine.prompting.speaking import Said
from effvit_med.volume.prompts import Prompt
from napari_effvit_med.refiners import make_refiner
from napari_effvit_med.settings import PluginSettings
from tests.engine.prompting.parts import write_bundle
from tests.engine.prompting.test_answering import Threshold
from tests.plugin.parts import LIVER, SPLEEN, make_review, wait_for

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.desk import ReviewDesk  # noqa: E402  after the check above


def test_the_image_answers_unless_another_is_chosen() -> None:
    """The default of a new installation needs no weights."""
    assert make_refiner(PluginSettings()) is None


def test_a_network_corrects_a_review(tmp_path: Path) -> None:
    """A click is obeyed where it lies, is one step, and is taken back by one undo."""
    settings = PluginSettings(device="cpu", corrections="network", prompt_bundle=str(write_bundle(tmp_path / "made")))
    desk = ReviewDesk(components.ViewerModel(), lambda *_, **__: None, make_refiner(settings))
    desk.open(make_review(tmp_path / "reviews"))
    assert desk.opened is not None
    labels = desk.opened.session.labels
    before = labels.copy()
    place = tuple(int(at) for at in np.argwhere(before != LIVER)[0])
    desk.prompt(Prompt("point", LIVER, True, (place,)))  # type: ignore[arg-type]
    wait_for(lambda: not desk.settling, desk.poll)
    assert labels[place] == LIVER
    assert np.shares_memory(desk.layer.data, labels)
    desk.undo()
    wait_for(lambda: not desk.settling, desk.poll)
    np.testing.assert_array_equal(labels, before)
    desk.close()


def test_a_bundle_that_is_not_there_is_said_at_the_first_click(tmp_path: Path) -> None:
    """And nothing is changed."""
    said: list[str] = []
    settings = PluginSettings(device="cpu", corrections="network", prompt_bundle=str(tmp_path / "gone"))
    desk = ReviewDesk(components.ViewerModel(), lambda text, error=False: said.append(text), make_refiner(settings))
    desk.open(make_review(tmp_path / "reviews"))
    assert desk.opened is not None
    before = desk.opened.session.labels.copy()
    desk.prompt(Prompt("point", LIVER, True, ((0, 0, 0),)))
    wait_for(lambda: not desk.settling, desk.poll)
    assert any("gone" in text for text in said)
    np.testing.assert_array_equal(desk.opened.session.labels, before)
    desk.close()


def test_a_structure_is_carried_from_the_slice_that_is_shown(tmp_path: Path) -> None:
    """The spleen, wiped out but for one slice, comes back; the user is told in slices as the slider counts them."""
    said: list[str] = []
    settings = PluginSettings(device="cpu", corrections="network", prompt_bundle=str(write_bundle(tmp_path / "made")))
    refiner = make_refiner(settings)
    assert refiner is not None
    refiner._speakers[2] = Threshold()  # type: ignore[assignment]
    desk = ReviewDesk(components.ViewerModel(), lambda text, error=False: said.append(text), refiner)
    desk.open(make_review(tmp_path / "reviews"))
    assert desk.opened is not None
    session = desk.opened.session
    whole = np.flatnonzero(session.labels == SPLEEN)
    kept = np.flatnonzero(session.labels[6] == SPLEEN) + 6 * session.labels[0].size
    session.apply(np.setdiff1d(whole, kept), 0, kind="erase", value=SPLEEN)
    desk.choose(SPLEEN, jump=False)
    slider = desk.opened.grid.from_index((6, 18, 36))
    desk.go_to_slice(round(float(slider[0])))
    desk.carry()
    wait_for(lambda: not desk.settling, desk.poll)
    np.testing.assert_array_equal(np.flatnonzero(session.labels == SPLEEN), whole)
    assert any("press C again to stop" in text for text in said)
    ends = sorted(round(float(desk.opened.grid.from_index((number, 0, 0))[0])) for number in (2, 9))
    assert said[-1].startswith("Carried through 5 slices.")
    assert [f"at slice {number}:" in said[-1] for number in ends] == [True, True]
    desk.close()


def test_the_second_press_stops_carrying_and_changes_nothing(tmp_path: Path) -> None:
    """Pressed while the first slice is being looked at."""

    class Pressing(Threshold):
        def answer(self, encoded: Any, prompts: Any, before: np.ndarray, shape: Any) -> Said:
            desk.carry()
            return super().answer(encoded, prompts, before, shape)

    said: list[str] = []
    settings = PluginSettings(device="cpu", corrections="network", prompt_bundle=str(write_bundle(tmp_path / "made")))
    refiner = make_refiner(settings)
    assert refiner is not None
    refiner._speakers[2] = Pressing()  # type: ignore[assignment]
    desk = ReviewDesk(components.ViewerModel(), lambda text, error=False: said.append(text), refiner)
    desk.open(make_review(tmp_path / "reviews"))
    assert desk.opened is not None
    before = desk.opened.session.labels.copy()
    desk.choose(LIVER, jump=False)
    desk.go_to_slice(round(float(desk.opened.grid.from_index((6, 18, 10))[0])))
    desk.carry()
    wait_for(lambda: not desk.settling, desk.poll)
    np.testing.assert_array_equal(desk.opened.session.labels, before)
    assert said[-1] == "Stopped."
    assert desk.carrying is None
    desk.close()


def test_without_a_network_carrying_says_what_to_choose(tmp_path: Path) -> None:
    """And does nothing."""
    said: list[str] = []
    desk = ReviewDesk(components.ViewerModel(), lambda text, error=False: said.append(text))
    desk.open(make_review(tmp_path / "reviews"))
    desk.carry()
    assert "Only a network carries" in said[-1]
    assert desk.carrying is None
    desk.close()
