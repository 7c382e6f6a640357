"""What each part of the training recipe is worth: planned bundles, trained shortly with one key changed at a time.

Run from the repository's root: ``python -m benchmarks.ablation --data ../shared/data`` (``--set hippocampus vessels``,
``--seeds 0 1``, ``--only NAME``). Every bundle is planned by ``effvit-med plan``, trained by ``effvit-med train`` with
one key of its ``configs/train.yaml`` set otherwise, and scored by its own ``configs/evaluate.yaml`` on the cases of
fold 0, which it did not learn from; test cases take no part. Every run is kept in ``results/ablation.json`` as soon as
it ends; a later call makes only those that are missing. Two calls at once may share the work if they differ in sets,
seeds or names.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.report import adding, describe_circumstances, keep_runs, kept_runs, make_table
from benchmarks.training_lists import write_lists
from effvit_med.evaluation import mean_interval
from effvit_med.training.running import RunOptions, train_bundle

AS_PLANNED = "as planned"
_NAME = "ablation"


@dataclass(frozen=True)
class Length:
    """How long the runs of a set are.

    Attributes:
        epochs: of training.
        steps: of an epoch.
        plan: what is decided in place of ``effvit-med plan``, to fit a short run.
    """

    epochs: int
    steps: int
    plan: Mapping[str, str] = field(default_factory=dict)


SETS = {
    "hippocampus": Length(6, 100),
    "vessels": Length(6, 100, {"patch": "1x256x256", "batch_size": "2"}),
}

#: By name: keys of ``train.yaml`` that are set otherwise.
VARIANTS: dict[str, dict[str, str]] = {
    AS_PLANNED: {},
    "augmentation: none": {"augmentation": "0"},
    "augmentation: half as often": {"augmentation": "0.5"},
    "augmentation: twice as often": {"augmentation": "2"},
    "mirroring: none": {"mirror_axes": "[]"},
    "mirroring: upside down, too": {"mirror_axes": "[0, 2]"},
    "turning and scaling: none": {"rotate_range": "[0, 0, 0]", "scale_range": "[0, 0, 0]"},
    "patches around structures: none": {"foreground_share": "0"},
    "patches around structures: two thirds": {"foreground_share": "0.67"},
    "deep supervision: none": {"deep_supervision": "1"},
    "averaged weights: none": {"ema_decay": "0"},
    "loss: Dice alone": {"loss::entropy_weight": "0.0"},
    "loss: cross entropy alone": {"loss::dice_weight": "0.0"},
    "Dice of each patch": {"batch_dice": "false"},
    "gradients not clipped": {"gradient_clip": "0"},
    "learning rate: 0.001": {"learning_rate": "0.001"},
    "learning rate: 0.006": {"learning_rate": "0.006"},
    "learning rate: 0.01": {"learning_rate": "0.01"},
    "weight decay: none": {"weight_decay": "0"},
    "weight decay: 0.1": {"weight_decay": "0.1"},
    "SGD, momentum 0.99, rate 0.01": {
        "optimizer::_target_": "torch.optim.SGD",
        "optimizer::momentum": "0.99",
        "optimizer::nesterov": "true",
        "optimizer::weight_decay": "3e-5",
        "learning_rate": "0.01",
    },
}


@dataclass(frozen=True)
class Trial:
    """One run.

    Attributes:
        set_name: of the data.
        variant: what is set otherwise.
        seed: of weights and patches.
    """

    set_name: str
    variant: str
    seed: int

    @property
    def folder(self) -> str:
        """Its place among the runs."""
        words = "".join(letter if letter.isalnum() or letter == "." else "_" for letter in self.variant)
        return f"{self.set_name}/{words}_{self.seed}"


def plan_bundle(listed: Path, bundle: Path, name: str, choices: Mapping[str, str], *more: str) -> Path:
    """A bundle by ``effvit-med plan``, made once.

    Args:
        listed: the ``dataset.json``.
        bundle: where it is made.
        name: of the bundle.
        choices: what is decided in place of the plan.
        more: further words of the command line.
    """
    if not (bundle / "configs" / "train.yaml").exists():
        own = [part for choice, value in choices.items() for part in ("--set", f"{choice}={value}")]
        command = [sys.executable, "-m", "effvit_med.cli", "plan", str(listed), "-o", str(bundle), "--quiet"]
        subprocess.run([*command, "--name", name, "--device", "cpu", "--overwrite", *more, *own], check=True)
    return bundle


def run_trial(trial: Trial, planned: Path, runs: Path) -> dict[str, Any]:
    """Train, and score on the cases of fold 0.

    Args:
        trial: which.
        planned: the bundle as it is planned.
        runs: where its copy is made, in place of one that is there.
    """
    length, bundle = SETS[trial.set_name], runs / trial.folder
    values = {
        "epochs": str(length.epochs),
        "steps_per_epoch": str(length.steps),
        "warmup_steps": str(length.steps // 4),
        "val_interval": str(length.epochs),
        "seed": str(trial.seed),
        **VARIANTS[trial.variant],
    }
    seconds = train_copy(planned, bundle, values)
    return {
        "set": trial.set_name,
        "variant": trial.variant,
        "values": VARIANTS[trial.variant],
        "seed": trial.seed,
        "steps": length.epochs * length.steps,
        "training_s": round(seconds, 1),
        "dice": {
            case: round(statistics.fmean(each for each in dice if each is not None), 5)
            for case, dice in score_copy(bundle).items()
        },
    }


def train_copy(planned: Path, bundle: Path, values: Mapping[str, str], fold: int = 0) -> float:
    """Train a copy of a bundle, and keep what the training said beside it.

    Args:
        planned: the bundle; its prepared cases are shared by all copies.
        bundle: its copy, made anew.
        values: keys of ``train.yaml`` that are set otherwise.
        fold: what is not learnt from.

    Returns:
        Seconds that it took.
    """
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.copytree(planned, bundle, ignore=shutil.ignore_patterns("runs", "eval"))
    said = bytearray()
    started = time.perf_counter()
    shared = {"prepared_dir": str(planned / "runs" / "prepared")}
    try:
        train_bundle(bundle, RunOptions(fold=fold, values={**shared, **values}), said.extend)
    finally:
        bundle.with_suffix(".log").write_bytes(said)
    return time.perf_counter() - started


def score_copy(bundle: Path, fold: int = 0) -> dict[str, list[float | None]]:
    """Dice of the structures of each case of a fold, by the bundle's own ``evaluate.yaml``.

    Args:
        bundle: trained.
        fold: what it did not learn from.

    Returns:
        By the name of the file that was segmented; None for a structure that nobody marked there.

    Raises:
        RuntimeError: if the evaluation failed, with its last words.
    """
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(bundle / "configs" / "evaluate.yaml")]
    weights = bundle / "runs" / "train" / "model.safetensors"
    given = ["--bundle_root", str(bundle), "--fold", str(fold), "--weights", str(weights)]
    scored = subprocess.run([*command, *given], capture_output=True, check=False)
    if scored.returncode:
        raise RuntimeError(scored.stderr.decode(errors="replace")[-2000:])
    with (bundle / "eval" / "mean_dice_raw.csv").open(newline="", encoding="utf-8") as file:
        return {_name_case(row["filename"]): _read_row(row) for row in csv.DictReader(file)}


def _name_case(path: str) -> str:
    """The last folder and the file: enough to tell cases apart, and no path of this machine."""
    return "/".join(Path(path).parts[-2:])


def _read_row(row: Mapping[str, str]) -> list[float | None]:
    values = [float(value) for key, value in row.items() if key.startswith("class")]
    return [None if math.isnan(value) else round(value, 5) for value in values]


def to_markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table for each set: every variant beside the recipe as it is planned, case by case.

    Args:
        runs: finished ones.
    """
    parts = [
        "# Ablation: what each part of the training recipe is worth",
        "",
        (
            "Short runs of planned bundles with one key set otherwise, scored on cases of fold 0 as they are segmented "
            "in use. Difference: mean over cases (and seeds) of the Dice less that of the recipe as planned on the "
            "same case, with its 95 % interval over cases; what a seed changes comes on top of it."
        ),
    ]
    for name in dict.fromkeys(run["set"] for run in runs):
        mine = [run for run in runs if run["set"] == name]
        base = average_seeds([run for run in mine if run["variant"] == AS_PLANNED])
        rows = []
        for variant in (each for each in VARIANTS if any(run["variant"] == each for run in mine)):
            group = [run for run in mine if run["variant"] == variant]
            dice = average_seeds(group)
            shared = [case for case in dice if case in base]
            told = ""
            if variant != AS_PLANNED and shared:
                gains = [dice[case] - base[case] for case in shared]
                interval = mean_interval(gains)
                told = f"{statistics.fmean(gains):+.4f} ({interval.low:+.4f} to {interval.high:+.4f})"
            minutes = statistics.fmean(run["training_s"] for run in group) / 60
            mean = statistics.fmean(dice.values())
            rows.append([variant, f"{mean:.4f}", told, f"{minutes:.1f}", str(len(group))])
        steps, cases = mine[0]["steps"], len(mine[0]["dice"])
        parts += ["", f"## {name}: {steps} steps, {cases} cases", ""]
        parts.append(make_table(["variant", "Dice", "difference", "minutes", "seeds"], rows, texts=1))
    return "\n".join(parts)


def average_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Dice of each case, the mean over runs.

    Args:
        runs: of one set and variant.

    Examples:
        >>> average_seeds([{"dice": {"a": 0.5}}, {"dice": {"a": 0.7}}])
        {'a': 0.6}
    """
    cases = runs[0]["dice"] if runs else {}
    return {case: round(statistics.fmean(run["dice"][case] for run in runs), 5) for case in cases}


def main() -> None:
    """Makes the runs that are missing, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("--set", nargs="+", default=list(SETS), choices=list(SETS), help="what to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), metavar="NAME", help="variants; all if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs") / _NAME, help="where bundles are made")
    options = parser.parse_args()
    made = describe_circumstances(f"benchmarks.{_NAME}")
    runs_folder = options.runs.resolve()
    wanted = [
        Trial(name, variant, seed)
        for seed in options.seeds
        for name in options.set
        for variant in VARIANTS
        if not options.only or variant in options.only
    ]
    for trial in tqdm(wanted, desc="runs", disable=None):
        done = {(run["set"], run["variant"], run["seed"]) for run in kept_runs(_NAME)}
        if (trial.set_name, trial.variant, trial.seed) in done:
            continue
        listed = write_lists(trial.set_name, options.data, runs_folder / "lists")
        bundle = runs_folder / trial.set_name / "planned"
        planned = plan_bundle(listed, bundle, trial.set_name, SETS[trial.set_name].plan)
        keep_runs(_NAME, adding(run_trial(trial, planned, runs_folder)), to_markdown, made)


if __name__ == "__main__":
    main()
