"""Facts about the package as a whole: what ships, what documents say, how big files are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "effvit_med").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_small_enough_to_read(path: Path) -> None:
    """No file of the package is longer than 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_function_is_short_enough_to_read(path: Path) -> None:
    """No function is longer than 60 lines without its docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{node.name} has {lines} lines"


def test_every_link_in_the_documents_leads_somewhere() -> None:
    """Relative links of README and docs point at files that are there."""
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_every_option_of_the_command_has_help() -> None:
    """No option of any command is without a word of explanation."""
    from effvit_med.cli import commands

    for command in commands.commands.values():
        assert command.help
        for option in command.params:
            assert option.param_type_name == "argument" or option.help, f"{command.name}: {option.name}"


def test_a_wheel_segments_in_an_empty_folder(tmp_path: Path) -> None:
    """The built wheel carries bundle, weights and sample data, and its demo runs where there is no checkout."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); sys.argv = ['effvit-med', 'demo']\n"
    code += "import effvit_med; assert 'site' in effvit_med.__file__; from effvit_med.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=empty, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert len(list(empty.rglob("segmentation.seg.dcm"))) == 1
    code = code.replace("['effvit-med', 'demo']", "['effvit-med', 'bundles', 'verify']")
    run = subprocess.run([sys.executable, "-c", code], cwd=empty, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
