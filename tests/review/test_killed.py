"""A process that is killed while it writes loses nothing that it was told is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effvit_med.review import ReviewSession
from effvit_med.review.journal import JOURNAL_FILE, TORN_LINE
from effvit_med.volume.changes import VoxelChange
from tests.conftest import ROOT
from tests.review.killed import draw_edit, make_large

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")


def labels_after(seed: int, steps: int) -> np.ndarray:
    """The labels after some steps, by plain assignment; every seventh is an undo."""
    labels = make_large().labels.copy()
    before = labels
    for number in range(steps):
        if number % 7 == 6:
            labels = before
            continue
        before = labels.copy()
        flat, after, _ = draw_edit(seed, number)
        VoxelChange.of(labels, flat, after).apply(labels)
    return labels


def edit_until_killed(folder: Path, seed: int, end: str, acknowledged: int = 0) -> int:
    """How many steps the process was told are on the disk before it died."""
    ReviewSession.start(folder, make_large(), {}).close()
    command = [sys.executable, "-m", "tests.review.killed", str(folder), str(seed), end]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        count = 0
        for line in process.stdout:
            assert int(line) == count
            count += 1
            if end == "outside" and count == acknowledged:
                process.kill()
        assert process.wait() == -signal.SIGKILL
    return count


@pytest.mark.parametrize("seed", [0, 3, 8])
def test_killed_in_the_middle_of_a_line(tmp_path: Path, seed: int) -> None:
    """SIGKILL after a part of a line: all steps before are there, voxel for voxel, the torn one is not and is named."""
    count = edit_until_killed(tmp_path, seed, "inside")
    assert count > 0
    assert not (tmp_path / JOURNAL_FILE).read_bytes().endswith(b"\n")
    with ReviewSession.resume(tmp_path) as session:
        assert [finding.code for finding in session.findings] == [TORN_LINE]
        assert np.array_equal(session.labels, labels_after(seed, count))
        session.undo()
    with ReviewSession.resume(tmp_path) as session:
        assert session.findings == ()
        assert session.can_redo


@pytest.mark.parametrize("acknowledged", [1, 25])
def test_killed_from_outside(tmp_path: Path, acknowledged: int) -> None:
    """SIGKILL at any moment: what the process was told is kept is there, and at most the one step after it."""
    count = edit_until_killed(tmp_path, acknowledged, "outside", acknowledged)
    assert count >= acknowledged
    with ReviewSession.resume(tmp_path) as session:
        found = [
            steps for steps in (count, count + 1) if np.array_equal(session.labels, labels_after(acknowledged, steps))
        ]
        assert found
        assert session.record().sittings == 3
