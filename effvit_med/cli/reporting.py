"""The command that makes the page on a batch again: ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands


@commands.command(epilog=NOTICE)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--title", default="Batch report", show_default=True, help="head of the page")
def report(folder: Path, title: str) -> None:
    """Make report.html of the batch in FOLDER again, from its manifest.jsonl.

    One page with every case, the worst first, to be opened offline in any browser. Exit code 0: made; 1: no manifest,
    or the page cannot be written.
    """
    from effvit_med.io.batch_report import write_batch_report

    path = write_batch_report(folder / "manifest.jsonl", folder, title)
    click.echo(f"{path}\n{NOTICE}", err=True)
    click.echo(json.dumps({"report": str(path), "notice": NOTICE}))
