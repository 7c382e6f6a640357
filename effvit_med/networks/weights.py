"""Weights: saved whole or not at all, loaded without running code, and folded for inference."""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import os
import pickle
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from effvit_med.errors import OutputError, WeightsError
from effvit_med.networks.attention import LiteMLA
from effvit_med.networks.blocks import Foldable
from effvit_med.networks.efficientvit_m import EfficientVitM

NetworkType = TypeVar("NetworkType", bound=nn.Module)

#: Our word in the header of a safetensors file: for each eps, as JSON, the modules that have it.
_EPS_KEY = "effvit_med.eps"

#: Under what training programs keep the weights, and an average of them over the steps.
_ENTRIES = ("state_dict", "model", "model_state_dict", "network")
_AVERAGES = ("state_dict_ema", "model_ema", "ema")

#: What torch raises for a file that is cut short, of another kind, or holds what might run code.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    AssertionError,
)


def save_weights(network: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes every weight and buffer of a network as a safetensors file; the file appears whole or not at all.

    The eps of each normalisation and attention layer is kept in the header beside the metadata, as `load_published`
    may have changed it and the outputs depend on it.

    Args:
        network: the network.
        path: the file to write; one that exists is replaced.
        metadata: words kept in the file's header, such as the preset; ``effvit_med.eps`` is our own and overwritten.

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
    content = save(tensors, metadata={**(metadata or {}), _EPS_KEY: _eps_as_text(network)})
    temporary = path.with_name(f".{secrets.token_hex(4)}.part-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where the folder is none, nothing was begun
            temporary.unlink(missing_ok=True)
        raise OutputError(
            f"The weights cannot be written to {path}: {error}. Check the folder and its space."
        ) from error


def load_weights(network: nn.Module, path: str | Path) -> dict[str, str]:
    """Puts the weights of a file into a network; every name and shape must agree, else nothing is changed.

    Normalisations and attention layers get the eps that `save_weights` kept; a file without it leaves them as they
    are. An EfficientViT-M takes on the windows and the kernels of q that the file has, unless they were chosen by
    hand; these parameters are new then, so make the optimiser afterwards.

    Args:
        network: the network to fill.
        path: a safetensors file, or a torch file of tensors only; see `unwrap_checkpoint` for where they may stand.

    Returns:
        The words kept in the header of a safetensors file; empty for a torch file.

    Raises:
        WeightsError: if the file is absent, is no such file, holds more than tensors, does not fit the network, or the
            eps in its header cannot be read.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    eps = _eps_from_text(metadata.pop(_EPS_KEY, "{}"), path)
    wanted = network.state_dict()
    if any(name in wanted and wanted[name].shape != value.shape for name, value in tensors.items()):
        twin = copy.deepcopy(network)
        _adopt(twin, tensors)
        wanted = twin.state_dict()
    _check_fit(wanted, tensors, path)
    _adopt(network, tensors)
    network.load_state_dict(tensors)
    _set_eps(network, eps)
    return metadata


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The weights of a file by their names; no code in it is run.

    Args:
        path: a safetensors file, or a torch file of tensors only; see `unwrap_checkpoint` for where they may stand.

    Raises:
        WeightsError: if the file is absent, is no such file, or holds more than tensors.
    """
    return _read(Path(path))[0]


def unwrap_checkpoint(content: object, source: str) -> dict[str, Tensor]:
    """The table of weights in what a training program saved.

    Args:
        content: the table, or a table that holds it under ``state_dict``, ``model``, ``model_state_dict`` or
            ``network``, one within another too. An average over the steps, under ``state_dict_ema``, ``model_ema`` or
            ``ema``, is used where there is none of those.
        source: what it is called, for the error message.

    Returns:
        The weights by their names, in their order.

    Raises:
        WeightsError: if there is no table, it names something by other than text, or it holds more than tensors.

    Examples:
        >>> list(unwrap_checkpoint({"epoch": 3, "model": {"weight": torch.zeros(1)}}, "a.pt"))
        ['weight']
    """
    for _ in range(len(_ENTRIES) + 1):  # a table may hold itself
        if not isinstance(content, Mapping):
            break
        inner = next((entry for entry in (*_ENTRIES, *_AVERAGES) if isinstance(content.get(entry), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{source} holds a {type(content).__name__}; a table of named tensors is needed.")
    for name, value in content.items():
        if not isinstance(name, str):
            raise WeightsError(f"{source} names an entry {name!r}, a {type(name).__name__}; the names must be text.")
        if not isinstance(value, Tensor):
            raise WeightsError(f"{source} holds a {type(value).__name__} named {name!r}; only tensors belong there.")
    return dict(content)


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
        # the settings of a training program, which many published files hold; no code of theirs is run
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        stranger = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = str(error) if isinstance(error, OSError | RuntimeError) else "it is damaged, or no such file at all"
        why = f"it names {stranger[1]}, which may run code" if stranger else why
        raise WeightsError(f"{path} is not a torch file of tensors only: {why}. It was not loaded.") from error
    return unwrap_checkpoint(content, str(path))


def _eps_as_text(network: nn.Module) -> str:
    names: dict[str, list[str]] = {}
    for name, module in network.named_modules():
        eps = _eps_of(module)
        if eps is not None:
            names.setdefault(repr(eps), []).append(name)
    return json.dumps(names)


def _eps_of(module: nn.Module) -> float | None:
    eps = module.kind.eps if isinstance(module, LiteMLA) else getattr(module, "eps", None)
    return eps if isinstance(eps, float) else None


def _eps_from_text(text: str, path: Path) -> dict[str, float]:
    """The eps of each module by its name."""
    found: dict[str, float] = {}
    try:
        table: Any = json.loads(text)
        for value, names in table.items():
            eps = float(value)
            if not (math.isfinite(eps) and eps >= 0 and isinstance(names, list)):
                raise ValueError(f"{value!r}: {names!r}")
            found |= dict.fromkeys(names, eps)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path} has a header whose {_EPS_KEY} cannot be read: {error}. It must be JSON that gives the names of "
            "modules for each number; save the weights again."
        ) from error
    return found


def _set_eps(network: nn.Module, wanted: Mapping[str, float]) -> None:
    for name, module in network.named_modules():
        eps = wanted.get(name)
        if eps is None or _eps_of(module) in (None, eps):
            continue
        if isinstance(module, LiteMLA):
            module.kind = replace(module.kind, eps=eps)
        else:
            module.__setattr__("eps", eps)


def _adopt(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives every EfficientViT-M in a network the windows and kernels of the weights."""
    backbones = [(name, module) for name, module in network.named_modules() if isinstance(module, EfficientVitM)]
    for name, backbone in backbones:
        prefix = f"{name}." if name else ""
        own = {each: value for each, value in tensors.items() if each.startswith(prefix)}
        backbone.adopt({each.removeprefix(prefix): tuple(value.shape) for each, value in own.items()})


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
