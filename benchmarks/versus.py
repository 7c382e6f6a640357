"""Accuracy beside peers on real scans: the same split, crops, loss and time for each, then Dice, NSD, time and memory.

Run from the repository's root: ``make bench-accuracy``, or ``python -m benchmarks.versus`` (``--data FOLDER``,
``--minutes 10``, ``--converge``, ``--sets hippocampus``, ``--only "UNet 8" nnU-Net``, ``--seeds 0 1 2``). Every run is
kept in ``benchmarks/runs/`` as it goes: an interrupted call goes on where it stopped, a further call does what is
missing, and two calls at once share the work. The report is of all that is finished. A set that is not there is
skipped, and so is nnU-Net where ``make`` has not installed it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.engine import NNUNET as NNUNET_PYTHON
from benchmarks.engine import say
from benchmarks.engine_process import ChildFailedError, run_alone
from benchmarks.report import RESULTS, describe_circumstances, write_report
from benchmarks.versus_models import CONTENDERS, NNUNET
from benchmarks.versus_plots import draw_front, draw_training
from benchmarks.versus_points import Point, average, gather_points, mean_dice
from benchmarks.versus_report import to_figures, to_markdown
from benchmarks.versus_runs import RUNS, Run, RunFolder, describe_network, groups_of
from benchmarks.versus_sets import SETS, TOLERANCE_MM, describe_split, list_cases
from effvit_med.evaluation import score_case
from effvit_med.io.label_files import read_labels

DATA = Path(__file__).parents[1].parent / "shared" / "data"
PARTS = ("train", "time", "report")
MODELS = (*(each.name for each in CONTENDERS), NNUNET)


def list_runs(options: argparse.Namespace, set_names: Sequence[str]) -> Iterator[Run]:
    """The runs that the options name, those of the first seed on all sets first.

    Args:
        options: of the command line.
        set_names: of the sets that are there.
    """
    budgets = [(options.minutes, False)] if options.minutes else []
    budgets += [(options.limit, True)] if options.converge else []
    for seed in options.seeds:
        for set_name in set_names:
            folds = SETS[set_name].run_folds if options.folds is None else options.folds
            for minutes, converge in budgets:
                for fold in folds:
                    for model in options.only or MODELS:
                        yield Run(set_name, model, minutes, converge, seed, fold, options.cases, options.device)


def open_folders(runs: Sequence[Run], options: argparse.Namespace) -> list[RunFolder]:
    """Each run with its folder."""
    networks: dict[tuple[str, str], str] = {}
    folders = []
    for run in runs:
        key = (run.set_name, run.model)
        if key not in networks:
            networks[key] = describe_network(run)
        folders.append(RunFolder(run, networks[key], options.data, options.runs))
    return folders


def explain_missing(folder: RunFolder) -> str:
    """Why a run cannot be made here; empty if it can."""
    if folder.run.model == NNUNET and not NNUNET_PYTHON.exists():
        return "it is not installed: `make .venv/nnunet/installed`"
    return ""


def train(folder: RunFolder) -> None:
    """Make a run unless it is there, or another call is at it; a failure is kept and told.

    Args:
        folder: of the run.
    """
    run = folder.run
    if folder.read("result.json"):
        return
    if why := explain_missing(folder):
        say(f"{run.model} is left out: {why}")
        return
    folder.write("run.json", asdict(run))
    task = "benchmarks.versus_training:train_run"
    python = sys.executable
    if run.model == NNUNET:
        task, python = "benchmarks.versus_nnunet:train_nnunet", str(NNUNET_PYTHON)
    try:
        with FileLock(folder.path / "lock", timeout=0):
            if folder.read("result.json"):
                return
            say(f"{run.set_name}: {run.model}, {run.budget}, seed {run.seed}, fold {run.fold}")
            run_alone(task, {"request": folder.request()}, python=python)
            (folder.path / "failed.json").unlink(missing_ok=True)
    except Timeout:
        return
    except ChildFailedError as error:
        folder.write("failed.json", {"why": str(error).strip().splitlines()[-1][:500]})
        say(f"failed: {error}")


def time_inference(folder: RunFolder) -> None:
    """Time the network of a finished run unless that was done.

    Args:
        folder: of the run.
    """
    if folder.time_path.exists() or not folder.read("result.json") or explain_missing(folder):
        return
    say(f"{folder.run.set_name}: {folder.run.model}, time of a case")
    task, python = "benchmarks.versus_timing:time_here", sys.executable
    if folder.run.model == NNUNET:
        task, python = "benchmarks.versus_nnunet:time_nnunet", str(NNUNET_PYTHON)
    try:
        rows = run_alone(task, {"request": folder.request()}, threads=2, python=python)["rows"]
    except ChildFailedError as error:
        say(f"failed: {error}")
        return
    folder.time_path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def find_finished(options: argparse.Namespace) -> list[Run]:
    """All runs of the runs folder that have a result, of the same number of cases, whatever else was asked for."""
    found = []
    for path in sorted(options.runs.glob("*/*/*/result.json")):
        about = path.with_name("run.json")
        run = Run(**json.loads(about.read_text(encoding="utf-8")))
        found += [run] if run.set_name in SETS and run.model in MODELS and run.few == options.cases else []
    order = {name: place for place, name in enumerate(MODELS)}
    sets = {name: place for place, name in enumerate(SETS)}
    return sorted(found, key=lambda run: (sets[run.set_name], run.converge, run.minutes, order[run.model], run.seed))


def score_observers(folders: Sequence[RunFolder]) -> dict[str, dict[str, Any]]:
    """What a second observer is worth against the first on the test cases, where a set has one.

    Args:
        folders: of finished runs.
    """
    found = {}
    for set_name in dict.fromkeys(folder.run.set_name for folder in folders):
        mine = [folder for folder in folders if folder.run.set_name == set_name]
        cases = {case.name: case for folder in mine for case in folder.split.test if case.second}
        if not cases:
            continue
        labelled = SETS[set_name]
        scores = {}
        for name, case in cases.items():
            first, second = (read_labels(path, labelled.table) for path in (case.label, case.second or case.label))
            scores[name] = score_case(first, second, TOLERANCE_MM)
        rows = [row for mean in average([scores], groups_of(tuple(cases.values()))).values() for row in mean]
        nsd = [row.nsd for row in rows if row.nsd is not None]
        found[set_name] = {"dice": mean_dice(scores), "nsd": sum(nsd) / len(nsd), "cases": len(cases)}
    return found


def report(options: argparse.Namespace, asked: Sequence[RunFolder], skipped: dict[str, str]) -> None:
    """Write tables and pictures of all that is finished.

    Args:
        options: of the command line.
        asked: the runs of this call, to tell what failed.
        skipped: why a set was left out.
    """
    made = describe_circumstances("benchmarks.versus")
    there = [run for run in find_finished(options) if list_cases(run.labelled, options.data)]
    folders = [folder for folder in open_folders(there, options) if folder.read("result.json")]  # not of older recipes
    times = {
        str(folder.time_path): json.loads(folder.time_path.read_text(encoding="utf-8"))
        for folder in folders
        if folder.time_path.exists()
    }
    points = gather_points(folders, times)
    if not points:
        say(f"nothing is finished; {skipped or 'train first'}")
        return
    splits = {f"{each.run.set_name} {each.run.fold}": describe_split(each.split) for each in folders}
    failed = {
        f"{each.run.model} on {each.run.set_name}, {each.run.budget}": str(kept["why"])
        for each in asked
        if (kept := each.read("failed.json"))
    }
    if NNUNET in (options.only or MODELS) and not NNUNET_PYTHON.exists():
        skipped[NNUNET] = "it is not installed: `make .venv/nnunet/installed`"
    draw(points, options.name)
    text = to_markdown(points, splits, score_observers(folders), failed, skipped)
    pictures = [f"![{path.stem}]({path.name})" for path in sorted(RESULTS.glob(f"{options.name}_*.png"))]
    figures = {"splits": splits, "points": to_figures(points), "failed": failed, "skipped": skipped}
    write_report(options.name, "\n\n".join([text, *pictures]), figures, made)


def draw(points: Sequence[Point], name: str) -> None:
    """Both pictures of each set and budget.

    Args:
        points: all.
        name: stem of the files.
    """
    for key in dict.fromkeys((point.set_name, point.budget) for point in points):
        mine = [point for point in points if (point.set_name, point.budget) == key]
        stem = f"{name}_{key[0]}_{key[1].replace(' ', '')}"
        draw_training(mine, RESULTS / f"{stem}_training.png")
        if any(point.cpu_s for point in mine):
            draw_front(mine, RESULTS / f"{stem}_front.png")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line.

    Args:
        arguments: by default those of this process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with seg2d and seg3d (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where runs are kept (default: %(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--only", nargs="+", choices=MODELS, metavar="NAME", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--minutes", type=float, default=10, help="CPU minutes for each network; 0 for none")
    parser.add_argument("--converge", action="store_true", help="also until the watched Dice gains no more")
    parser.add_argument("--limit", type=float, default=90, help="CPU minutes that this may take at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, nargs="+", help="by default each set's own")
    parser.add_argument("--cases", type=int, help="only so many cases of each part, to try the way")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="to train on")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to do")
    parser.add_argument("--name", default="versus", help="stem of the files in results/")
    return parser.parse_args(arguments)


def main() -> None:
    """Trains, times and reports, each part for what is missing."""
    options = parse()
    skipped = {
        name: f"no cases below {options.data.name}" for name in options.sets if not list_cases(SETS[name], options.data)
    }
    folders = open_folders(list(list_runs(options, [name for name in options.sets if name not in skipped])), options)
    for part, work in (("train", train), ("time", time_inference)):
        for folder in folders if part in options.parts else ():
            work(folder)
    if "report" in options.parts:
        report(options, folders, skipped)


if __name__ == "__main__":
    main()
