"""The keys of the review: bound once, documented, given back."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.keys import MOUSE_SHORTCUTS, SHORTCUTS, KeyBindings  # noqa: E402  after the check above


def test_the_documentation_lists_every_key() -> None:
    """The table of the how-to says of each key what the panel says."""
    text = (ROOT / "docs" / "how-to" / "napari.md").read_text(encoding="utf-8")
    rows = [f"| {key} | {meaning} |" for key, meaning in MOUSE_SHORTCUTS]
    rows += [f"| {key} | {meaning} |" for key, _, meaning in SHORTCUTS]
    assert [row for row in rows if row not in text] == []


def test_keys_of_somebody_else_come_back() -> None:
    """What N did before the panel was opened it does again when it is closed."""
    viewer = components.ViewerModel()
    viewer.bind_key("N", lambda _: None)
    (other,) = viewer.keymap.values()
    keys = KeyBindings(viewer)
    keys.bind({"next_doubt": lambda: None}, {})
    assert list(viewer.keymap.values()) != [other]
    keys.release()
    assert list(viewer.keymap.values()) == [other]


def test_a_second_panel_keeps_its_keys_when_the_first_is_closed() -> None:
    """Who closes gives back only what is still its own."""
    viewer = components.ViewerModel()
    called: list[str] = []
    first, second = KeyBindings(viewer), KeyBindings(viewer)
    first.bind({"next_doubt": lambda: called.append("first")}, {})
    second.bind({"next_doubt": lambda: called.append("second")}, {})
    first.release()
    (function,) = viewer.keymap.values()
    function(viewer)
    assert called == ["second"]
