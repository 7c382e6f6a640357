"""How long each thing that a reviewer does takes until it is on the disk, and what a long review costs to open again.

    python -m benchmarks.review                # some minutes on one core
    python -m benchmarks.review --edits 50 --shape 60 128 128 --name review_quick

A scan of 300 x 512 x 512 voxels with twelve ellipsoids for structures. Clicks add balls of 5 to 20 voxels radius at the
borders, brush strokes write tubes into the labels and are adopted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.review import ReviewSession
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation

STRUCTURES = 12
MIB = 2**20

Times = dict[str, list[float]]
Indices = npt.NDArray[np.int64]


def make_automatic(shape: tuple[int, int, int], seed: int = 0) -> Segmentation:
    """Ellipsoids side by side, with the confidence of a network that is sure inside."""
    draw = np.random.default_rng(seed)
    labels, confidence = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    for value in range(1, STRUCTURES + 1):
        radii = (np.array(shape) * draw.uniform(0.06, 0.18, 3)).astype(int) + 2
        centre = (draw.uniform(0.2, 0.8, 3) * shape).astype(int)
        flat = _ball(shape, centre, radii)
        labels.reshape(-1)[flat] = value
    confidence[draw.random(shape, np.float32) < 0.05] = 100
    table = LabelTable(
        tuple(Label(n, f"structure_{n}", Code("91723000", "Structure")) for n in range(1, STRUCTURES + 1))
    )
    made = Provenance("benchmark", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
    affine = np.diag([1.0, 0.7, 0.7, 1.0])[[2, 1, 0, 3]]
    return Segmentation(labels, Geometry(affine, shape), table, made, confidence)


def measure_review(folder: Path, automatic: Segmentation, edits: int) -> tuple[Times, dict[str, float]]:
    """Go through a review.

    Args:
        folder: an empty one.
        automatic: what is reviewed.
        edits: how many clicks, and how many strokes.

    Returns:
        The seconds of every act by its name, and other figures.
    """
    times: Times = {}
    process, draw = psutil.Process(), np.random.default_rng(1)
    before = process.memory_info().rss
    with _taking(times, "start"):
        session = ReviewSession.start(folder, automatic, {})
    held = process.memory_info().rss - before
    voxels = 0
    for _ in range(edits):
        value = int(draw.integers(1, STRUCTURES + 1))
        click, stroke = _draw_click(session, value, draw), _draw_stroke(session, draw)
        with _taking(times, "click"):
            voxels += len(session.apply(click, value, kind="click", value=value))
        session.labels.reshape(-1)[stroke] = value
        with _taking(times, "adopt a stroke"):
            voxels += len(session.adopt(stroke, kind="brush", value=value))
        with _taking(times, "volumes"):
            session.volumes_ml()
    acts: list[tuple[str, Callable[[], object]]] = []
    acts += [("undo", session.undo)] * 20 + [("redo", session.redo)] * 20
    acts += [
        ("accept", lambda: session.set_state(1, "accepted")),
        ("open an accepted one", lambda: session.set_state(1, "looked")),
        ("look for a stroke everywhere", lambda: session.adopt(None, kind="fill", value=2)),
    ] * 20
    for name, act in acts:
        with _taking(times, name):
            act()
    for value in range(1, STRUCTURES + 1):
        with _taking(times, "reset a structure"):
            session.reset(value)
    wanted, events = session.labels.copy(), session.record().events
    grown = process.memory_info().rss - before - held - wanted.nbytes
    session.close()
    with _taking(times, "open again"):
        again = ReviewSession.resume(folder)
    same = np.array_equal(again.labels, wanted)
    again.close()
    sizes = {path.name: path.stat().st_size / MIB for path in folder.iterdir()}
    return times, {
        "events": float(events),
        "voxels_per_edit": voxels / (2 * edits),
        "held_mib": held / MIB,
        "grown_mib": grown / MIB,
        "journal_mib": sizes["review.jsonl"],
        "automatic_mib": sizes["automatic.npz"],
        "same_labels": float(same),
    }


def to_markdown(times: Times, figures: dict[str, float], shape: Sequence[int]) -> str:
    """The report."""
    rows = []
    for name, seconds in times.items():
        cells = [f"{1000 * value:.1f}" for value in (np.median(seconds), np.percentile(seconds, 95), max(seconds))]
        rows.append([name, str(len(seconds)), *cells])
    after = (
        f"After {figures['events']:.0f} events the journal has {figures['journal_mib']:.1f} MiB beside "
        f"{figures['automatic_mib']:.1f} MiB of automatic result. The session took {figures['held_mib']:.0f} MiB at "
        f"its start and {figures['grown_mib']:.0f} MiB more until its end. Opened again, the labels were "
        f"{'the same, voxel for voxel' if figures['same_labels'] else 'OTHERS'}."
    )
    size = " x ".join(map(str, shape))
    head = f"Labels of {size}; {figures['voxels_per_edit']:.0f} voxels an edit in the mean."
    table = make_table(["act", "times", "median ms", "p95 ms", "worst ms"], rows)
    return f"# A review, from the call to the disk\n\n{head}\n\n{table}\n\n{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--name", default="review")
    parser.add_argument("--folder", type=Path, help="of a disk to measure on; by default that of temporary files")
    options = parser.parse_args(arguments)
    made = describe_circumstances("benchmarks.review", arguments)
    shape = (options.shape[0], options.shape[1], options.shape[2])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        times, figures = measure_review(Path(folder), make_automatic(shape), options.edits)
    write_report(options.name, to_markdown(times, figures, shape), {"times_s": times, **figures}, made)


@contextmanager
def _taking(times: Times, name: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    times.setdefault(name, []).append(time.perf_counter() - begin)


def _ball(shape: Sequence[int], centre: npt.ArrayLike, radii: npt.ArrayLike) -> Indices:
    """The flat indices of an ellipsoid, as far as it lies inside."""
    middle, radius = np.asarray(centre), np.asarray(radii)
    low, high = np.maximum(middle - radius, 0), np.minimum(middle + radius + 1, shape)
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    inside = grid[(((grid - middle) / radius) ** 2).sum(axis=-1) <= 1]
    return np.ravel_multi_index(tuple(inside.T), tuple(shape)).astype(np.int64)


def _draw_click(session: ReviewSession, value: int, draw: np.random.Generator) -> Indices:
    """A ball near the middle of where a structure was."""
    found = np.flatnonzero(session.automatic[session.automatic.shape[0] // 2] == value)
    plane = session.automatic.shape[1:]
    row, column = divmod(int(draw.choice(found)) if found.size else plane[0] * plane[1] // 2, plane[1])
    centre = (session.automatic.shape[0] // 2 + int(draw.integers(-9, 10)), row, column)
    return _ball(session.automatic.shape, centre, np.full(3, int(draw.integers(5, 21))))


def _draw_stroke(session: ReviewSession, draw: np.random.Generator) -> Indices:
    """Discs of radius 8 along 60 steps of a line in one slice."""
    shape = session.automatic.shape
    start = draw.uniform(0.3, 0.6, 2) * shape[1:]
    towards = draw.uniform(-1, 1, 2)
    discs = [
        _ball(shape, (shape[0] // 2, *(start + towards * step).astype(int)), np.array([1, 8, 8])) for step in range(60)
    ]
    return np.concatenate(discs)


if __name__ == "__main__":
    main()
