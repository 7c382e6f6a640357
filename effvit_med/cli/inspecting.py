"""``inspect``: what an input holds and whether it can be segmented, without segmenting."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands
from effvit_med.cli.running import REMEDIES
from effvit_med.cli.showing import progress_bar, start_logging
from effvit_med.cli.stopping import stop_if_asked

if TYPE_CHECKING:
    from effvit_med.io.inspection import Entry, VolumeEntry

_SHOW_EVERY = 20  # files


@commands.command(epilog=NOTICE, short_help="Say what a folder, file or zip holds, without segmenting.")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON list on stdout instead of a table")
@click.option("--pixels", is_flag=True, help="decode the pixels too, so that damage within them shows")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(REMEDIES),
    help="accept series that are otherwise refused: with missing slices (gaps); irregular and duplicates are accepted "
    "anyway",
)
@click.option("--quiet", is_flag=True, help="no progress bar")
def inspect(source: Path, *, as_json: bool, pixels: bool, allow: tuple[str, ...], quiet: bool) -> None:
    """Say of each series in INPUT (folder, DICOM or NIfTI file, DICOMDIR, zip) whether it can be segmented.

    Photographs (PNG, JPEG, TIFF) are looked at where INPUT holds no scans.

    Each ends as read, findings (read, with something you should know) or refused (with a code and what to do about
    it). Nothing is written and no pixels are read unless asked for. Messages name files, but no patient. The exit
    code is 0 whenever INPUT could be looked at, 1 where it could not.
    """
    from effvit_med.io import ReadOptions
    from effvit_med.io.inspection import inspect_input

    start_logging(quiet=True, verbose=False)
    options = ReadOptions(allow=frozenset(allow), photographs="alone")  # type: ignore[arg-type]
    with _nothing_on_stdout(), progress_bar(hidden=quiet) as bar:
        bar.start_case("looking", 1, 1)
        entries = inspect_input(source, options, pixels=pixels, on_file=_count_files(bar.update))
    if as_json:
        plain = [entry.to_dict() for entry in entries]
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=1)
        click.echo(text.encode("utf-8", "replace"))
    else:
        click.echo("\n".join(line for entry in entries for line in _lines(entry)) or "There are no files.")
        click.echo(NOTICE, err=True)


def _count_files(update: Callable[[str, int, int], None]) -> Callable[[int], None]:
    def on_file(number: int) -> None:
        stop_if_asked()
        if number % _SHOW_EVERY == 0:
            update(f"{number} files", number, number)

    return on_file


@contextlib.contextmanager
def _nothing_on_stdout() -> Iterator[None]:
    """Send what libraries print to stderr, so that stdout holds one document only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _lines(entry: Entry) -> list[str]:
    """What a person reads of an entry."""
    made = [volume for volume in entry.volumes if volume.geometry]
    files = sum(volume.files for volume in entry.volumes)
    counts = f"{files} file{'s' if files != 1 else ''}"
    volumes = f", {len(made)} volumes" if len(made) > 1 else ""
    lines = [f"{_plain(entry.name)}  {entry.status.upper()}  {entry.modality or '-'}  {counts}{volumes}"]
    lines.extend(dict.fromkeys(f"    {_describe_grid(volume)}" for volume in made))
    said = dict.fromkeys((f.code, f.message) for volume in entry.volumes for f in volume.findings)
    lines.extend(f"    {code}: {_plain(message)}" for code, message in said)
    lines.extend(f"    -> {_plain(remedy)}" for remedy in dict.fromkeys(v.remedy for v in entry.volumes if v.remedy))
    return lines


def _describe_grid(volume: VolumeEntry) -> str:
    grid = volume.geometry
    if grid is None:
        return ""
    size = " x ".join(str(count) for count in grid.shape)
    spacing = " x ".join(f"{step:.4g}" for step in grid.spacing_mm)
    return f"{size} voxels of {spacing} mm, axes {grid.orientation}"


def _plain(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
