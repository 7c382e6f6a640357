"""What the plugin's tests use; those that need a viewer skip where napari or a display is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("NAPARI_CONFIG", "")  # the viewers of the tests neither read nor write the user's preferences
_QT = {"qapp", "qtbot", "bot"}
_NAPARI = {"viewer", "make_napari_viewer"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a window where there is none: Qt would end the process, not raise."""
    for item in items:
        wanted = set(getattr(item, "fixturenames", ()))
        if wanted & (_QT | _NAPARI):
            item.add_marker("window")
            if reason := _why_not(config, napari=bool(wanted & _NAPARI)):
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_not(config: pytest.Config, *, napari: bool) -> str:
    """What is missing for a window; single widgets need no napari, and a platform of Qt's without a screen does."""
    plugins = ("pytest-qt", "napari") if napari else ("pytest-qt",)
    if not all(map(config.pluginmanager.has_plugin, plugins)):
        return f"{' and '.join(plugins)} missing (pip install '.[napari,dev]'), or a library of Qt's"
    screens = ("DISPLAY", "WAYLAND_DISPLAY") if napari else ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform == "linux" and not any(map(os.environ.get, screens)):
        return "there is no display: run under xvfb-run"
    return ""


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that no test leaves a review in that of the user."""
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)  # not HOME: napari keeps the icons of its themes there
    return home


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


@pytest.fixture(name="bot")
def _bot(request: pytest.FixtureRequest) -> Any:
    """Clicks and keys for single widgets, which need Qt and a display but no napari."""
    return request.getfixturevalue("qtbot")
