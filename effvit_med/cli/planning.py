"""``plan`` and ``train``: from labelled scans to a bundle, and from that to weights."""

from __future__ import annotations

import codecs
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands
from effvit_med.cli.showing import progress_bar, start_logging
from effvit_med.errors import SettingsError

SHARE_OF_MEMORY = 0.8

if TYPE_CHECKING:
    from effvit_med.planning.network_choices import Budget
    from effvit_med.planning.plan import Plan


@commands.command(epilog=NOTICE, short_help="Plan a training from labelled scans.")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="folder of the bundle to write")
@click.option("--name", default="", help="of the bundle; that of its folder if not given")
@click.option("--labels", default="", help="folder of the label maps, where it has a name of its own")
@click.option("--structure", "structures", multiple=True, metavar="VALUE=NAME", help="what a label value means")
@click.option(
    "--channel", type=click.IntRange(0), default=0, show_default=True, help="of several, the one to learn from"
)
@click.option("--group", default="", help="regular expression that finds the patient in a case's name")
@click.option("--folds", type=click.IntRange(2), help="parts for cross-validation; 5, or the number of patients")
@click.option("--test", type=click.FloatRange(0), default=0.0, help="cases to hold out for the test, or share below 1")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="of the split")
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="to train on"
)
@click.option("--memory-gb", type=click.FloatRange(0, min_open=True), help="memory of a step; most of what is free")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="time for the training; a step is timed here")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="decide a choice of the plan yourself")
@click.option("--leave-out-damaged", is_flag=True, help="plan without the cases that have a problem")
@click.option("--overwrite", is_flag=True, help="replace a bundle even if it holds a training")
@click.option("--dry-run", is_flag=True, help="write nothing")
@click.option("-q", "--quiet", is_flag=True, help="no progress bar, no table")
def plan(data: Path, output: Path | None, **options: Any) -> None:
    """Plan a training from DATA, and write it as a MONAI bundle.

    DATA is a dataset.json of the Medical Segmentation Decathlon or of nnU-Net, the folder of one, or a folder with
    images and labels. Every case is checked; then network, patch, augmentation and schedule are decided, each with its
    reason, which plan.md tells. Train the bundle with `effvit-med train`.
    """
    start_logging(options["quiet"], verbose=False)
    if output is None and not options["dry_run"]:
        raise click.UsageError("Give -o BUNDLE, the folder to write, or --dry-run.")
    from effvit_med.planning.bundle_writing import write_bundle
    from effvit_med.planning.checks import examine
    from effvit_med.planning.choice import read_overrides
    from effvit_med.planning.layouts import find_training_set
    from effvit_med.planning.plan import SplitOptions, make_plan

    overrides = read_overrides(options["overrides"])
    found = find_training_set(data, options["channel"], options["labels"]).naming(_read_names(options["structures"]))
    if options["group"]:
        found = found.grouped_by(options["group"])
    with progress_bar(hidden=options["quiet"]) as bar:

        def on_case(name: str, number: int, cases: int) -> None:
            bar.start_case(name, number, cases)
            bar.update("checking", number - 1, cases)

        examination = examine(found, on_case)
    if options["leave_out_damaged"]:
        examination = examination.without_problems()
    examination.require_sound()
    split = SplitOptions(options["folds"], options["test"], options["seed"])
    made = make_plan(examination, _budget(options), split, overrides)
    files = (
        {}
        if output is None or options["dry_run"]
        else write_bundle(made, output, options["name"], overwrite=options["overwrite"])
    )
    if not options["quiet"]:
        _show(made)
    click.echo(json.dumps(_summarise(made, files)))


def _read_names(entries: tuple[str, ...]) -> dict[int, str]:
    names = {}
    for entry in entries:
        value, equals, name = entry.partition("=")
        if not equals or not value.strip().isdecimal() or not name.strip():
            raise SettingsError(f"--structure {entry} must be VALUE=NAME, such as --structure 1=vessel.")
        names[int(value)] = name.strip()
    return names


def _budget(options: dict[str, Any]) -> Budget:
    import torch

    from effvit_med.engine.memory import machine_memory
    from effvit_med.planning.network_choices import Budget

    device = options["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if options["memory_gb"]:
        memory = int(options["memory_gb"] * 2**30)
    elif device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda plans for a GPU that is not in this machine: give its --memory-gb.")
    else:
        memory = int(machine_memory(torch.device(device)).free_bytes * SHARE_OF_MEMORY)
    if options["minutes"] and device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--minutes times a step, and there is no GPU in this machine; plan on the one that trains.")
    return Budget(device, memory, options["minutes"])


def _show(made: Plan) -> None:
    """The decisions as a table for people."""
    width = max(len(choice.name) for choice in made.choices)
    for finding in made.findings:
        click.echo(f"{finding.code}: {finding.message}", err=True)
    for choice in made.choices:
        mark = "*" if choice.overridden else " "
        click.echo(f"{mark} {choice.name:{width}}  {choice.shown}\n  {'':{width}}  {choice.reason}", err=True)
    click.echo(NOTICE, err=True)


def _summarise(made: Plan, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "cases": made.fingerprint.cases,
        "test": len(made.split.test),
        "folds": made.split.count,
        "structures": [label.name for label in made.table],
        "choices": dict(made.values),
        "overridden": [choice.name for choice in made.choices if choice.overridden],
        "parameters": made.network.parameters,
        "step_gb": round(made.network.step_bytes / 2**30, 3),
        "findings": [finding.code for finding in made.findings],
        "files": {kind: str(path) for kind, path in files.items()},
        "notice": NOTICE,
    }


@commands.command(epilog=NOTICE, short_help="Train a planned bundle.")
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--fold", type=click.IntRange(0), default=0, show_default=True, help="whose cases validate")
@click.option("--resume", is_flag=True, help="go on from the last checkpoint")
@click.option("--epochs", type=click.IntRange(1), help="in place of the planned number")
@click.option("--set", "values", multiple=True, metavar="KEY=VALUE", help="another value for a key of train.yaml")
@click.option("-q", "--quiet", is_flag=True, help="show nothing but the result")
def train(bundle: Path, **options: Any) -> None:
    """Train BUNDLE and put the best weights into it.

    It is `python -m monai.bundle run` of the bundle's configs/train.yaml, in a process of its own. Ctrl+C stops it;
    with --resume it goes on after the last whole epoch.
    """
    start_logging(options["quiet"], verbose=False)
    from effvit_med.training.running import RunOptions, train_bundle

    values = dict(_split_entry(entry) for entry in options["values"])

    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two parts

    def show(said: bytes) -> None:
        if not options["quiet"]:
            sys.stderr.write(decoder.decode(said))
            sys.stderr.flush()

    try:
        result = train_bundle(bundle, RunOptions(options["fold"], options["resume"], options["epochs"], values), show)
    except KeyboardInterrupt:
        click.echo(f"Stopped. Go on after the last whole epoch with: effvit-med train {bundle} --resume", err=True)
        raise
    told = "" if result.score is None else f" with a mean Dice of {result.score:.4f} in validation"
    click.echo(f"The best weights{told} are in {result.weights}.\n{NOTICE}", err=True)
    click.echo(
        json.dumps(
            {"weights": str(result.weights), "validation": result.score, "run": str(result.run), "notice": NOTICE}
        )
    )


def _split_entry(entry: str) -> tuple[str, str]:
    name, equals, value = entry.partition("=")
    if not equals:
        raise SettingsError(f"--set {entry} has no '='; write key=value, such as --set batch_size=4.")
    return name.strip(), value
