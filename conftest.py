"""The examples in README.md and docs/ run as tests, from the repository root."""

import os
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser


def _go_to_root(_: object) -> None:
    os.chdir(Path(__file__).parent)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "*.md"], setup=_go_to_root
).pytest()
