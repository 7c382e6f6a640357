"""Commands for more machines than one: ``cluster slurm``, ``cluster status`` and ``cluster collect``."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands
from effvit_med.cli.batching import USAGE_EXIT_CODE, BatchCommand, BatchGroup, batch, make_batch_options
from effvit_med.cli.showing import start_logging
from effvit_med.cli.stopping import stop_if_asked

if TYPE_CHECKING:
    from effvit_med.cluster import ArrayOptions, ArrayStatus

BATCH_COMMAND = (sys.executable, "-P", "-m", "effvit_med.cli", "batch")
"""What a task of an array runs: the same Python as here, and nothing of the current folder."""

_NOT_OF_A_SHARD = frozenset(
    {"source", "output", "shard", "scheduler", "resume", "dry_run", "collect_only", "quiet", "verbose", "help"}
)
"""Parameters of ``batch`` that its shards do not take from the user; a task that is requeued must always resume."""

SHARED = tuple(param for param in batch.params if param.name not in _NOT_OF_A_SHARD)
"""Options of ``batch`` that ``cluster slurm`` hands on."""


class ArrayCommand(BatchCommand):
    """A command that also takes the options of ``batch``."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.params.extend(SHARED)


@commands.group(epilog=NOTICE, cls=BatchGroup, short_help="Spread a batch over the nodes of a SLURM cluster.")
def cluster() -> None:
    """Spread a batch over many machines; for a dask.distributed cluster see batch --scheduler."""


@cluster.command(epilog=NOTICE, cls=ArrayCommand, short_help="Submit a batch as a SLURM array.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="folder for results, journal and manifest",
)
@click.option("--shards", required=True, type=click.IntRange(1, 100_000), help="tasks that share the cases")
@click.option("--max-parallel", type=click.IntRange(1), help="tasks that run at once; all if not given, 1 if local")
@click.option("--partition", help="where to; the cluster's default if not given")
@click.option("--account", help="who pays; your default if not given")
@click.option(
    "--time-min",
    type=click.IntRange(1),
    default=240,
    show_default=True,
    help="minutes after which a task is requeued; it goes on where it was",
)
@click.option("--mem-gb", type=click.FloatRange(0, min_open=True), help="memory of a task in GiB")
@click.option("--cpus", type=click.IntRange(1), help="processors of a task")
@click.option("--gpus", type=click.IntRange(0), help="GPUs of a task")
@click.option("--extra", multiple=True, metavar="KEY=VALUE", help="a further option of sbatch; may be given again")
@click.option("--requeues", type=click.IntRange(0), default=50, show_default=True, help="how often a task may go on")
@click.option(
    "--task-retries", type=click.IntRange(0), default=2, show_default=True, help="tries more after exit code 75"
)
@click.option(
    "--retry-wait",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="seconds before the first of them; doubled each time",
)
@click.option("--wait", is_flag=True, help="wait for the array and collect its manifest")
@click.option(
    "--poll", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="seconds between questions"
)
@click.option(
    "--executor",
    type=click.Choice(["slurm", "local"]),
    default="slurm",
    show_default=True,
    help="local: run the shards on this machine, to try them",
)
@click.option("--dry-run", is_flag=True, help="show the job script and the tasks, and submit nothing")
@click.option("-q", "--quiet", is_flag=True, help="no progress, only warnings and errors")
@click.pass_context
def slurm(context: click.Context, /, source: Path, output: Path, quiet: bool, **options: Any) -> int:
    """Submit one task for each shard of INPUT; each does what batch does with --shard, and takes its options, too.

    A task that is preempted or reaches its time limit is requeued and goes on; the same command, given again, goes on
    with what is left. Scripts, logs and states lie in OUTPUT/journal/slurm. Exit codes are those of batch; without
    --wait 0 means submitted.
    """
    start_logging(quiet, verbose=False)
    from effvit_med.errors import EffvitError, TemporaryError

    try:
        return _submit(source.absolute(), output.absolute(), {**options, "quiet": quiet}, spell(context))
    except TemporaryError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        return USAGE_EXIT_CODE


@cluster.command(epilog=NOTICE, cls=BatchCommand, short_help="Say how far the array of OUTPUT is.")
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
def status(output: Path) -> int:
    """Say how far each shard of the array of OUTPUT is: a table on stderr, JSON on stdout."""
    from effvit_med.cluster import report_status
    from effvit_med.errors import EffvitError

    try:
        found = report_status(output.absolute())
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        return USAGE_EXIT_CODE
    click.echo(_to_table(found), err=True)
    click.echo(json.dumps({**_to_json(found, output), "is_over": found.is_over}))
    return 0


@cluster.command(epilog=NOTICE, cls=BatchCommand, short_help="Make the manifest of OUTPUT from its journal.")
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
def collect(output: Path) -> int:
    """Make manifest.jsonl and manifest.csv of OUTPUT; the exit code is that of one batch over all shards."""
    from effvit_med.batch import collect_manifest
    from effvit_med.cluster import report_status
    from effvit_med.errors import EffvitError

    try:
        found = report_status(output.absolute())
        manifest = collect_manifest(output)
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        return USAGE_EXIT_CODE
    click.echo(json.dumps({**_to_json(found, output), "manifest": str(manifest)}))
    return found.exit_code


def _submit(source: Path, output: Path, options: dict[str, Any], words: list[str]) -> int:
    from effvit_med.cluster import report_status, run_here, submit_array, wait_for_array
    from effvit_med.errors import InputError

    if not source.exists():
        raise InputError(f"INPUT {source} does not exist.")
    quiet = options["quiet"]
    make_batch_options({param.name: options[param.name] for param in SHARED if param.name})  # refuses what is wrong
    array = _make_array_options(options)
    command = (*BATCH_COMMAND, str(source), "--output", str(output), "--quiet", *words)
    if options["dry_run"]:
        return _show(command, output, array, local=options["executor"] == "local")

    def show(states: dict[int, str]) -> None:
        stop_if_asked()
        if not quiet and states:
            counts = Counter(state.lower() for state in states.values())
            told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
            click.echo(f"{len(states)} of {array.shards} shards in the queue: {told}", err=True)

    if options["executor"] == "local":
        submission = run_here(command, output, array, show)
    else:
        submission = submit_array(command, output, array)
        if not quiet:
            click.echo(
                f"Array {submission.job}: {submission.shards} shards. Stop it with: scancel {submission.job}", err=True
            )
        if not options["wait"]:
            click.echo(json.dumps({**_to_json(report_status(output), output), "status": "submitted"}))
            return 0
        try:
            wait_for_array(submission, options["poll"], on_change=show)
        except KeyboardInterrupt:
            text = f"No longer waiting. Array {submission.job} goes on; stop it with: scancel {submission.job}"
            click.echo(text, err=True)
            return 130
    return _collect(output, quiet)


def _collect(output: Path, quiet: bool) -> int:
    from effvit_med.batch import collect_manifest
    from effvit_med.cluster import report_status
    from effvit_med.errors import InputError

    found = report_status(output)
    try:
        manifest: str | None = str(collect_manifest(output))
    except InputError:
        manifest = None  # no task got so far as to make a journal
    if not quiet:
        click.echo(_to_table(found), err=True)
    click.echo(json.dumps({**_to_json(found, output), "manifest": manifest}))
    return found.exit_code


def _make_array_options(options: dict[str, Any]) -> ArrayOptions:
    from effvit_med.cluster import ArrayOptions, parse_extra

    names = ("shards", "max_parallel", "partition", "account", "time_min", "mem_gb", "cpus", "gpus", "requeues")
    chosen = {name: options[name] for name in names}
    extra = parse_extra(options["extra"])
    return ArrayOptions(**chosen, extra=extra, retries=options["task_retries"], retry_wait_s=options["retry_wait"])


def spell(context: click.Context) -> list[str]:
    """The words with which the options of ``batch`` that the user gave are given again.

    Args:
        context: of a command that has `SHARED` among its parameters.
    """
    words: list[str] = []
    for param in SHARED:
        name = param.name or ""
        if not isinstance(param, click.Option) or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if param.is_flag:
            words.append(param.opts[-1] if value else param.secondary_opts[-1])
            continue
        for each in value if param.multiple else (value,):
            words += [param.opts[-1], str(each.absolute() if isinstance(each, Path) else each)]
    return words


def _show(command: tuple[str, ...], output: Path, array: ArrayOptions, *, local: bool) -> int:
    from effvit_med.cluster import write_script

    script = "" if local else write_script(output, array)
    tasks = [[*command, "--shard", f"{number}/{array.shards}"] for number in range(1, array.shards + 1)]
    click.echo(json.dumps({"script": script, "tasks": tasks, "notice": NOTICE}))
    return 0


def _to_json(found: ArrayStatus, output: Path) -> dict[str, Any]:
    return {
        "job": found.job,
        "executor": found.executor,
        "output": str(output),
        "exit_code": found.exit_code,
        "cases": dict(found.counts),
        "shards": [asdict(shard) for shard in found.shards],
        "queue": found.queue,
        "notice": NOTICE,
    }


def _to_table(found: ArrayStatus) -> str:
    lines = ["shard     state     exit  finished"]
    lines += [
        f"{shard.shard:>5}     {shard.state:<9} {'' if shard.exit_code is None else shard.exit_code:>4}"
        f"  {shard.finished}/{shard.cases}"
        for shard in found.shards
    ]
    lines.append(", ".join(f"{number} {name}" for name, number in found.counts.items()) or "no cases yet")
    return "\n".join([*lines, *([found.queue] if found.queue else []), NOTICE])
