"""Facts about the command ``effvit-med report``."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from effvit_med.cli import commands
from effvit_med.errors import InputError
from tests.io.test_batch_report import row


def test_it_makes_the_page_from_the_manifest(tmp_path: Path) -> None:
    """The page lies beside the manifest; stdout holds one line of JSON that names it."""
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row("CT_1")), encoding="utf-8")
    run = CliRunner().invoke(commands, ["report", str(tmp_path), "--title", "Weekend"], standalone_mode=False)
    assert run.exception is None
    assert json.loads(run.stdout)["report"] == str(tmp_path / "report.html")
    assert "<title>Weekend</title>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_folder_without_a_manifest_is_told(tmp_path: Path) -> None:
    """The error names the file that is missing, and no page appears."""
    run = CliRunner().invoke(commands, ["report", str(tmp_path)], standalone_mode=False)
    assert isinstance(run.exception, InputError)
    assert "manifest.jsonl" in str(run.exception)
    assert not list(tmp_path.iterdir())
