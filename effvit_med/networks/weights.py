"""Weights: saved whole or not at all, loaded without running code, and folded for inference."""

from __future__ import annotations

import copy
import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from effvit_med.errors import OutputError, WeightsError
from effvit_med.networks.blocks import Foldable

NetworkType = TypeVar("NetworkType", bound=nn.Module)


def save_weights(network: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes every weight and buffer of a network as a safetensors file; the file appears whole or not at all.

    Args:
        network: the network.
        path: the file to write; one that exists is replaced.
        metadata: words kept in the file's header, such as the preset.

    Raises:
        OutputError: if the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from effvit_med.networks import build_network
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = Path(folder.name) / "weights.safetensors"
        >>> network = build_network(2, 1, 3)
        >>> save_weights(network, path, {"preset": "efficientvit_b0"})
        >>> load_weights(network, path)
        {'preset': 'efficientvit_b0'}
        >>> folder.cleanup()
    """
    path = Path(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    content = save(tensors, metadata=dict(metadata or {}))
    temporary = path.with_name(f".{secrets.token_hex(4)}.part-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"The weights cannot be written to {path}: {error}. Check the folder and its space."
        ) from error


def load_weights(network: nn.Module, path: str | Path) -> dict[str, str]:
    """Puts the weights of a file into a network; every name and shape must agree, else nothing is changed.

    Args:
        network: the network to fill.
        path: a safetensors file, or a torch file of tensors only, where a ``state_dict`` entry is used if there is one.

    Returns:
        The words kept in the header of a safetensors file; empty for a torch file.

    Raises:
        WeightsError: if the file is absent, is no such file, holds more than tensors, or does not fit the network.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    _check_fit(network.state_dict(), tensors, path)
    network.load_state_dict(tensors)
    return metadata


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights of a file by their names; no code in it is run.

    Args:
        path: a safetensors file, or a torch file of tensors only, where a ``state_dict`` or ``model`` entry is used if
            there is one.

    Raises:
        WeightsError: if the file is absent, is no such file, or holds more than tensors.
    """
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}.")
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}. Fetch or save it again.") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a torch file of tensors only: {error}. It was not loaded.") from error
    for entry in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping):
            content = content[entry]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}; a table of named tensors is needed.")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path} holds a {type(value).__name__} named {name!r}; only tensors belong there.")
    return dict(content)


def _check_fit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    both = [name for name in wanted if name in found]
    wrong = [name for name in both if wanted[name].shape != found[name].shape]
    if not (missing or unexpected or wrong):
        return
    findings = []
    if missing:
        findings.append(f"{len(missing)} are missing, first {missing[0]!r}")
    if unexpected:
        findings.append(f"{len(unexpected)} are unexpected, first {unexpected[0]!r}")
    if wrong:
        shapes = f"{tuple(found[wrong[0]].shape)} in the file, {tuple(wanted[wrong[0]].shape)} in the network"
        findings.append(f"{len(wrong)} have another shape, first {wrong[0]!r} ({shapes})")
    raise WeightsError(
        f"{path} does not fit the network: {len(both) - len(wrong)} of {len(wanted)} weights match; "
        f"{'; '.join(findings)}. Build the network with the settings the file was trained with."
    )


def fold_batchnorm(network: NetworkType) -> NetworkType:
    """A copy of a network, for inference, with every batch normalisation folded into the convolution before it.

    The outputs are those of the network in eval mode up to rounding, in less time. Instance normalisation depends on
    the image and stays.

    Args:
        network: any module built of our blocks; it is not changed.

    Returns:
        The copy, in eval mode. Its weights have other names: save the network, not the copy.

    Examples:
        >>> from effvit_med.networks import build_network
        >>> network = build_network(2, 1, 3).eval()
        >>> image = torch.ones(1, 1, 32, 32)
        >>> torch.allclose(fold_batchnorm(network)(image), network(image), atol=1e-4)
        True
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, Foldable):
            module.fold()
    return folded
