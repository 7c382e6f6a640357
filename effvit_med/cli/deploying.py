"""Commands that take a model elsewhere or say how fast it is here: ``export`` and ``bench``."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import BUNDLE_HELP, commands
from effvit_med.cli.running import open_segmenter, run_options
from effvit_med.cli.showing import progress_bar, start_logging

if TYPE_CHECKING:
    from effvit_med.engine.export import ExportOptions, ExportResult
    from effvit_med.engine.timing import CaseTimes

FORMATS = ("onnx", "openvino", "program")
PRECISIONS = ("float32", "bfloat16", "int8")


@commands.command(epilog=NOTICE)
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="name of a bundle that comes along, or its folder; abdomen-phantom if not given",
)
@click.option("--fold", type=click.IntRange(1), help="which of a bundle's several weights; needed where it has several")
@click.option("--format", "file_format", type=click.Choice(FORMATS), default="onnx", show_default=True,
              help="ONNX, OpenVINO, or a program of torch.export")  # fmt: skip
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
              help="float32 in every format, bfloat16 in OpenVINO, int8 in ONNX and OpenVINO: calibrated on "
              "the phantom that comes along, and refused where it loses Dice")  # fmt: skip
@click.option("--case", "sample", type=click.Path(path_type=Path, exists=True),
              help="scan for the parity gate; the phantom that comes along if not given")  # fmt: skip
@click.option("--least-agreement", type=click.FloatRange(0, 1),
              help="share of voxels that must get the same label; 0.999, for int8 0.99, if not given")  # fmt: skip
@click.option("--largest-dice-loss", type=click.FloatRange(0, 1), default=0.005, show_default=True,
              help="int8 only: how much Dice any structure may lose")  # fmt: skip
@click.option("-q", "--quiet", is_flag=True, help="no progress bar")
def export(output: Path, bundle: Path | None, quiet: bool, **options: Any) -> None:
    """Write a model for other programs into the folder OUTPUT, with all that its use needs in contract.json.

    Before it says done, a sample case is segmented with the file and with the bundle; if too few voxels agree, nothing
    is written. The folder can be given to segment --bundle.
    """
    start_logging(quiet, verbose=False)
    from effvit_med.engine import find_bundle, read_model
    from effvit_med.engine.contract import is_exported
    from effvit_med.engine.export import export_model

    if bundle and is_exported(find_bundle(bundle)):
        raise click.UsageError(f"{bundle} is exported already; give the bundle that it was made from.")
    # stdout is for the answer alone; the packages below write what they like
    with progress_bar(hidden=quiet) as bar, contextlib.redirect_stdout(sys.stderr):
        model = read_model(bundle)
        model = model.with_fold(options["fold"]) if options["fold"] else model
        result = export_model(model, output, _export_options(options, bar.update), bar.update)
    if not quiet:
        _say_what_was_exported(result)
    document = {"output": str(result.folder), "parity": result.contract.parity.model_dump(), "notice": NOTICE}
    click.echo(json.dumps(document))


@commands.command(epilog=NOTICE)
@click.argument("source", metavar="CASE", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help=BUNDLE_HELP)
@click.option("--runs", type=click.IntRange(2), default=3, show_default=True, help="the first is cold, the others warm")
@run_options
def bench(source: Path, runs: int, **options: Any) -> None:
    """Time the first case of CASE step by step: cold, as this command starts, and warm, as further cases run.

    CPU seconds are those of all threads. What is written goes into a temporary folder.
    """
    start_logging(quiet=True, verbose=False)
    segmenter = open_segmenter(source, options)
    from effvit_med.engine.timing import time_case

    with progress_bar(hidden=False) as bar:
        times = time_case(source, segmenter, runs, bar.update)
    click.echo(_as_table(times), err=True)
    click.echo(json.dumps({**times.to_dict(), "notice": NOTICE}))


def _export_options(options: dict[str, Any], progress: Any) -> ExportOptions:
    from effvit_med.engine.export import ExportOptions
    from effvit_med.engine.quantisation.exporting import quantiser

    least = options["least_agreement"]
    is_int8 = options["precision"] == "int8"
    return ExportOptions(
        format=options["file_format"],
        precision=options["precision"],
        case=options["sample"],
        least_agreement=(0.99 if is_int8 else 0.999) if least is None else least,
        quantise=quantiser(options["largest_dice_loss"], progress) if is_int8 else None,
    )


def _say_what_was_exported(result: ExportResult) -> None:
    parity = result.contract.parity
    lines = [f"Exported to {result.folder}; {100 * parity.agreement:.3f} % of the voxels of {parity.case} agree."]
    lines += [f"  {file.name}" for file in result.contract.files]
    click.echo("\n".join([*lines, "  contract.json", NOTICE]), err=True)


def _as_table(times: CaseTimes) -> str:
    """The steps with wall and CPU seconds, cold and warm."""
    head = f"{'step':18s}{'cold wall':>11s}{'CPU s':>9s}{'warm wall':>12s}{'CPU s':>9s}"
    rows = [
        f"{row.step:18s}{row.cold_wall_s:11.2f}{row.cold_cpu_s:9.2f}{row.warm_wall_s:12.2f}{row.warm_cpu_s:9.2f}"
        for row in times.rows
    ]
    share = f"{100 * times.network_share:.0f} % of the warm wall time is the network's own."
    memory = f"Largest memory of the process: {times.peak_gib:.2f} GiB."
    return "\n".join([times.case_id, head, *rows, share, memory, NOTICE])
