"""A published checkpoint in our names, and which published model it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from effvit_med.errors import WeightsError
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.published.fitting import is_stem
from effvit_med.networks.published.layouts import Layout, find_layout, our_name, unwrap_names
from effvit_med.networks.registry import FAMILY_OF, NetworkDetails, make_backbone
from effvit_med.networks.weights import read_tensors

#: Index tables that official files of EfficientViT-M hold; they follow from the window.
DERIVED = "attention_bias_idxs"

#: Counters of batch normalisation; no output depends on them.
COUNTER = "num_batches_tracked"


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


def read_checkpoint(file_or_state_dict: str | Path | Mapping[str, Tensor], layout: str) -> Checkpoint:
    """A checkpoint in our names.

    Args:
        file_or_state_dict: the file, or its weights by their names.
        layout: one of `effvit_med.networks.published.layouts.LAYOUT_NAMES`.

    Raises:
        WeightsError: if the file is absent or no such file, holds more than tensors, or its names are of no layout or
            not of the wanted one.
        SettingsError: if there is no such layout.
    """
    if isinstance(file_or_state_dict, Mapping):
        source, tensors = "state dict", dict[str, Any](file_or_state_dict)
        wrong = next((name for name, value in tensors.items() if not isinstance(value, Tensor)), None)
        if wrong is not None:
            raise WeightsError(f"The state dict holds a {type(tensors[wrong]).__name__} named {wrong!r}; give tensors.")
    else:
        source = Path(file_or_state_dict).name
        tensors = read_tensors(file_or_state_dict)
    tensors = unwrap_names(tensors)
    found = find_layout(list(tensors), layout, source)
    names = {our_name(found, name): name for name in tensors}
    if found.name == "own" and not any(is_of_backbone(name) for name in names):
        names = {f"backbone.{name}": name for name in tensors}
    if len(names) < len(tensors):
        raise WeightsError(f"{source} names a weight twice: {len(tensors)} names become {len(names)}.")
    return Checkpoint(source, found, {ours: tensors[there] for ours, there in names.items()}, names)


def is_of_backbone(name: str) -> bool:
    """Whether a weight belongs to the backbone.

    Args:
        name: our name of it.
    """
    return name.removeprefix("image_encoder.").startswith("backbone.")


def name_in_model(name: str, prefix: str) -> str:
    """The name that a weight has in a model.

    Args:
        name: our name of it in a checkpoint.
        prefix: what stands before the names of the model's backbone.
    """
    if not is_of_backbone(name):
        return name
    return prefix + name.removeprefix("image_encoder.").removeprefix("backbone.")


def identify(tensors: Mapping[str, Tensor], layout: Layout) -> str:
    """Which published backbone a checkpoint holds, by names and shapes of its weights.

    Args:
        tensors: weights by our names.
        layout: the layout they came in.

    Returns:
        The backbone's name, or an empty text where no published size fits.
    """
    found = {name_in_model(name, ""): value for name, value in tensors.items() if is_of_backbone(name)}
    names = {name for name in found if not name.endswith((COUNTER, DERIVED))}
    stem = next((value for name, value in found.items() if is_stem(name)), None)
    if stem is None:
        return ""
    kind = layout.name.split()[0]
    for preset, family in FAMILY_OF.items():
        if kind in family.layouts or kind == "own":
            with torch.device("meta"):
                candidate = cast("nn.Module", make_backbone(preset, stem.dim() - 2, stem.shape[1], NetworkDetails()))
            if isinstance(candidate, EfficientVitM):
                candidate.adopt({name: tuple(value.shape) for name, value in found.items()})
            wanted = {name: v for name, v in candidate.state_dict().items() if not name.endswith(COUNTER)}
            if names == set(wanted) and all(found[name].shape == v.shape for name, v in wanted.items()):
                return preset
    return ""
