"""A published checkpoint in our names, and which published model it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from effvit_med.errors import SettingsError, WeightsError
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.published.fitting import is_stem
from effvit_med.networks.published.layouts import Layout, find_layout, our_name, unwrap_names
from effvit_med.networks.registry import FAMILY_OF, NetworkDetails, make_backbone
from effvit_med.networks.weights import read_tensors, unwrap_checkpoint

#: Index tables that official files of EfficientViT-M hold; they follow from the window.
DERIVED = "attention_bias_idxs"

#: Counters of batch normalisation; no output depends on them.
COUNTER = "num_batches_tracked"


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in our names.

    Attributes:
        source: what it is called.
        layout: its layout.
        tensors: its weights by our names.
        names: its own names, by ours.
    """

    source: str
    layout: Layout
    tensors: dict[str, Tensor]
    names: dict[str, str]


def read_checkpoint(
    file_or_state_dict: str | Path | Mapping[str, Any], layout: str, own: Collection[str] = ()
) -> Checkpoint:
    """A checkpoint in our names.

    Args:
        file_or_state_dict: the file, or its content: weights by their names.
        layout: one of `effvit_med.networks.published.layouts.LAYOUT_NAMES`.
        own: the names of the network that is to be filled.

    Raises:
        WeightsError: if the file is absent or no such file, holds more than tensors, or its names are of no layout or
            not of the wanted one.
        SettingsError: if there is no such layout, or neither a file nor weights are given.
    """
    if isinstance(file_or_state_dict, Mapping):
        source, tensors = "state dict", unwrap_checkpoint(file_or_state_dict, "The state dict")
    elif isinstance(file_or_state_dict, str | Path):
        source, tensors = Path(file_or_state_dict).name, read_tensors(file_or_state_dict)
    else:
        raise SettingsError(
            f"A {type(file_or_state_dict).__name__} holds no weights; give the path of a file, or a state dict."
        )
    tensors = unwrap_names(tensors)
    found = find_layout(list(tensors), layout, source, own)
    names = {our_name(found, name): name for name in tensors}
    if found.name == "own" and not any(is_of_backbone(name) for name in names):
        names = {f"backbone.{name}": name for name in tensors}
    if len(names) < len(tensors):
        raise WeightsError(f"{source} names a weight twice: {len(tensors)} names become {len(names)}.")
    return Checkpoint(source, found, {ours: tensors[there] for ours, there in names.items()}, names)


def check_values(checkpoint: Checkpoint) -> None:
    """Nothing, if a network can use the values.

    Args:
        checkpoint: the checkpoint.

    Raises:
        WeightsError: if a tensor is sparse, complex, whole numbers or without values, or a value is not finite.
    """
    source = checkpoint.source
    for name, value in checkpoint.tensors.items():
        usable = value.layout == torch.strided and value.device.type != "meta" and not value.is_complex()
        if not usable:
            kind = "meta" if value.device.type == "meta" else f"{value.layout} {value.dtype}"
            raise WeightsError(f"{source} holds a tensor of the kind {kind} named {name!r}; give plain real numbers.")
        if value.is_floating_point():
            if not bool(value.isfinite().all()):
                raise WeightsError(f"{source} has values in {name!r} that are not finite. Fetch or save it again.")
        elif not name.endswith((COUNTER, DERIVED)):
            raise WeightsError(f"{source} has {value.dtype} values in {name!r}; weights are floating-point numbers.")


def is_of_backbone(name: str) -> bool:
    """Whether a weight belongs to the backbone.

    Args:
        name: our name of it.
    """
    return name.startswith("backbone.")


def identify(tensors: Mapping[str, Tensor], layout: Layout) -> str:
    """Which published backbone a checkpoint holds, by names and shapes of its weights.

    Args:
        tensors: weights by our names.
        layout: the layout they came in.

    Returns:
        The backbone's name, also where the checkpoint holds more than it; an empty text where no published size fits.
    """
    found = {name.removeprefix("backbone."): value for name, value in tensors.items() if is_of_backbone(name)}
    shapes = {name: tuple(value.shape) for name, value in found.items() if not name.endswith((COUNTER, DERIVED))}
    stem = next((shape for name, shape in shapes.items() if is_stem(name)), ())
    if len(stem) not in (4, 5) or stem[1] < 1:
        return ""
    kind, covered = layout.name.split()[0], dict[str, int]()
    for preset, family in FAMILY_OF.items():
        if kind in family.layouts or kind == "own":
            wanted = _shapes_of(preset, stem, shapes)
            if wanted == shapes:
                return preset
            if wanted.items() <= shapes.items():
                covered[preset] = len(wanted)
    return max(covered, key=lambda preset: covered[preset], default="")


def _shapes_of(preset: str, stem: tuple[int, ...], shapes: Shapes) -> Shapes:
    with torch.device("meta"):
        candidate = cast("nn.Module", make_backbone(preset, len(stem) - 2, stem[1], NetworkDetails()))
    if isinstance(candidate, EfficientVitM):
        candidate.adopt(shapes)
    return {name: tuple(v.shape) for name, v in candidate.state_dict().items() if not name.endswith(COUNTER)}
