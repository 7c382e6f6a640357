"""What answers a click in the plugin: as the user has chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effvit_med.volume.prompts import Prompt
from napari_effvit_med.refiners import make_refiner
from napari_effvit_med.settings import PluginSettings
from tests.engine.prompting.parts import write_bundle
from tests.plugin.parts import LIVER, make_review, wait_for

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
