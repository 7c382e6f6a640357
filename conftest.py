"""The examples in README.md and docs/ run as tests, from the repository root."""

import os
from importlib.util import find_spec
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

_HAS_QT = find_spec("qtpy") is not None and any(map(find_spec, ("PySide6", "PyQt6")))
_PLUGIN = Path(__file__).parent / "napari_plugin" / "napari_effvit_med"
_QT_MODULES = [str(path) for path in _PLUGIN.glob("*.py") if "\nfrom qtpy" in path.read_text(encoding="utf-8")]
collect_ignore = [] if _HAS_QT else _QT_MODULES


def _go_to_root(_: object) -> None:
    os.chdir(Path(__file__).parent)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "*.md"], setup=_go_to_root
).pytest()
