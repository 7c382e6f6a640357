"""A plugin that is killed in the middle of a click loses nothing that it had said is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effvit_med.io import open_input, read_case
from effvit_med.review import ReviewSession
from effvit_med.review.existing import find_reviews
from effvit_med.volume.counts import digest_labels
from tests.conftest import ROOT

pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")

WORDS = ["start", "click", "click", "click", "stroke", "undo", "redo"]
KEPT = 4
"""Steps that stand when the process says that all is kept: three clicks and a stroke."""


def _review_until_killed(source: Path, home: Path) -> tuple[Path, list[tuple[str, str]]]:
    """The folder of the review, and each word with the digest that was said to be kept."""
    command = [sys.executable, "-m", "tests.plugin.crashing", str(source)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "napari_plugin"), os.environ.get("PYTHONPATH", "")])
    place = {**os.environ, "HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": paths}
    said = []
    with subprocess.Popen(command, cwd=ROOT, env=place, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(tuple(line.split(maxsplit=1)))
            if said[-1][0] == "endless":
                process.kill()
        assert process.wait() == -signal.SIGKILL
    assert [word for word, _ in said] == ["folder", *WORDS, "endless"]
    return Path(said[0][1].strip()), [(word, text.strip()) for word, text in said[1:-1]]


def test_a_killed_review_has_every_correction(tmp_path: Path, home: Path, sample_data: Path) -> None:
    """What was confirmed is there voxel for voxel, can be undone step by step, and the journal gives it again."""
    source = sample_data / "ct_nonsquare"
    folder, kept = _review_until_killed(source, home)
    digests = [digest for _, digest in kept]
    assert len(set(digests[:5])) == 5
    assert digests[5:] == [digests[3], digests[4]]  # undo and redo of the stroke
    with open_input(source) as found:
        volume = read_case(found.cases[0])
    assert [each.folder for each in find_reviews(folder.parent, volume)] == [folder]
    with ReviewSession.resume(folder) as session:
        assert len(session.steps) >= KEPT
        end = session.labels.copy()
        while len(session.steps) > KEPT:  # clicks that were under way when it was killed
            session.undo()
        standing = [step for step in session.steps if step.kind in ("point", "brush")]
        assert [step.kind for step in standing] == ["point", "point", "point", "brush"]
        for digest in (digests[4], digests[3], digests[2], digests[1], digests[0]):
            assert digest_labels(session.labels) == digest
            session.undo()
        assert not session.can_undo
        while session.can_redo:
            session.redo()
        np.testing.assert_array_equal(session.labels, end)
    with ReviewSession.resume(folder) as session:
        np.testing.assert_array_equal(session.labels, end)
