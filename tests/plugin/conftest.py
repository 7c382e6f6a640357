"""What the plugin's tests use; those that need a viewer skip where napari or a display is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(name="home", autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, so that no test leaves a review in that of the user."""
    home = tmp_path / "home"
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    return home


@pytest.fixture(name="viewer")
def _viewer(request: pytest.FixtureRequest) -> Any:
    """A real viewer of napari with its window."""
    if find_spec("napari") is None or find_spec("pytestqt") is None:
        pytest.skip("napari and pytest-qt are not here: pip install '.[napari]' pytest-qt and a Qt binding")
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        pytest.skip("there is no display: run under xvfb-run")
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
    if find_spec("pytestqt") is None:
        pytest.skip("pytest-qt is not here: pip install pytest-qt and a Qt binding")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("QT_QPA_PLATFORM")):
        pytest.skip("there is no display: run under xvfb-run")
    return request.getfixturevalue("qtbot")
