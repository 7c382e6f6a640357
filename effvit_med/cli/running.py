"""What the commands that run a model share: their options, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from effvit_med.engine import Job, Segmenter

OUTPUT_TYPES = ("dicom-seg", "rtstruct", "nifti", "nrrd", "dicom-sr", "png")
SEG_TYPES = ("binary", "labelmap", "fractional", "auto")
REMEDIES = ("gaps", "irregular", "duplicates")
PRECISIONS = ("float32", "bfloat16", "float16")
RUNTIMES = ("auto", "eager", "compile", "onnx", "openvino", "tensorrt")
REGIONS = ("whole", "body", "organs")

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps"),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="float32",
        show_default=True,
        help="arithmetic of the network",
    ),
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="eager",
        show_default=True,
        help="what runs the network; auto measures once on this machine and takes the fastest",
    ),
    click.option(
        "--overlap", type=click.FloatRange(0, 0.9), help="overlap of neighbouring tiles; the bundle's own if not given"
    ),
    click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="tiles at a time"),
    click.option("--threads", type=click.IntRange(1), help="processor threads; all cores if not given"),
    click.option(
        "--memory-gb",
        type=click.FloatRange(0, min_open=True),
        help="memory to stay within, in GiB; four fifths of what is free if not given",
    ),
    click.option("--mirror", is_flag=True, help="average over mirrored tiles too: several times slower"),
    click.option(
        "--fold", type=click.IntRange(1), help="which of a bundle's several weights; the mean of all if not given"
    ),
    click.option(
        "--region",
        type=click.Choice(REGIONS),
        default="whole",
        show_default=True,
        help="segment all, or a box around the body or the organs, found by a quick pass",
    ),
)


_OUTPUT_OPTIONS = (
    click.option(
        "--output-type",
        "output_types",
        multiple=True,
        type=click.Choice(OUTPUT_TYPES),
        help="what to write beside measurements, picture and record, one or more; DICOM SEG and NIfTI, where they fit, "
        "and png for photographs if not given",
    ),
    click.option(
        "--seg-type",
        type=click.Choice(SEG_TYPES),
        default="binary",
        show_default=True,
        help="kind of DICOM SEG; fractional holds the confidence, auto is binary up to 20 structures, else labelmap",
    ),
    click.option(
        "--strip-free-text/--keep-free-text",
        default=True,
        show_default=True,
        help="leave comments and descriptions of the source out of DICOM results; names and ids stay in them",
    ),
    click.option("--confidence", is_flag=True, help="also write how sure each voxel is, as NIfTI"),
)


def output_options(command: Command) -> Command:
    """Give a command the options that say what is written; `make_job` understands them."""
    for option in reversed(_OUTPUT_OPTIONS):
        command = option(command)
    return command


def run_options(command: Command) -> Command:
    """Give a command one option for each field of `effvit_med.engine.Settings`; a test holds the two together."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def open_segmenter(source: Path, options: dict[str, Any]) -> Segmenter:
    """The loaded model that the options ask for.

    Raises:
        click.UsageError: if the input does not exist.
        EffvitError: if the bundle or a setting is wrong.
    """
    if not source.exists():
        raise click.UsageError(f"INPUT {source} does not exist.")
    from effvit_med.engine import Segmenter, Settings, open_model
    from effvit_med.engine.allocation import keep_freed_memory

    kept = keep_freed_memory()
    names = {name: options[name] for name in Settings.model_fields if options.get(name) is not None}
    return Segmenter(open_model(options.get("bundle")), Settings.from_values(**names), keeps_freed_memory=kept)


def make_job(options: dict[str, Any]) -> Job:
    """What to write and how strictly to read; for a bundle that is made for photographs, they are read, too."""
    from effvit_med.engine import Job
    from effvit_med.engine.shelf import read_colour_weights
    from effvit_med.io import ReadOptions, SegOptions

    read = ReadOptions(allow=frozenset(options.get("allow") or ()))
    weights = read_colour_weights(options.get("bundle"))
    return Job(
        output_types=tuple(options.get("output_types") or ()) or None,
        read=read if weights is None else replace(read, photographs="always", colour_weights=weights),
        seg=SegOptions(
            segmentation_type=options.get("seg_type", "binary"),
            strip_free_text=bool(options.get("strip_free_text", True)),
        ),
        confidence=bool(options.get("confidence")),
    )
