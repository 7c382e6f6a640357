"""How long a correction takes, and how many of them a spoiled result needs.

Run from the repository's root: ``python -m benchmarks.interactive`` (``--data FOLDER`` for NIfTI scans with labels
beside the phantoms). Exact labels are spoiled in four ways; a made-up reviewer clicks into the middle of the largest
error, again and again, beside one who has only a brush that fits into the error. Times are of the whole way from the
prompt to the changed labels, without a window on a screen. One thread is used.
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from benchmarks.accuracy import parse_seeds
from benchmarks.interactive_methods import RivalRefiner
from benchmarks.interactive_reviewer import SPOILERS, Correct, brush_with, click_with, review
from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.review.doubts import find_doubts
from effvit_med.review.refining import LocalRefiner, Refiner, cut_request, list_changes
from effvit_med.training.phantom import STRUCTURES, make_case
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Kind, Prompt

Labels = npt.NDArray[np.uint8]

MARGIN_MM = 30.0
CLICKS = 10
SHOWN = (0, 1, 2, 3, 5, CLICKS)
TARGET_MS = 300.0
KINDS: tuple[Kind, ...] = ("point", "scribble", "box", "lasso")
RIVALS = ("watershed", "random walker", "fast marching")


@dataclass(frozen=True)
class Case:
    """One structure of one scan, in a crop about it.

    Attributes:
        source: what the scan is.
        structure: its name or number.
        volume: the crop.
        labels: taken as exact.
        value: of the structure.
        seed: of what is spoiled.
    """

    source: str
    structure: str
    volume: Volume
    labels: Labels
    value: int
    seed: int


@dataclass(frozen=True)
class Course:
    """Dice before the first correction and after each of them.

    Attributes:
        source: what the scan is.
        structure: which one.
        spoiled: how.
        tool: what it was corrected with.
        dice: one number more than there were corrections.
        seconds: of the reviewer's whole work, finding errors included.
    """

    source: str
    structure: str
    spoiled: str
    tool: str
    dice: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Answer:
    """How long one prompt took.

    Attributes:
        tool: what answered.
        kind: of the prompt.
        adds: whether it adds.
        voxels: in the crop.
        changed: how many voxels changed.
        ms: from the prompt to the changed labels.
    """

    tool: str
    kind: str
    adds: bool
    voxels: int
    changed: int
    ms: float


def cut_case(source: str, volume: Volume, labels: Labels, value: int, name: str, seed: int) -> Case:
    """The case of one structure, with a margin about it."""
    places = ndimage.find_objects((labels == value).astype(np.uint8))[0]
    box = tuple(
        slice(max(0, int(part.start - MARGIN_MM / step)), int(part.stop + MARGIN_MM / step) + 1)
        for part, step in zip(places, volume.geometry.spacing_mm, strict=True)
    )
    inside = np.ascontiguousarray(labels[box])
    geometry = Geometry(volume.geometry.affine, inside.shape)
    return Case(source, name, Volume(np.ascontiguousarray(volume.array[box]), geometry, "CT"), inside, value, seed)


def draw_cases(seeds: Sequence[int]) -> Iterator[Case]:
    """Each structure of phantoms with voxels of 3 x 1.5 x 1.5 mm."""
    for seed in seeds:
        phantom = make_case(seed, shape=(80, 224, 224), spacing_mm=(3.0, 1.5, 1.5))
        volume = Volume(phantom.hu, Geometry(phantom.affine_lps, phantom.hu.shape), "CT")
        for value, name in STRUCTURES.items():
            if value and (phantom.labels == value).sum() > 1000:
                yield cut_case("phantoms", volume, phantom.labels, value, name, seed)


def read_cases(folder: Path, most: int = 6) -> Iterator[Case]:
    """The largest structures of each scan below a folder that has NIfTI labels beside it.

    A file with ``label`` or ``seg`` in its name holds labels of the one other file in its folder.
    """
    from effvit_med.io.nifti import read_nifti

    for place in sorted({path.parent for path in folder.rglob("*.nii.gz")}):
        files = sorted(place.glob("*.nii.gz"))
        masks = [path for path in files if "label" in path.name or "seg" in path.name]
        images = [path for path in files if path not in masks]
        if len(images) != 1:
            continue
        volume = read_nifti(images[0])
        for path in masks:
            exact = read_nifti(path)
            if exact.geometry.shape != volume.geometry.shape:
                continue
            labels = np.rint(np.asarray(exact.array)).astype(np.uint8)
            counts = np.bincount(labels.reshape(-1), minlength=2)[1:]
            for value in (np.argsort(-counts, kind="stable")[:most] + 1).tolist():
                if counts[value - 1] > 1000:
                    yield cut_case(f"{place.name}", volume, labels, value, f"{path.name.split('.')[0]} {value}", 0)


def follow(case: Case, tools: Mapping[str, Refiner | bool], clicks: int) -> Iterator[Course]:
    """The course of each spoiled result with each tool; True is a flat brush, False a round one."""
    spacing = case.volume.geometry.spacing_mm
    for number, (spoiled, spoil) in enumerate(SPOILERS.items()):
        rng = np.random.default_rng([case.seed, case.value, number])
        bad = spoil(case.labels, case.value, spacing, rng)
        for tool, means in tools.items():
            correct: Correct
            if isinstance(means, bool):
                correct = brush_with(spacing, case.value, flat=means)
            else:
                correct = click_with(means, case.volume)
            start = time.perf_counter()
            dices = tuple(round(each, 5) for each in review(bad, case.labels, case.value, spacing, correct, clicks))
            yield Course(case.source, case.structure, spoiled, tool, dices, round(time.perf_counter() - start, 3))


def time_answers(refiners: Mapping[str, Refiner], size: int, repeats: int) -> list[Answer]:
    """Prompts into the spoiled labels of a phantom of 96 x size x size, each into fresh labels.

    The first refiner answers prompts of every kind, the others clicks alone, and fewer of them.
    """
    phantom = make_case(7, shape=(96, size, size), spacing_mm=(1.5, 380 / size, 380 / size))
    volume = Volume(phantom.hu, Geometry(phantom.affine_lps, phantom.hu.shape), "CT")
    rng = np.random.default_rng(7)
    main_tool, answers = next(iter(refiners)), []
    for value in (1, 2, 5, 6):
        for spoil in SPOILERS.values():
            bad = spoil(phantom.labels, value, volume.geometry.spacing_mm, rng)
            wrong = np.flatnonzero((bad == value) != (phantom.labels == value))
            for count, place in enumerate(rng.choice(wrong, repeats)):
                index = np.array(np.unravel_index(place, bad.shape))
                adds = bool(phantom.labels.reshape(-1)[place] == value)
                for kind in KINDS:
                    prompt = make_prompt(kind, value, adds, index, rng)
                    for tool, refiner in refiners.items():
                        if tool == main_tool or (kind == "point" and count == 0):
                            answers.append(time_answer(tool, refiner, volume, bad, prompt))
    return answers


def make_prompt(kind: Kind, value: int, adds: bool, index: npt.NDArray[np.intp], rng: np.random.Generator) -> Prompt:
    """A prompt of a kind about a voxel: 15 mm or so of a scribble, 20 mm or so of a box or lasso."""
    if kind == "point":
        return Prompt("point", value, adds, (tuple(index),))
    if kind == "scribble":
        return Prompt("scribble", value, adds, (tuple(index), tuple(index + np.array([0, *rng.integers(-15, 16, 2)]))))
    if kind == "box":
        half = np.array([0, 13, 13])
        return Prompt("box", value, adds, (tuple(index - half), tuple(index + half)), axis=0)
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = index + np.stack([0 * turns, 13 * np.cos(turns), 10 * np.sin(turns)], axis=-1)
    return Prompt("lasso", value, adds, tuple(map(tuple, around.tolist())), axis=0)


def time_answer(tool: str, refiner: Refiner, volume: Volume, labels: Labels, prompt: Prompt) -> Answer:
    """One prompt, from its indices to the changed labels; the labels are put back."""
    start = time.perf_counter()
    request, crop = cut_request(volume, labels, [prompt])
    flat, after = list_changes(request, refiner.refine(request), crop, volume.geometry.shape)
    before = labels.reshape(-1)[flat]
    labels.reshape(-1)[flat] = after
    seconds = time.perf_counter() - start
    labels.reshape(-1)[flat] = before
    return Answer(tool, prompt.kind, prompt.adds, request.image.size, len(flat), round(1000 * seconds, 2))


def time_doubts(shape: tuple[int, int, int] = (300, 512, 512)) -> dict[str, Any]:
    """Finding the doubts of a made-up result of clinical size: balls with unsure borders and one unsure place."""
    geometry = Geometry(np.diag([1.0, 0.75, 0.75, 1.0]), shape)
    labels, confidence = np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)
    row, column = np.ogrid[: shape[1], : shape[2]]
    for value in range(1, 9):
        middle = np.array([(value % 3 + 0.5) / 3, (value % 4 + 0.5) / 4, (value % 2 + 0.5) / 2]) * shape
        for number in range(shape[0]):
            away = np.sqrt((number - middle[0]) ** 2 + (row - middle[1]) ** 2 + (column - middle[2]) ** 2)
            labels[number][away < 45] = value
            confidence[number][np.abs(away - 45) < 2] = 100
    confidence[140:160, 200:240, 150:200] = 60
    seconds, cpu = [], []
    for _ in range(5):
        start, used = time.perf_counter(), time.process_time()
        doubts = find_doubts(labels, confidence, geometry)
        seconds.append(round(time.perf_counter() - start, 3))
        cpu.append(round(time.process_time() - used, 3))
    tracemalloc.start()
    find_doubts(labels, confidence, geometry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "shape": shape,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "extra_mb": round(peak / 1e6, 1),
        "places": len(doubts),
        "first_box": doubts[0].box,
    }


def summarise_answers(answers: Sequence[Answer]) -> str:
    """A table of times by tool and kind of prompt."""
    rows = []
    for key in dict.fromkeys((answer.tool, answer.kind) for answer in answers):
        ours = [answer for answer in answers if (answer.tool, answer.kind) == key]
        p50, p95, most = np.percentile([answer.ms for answer in ours], [50, 95, 100])
        changed = statistics.median(answer.changed for answer in ours)
        rows.append([*key, str(len(ours)), *(f"{each:.0f}" for each in (p50, p95, most, changed))])
    head = ["tool", "prompt", "times", "p50 ms", "p95 ms", "most ms", "voxels changed (median)"]
    return make_table(head, rows, texts=2)


def summarise_courses(courses: Sequence[Course], shown: Sequence[int]) -> str:
    """A table of mean Dice against the number of corrections."""
    rows = []
    for key in dict.fromkeys((each.source, each.spoiled, each.tool) for each in courses):
        ours = [each.dice for each in courses if (each.source, each.spoiled, each.tool) == key]
        means = [statistics.mean(dice[count] for dice in ours) for count in shown]
        worse = sum(dice[1] < dice[0] for dice in ours)
        rows.append([*key, str(len(ours)), *(f"{mean:.4f}" for mean in means), str(worse)])
    head = ["scans", "spoiled", "tool", "cases", *(f"{count}" for count in shown), "worse after 1"]
    return make_table(head, rows, texts=3)


def to_markdown(answers: Sequence[Answer], courses: Sequence[Course], rivals: Sequence[Course], size: int) -> str:
    """The report."""
    crop = statistics.median(answer.voxels for answer in answers if answer.kind == "point")
    clicks = [answer.ms for answer in answers if answer.kind == "point" and answer.tool == answers[0].tool]
    p95 = float(np.percentile(clicks, 95))
    return "\n".join(
        [
            "# Corrections: how long one takes, and how many are needed",
            "",
            (
                f"Times on one thread from the prompt to the changed labels, in a phantom of 96 x {size} x {size}; "
                f"the crop about a click has {crop:.0f} voxels (median). Target: 95 of 100 clicks within "
                f"{TARGET_MS:.0f} ms; {'met' if p95 <= TARGET_MS else 'missed'}. The other tools are ways to grow a "
                "region that were tried for comparison."
            ),
            "",
            summarise_answers(answers),
            "",
            (
                "Mean Dice of the structure against the number of corrections. Each goes to the middle of the largest "
                "error; the brushes are as large as just fits into it, which is more care than people take. Phantoms "
                "have even tissue and noise: this says little about patients. “Worse after 1” counts results "
                "whose Dice the first correction lowers."
            ),
            "",
            summarise_courses(courses, SHOWN),
            "",
            "The other ways to grow a region, on the first phantom alone:",
            "",
            summarise_courses(rivals, (0, 1, 2, 3)),
        ]
    )


def describe_doubts(doubts: dict[str, Any]) -> str:
    """The report on finding doubtful places."""
    return (
        "# Doubtful places: how long finding them takes\n\n"
        f"A made-up result of {' x '.join(map(str, doubts['shape']))}, one thread: "
        f"{statistics.median(doubts['seconds']):.2f} s, {statistics.median(doubts['cpu_seconds']):.2f} s of processor "
        f"(medians of {len(doubts['seconds'])}), {doubts['extra_mb']:.0f} MB at most beside the arrays; "
        f"{doubts['places']} places, the first of them {doubts['first_box']}."
    )


def main() -> None:
    """Measures, prints the tables and writes them into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("200:203"), help="phantoms: first:stop")
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="folders of NIfTI scans with labels")
    parser.add_argument("--size", type=int, default=512, help="rows and columns of the phantom that times are taken on")
    parser.add_argument("--repeats", type=int, default=8, help="prompts of each kind into each spoiled result")
    parser.add_argument("--name", default="interactive", help="stem of the results")
    parser.add_argument("--doubts", action="store_true", help="time finding doubtful places alone")
    options = parser.parse_args()
    made = describe_circumstances("benchmarks.interactive")
    if options.doubts:
        doubts = time_doubts()
        write_report(f"{options.name}_doubts", describe_doubts(doubts), doubts, made)
        return
    others: dict[str, Refiner] = {"click": LocalRefiner(), **{method: RivalRefiner(method) for method in RIVALS}}
    answers = time_answers(others, options.size, options.repeats)
    print(summarise_answers(answers), flush=True)
    tools: dict[str, Refiner | bool] = {"click": LocalRefiner(), "brush, disc": True, "brush, ball": False}
    courses: list[Course] = []
    rivals: list[Course] = []
    for case in [*draw_cases(options.seeds), *(case for folder in options.data for case in read_cases(folder))]:
        courses += follow(case, tools, CLICKS)
        if case.source == "phantoms" and case.seed == options.seeds[0]:
            rivals += follow(case, others, 3)
        print(f"{case.source} {case.seed} {case.structure}", flush=True)
    figures: dict[str, Any] = {
        "answers": [asdict(each) for each in answers],
        "courses": [asdict(each) for each in courses],
        "rivals": [asdict(each) for each in rivals],
    }
    write_report(options.name, to_markdown(answers, courses, rivals, options.size), figures, made)


if __name__ == "__main__":
    main()
