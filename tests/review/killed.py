"""A process that edits a review until it is killed; it says on stdout what it was told is on the disk.

Called with a folder, a seed and how it ends: ``outside`` (somebody kills it) or ``inside`` (it kills itself when it has
written a part of a line).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from effvit_med.review import ReviewSession
from tests.review.scene import KIDNEY, LIVER, SPLEEN, make_automatic

SHAPE = (40, 64, 64)


def make_large():
    """An automatic result whose changes make long lines."""
    from effvit_med.volume import Geometry, Segmentation

    small = make_automatic()
    labels = np.tile(small.labels, (10, 11, 8))[: SHAPE[0], : SHAPE[1], : SHAPE[2]].copy()
    return Segmentation(labels, Geometry(small.geometry.affine, SHAPE), small.table, small.provenance)


def draw_edit(seed: int, number: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The voxels, labels and structure of an edit: the same for the process and for the test."""
    draw = np.random.default_rng([seed, number])
    flat = draw.integers(0, int(np.prod(SHAPE)), int(draw.integers(1, 4000)))
    return flat, draw.choice([0, LIVER, KIDNEY, SPLEEN], flat.size), int(draw.choice([LIVER, KIDNEY, SPLEEN]))


def main(folder: Path, seed: int, end: str) -> None:
    """Edit without end; every seventh step is an undo."""
    session = ReviewSession.resume(folder)
    real_write, calls = os.write, 0

    def write_a_part(stream: int, content: memoryview) -> int:
        nonlocal calls
        calls += stream not in (1, 2)
        if calls == 5 + seed:
            real_write(stream, content[: len(content) * (1 + seed % 7) // 8])
            os.kill(os.getpid(), signal.SIGKILL)
        return real_write(stream, content)

    if end == "inside":
        os.write = write_a_part
    for number in range(10**6):
        if number % 7 == 6:
            session.undo()
        else:
            flat, after, value = draw_edit(seed, number)
            session.apply(flat, after, kind="brush", value=value)
        real_write(1, f"{number}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
