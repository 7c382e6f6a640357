"""Facts about `effvit_med.cli.stopping`, in a process of its own: signals belong to the whole process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import signal
from effvit_med.cli.stopping import listen_for_stop, stop_if_asked

listen_for_stop()
stop_if_asked()
try:
    signal.raise_signal(signal.{name})
except:  # as some libraries do
    print("swallowed")
try:
    stop_if_asked()
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stop_that_a_library_swallows_is_heard_all_the_same(name: str) -> None:
    """The interrupt is lost in a bare except, and comes again when progress is told."""
    run = subprocess.run([sys.executable, "-c", CODE.format(name=name)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["swallowed", "heard"]
