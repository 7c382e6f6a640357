"""The command that answers a file of prompts: ``prompt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands
from effvit_med.cli.running import OUTPUT_TYPES
from effvit_med.cli.segmenting import ListOptions
from effvit_med.cli.showing import progress_bar, start_logging


@commands.command(
    epilog=NOTICE, cls=ListOptions, short_help="Segment by points, scribbles, boxes and lassos of a file."
)
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path, exists=True))
@click.argument("prompts", metavar="PROMPTS", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder for results"
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="name or folder of a bundle with promptable networks, or a file of published EfficientViT-SAM weights; "
    "prompt if not given",
)
@click.option("--sam", default="", help="which EfficientViT-SAM such a file is, if its name does not say: l0 to xl1")
@click.option(
    "--start",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="labels on the scan's grid to be corrected, such as an automatic result",
)
@click.option(
    "--spatial-dims",
    type=click.Choice(["2", "3"]),
    help="look at slices or at blocks; what suits the scan if not given",
)
@click.option("--axis", type=click.IntRange(0, 2), help="across which slices lie; the scan's own if not given")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps")
@click.option("--threads", type=click.IntRange(1), help="processor threads; all cores if not given")
@click.option(
    "--output-type", "output_types", multiple=True, type=click.Choice(OUTPUT_TYPES), help="what to write, one or more"
)
@click.option("-q", "--quiet", is_flag=True, help="no progress bar, only warnings and errors")
def prompt(source: Path, prompts: Path, output: Path, quiet: bool, **options: Any) -> int:
    """Segment what the prompts of a file point at in the one scan of INPUT.

    PROMPTS is JSON: {"labels": {"1": "liver"}, "events": [...]}, each event a prompt such as {"kind": "point", "value":
    1, "adds": true, "index": [[12, 200, 180]]}, in array indices, or "world" in LPS mm; kinds are point, scribble, box
    and lasso. A log that a session saved is such a file, too. Results are those of effvit-med segment.
    """
    start_logging(quiet, verbose=False)
    from effvit_med.engine import Job
    from effvit_med.engine.prompting.running import PromptRun, prompt_case

    if options["threads"]:
        import torch

        torch.set_num_threads(options["threads"])
    run = PromptRun(
        bundle=options["bundle"],
        sam=options["sam"],
        spatial_dims=None if options["spatial_dims"] is None else int(options["spatial_dims"]),
        axis=options["axis"],
        device=options["device"],
        start=options["start"],
    )
    job = Job(output_types=options["output_types"] or None)
    with progress_bar(hidden=quiet) as bar:
        bar.start_case(source.name, 1, 1)
        result = prompt_case(source, prompts, output, run, job, progress=bar.update)
    if not quiet:
        for row in result.measurements:
            size = f"{row.voxels} voxels" if row.volume_ml is None else f"{row.volume_ml:.2f} mL"
            click.echo(f"  {row.structure:20s} {size}", err=True)
        click.echo("\n".join([*(f"  {path}" for path in result.outputs.values()), NOTICE]), err=True)
    summary = {
        "case": result.case_id,
        "outputs": {kind: str(path) for kind, path in result.outputs.items()},
        "voxels": {row.structure: row.voxels for row in result.measurements},
        "seconds": dict(result.seconds),
        "notice": NOTICE,
    }
    click.echo(json.dumps(summary))
    return 0
