"""The examples in README.md and docs/ run as tests, from the repository root."""

import os
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

_PLUGIN = Path(__file__).parent / "napari_plugin" / "napari_effvit_med"
# Modules of the window have no examples, and cannot even be imported where a library of Qt's is missing
collect_ignore = [str(path) for path in _PLUGIN.glob("*.py") if "\nfrom qtpy" in path.read_text("utf-8")]


def _go_to_root(_: object) -> None:
    os.chdir(Path(__file__).parent)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "*.md"], setup=_go_to_root
).pytest()
