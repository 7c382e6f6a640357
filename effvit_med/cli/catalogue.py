"""Commands that say what there is: ``info`` and ``models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import BUNDLE_HELP, commands

if TYPE_CHECKING:
    from effvit_med.engine.catalogue import ModelCost

_MODELS_HEADING = (
    f"{'model':22s}{'input':>12s}{'parameters':>13s}{'GFLOP':>9s}{'maps s':>9s}{'full size s':>13s}  loads files of"
)


@commands.command(epilog=NOTICE)
@click.option("--bundle", type=click.Path(path_type=Path), help=BUNDLE_HELP)
@click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")
def info(bundle: Path | None, as_json: bool) -> None:
    """Show versions, devices, and what a bundle segments."""
    import torch

    from effvit_med.engine import open_model
    from effvit_med.engine.record import library_versions

    model = open_model(bundle)
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
