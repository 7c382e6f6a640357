"""Commands that segment: ``segment`` and ``demo``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import BUNDLE_HELP, commands
from effvit_med.cli.running import REMEDIES, make_job, open_segmenter, output_options, run_options
from effvit_med.cli.showing import progress_bar, say_what_was_made, start_logging, summarise
from effvit_med.cli.stopping import stop_if_asked

if TYPE_CHECKING:
    from effvit_med.engine import BatchResult


class ListOptions(click.Command):
    """A command whose options of several choices take them in one go: ``--output-type dicom-seg nifti``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the option before each of its choices, as click wants it."""
        choices = {
            name: param.type.choices
            for param in self.params
            if isinstance(param, click.Option) and param.multiple and isinstance(param.type, click.Choice)
            for name in param.opts
        }
        spelled: list[str] = []
        option = ""
        for word in args:
            if option and word in choices[option] and spelled[-1] != option:
                spelled.append(option)
            elif word in choices:
                option = word
            elif option and spelled[-1] != option:
                option = ""
            spelled.append(word)
        return super().parse_args(ctx, spelled)


@commands.command(epilog=NOTICE, cls=ListOptions, short_help="Segment every series in a folder, file or zip.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="folder for results")
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
@click.option("--plan", "plan_only", is_flag=True, help="say what memory each case needs, and segment nothing")
@click.option("-q", "--quiet", is_flag=True, help="no progress bar, only warnings and errors")
@click.option("-v", "--verbose", is_flag=True, help="say more, with traces of faults")
def segment(source: Path, output: Path | None, quiet: bool, verbose: bool, plan_only: bool, **options: Any) -> int:
    """Segment every series in INPUT: a folder, a file or a zip archive of DICOM, NIfTI or photographs.

    Each case gets a folder under OUTPUT with segmentation.seg.dcm (DICOM input), segmentation.nii.gz (photographs:
    segmentation.png), measurements.csv and .json, overlay.png and record.json; --output-type also knows RT structure
    sets, NRRD for 3D Slicer and DICOM reports. Exit code 0: all segmented; 1: failed; 2: usage;
    3: some cases refused.
    """
    start_logging(quiet, verbose)
    if plan_only:
        return _show_plans(source, options)
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output': the folder for results.")
    result = _segment(source, output, options, quiet)
    if not quiet:
        say_what_was_made(result)
    click.echo(json.dumps(summarise(result, output)))
    return result.exit_code


@commands.command(epilog=NOTICE)
@click.option(
    "-o",
    "--output",
    default="demo_output",
    show_default=True,
    type=click.Path(path_type=Path),
    help="folder for results",
)
def demo(output: Path) -> int:
    """Segment the CT phantom that comes along and compare with its exact labels."""
    from effvit_med.engine import shipped_bundle
    from effvit_med.engine.demo import score_demo

    start_logging(quiet=True, verbose=False)
    samples = shipped_bundle() / "sample_data"
    result = _segment(samples / "ct_axial", output, {}, quiet=False)
    summary = summarise(result, output)
    if result.exit_code == 0:
        dice = score_demo(result.cases[0], samples / "truth" / "ct_axial.nii.gz")
        summary["dice"] = {name: round(value, 4) for name, value in dice.items()}
        say_what_was_made(result, dice)
    click.echo(json.dumps(summary))
    return result.exit_code


def _segment(source: Path, output: Path, options: dict[str, Any], quiet: bool) -> BatchResult:
    """Load the model and segment, with a progress bar on stderr."""
    segmenter = open_segmenter(source, options)
    from effvit_med.engine import segment_input

    with progress_bar(hidden=quiet) as bar:
        return segment_input(source, output, segmenter, make_job(options), on_case=bar.start_case, progress=bar.update)


def _show_plans(source: Path, options: dict[str, Any]) -> int:
    """What memory each case needs: a table for people on stderr, JSON on stdout."""
    segmenter = open_segmenter(source, options)
    from effvit_med.engine.batch import read_as
    from effvit_med.errors import EffvitError, InputError, RefusedError
    from effvit_med.io import open_input, read_case

    read = read_as(make_job(options).read, segmenter.model)
    plans: list[dict[str, Any]] = []
    with open_input(source, read) as found:
        for refused in found.refused:
            message = f"{refused.code}: {refused.message} {refused.remedy}".strip()
            plans.append({"case": refused.case_id, "status": "refused", "message": message})
        for case in found.cases:
            stop_if_asked()
            try:
                plan = segmenter.plan(read_case(case, read))
            except EffvitError as error:  # one bad case does not hide the plans of the others
                status = "refused" if isinstance(error, RefusedError) else "failed"
                plans.append({"case": case.case_id, "status": status, "message": str(error)})
                continue
            click.echo(f"{case.case_id}\n{plan.to_text()}\n", err=True)
            plans.append({"case": case.case_id, "status": "planned", **plan.to_dict()})
    for each in plans:
        if "message" in each:
            click.echo(f"{each['status']} {each['case']}: {each['message']}", err=True)
    click.echo(json.dumps({"plans": plans, "notice": NOTICE}))
    states = {each["status"] for each in plans}
    return InputError.exit_code if "failed" in states else RefusedError.exit_code if "refused" in states else 0
