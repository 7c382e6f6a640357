"""The gates are tested: each import contract catches a seeded breach."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BREACHES = {
    "volume knows no torch": ("volume/geometry.py", "import torch", "volume and errors know numpy only"),
    "networks know no files": ("networks/blocks.py", "import effvit_med.io", "One way"),
    "networks know no numpy": ("networks/blocks.py", "import numpy", "Networks know tensors only"),
    "io knows no engine": ("io/tables.py", "import effvit_med.engine", "One way"),
    "io and transforms do not meet": ("transforms/spatial.py", "import effvit_med.io", "One way"),
    "formats only in io": ("engine/batch.py", "import pydicom", "File formats only in io"),
    "formats not in the review": ("review/saving.py", "import pydicom", "File formats only in io"),
    "MONAI not in the engine": ("engine/batch.py", "import monai", "MONAI and ignite only"),
    "no toolkit": ("cli.py", "import napari", "No GUI toolkit"),
    "no hidden cycle": ("engine/tiling.py", "def f():\n    import effvit_med.engine.batch", "No cycles"),
    "the plugin goes through public rooms": (
        "../napari_plugin/napari_effvit_med/layers.py",
        "import effvit_med.networks",
        "The plugin goes through the public rooms",
    ),
    "the plugin's place logic knows no Qt": (
        "../napari_plugin/napari_effvit_med/layers.py",
        "import qtpy",
        "Only the plugin's face",
    ),
    "the package does not know its plugin": ("io/read.py", "import napari_effvit_med", "The package does not know"),
    "every room has a layer": ("newroom.py", "", "One way"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_caught(breach: str, tmp_path: Path) -> None:
    """The contract that should be broken is, and names itself."""
    file, line, contract = BREACHES[breach]
    shutil.copytree(
        ROOT / "effvit_med", tmp_path / "effvit_med", ignore=shutil.ignore_patterns("__pycache__", "_bundle")
    )
    shutil.copytree(ROOT / "napari_plugin", tmp_path / "napari_plugin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "effvit_med" / file
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    run = _lint(tmp_path)
    broken = [each for each in re.split(r"\s(?:KEPT|BROKEN)", run.stdout) if contract in " ".join(each.split())]
    assert run.returncode != 0, run.stdout
    assert broken


def test_the_house_as_it_stands_keeps_all_contracts() -> None:
    """Nothing is broken today."""
    run = _lint(ROOT)
    assert run.returncode == 0, run.stdout


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-c", code, "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "napari_plugin")}
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False, env=environment)
