"""The tests against a real Orthanc, which listens on every address: they run in a network of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def _why_not() -> str:
    """Why the tests cannot run here; empty if they can."""
    if not Path(ORTHANC).exists() or not PLUGIN.exists():
        return "Orthanc with its DICOMweb plugin is not installed"
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "unshare or ip is not installed"
    run = subprocess.run(["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    return "" if run.returncode == 0 else "this user may not make a network namespace"


def test_all_that_needs_orthanc_holds() -> None:
    """Every test in tests/pacs/inside passes in a network that has nothing but loopback."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    script = 'ip link set lo up; exec "$@"'
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "tests/pacs/inside"]
    environment = {**os.environ, "EFFVIT_MED_INSIDE": os.environ["EFFVIT_MED_CACHE"]}
    run = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, "sh", *pytest_run],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed
    assert int(passed[1]) >= 10
