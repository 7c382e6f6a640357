"""Importing the packages of the optional part."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster.conftest import ROOT

IMPORT = """
import logging, os

class Handler(logging.Handler):
    def close(self):
        print("closed")

handler = Handler()
from effvit_med.cluster.extras import require_submitit
require_submitit()
print("submitit" in sys.modules, "SUBMITIT_LOG_LEVEL" in os.environ, flush=True)
os._exit(0)
"""


def test_handlers_of_the_process_stay_open() -> None:
    """Importing submitit sets up no logging, which would close every handler that there is."""
    words = [sys.executable, "-c", f"import sys{IMPORT}"]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout == "True False\n"
