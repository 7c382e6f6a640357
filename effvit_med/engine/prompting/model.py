"""What a bundle says about its promptable networks, or what a published EfficientViT-SAM file is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effvit_med.engine.model import digest_file
from effvit_med.engine.prompting.speaking import MapSpeaker, SamSpeaker, Speaker
from effvit_med.engine.settings import describe, read_values
from effvit_med.engine.shelf import PROMPT_FILE, find_bundle
from effvit_med.errors import InputError, SettingsError
from effvit_med.networks import create_sam, fold_batchnorm, load_published, load_weights
from effvit_med.networks.prompt import PromptNetwork, build_prompt_network
from effvit_med.transforms.loops import inner_loops

DEFAULT_BUNDLE = "prompt"

_SAM_NAME = re.compile(r"(?:^|[^a-z])((?:xl|l)[0-2])(?:[^0-9a-z]|$)")
_WEIGHTS = (".pt", ".pth", ".safetensors")


class NetworkPart(BaseModel):
    """One network of ``configs/prompt.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Annotated[str, Field(description="path of the weights from the bundle's folder")]
    preset: Annotated[str, Field(description="of effvit_med.networks.prompt.build_prompt_network")] = "prompt_small"
    in_channels: Annotated[int, Field(ge=1, description="of a slab as many as it has slices")] = 1
    norm: str = "batch"
    proposals: Annotated[int, Field(ge=1, description="masks that it proposes, of which the best is the answer")] = 1


class PromptFile(BaseModel):
    """The content of ``configs/prompt.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    description: str = ""
    slices: Annotated[NetworkPart | None, Field(description="the network that sees slices or slabs")] = None
    blocks: Annotated[NetworkPart | None, Field(description="the network that sees blocks of a volume")] = None


@dataclass(frozen=True)
class PromptModel:
    """Promptable networks as their bundle describes them; nothing is loaded yet.

    Attributes:
        name: of the bundle, or of the published file.
        version: its version; empty for a published file.
        description: one sentence.
        folder: where the weights' paths begin.
        slices: the network that sees slices; None if there is none.
        blocks: the network that sees blocks; None if there is none.
        sam: the name of the EfficientViT-SAM that the weights of ``slices`` are for; empty for our own networks.
    """

    name: str
    version: str
    description: str
    folder: Path
    slices: NetworkPart | None = None
    blocks: NetworkPart | None = None
    sam: str = ""

    def weights_sha256(self, spatial_dims: int) -> str:
        """Hex digest of the weights of a network.

        Args:
            spatial_dims: 2 for the network that sees slices, 3 for that of blocks.

        Raises:
            SettingsError: if there is no such network.
            WeightsError: if the file cannot be read.
        """
        return digest_file(self.folder / self._part(spatial_dims).weights)

    def load(self, spatial_dims: int, device: torch.device) -> Speaker:
        """A network with its weights, ready to be asked.

        Args:
            spatial_dims: 2 for the network that sees slices, 3 for that of blocks.
            device: where it runs.

        Raises:
            SettingsError: if there is no such network, or a number in the file is wrong.
            WeightsError: if the weights are missing or do not belong to it.
        """
        part = self._part(spatial_dims)
        path = self.folder / part.weights
        inner_loops()  # what cuts views takes a second or two to load; the first click should not wait for it
        if self.sam:
            sam = create_sam(self.sam)
            load_published(sam, path)
            return SamSpeaker(sam.eval().to(device), device)
        network = build_prompt_network(spatial_dims, part.in_channels, part.preset, part.norm, part.proposals)
        load_weights(network, path)
        folded: PromptNetwork = fold_batchnorm(network.eval())
        return MapSpeaker(folded.to(device), device)

    def _part(self, spatial_dims: int) -> NetworkPart:
        part = self.slices if spatial_dims == 2 else self.blocks
        if part is None:
            seen = "slices" if spatial_dims == 2 else "blocks of a volume"
            raise SettingsError(f"{self.name} has no network for {seen}; choose another bundle.")
        return part


def read_prompt_model(bundle: Path | str | None = None, sam: str = "") -> PromptModel:
    """What a bundle says about its promptable networks.

    Args:
        bundle: a folder, the name of a bundle that comes with effvit-med, or a file of published EfficientViT-SAM
            weights, such as ``efficientvit_sam_l0.pt``; None for the default bundle.
        sam: which EfficientViT-SAM such a file is, where its name does not say so: ``l0``, ``l1``, ``l2``, ``xl0``
            or ``xl1``.

    Raises:
        InputError: if the folder is no such bundle or its prompt.yaml no YAML.
        SettingsError: if a value is wrong, no bundle has the name, or nobody says which model a file is.
    """
    path = Path(bundle or DEFAULT_BUNDLE)
    if path.suffix in _WEIGHTS:
        return _published(path, sam)
    folder = find_bundle(bundle or DEFAULT_BUNDLE)
    file = folder / PROMPT_FILE
    try:
        content = read_values(file)
    except OSError as error:
        raise InputError(f"{folder} has no promptable network: {file} cannot be read ({error.strerror}).") from error
    try:
        found = PromptFile(**content)
    except ValidationError as error:
        raise SettingsError(f"{file}: {describe(error)}") from error
    if found.slices is None and found.blocks is None:
        raise SettingsError(f"{file} names no network; give slices or blocks.")
    return PromptModel(found.name, found.version, found.description, folder, found.slices, found.blocks)


def _published(path: Path, sam: str) -> PromptModel:
    if not path.is_file():
        raise InputError(f"There is no file {path}; give the weights of an EfficientViT-SAM, or a bundle.")
    said = _SAM_NAME.search(path.stem.lower())
    name = sam or (said.group(1) if said else "")
    if not name:
        raise SettingsError(f"{path.name} does not say which EfficientViT-SAM it is; say so: l0, l1, l2, xl0 or xl1.")
    part = NetworkPart(weights=path.name)
    return PromptModel(path.stem, "", f"published EfficientViT-SAM {name.upper()}", path.parent, slices=part, sam=name)
