"""What the plugin's tests use; those that need a viewer skip where napari or a display is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

os.environ.setdefault("NAPARI_CONFIG", "")  # the viewers of the tests neither read nor write the user's preferences
_NEEDS_WINDOW = {"viewer", "qtbot", "qapp", "make_napari_viewer"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a window where there is none: Qt would end the process, not raise."""
    reason = ""
    if not all(map(config.pluginmanager.has_plugin, ("napari", "pytest-qt"))):
        reason = "napari and pytest-qt are not here (pip install '.[napari,dev]') or a library of Qt's is missing"
    elif sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        reason = "there is no display: run under xvfb-run"
    for item in items:
        if _NEEDS_WINDOW & set(getattr(item, "fixturenames", ())):
            item.add_marker("window")
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(name="viewer")
def _viewer(request: pytest.FixtureRequest) -> Any:
    """A real viewer of napari with its window."""
    return request.getfixturevalue("make_napari_viewer")()


@pytest.fixture(name="wait")
def _wait(request: pytest.FixtureRequest, viewer: Any) -> Callable[[Callable[[], bool]], None]:
    """Let the window live until something holds."""
    bot = request.getfixturevalue("qtbot")

    def wait(holds: Callable[[], bool]) -> None:
        bot.waitUntil(holds, timeout=120_000)

    return wait
