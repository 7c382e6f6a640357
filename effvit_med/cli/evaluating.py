"""``evaluate``: segmentations against their references, and one model against another."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands
from effvit_med.cli.showing import progress_bar, start_logging
from effvit_med.errors import EffvitError, InputError

if TYPE_CHECKING:
    from effvit_med.evaluation.run import Evaluation
    from effvit_med.evaluation.statistics import Comparison


@commands.command(epilog=NOTICE, short_help="Score segmentations against references.")
@click.argument("found", metavar="SEGMENTATIONS", type=click.Path(path_type=Path, file_okay=False))
@click.argument("references", metavar="REFERENCES", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder to write")
@click.option("--against", type=click.Path(path_type=Path, file_okay=False), help="segmentations of another model")
@click.option("--part", default="", help="list of a dataset.json; its validation, else its training if not given")
@click.option("--reference-suffix", default="", help="what names of references have behind that of the case: _mask")
@click.option("--images", type=click.Path(path_type=Path, file_okay=False), help="folder of scans, for the pictures")
@click.option("--tolerance-mm", default=1.0, show_default=True, help="tolerance of the surface Dice")
@click.option("--ignore", multiple=True, type=int, help="label value that marks what nothing is said about")
@click.option("--overlaps", is_flag=True, help="label values 1, 2, 4, ... may be summed: structures overlap")
@click.option("--low-dice", default=0.8, show_default=True, help="mean Dice below which a case is called bad")
@click.option("--worst", default=4, show_default=True, help="how many of the worst cases are drawn")
@click.option("-q", "--quiet", is_flag=True, help="no progress bar, only warnings and errors")
def evaluate(found: Path, references: Path, output: Path, **options: Any) -> int:
    """Score SEGMENTATIONS against REFERENCES, case by case and structure by structure.

    SEGMENTATIONS is what `segment` wrote, or a folder with one label map per case. REFERENCES is a folder of label
    maps of the same names, or a dataset.json of the Decathlon's kind. OUTPUT gets scores.csv, evaluation.md,
    evaluation.json and pictures of the worst cases. Dice, surface Dice, 95th percentile of the Hausdorff distance,
    mean surface distance and volume error, with intervals; with --against a paired test; and what confidence and
    verdicts were worth. Exit code 0: all scored; 1: some case could not be.
    """
    start_logging(options["quiet"], verbose=False)
    _require_monai()
    from effvit_med.evaluation.pairs import find_pairs, find_references
    from effvit_med.evaluation.report import write_evaluation
    from effvit_med.evaluation.run import EvaluationOptions
    from effvit_med.evaluation.run import evaluate as score
    from effvit_med.io.atomic import make_folder

    how = EvaluationOptions(options["tolerance_mm"], tuple(options["ignore"]), options["low_dice"], options["overlaps"])
    truth = find_references(references, options["part"], options["reference_suffix"]).with_images(options["images"])
    for folder in filter(None, (found, options["against"])):
        find_pairs(truth, folder)  # what is wrong with either is said before the work, not behind half of it
    make_folder(output)
    with progress_bar(hidden=options["quiet"]) as bar:

        def on_case(name: str, number: int, cases: int) -> None:
            bar.start_case(name, number, cases)
            bar.update("scoring", number - 1, cases)

        result = score(truth, found, how, on_case)
        against: tuple[Comparison, ...] = ()
        if options["against"]:
            against = result.compare(score(truth, options["against"], how, on_case))
        files = write_evaluation(result, output, against, options["worst"])
    click.echo(files["page"].read_text(encoding="utf-8"), err=True)
    click.echo(json.dumps(_summarise(result, files)))
    return InputError.exit_code if result.missing or result.unscored else 0


def _require_monai() -> None:
    if find_spec("monai") is None:
        raise EffvitError('MONAI is not installed. Install it with: pip install "effvit-med[train]"')


def _summarise(result: Evaluation, files: dict[str, Path]) -> dict[str, Any]:
    return {
        "scored": len(result.scores),
        "missing": list(result.missing),
        "unscored": result.unscored,
        "mean_dice": round(result.mean_dice.mean, 4) if result.scores else None,
        "files": {name: str(path) for name, path in files.items()},
        "notice": NOTICE,
    }
