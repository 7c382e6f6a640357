"""Thick slices: what slices alone, slices with their neighbours and whole volumes are worth in equal time.

Run from the repository's root: ``python -m benchmarks.dimensions --data ../shared/data`` (``--minutes 12``). The cine
MR set (slices 8 to 10 mm apart) is planned three times by ``effvit-med plan``, with the dimension, the minutes of
training and patches of 160 x 160 set, a few to a step, so that there are steps enough; each plan is trained once for
each patient, who is left out and scored then. Every run is kept in ``results/dimensions.json`` as soon as it ends; a
later call makes only those that are missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.ablation import plan_bundle, score_copy, train_copy
from benchmarks.report import adding, describe_circumstances, keep_runs, kept_runs, make_table
from benchmarks.training_lists import SETS, write_lists

SET = "cardiac"
_NAME = "dimensions"

#: By name: choices of the plan that are set.
DIMENSIONS: dict[str, dict[str, str]] = {
    "2D": {"spatial_dims": "2", "neighbours": "0", "patch": "1x160x160", "batch_size": "4"},
    "2.5D, two slices on each side": {
        "spatial_dims": "2",
        "neighbours": "2",
        "patch": "5x160x160",
        "batch_size": "4",
    },
    "3D, slices coarser than pixels": {"spatial_dims": "3", "patch": "10x160x160", "batch_size": "2"},
}


def run_dimension(dimension: str, fold: int, planned: Path, runs: Path) -> dict[str, Any]:
    """Train on all patients but one, and score on that one.

    Args:
        dimension: of `DIMENSIONS`.
        fold: who is left out.
        planned: the bundle as it is planned.
        runs: where its copy is made.
    """
    choices = json.loads((planned / "plan.json").read_text(encoding="utf-8"))["choices"]
    chosen = {choice["name"]: choice["value"] for choice in choices}
    bundle = runs / planned.parent.name / f"fold_{fold}"
    # one look at the end: who is left out must not decide when training was best
    seconds = train_copy(planned, bundle, {"val_interval": str(chosen["epochs"])}, fold)
    return {
        "set": SET,
        "dimension": dimension,
        "fold": fold,
        "steps": chosen["epochs"] * chosen["steps_per_epoch"],
        "batch_size": chosen["batch_size"],
        "patch": chosen["patch"],
        "training_s": round(seconds, 1),
        "dice": score_copy(bundle, fold),
    }


def to_markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A row for each dimension: Dice of each structure, patient by patient.

    Args:
        runs: finished ones.
    """
    structures = SETS[SET].labels
    head = ["dimension", "patch", "batch", "steps", "minutes"]
    head += [f"{name}, {what}" for name in structures for what in ("mean", "each patient")]
    rows = []
    for dimension in (each for each in DIMENSIONS if any(run["dimension"] == each for run in runs)):
        mine = sorted((run for run in runs if run["dimension"] == dimension), key=lambda run: run["fold"])
        first = mine[0]
        minutes = statistics.fmean(run["training_s"] for run in mine) / 60
        patch = " x ".join(str(size) for size in first["patch"])
        row = [dimension, patch, str(first["batch_size"]), str(first["steps"]), f"{minutes:.1f}"]
        for number in range(len(structures)):
            found = [[dice[number] for dice in run["dice"].values() if dice[number] is not None] for run in mine]
            means = [statistics.fmean(each) for each in found]
            row += [f"{statistics.fmean(means):.3f}", ", ".join(f"{mean:.3f}" for mean in means)]
        rows.append(row)
    return "\n".join(
        [
            "# Thick slices: 2D, 2.5D and 3D in equal time",
            "",
            (
                "Cine MR of three patients, slices 8 to 10 mm apart; each patient is left out once and scored by a "
                "network that learnt from the two others, which is too few for anything but this comparison. At the "
                "end of systole only the cavity is marked."
            ),
            "",
            make_table(head, rows, texts=2),
        ]
    )


def main() -> None:
    """Makes the runs that are missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("--minutes", type=float, default=12, help="of each training")
    parser.add_argument("--runs", type=Path, default=Path("runs") / _NAME, help="where bundles are made")
    options = parser.parse_args()
    made = describe_circumstances(f"benchmarks.{_NAME}")
    folder = options.runs.resolve()
    listed = write_lists(SET, options.data, folder / "lists", tests=False)
    groups = {row["group"] for row in json.loads(listed.read_text(encoding="utf-8"))["training"]}
    wanted = [(fold, dimension) for fold in range(len(groups)) for dimension in DIMENSIONS]
    for fold, dimension in tqdm(wanted, desc="runs", disable=None):
        if (fold, dimension) in {(run["fold"], run["dimension"]) for run in kept_runs(_NAME)}:
            continue
        bundle = folder / f"{dimension.partition(',')[0]}_{options.minutes:g}" / "planned"
        more = ("--minutes", f"{options.minutes:g}", "--folds", str(len(groups)))
        planned = plan_bundle(listed, bundle, SET, DIMENSIONS[dimension], *more)
        keep_runs(_NAME, adding(run_dimension(dimension, fold, planned, folder)), to_markdown, made)


if __name__ == "__main__":
    main()
