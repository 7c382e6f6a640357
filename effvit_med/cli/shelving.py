"""``bundles``: what comes along, whether it is whole, and what is known of it. Nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import commands

if TYPE_CHECKING:
    from effvit_med.engine.shelf import Shipped


@commands.group(epilog=NOTICE, invoke_without_command=True, short_help="List, verify and describe the bundles.")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
@click.pass_context
def bundles(context: click.Context, as_json: bool) -> None:
    """List the bundles that come along; their names go to --bundle.

    Nothing is downloaded: all of this works without a network. Exit code 0: all right; 1: a bundle is damaged.
    """
    if context.invoked_subcommand is not None:
        return
    from effvit_med.engine.shelf import list_bundles

    found = list_bundles()
    if as_json:
        click.echo(json.dumps({"bundles": [_plain(each) for each in found], "notice": NOTICE}))
    else:
        width = max(len(each.name) for each in found)
        for each in found:
            head = f"{each.name:{width}s}  {each.version or '-':8s} {_kind(each):12s}"
            click.echo(f"{head} {each.problem or each.description}")
        click.echo(NOTICE, err=True)
    context.exit(1 if any(each.problem for each in found) else 0)


@bundles.command(epilog=NOTICE)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
def verify(names: tuple[str, ...], as_json: bool) -> int:
    """Compare weights and configs of bundles with their SHA256SUMS: those named (or of these folders), else all.

    Exit code 0: every file is as it was shipped; 1: one is not, or there is no list; 2: no such bundle.
    """
    from effvit_med.engine.shelf import Verified, shipped_folders, verify_bundle
    from effvit_med.errors import InputError

    results: list[Verified] = []
    for name in names or tuple(shipped_folders()):
        try:
            results.append(verify_bundle(name))
        except InputError as error:
            results.append(Verified(name, 0, (str(error),)))
    if as_json:
        rows = [{"name": each.name, "checked": each.checked, "problems": list(each.problems)} for each in results]
        click.echo(json.dumps({"bundles": rows, "notice": NOTICE}))
    else:
        for each in results:
            click.echo(f"{each.name}: {'DAMAGED' if each.problems else 'as shipped'}, {each.checked} files agree")
            for problem in each.problems:
                click.echo(f"    {problem}")
        click.echo(NOTICE, err=True)
    return 1 if any(each.problems for each in results) else 0


@bundles.command(epilog=NOTICE)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
def describe(name: str, as_json: bool) -> None:
    """Show what is known of the bundle NAME (or of a folder): its card with data, licence, results and limits."""
    from effvit_med.engine.shelf import read_card

    card = read_card(name)
    if as_json:
        document = {**_plain(card.shipped), "metadata": card.metadata, "card": card.text, "notice": NOTICE}
        click.echo(json.dumps(document))
        return
    shipped, known = card.shipped, card.metadata
    rows = {
        "name": f"{shipped.name} {shipped.version}",
        "folder": str(shipped.folder),
        "what it does": shipped.problem or shipped.description,
        "input": f"{_kind(shipped)} {', '.join(shipped.modalities)}".strip(),
        "structures": ", ".join(shipped.structures),
        "data": known.get("data_source", ""),
        "licence": known.get("license", ""),
        "copyright": known.get("copyright", ""),
        "intended use": known.get("intended_use", ""),
    }
    click.echo("\n".join(f"{title}: {text}" for title, text in rows.items() if text))
    click.echo(f"\n{card.text.strip() or 'It has no card (docs/README.md).'}")
    click.echo(NOTICE, err=True)


@bundles.command(epilog=NOTICE)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def seal(folder: Path) -> None:
    """Write SHA256SUMS of the bundle in FOLDER, for those who make one."""
    from effvit_med.engine.shelf import read_card, write_sums

    read_card(folder)  # what is no bundle is not sealed
    click.echo(json.dumps({"sums": str(write_sums(folder)), "notice": NOTICE}))


def _kind(shipped: Shipped) -> str:
    if shipped.prompts:
        return "prompts"
    return "photographs" if shipped.photographs else f"{shipped.spatial_dims}D scans" if shipped.spatial_dims else "-"


def _plain(shipped: Shipped) -> dict[str, Any]:
    return {
        "name": shipped.name,
        "version": shipped.version,
        "description": shipped.description,
        "modalities": list(shipped.modalities),
        "structures": list(shipped.structures),
        "spatial_dims": shipped.spatial_dims,
        "photographs": shipped.photographs,
        "prompts": shipped.prompts,
        "folder": str(shipped.folder),
        "problem": shipped.problem,
    }
