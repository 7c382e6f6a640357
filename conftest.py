"""The examples in README.md and docs/ run as tests, from the repository root."""

import os
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

_PLUGIN = Path(__file__).parent / "napari_plugin" / "napari_effvit_med"
_QT_MODULES = {path for path in _PLUGIN.glob("*.py") if "\nfrom qtpy" in path.read_text("utf-8")}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the modules of the window alone where no Qt was loaded: there they cannot even be imported."""
    return True if collection_path in _QT_MODULES and not config.pluginmanager.has_plugin("pytest-qt") else None


def _go_to_root(_: object) -> None:
    os.chdir(Path(__file__).parent)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "*.md"], setup=_go_to_root
).pytest()
