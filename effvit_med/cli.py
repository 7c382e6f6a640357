"""The command line: parse, call the engine, show. Logs go to stderr, results to files, one JSON line to stdout.

Exit codes: 0 all right, 1 failed, 2 usage, 3 some cases refused, 130 stopped by the user.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med import __version__
from effvit_med.errors import EffvitError

if TYPE_CHECKING:
    from effvit_med.engine import BatchResult, CaseResult
    from effvit_med.engine.catalogue import ModelCost

OUTPUT_TYPES = ("dicom-seg", "nifti")
_MODELS_HEADING = (
    f"{'model':22s}{'input':>12s}{'parameters':>13s}{'GFLOP':>9s}{'maps s':>9s}{'full size s':>13s}  loads files of"
)
REMEDIES = ("gaps", "irregular", "duplicates")


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        code = commands.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped by the user; finished cases stay, nothing half written is left.", err=True)
        code = 130
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)


class _ListOptions(click.Command):
    """A command whose options of several choices take them in one go: ``--output-type dicom-seg nifti``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
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


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=NOTICE)
@click.version_option(__version__, prog_name="effvit-med")
def commands() -> None:
    """Segment medical scans with EfficientViT, on this machine.

    A DICOM study or a NIfTI file in; DICOM SEG, NIfTI, measurements, a picture and a record out. Nothing leaves this
    machine. Research use only, not for clinical use.
    """


@commands.command(epilog=NOTICE, cls=_ListOptions, short_help="Segment every series in a folder, file or zip.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder for results"
)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="folder of a bundle; the one that comes along if not given"
)
@click.option(
    "--output-type",
    "output_types",
    multiple=True,
    type=click.Choice(OUTPUT_TYPES),
    help="what to write beside measurements, picture and record, one or more; all that fits if not given",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(REMEDIES),
    help="segment series that are otherwise refused: with missing slices (gaps), with unequal slice distances "
    "(irregular), with the same image twice (duplicates)",
)
@click.option(
    "--seg-type",
    type=click.Choice(["binary", "labelmap"]),
    default="binary",
    show_default=True,
    help="kind of DICOM SEG",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True,
              help="arithmetic of the network")  # fmt: skip
@click.option(
    "--overlap", type=click.FloatRange(0, 0.9), help="overlap of neighbouring tiles; the bundle's own if not given"
)
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="tiles at a time")
@click.option("--threads", type=click.IntRange(1), help="processor threads; all cores if not given")
@click.option("-q", "--quiet", is_flag=True, help="no progress bar, only warnings and errors")
@click.option("-v", "--verbose", is_flag=True, help="say more, with traces of faults")
def segment(source: Path, output: Path, bundle: Path | None, quiet: bool, verbose: bool, **options: Any) -> int:
    """Segment every series in INPUT: a folder, a file or a zip archive of DICOM or NIfTI.

    Each case gets a folder under OUTPUT with segmentation.seg.dcm (DICOM input), segmentation.nii.gz,
    measurements.csv and .json, overlay.png and record.json. Exit code 0: all segmented; 1: failed; 2: usage;
    3: some cases refused.
    """
    _start_logging(quiet, verbose)
    result = _segment(source, output, bundle, options, quiet)
    if not quiet:
        _say_what_was_made(result)
    click.echo(json.dumps(_summary(result, output)))
    return result.exit_code


@commands.command(epilog=NOTICE)
@click.option(
    "--bundle", type=click.Path(path_type=Path), help="folder of a bundle; the one that comes along if not given"
)
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
def info(bundle: Path | None, as_json: bool) -> None:
    """Show versions, devices, and what a bundle segments."""
    import torch

    from effvit_med.engine import read_model
    from effvit_med.engine.segmenter import library_versions

    model = read_model(bundle)
    document = {
        "versions": library_versions(),
        "devices": ["cpu"]
        + [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
        + (["mps"] if torch.backends.mps.is_available() else []),
        "bundle": {
            "name": model.name,
            "version": model.version,
            "description": model.description,
            "modalities": list(model.modalities),
            "network": model.network,
            "spacing_mm": list(model.preprocess.spacing_mm),
            "weights": model.weights.name,
            "weights_sha256": model.weights_sha256,
            "structures": [label.name for label in model.labels],
        },
        "notice": NOTICE,
    }
    click.echo(json.dumps(document) if as_json else _as_text(document))


@commands.command(epilog=NOTICE)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--spatial-dims", type=click.Choice(["2", "3"]), help="only images (2) or only volumes (3)")
@click.option("--no-time", "timed", flag_value=False, default=True, help="count only, which takes seconds")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
def models(names: tuple[str, ...], spatial_dims: str | None, timed: bool, as_json: bool) -> None:
    """List all models, or those whose names begin with NAME, with what they cost on this machine.

    Parameters and GFLOP (two for each product) of the backbone; seconds for its maps, and for logits of 7 classes at
    full size with our decoder, on one 512 x 512 image and one 96 x 96 x 96 volume. Weights are random: this says
    nothing of accuracy.
    """
    from dataclasses import asdict

    from effvit_med.engine.allocation import keep_freed_memory
    from effvit_med.engine.catalogue import measure_models

    keep_freed_memory()
    costs: list[dict[str, Any]] = []
    for cost in measure_models(names, (int(spatial_dims),) if spatial_dims else (2, 3), timed=timed):
        if not as_json:
            if not costs:
                click.echo(_MODELS_HEADING)
            click.echo(_model_line(cost))
        costs.append(asdict(cost))
    if as_json:
        click.echo(json.dumps({"models": costs, "notice": NOTICE}))


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

    _start_logging(quiet=True, verbose=False)
    samples = shipped_bundle() / "sample_data"
    result = _segment(samples / "ct_axial", output, None, {}, quiet=False)
    summary = _summary(result, output)
    if result.exit_code == 0:
        dice = score_demo(result.cases[0], samples / "truth" / "ct_axial.nii.gz")
        summary["dice"] = {name: round(value, 4) for name, value in dice.items()}
        _say_what_was_made(result, dice)
    click.echo(json.dumps(summary))
    return result.exit_code


def _segment(source: Path, output: Path, bundle: Path | None, options: dict[str, Any], quiet: bool) -> BatchResult:
    """Load the model and segment, with a progress bar on stderr."""
    if not source.exists():
        raise click.UsageError(f"INPUT {source} does not exist.")
    from effvit_med.engine import Job, Segmenter, Settings, read_model, segment_input
    from effvit_med.engine.allocation import keep_freed_memory
    from effvit_med.io import ReadOptions, SegOptions

    keep_freed_memory()
    names = {name: options[name] for name in Settings.model_fields if options.get(name) is not None}
    job = Job(
        output_types=tuple(options.get("output_types") or ()) or None,
        read=ReadOptions(allow=frozenset(options.get("allow") or ())),
        seg=SegOptions(segmentation_type=options.get("seg_type", "binary")),
    )
    segmenter = Segmenter(read_model(bundle), Settings.from_values(**names))
    with _progress_bar(hidden=quiet) as bar:
        return segment_input(source, output, segmenter, job, on_case=bar.start_case, progress=bar.update)


class _ProgressBar:
    """One line on stderr: which case, which phase, how far."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._case = ""

    def start_case(self, case_id: str, number: int, cases: int) -> None:
        self._case = f"{case_id} ({number}/{cases})" if cases > 1 else case_id

    def update(self, phase: str, done: int, total: int) -> None:
        self._bar.set_description_str(f"{self._case} {phase}", refresh=False)
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()


@contextlib.contextmanager
def _progress_bar(*, hidden: bool) -> Iterator[_ProgressBar]:
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} {elapsed}"
    with tqdm(total=1, disable=hidden or None, file=sys.stderr, leave=False, bar_format=layout) as bar:
        yield _ProgressBar(bar)


def _start_logging(quiet: bool, verbose: bool) -> None:
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    logging.getLogger("effvit_med").setLevel(level)
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings quote header values, such as patients' names


def _summary(result: BatchResult, output: Path) -> dict[str, Any]:
    """The JSON line: what became of each case."""
    states = [case.status for case in result.cases]
    return {
        "status": _status(result.exit_code, states),
        "output": str(output),
        "segmented": states.count("segmented"),
        "refused": states.count("refused"),
        "failed": states.count("failed"),
        "find_seconds": round(result.find_s, 3),
        "cases": [_case_summary(case) for case in result.cases],
        "set_aside": [{"file": a.path.name, "code": a.code, "reason": a.reason} for a in result.set_aside],
        "notice": NOTICE,
    }


def _status(exit_code: int, states: list[str]) -> str:
    if exit_code and "segmented" in states:
        return "partial"
    return {0: "ok", 1: "failed", 3: "refused"}[exit_code]


def _case_summary(case: CaseResult) -> dict[str, Any]:
    plain: dict[str, Any] = {"case": case.case_id, "input": case.input, "status": case.status}
    if case.status != "segmented":
        return {**plain, "code": case.code, "message": case.message}
    plain["outputs"] = {kind: str(path) for kind, path in case.outputs.items()}
    volumes = {row.structure: row.volume_ml for row in case.measurements}
    plain["volume_ml"] = {name: volume if volume is None else round(volume, 3) for name, volume in volumes.items()}
    plain["findings"] = [{"code": f.code, "message": f.message} for f in case.findings]
    return {**plain, "seconds": dict(case.seconds)}


def _say_what_was_made(result: BatchResult, dice: dict[str, float] | None = None) -> None:
    """A few lines on stderr for a person."""
    lines = []
    for case in result.cases:
        if case.status != "segmented":
            continue
        lines.append(f"Segmented {case.case_id} in {sum(case.seconds.values()):.1f} s:")
        for row in case.measurements:
            volume = "not found" if row.volume_ml is None else f"{row.volume_ml:9.1f} mL"
            cut = "  touches the edge of the scan" if row.cut_by_field_of_view else ""
            score = f"  Dice against the phantom's exact labels {dice[row.structure]:.3f}" if dice else ""
            lines.append(f"  {row.structure:14s} {volume:>12s}{score}{cut}")
        lines.extend(f"  {path}" for path in case.outputs.values())
    click.echo("\n".join([*lines, NOTICE]), err=True)


def _model_line(cost: ModelCost) -> str:
    """One line of the table of models."""
    seconds = ["-" if value is None else f"{value:.3f}" for value in (cost.backbone_s, cost.segmenter_s)]
    return (
        f"{cost.name:22s}{'x'.join(map(str, cost.size)):>12s}{cost.parameters / 1e6:11.2f} M{cost.flops / 1e9:9.2f}"
        f"{seconds[0]:>9s}{seconds[1]:>13s}  {', '.join(cost.layouts) or 'none published'}"
    )


def _as_text(value: Any, indent: int = 0) -> str:
    """Nested values as indented lines."""
    lines = []
    for name, entry in value.items():
        if isinstance(entry, dict):
            lines.append(f"{' ' * indent}{name}:\n{_as_text(entry, indent + 2)}")
        else:
            shown = ", ".join(str(each) for each in entry) if isinstance(entry, list) else entry
            lines.append(f"{' ' * indent}{name}: {shown}")
    return "\n".join(lines)
