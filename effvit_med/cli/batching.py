"""The command for thousands of studies: ``batch``."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import BUNDLE_HELP, commands
from effvit_med.cli.batch_progress import BatchProgress
from effvit_med.cli.running import REMEDIES, make_job, output_options, run_options
from effvit_med.cli.segmenting import ListOptions
from effvit_med.cli.showing import start_logging
from effvit_med.cli.stopping import stop_if_asked

if TYPE_CHECKING:
    from effvit_med.batch import BatchOptions, BatchSummary
    from effvit_med.engine import Job

USAGE_EXIT_CODE = 1


class BatchCommand(ListOptions):
    """A command whose exit code 2 means that some cases failed, so that wrong usage is 1."""

    usage_exit_code = USAGE_EXIT_CODE


class BatchGroup(click.Group):
    """A group of such commands: wrong usage of it, or of any of them, is 1."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Parse the group's own options."""
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            vars(error).update(exit_code=USAGE_EXIT_CODE)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run a command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            vars(error).update(exit_code=USAGE_EXIT_CODE)
            raise


@commands.command(epilog=NOTICE, cls=BatchCommand, short_help="Segment thousands of series; stop and go on at will.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="folder for results, journal and manifest",
)
@click.option("--bundle", type=click.Path(path_type=Path), help=BUNDLE_HELP)
@output_options
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(REMEDIES),
    help="segment series that are otherwise refused: with missing slices (gaps), with unequal slice distances "
    "(irregular), with the same image twice (duplicates)",
)
@run_options
@click.option(
    "--resume/--again", default=True, show_default=True, help="leave finished cases as they are, or do all anew"
)
@click.option("--retry-failed", is_flag=True, help="try cases again that failed or were refused in an earlier run")
@click.option("--verify", is_flag=True, help="check finished results by their hashes, not only by their sizes")
@click.option("--retry", type=click.IntRange(0), default=1, show_default=True, help="tries more after a crash")
@click.option("--case-timeout", type=click.FloatRange(0, min_open=True), help="seconds for one stage of one case")
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="seconds for which files must not have changed: one that is still being copied is waited for",
)
@click.option("--shard", metavar="I/N", help="do only the I-th of N shares of INPUT; they may run at the same time")
@click.option(
    "--scheduler", metavar="ADDRESS", help="let the workers of a dask.distributed cluster do the cases: tcp://host:port"
)
@click.option("--keep-ids", is_flag=True, help="keep names of files and UIDs in logs, records and manifests")
@click.option(
    "--require-deidentified", is_flag=True, help="refuse DICOM series that do not say Patient Identity Removed: YES"
)
@click.option("--dry-run", is_flag=True, help="list what would be done, and do nothing")
@click.option("--collect-only", is_flag=True, help="only make the manifest of OUTPUT again, from its journal")
@click.option("-q", "--quiet", is_flag=True, help="no progress, only warnings and errors")
@click.option("-v", "--verbose", is_flag=True, help="say more")
def batch(source: Path, output: Path, quiet: bool, verbose: bool, **options: Any) -> int:
    """Segment every series in INPUT that is not done yet: a folder, a file or a zip archive of DICOM or NIfTI.

    Stop it at any time, even with kill -9: the same command goes on where it was. Each case gets a folder under
    OUTPUT; manifest.jsonl and manifest.csv account for all of them, report.html shows them, the worst first. Exit
    code 0: all done; 1: wrong usage or configuration; 2: finished, some failed or were refused; 3: no images; 75: no
    room or no device, run it again later; 130: stopped.
    """
    start_logging(quiet, verbose)
    from effvit_med.errors import EffvitError, TemporaryError

    try:
        return _run(source, output, options, quiet)
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code if isinstance(error, TemporaryError) else USAGE_EXIT_CODE


def _run(source: Path, output: Path, options: dict[str, Any], quiet: bool) -> int:
    from effvit_med.batch import collect_manifest, list_cases, run_batch

    if options.pop("collect_only"):
        click.echo(json.dumps({"manifest": str(collect_manifest(output)), "notice": NOTICE}))
        return 0
    dry_run, scheduler = options.pop("dry_run"), options.pop("scheduler")
    chosen = make_batch_options(options)
    with BatchProgress(hidden=quiet) as progress:
        do: Any = list_cases if dry_run else run_batch
        if scheduler and not dry_run:
            from effvit_med.cluster import run_on_scheduler

            do = partial(run_on_scheduler, scheduler)
        summary = do(source, output, chosen, on_event=progress.show, cancelled=_is_stopped)
    if not quiet:
        click.echo(_to_text(summary, dry_run=dry_run), err=True)
    click.echo(json.dumps(summarise_batch(summary, output, dry_run=dry_run)))
    return summary.exit_code


def _make_batch_job(options: dict[str, Any]) -> Job:
    """As of ``segment``; but a type that one case does not allow is left out there, not a reason to refuse the case."""
    job = make_job(options)
    return replace(job, strict_types=False, read=replace(job.read, settle_s=options.get("settle_s", 0.0)))


def make_batch_options(options: dict[str, Any]) -> BatchOptions:
    """What the options of the command line ask for.

    Args:
        options: those of ``segment`` that say how, and those of ``batch``.

    Raises:
        SettingsError: if one is wrong.
    """
    from effvit_med.batch import BatchOptions, Shard
    from effvit_med.engine.settings import Settings

    names = {name: options[name] for name in Settings.model_fields if options.get(name) is not None}
    plain = ("keep_ids", "require_deidentified", "resume", "retry_failed", "verify", "retry")
    more: dict[str, Any] = {name: options[name] for name in plain if name in options}
    if options.get("case_timeout") is not None:
        more["case_timeout_s"] = options["case_timeout"]
    return BatchOptions(
        bundle=options.get("bundle"),
        settings=Settings.from_values(**names),
        job=_make_batch_job(options),
        shard=Shard.from_text(options["shard"]) if options.get("shard") else None,
        **more,
    )


def summarise_batch(summary: BatchSummary, output: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """The JSON line: counts, and the cases that need a look; all others stand in the manifest.

    Args:
        summary: of the run.
        output: the folder of all results.
        dry_run: whether nothing was done, so that every case is listed.
    """
    words = {0: "ok", 2: "partial", 3: "nothing to do", 75: "run again later", 130: "stopped"}
    return {
        "status": words.get(summary.exit_code, "failed"),
        "exit_code": summary.exit_code,
        "output": str(output),
        "manifest": str(summary.manifest) if summary.manifest else None,
        "counts": dict(summary.counts),
        "message": summary.message,
        "cases": [
            {"case": case.case_id, "status": case.status, "code": case.code}
            for case in summary.cases
            if dry_run or case.status != "done"
        ],
        "notice": NOTICE,
    }


def _to_text(summary: BatchSummary, *, dry_run: bool) -> str:
    lines = [f"{case.status:8s} {case.case_id} {case.code}".rstrip() for case in summary.cases] if dry_run else []
    counts = ", ".join(f"{number} {name}" for name, number in summary.counts.items())
    lines += [counts] if counts else []
    lines += [summary.message] if summary.message else []
    lines += [f"Manifest: {summary.manifest}"] if summary.manifest else []
    return "\n".join([*lines, NOTICE])


def _is_stopped() -> bool:
    stop_if_asked()
    return False
