"""How many clicks an object takes: a made-up reader points at real objects until a network has them right.

Run from the repository's root: ``python -m benchmarks.clicks --data ../shared/data`` (``--bundle FOLDER``, ``--images
20 --objects 3``, ``--set nuclei``, ``--clicks 10``, ``--sam efficientvit_sam_l0.pt``). The reader always clicks into
the middle of the largest error (`effvit_med.training.simulated_user.EXACT`); a box is the object's own in the slice
where it is largest, a scribble a line through its middle. Then a mask that an automatic result could have been, with
bites or leaks and a Dice below 0.85, is corrected by clicks in the same way. In volumes a network for slices answers in
the slice of the click and is carried through the others from there. Beside the network stand the plugin's
refiner that looks at the image alone and, on pictures, a random walker. Every object of every method is kept in
``results/clicks.json`` as it ends; a later call does what is missing.
"""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from benchmarks.click_sets import CLICK_SETS, Target, list_targets
from benchmarks.interactive_methods import RivalRefiner
from benchmarks.interactive_reviewer import dice
from benchmarks.report import adding, describe_circumstances, keep_runs, kept_runs, make_table
from effvit_med.engine.prompting import PromptModel, read_prompt_model
from effvit_med.evaluation import mean_interval
from effvit_med.review import LocalRefiner, NetworkRefiner
from effvit_med.review.refining import Refiner, cut_request
from effvit_med.training.prompt_samples import spoil
from effvit_med.training.simulated_user import EXACT, draw_box, find_largest_error, pick_line, point_at
from effvit_med.volume.prompts import Prompt

NAME = "clicks"
AFTER = (1, 3, 5, 10)
GOALS = (0.85, 0.90)
MENDED = 0.95
SPOILED = (0.4, 0.85)
"""Between which Dice a mask lies that is to be corrected."""

CARRIED = ", carried through slices"
"""Of a network's name where its answer in a slice is taken on to the others; tried on volumes alone."""

Mask = npt.NDArray[np.bool_]
Answer = Callable[[Target, Mask, Sequence[Prompt]], Mask]
"""Called as answer(target, mask so far, prompts); gives the mask after the newest prompt."""


def answer_by_network(refiner: NetworkRefiner, target: Target, now: Mask, prompts: Sequence[Prompt]) -> Mask:
    """The mask after the newest prompt, by a promptable network."""
    mask, box = refiner.refine_scan(target.volume, now.astype(np.uint8), prompts)
    after = now.copy()
    after[box] = mask
    return after


def answer_by_carrying(refiner: NetworkRefiner, target: Target, now: Mask, prompts: Sequence[Prompt]) -> Mask:
    """The mask after the newest prompt, answered in its slice and carried from there to its ends."""
    after = answer_by_network(refiner, target, now, prompts)
    axis = target.volume.geometry.slice_axis
    number = round(prompts[-1].index[0][axis])
    start = after.take([number], axis=axis)
    if start.any():
        slices = np.moveaxis(after, axis, 0)  # a view: what is written there is written in the mask
        for other, answer in refiner.carry_scan(target.volume, start, prompts, (axis, number)).answers.items():
            slices[other] = False
            after[answer.box] = answer.mask
    return after


def answer_by_image(refiner: Refiner, target: Target, now: Mask, prompts: Sequence[Prompt]) -> Mask:
    """The same by a refiner that looks at the image around the newest prompt alone."""
    request, crop = cut_request(target.volume, now.astype(np.uint8), prompts)
    after = now.copy()
    after[crop] = refiner.refine(request)
    return after


def try_target(target: Target, answer: Answer, clicks: int) -> dict[str, Any]:
    """What a method makes of an object.

    Args:
        target: the object.
        answer: the method.
        clicks: how many.

    Returns:
        Dice after each click, after a box and after a scribble alone, and the seconds of each click's answer.
    """
    rng = np.random.default_rng(0)
    nothing = np.zeros(target.mask.shape, bool)
    after, seconds = click_at(target, answer, nothing, clicks, rng)
    found: dict[str, Any] = {"clicks": after, "seconds": seconds}
    if (spoiled := spoil_target(target)) is not None:
        found["mended"] = [round(dice(spoiled, target.mask), 4), *click_at(target, answer, spoiled, clicks, rng)[0]]
    whole = find_largest_error(nothing, target.mask)
    alone = {"box": draw_box(target.mask, EXACT, rng)}
    if whole is not None:
        line = pick_line(whole, rng)
        alone["scribble"] = Prompt("scribble" if len(line) > 1 else "point", 1, True, tuple(line))
    single = {kind: round(dice(answer(target, nothing.copy(), [each]), target.mask), 4) for kind, each in alone.items()}
    return {**found, **single}


def click_at(
    target: Target, answer: Answer, start: Mask, clicks: int, rng: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Dice after each click from a mask on, and the seconds of each answer; no click where nothing is wrong.

    Args:
        target: the object.
        answer: the method.
        start: the mask before the first click.
        clicks: how many.
        rng: of the reader.
    """
    now, prompts = start.copy(), list[Prompt]()
    after, seconds = [], []
    for _ in range(clicks):
        prompt = point_at(now, target.mask, EXACT, rng)
        if prompt is not None:
            prompts.append(prompt)
            began = time.perf_counter()
            now = answer(target, now, prompts)
            seconds.append(round(time.perf_counter() - began, 4))
        after.append(round(dice(now, target.mask), 4))
    return after, seconds


def spoil_target(target: Target) -> Mask | None:
    """A mask of an object with something wrong, always the same; None if none of twenty lies between `SPOILED`.

    Args:
        target: the object.
    """
    rng = np.random.default_rng(zlib.crc32(target.name.encode()))
    flat = target.mask[0] if target.is_flat else target.mask
    for _ in range(20):
        mask = spoil(flat, flat.astype(np.uint8), rng)
        if SPOILED[0] < dice(mask, flat) < SPOILED[1]:
            return mask.reshape(target.mask.shape)
    return None


def count_clicks(after: Sequence[float], goal: float) -> int:
    """The first click after which a goal is reached; one more than there were if it never is.

    Examples:
        >>> count_clicks([0.5, 0.86, 0.9], 0.85), count_clicks([0.5, 0.6], 0.85)
        (2, 3)
    """
    return next((number for number, value in enumerate(after, 1) if value >= goal), len(after) + 1)


def to_markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table for pictures and one for volumes: a row for each method and set, and the mean over sets.

    Args:
        runs: one for each object and method.
    """
    parts = [
        "# Clicks: real objects that no network here has learnt from",
        "",
        (
            "Dice after so many clicks into the middle of the largest error, and after one box or one scribble alone; "
            "clicks to a Dice (one more than were made where it is not reached); then a mask with bites or leaks: how "
            f"good it was, after three clicks, and the clicks that it takes to {MENDED}; all means over objects. The "
            "last row of a method is the mean over the sets, with the interval over all objects after three clicks."
        ),
    ]
    head = ["method", "set", "objects", *(f"{n} clicks" for n in AFTER), "box", "scribble"]
    head += [f"clicks to {goal}" for goal in GOALS]
    head += ["spoiled", "3 clicks", f"clicks to {MENDED}", "ms, first", "ms, later (median)"]
    for title, is_flat in (("Pictures and slices", True), ("Volumes", False)):
        mine = [run for run in runs if run["flat"] == is_flat]
        rows = []
        for method in dict.fromkeys(run["method"] for run in mine):
            of_method = [run for run in mine if run["method"] == method]
            names = dict.fromkeys(run["set"] for run in of_method)
            by_set = [_figures([run for run in of_method if run["set"] == name]) for name in names]
            for name, figures in zip(names, by_set, strict=True):
                count = sum(run["set"] == name for run in of_method)
                rows.append([method, name, str(count), *_format(figures)])
            if len(by_set) > 1:
                interval = mean_interval([run["clicks"][min(2, len(run["clicks"]) - 1)] for run in of_method])
                means = [_mean_of_known(column) for column in zip(*by_set, strict=True)]
                label = f"**mean** ({interval.low:.3f} to {interval.high:.3f})"
                rows.append([f"**{method}**", label, str(len(of_method)), *_format(means)])
        if rows:
            parts += ["", f"## {title}", "", make_table(head, rows, texts=2)]
    return "\n".join(parts)


def _figures(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    dices = [statistics.fmean(run["clicks"][min(n, len(run["clicks"])) - 1] for run in runs) for n in AFTER]
    alone = [statistics.fmean(run.get(kind, run["clicks"][0]) for run in runs) for kind in ("box", "scribble")]
    counts = [statistics.fmean(count_clicks(run["clicks"], goal) for run in runs) for goal in GOALS]
    first = statistics.median(run["seconds"][0] for run in runs if run["seconds"])
    later = [each for run in runs for each in run["seconds"][1:]]
    mended = [run["mended"] for run in runs if "mended" in run]
    counts += [statistics.fmean(each[min(n, len(each) - 1)] for each in mended) if mended else nan for n in (0, 3)]
    counts += [statistics.fmean(count_clicks(each[1:], MENDED) for each in mended) if mended else nan]
    return [*dices, *alone, *counts, 1000 * first, 1000 * statistics.median(later) if later else nan]


def _mean_of_known(values: Sequence[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return statistics.fmean(known) if known else nan


def _format(figures: Sequence[float]) -> list[str]:
    shares = len(AFTER) + 2
    kinds = [".3f"] * shares + [".1f"] * len(GOALS) + [".3f", ".3f", ".1f"] + [".0f"] * 2
    return ["" if isnan(value) else format(value, kind) for value, kind in zip(figures, kinds, strict=True)]


def name_method(model: PromptModel) -> str:
    """What a network is called in the tables; a published file has no version."""
    return f"{model.name} {model.version}".strip()


def list_methods(options: argparse.Namespace) -> dict[str, Callable[[], Answer]]:
    """What is tried, by name; each is made anew for each set, so that nothing is carried over.

    Args:
        options: of the command line.
    """
    found: dict[str, Callable[[], Answer]] = {}
    if options.bundle:
        model = read_prompt_model(options.bundle)
        name = options.label or name_method(model)
        found[name] = lambda: partial(answer_by_network, NetworkRefiner(model, "cpu"))
        if model.slices is not None:
            sliced = replace(model, blocks=None)
            found[name + CARRIED] = lambda: partial(answer_by_carrying, NetworkRefiner(sliced, "cpu"))
    if options.sam:
        sam = read_prompt_model(options.sam)
        found[name_method(sam)] = lambda: partial(answer_by_network, NetworkRefiner(sam, "cpu"))
    if not options.network_only:
        found["image alone (the plugin's refiner)"] = lambda: partial(answer_by_image, LocalRefiner())
        found["random walker"] = lambda: partial(answer_by_image, RivalRefiner("random walker"))
    return found


def list_flat(options: argparse.Namespace) -> set[str]:
    """The methods that are not tried on volumes: a network that knows no blocks, and what takes minutes for a click.

    Args:
        options: of the command line.
    """
    found = {"random walker"}
    for bundle, label in ((options.bundle, options.label), (options.sam, "")):
        if bundle and (model := read_prompt_model(bundle)).blocks is None:
            found.add(label or name_method(model))
    return found


def main() -> None:
    """Makes the runs that are missing, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("--bundle", default="prompt", help="name or folder of a promptable bundle; empty for none")
    parser.add_argument("--label", default="", help="what to call it in the tables")
    parser.add_argument("--sam", help="a file of published EfficientViT-SAM weights, where there is one")
    parser.add_argument("--set", nargs="+", choices=[each.name for each in CLICK_SETS], help="all if not given")
    parser.add_argument("--images", type=int, default=12, help="of a set")
    parser.add_argument("--objects", type=int, default=3, help="of an image")
    parser.add_argument("--clicks", type=int, default=10, help="for each object")
    parser.add_argument("--threads", type=int, default=2, help="of the processor")
    parser.add_argument("--network-only", action="store_true", help="leave out what has no network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    made = describe_circumstances(f"benchmarks.{NAME}")
    flat_only = list_flat(options)
    for chosen in CLICK_SETS:
        if options.set and chosen.name not in options.set:
            continue
        targets = list(list_targets(chosen, options.data, options.images, options.objects))
        for method, make in list_methods(options).items():
            done = {(run["method"], run["set"], run["name"]) for run in kept_runs(NAME)}
            missing = [each for each in targets if (method, each.set_name, each.name) not in done]
            answer = make()
            rows = []
            for target in tqdm(missing, desc=f"{chosen.name}, {method}", disable=None):
                if (method in flat_only and not target.is_flat) or (method.endswith(CARRIED) and target.is_flat):
                    continue
                row = try_target(target, answer, options.clicks)
                rows.append({"method": method, "set": chosen.name, "name": target.name, "flat": target.is_flat, **row})
            if rows:
                keep_runs(NAME, adding(*rows), to_markdown, made)


if __name__ == "__main__":
    main()
