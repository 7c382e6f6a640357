"""Published checkpoints into our networks, with an account of every weight; a wrong file is refused by its name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from effvit_med.errors import SettingsError, WeightsError
from effvit_med.networks.attention import LiteMLA
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.presets.classifiers import CLASSIFIERS
from effvit_med.networks.presets.names import refuse_unknown
from effvit_med.networks.published.accounting import OTHER_HEAD, account, leave_out, refuse_incomplete
from effvit_med.networks.published.checkpoint import (
    Checkpoint,
    check_values,
    identify,
    is_of_backbone,
    read_checkpoint,
)
from effvit_med.networks.published.fitting import Fitting, Inflation, fit_weight, is_stem
from effvit_med.networks.sam import EfficientVitSam
from effvit_med.networks.sam_encoder import SamImageEncoder

_INFLATIONS = ("centre", "mean")


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight of a published checkpoint.

    Attributes:
        source: the file, or ``state dict``.
        layout: the layout of its names.
        found: the backbone that it holds, or empty where it fits none of the published sizes.
        used: the file's names whose weights are in the network now.
        unused: the file's names whose weights are not, each with the reason.
        missing: the network's names that kept their old values, each with the reason.
        adapted: the network's names whose weights were changed to fit, each with what was done.
        settings: what was set in the network to agree with the checkpoint, in words.
    """

    source: str
    layout: str
    found: str
    used: tuple[str, ...]
    unused: dict[str, str]
    missing: dict[str, str]
    adapted: dict[str, str]
    settings: tuple[str, ...]

    def __str__(self) -> str:
        """A few lines for a person."""
        first = (
            f"{self.source}: {self.found or 'an unknown size'} in the layout {self.layout}; {len(self.used)} weights "
            f"used, {len(self.unused)} unused, {len(self.missing)} missing, {len(self.adapted)} adapted."
        )
        lines = [first]
        for title, reasons in (("unused", self.unused), ("missing", self.missing), ("adapted", self.adapted)):
            grouped: dict[str, list[str]] = {}
            for name, reason in reasons.items():
                grouped.setdefault(reason, []).append(name)
            lines += [f"  {title}: {len(names)}, first {names[0]}: {reason}" for reason, names in grouped.items()]
        return "\n".join([*lines, *(f"  set: {each}" for each in self.settings)])


def load_published(
    model: nn.Module,
    file_or_state_dict: str | Path | Mapping[str, Any],
    layout: str = "auto",
    *,
    inflation: Inflation = "centre",
) -> LoadReport:
    """Puts a published checkpoint into a network, or changes nothing and says why.

    Files are safetensors or torch files of tensors only; no code in them is run. Names are translated from the layout
    of the authors or of timm. The first convolution is adapted to other numbers of image channels, kernels of images
    are inflated for volumes, bias tables resized to another window. Normalisations and attention get the eps that the
    published model has, EfficientViT-M the windows and kernels of the file, unless they were chosen by hand; it has new
    parameters then, so make the optimiser afterwards. A head that does not fit is left as it is, and the report says
    so; a backbone must fit whole.

    Args:
        model: a backbone, segmentation network, classifier or SAM of this package.
        file_or_state_dict: the file, or what is in it: weights by their names, also within a training checkpoint.
        layout: ``auto`` to tell it from the names; else ``mit``, ``timm``, ``cream``, ``shvit``, ``efficientmod``, or
            ``own`` for our names.
        inflation: for a network of volumes: ``centre`` puts a kernel into the middle slice, ``mean`` spreads it evenly;
            see `effvit_med.networks.published.fitting.inflate_kernel`.

    Returns:
        Which names were used, unused, missing and adapted, and why.

    Raises:
        WeightsError: if the file is absent or no such file, holds more than tensors, is of another layout, family or
            size than the network, or lacks a part of its backbone.
        SettingsError: if layout or inflation is unknown, or the model is none of ours.

    Examples:
        >>> from effvit_med.networks import create_backbone, create_classifier
        >>> published = create_classifier("efficientvit_b0").state_dict()
        >>> report = load_published(create_backbone("efficientvit_b0", in_channels=1), published)
        >>> print(report)
        state dict: efficientvit_b0 in the layout mit; 186 weights used, 11 unused, 0 missing, 1 adapted.
          unused: 11, first head.op_list.0.conv.weight: the network has no such part
          adapted: 1, first input_stem.op_list.0.conv.weight: image channels 3 to 1
    """
    if inflation not in _INFLATIONS:
        raise refuse_unknown("inflation", inflation, _INFLATIONS)
    model = _unwrapped(model)
    name, spatial_dims = _identity(model)
    own = model.state_dict()
    checkpoint = read_checkpoint(file_or_state_dict, layout, own)
    found = identify(checkpoint.tensors, checkpoint.layout)
    if found and found != name:
        raise WeightsError(
            f"{checkpoint.source} holds {found} (layout {checkpoint.layout.name}), but the network is {name}. "
            f"Build {found}, or fetch the file of {name}."
        )
    check_values(checkpoint)
    kind = _ModelKind.of(model)
    names = {kind.name(each): there for each, there in checkpoint.names.items()}
    tensors = {kind.name(each): value for each, value in checkpoint.tensors.items()}
    twin, changes = _adopt(model, tensors, kind.backbone, spatial_dims)
    wanted = twin.state_dict()
    weights, adapted = _fit(wanted, tensors, Fitting(spatial_dims, inflation, may_crop=bool(found)))
    missing, unused = account(wanted, weights, tensors)
    of_backbone = {kind.name(each) for each in checkpoint.tensors if is_of_backbone(each)}
    refuse_incomplete(f"{checkpoint.source} does not fit {name}", kind.backbone, of_backbone, missing, unused)
    for section in kind.sections:
        if leave_out(section, wanted, weights, tensors, checkpoint.source):
            missing, unused = account(wanted, weights, tensors)
            missing |= dict.fromkeys([n for n in missing if n.startswith(section)], OTHER_HEAD)
            unused |= dict.fromkeys([n for n in unused if n.startswith(section)], OTHER_HEAD)
    if changes:
        _adopt_in_place(model, tensors, kind.backbone)
    model.load_state_dict(weights, strict=False)
    return LoadReport(
        source=checkpoint.source,
        layout=checkpoint.layout.name,
        found=found,
        used=tuple(names[each] for each in weights),
        unused={names[each]: reason for each, reason in unused.items()},
        missing=missing,
        adapted={each: change for each, change in adapted.items() if each in weights},
        settings=(*changes, *_set_eps(model, checkpoint, found, set(weights))),
    )


def _unwrapped(model: nn.Module) -> nn.Module:
    """The network inside a compiled or a distributed one."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _identity(model: nn.Module) -> tuple[str, int]:
    backbone = getattr(getattr(model, "image_encoder", model), "backbone", model)
    name, spatial_dims = getattr(backbone, "preset_name", None), getattr(backbone, "spatial_dims", None)
    if not isinstance(name, str) or not isinstance(spatial_dims, int):
        raise SettingsError(
            f"A {type(model).__name__} is none of our networks; build one with create_backbone, create_segmenter, "
            "create_classifier or create_sam."
        )
    return name, spatial_dims


@dataclass(frozen=True)
class _ModelKind:
    """Where the parts of a checkpoint lie in a kind of model.

    Attributes:
        backbone: what stands before the names of the backbone.
        encoder: what stands before those of SAM's neck.
        sections: what stands before those of each other part, which a checkpoint has whole or not at all.
    """

    backbone: str
    encoder: str
    sections: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module) -> _ModelKind:
        if isinstance(model, EfficientVitSam):
            encoder = "image_encoder."
            parts = (f"{encoder}neck.", f"{encoder}norm.", "prompt_encoder.", "mask_decoder.")
            return cls(f"{encoder}backbone.", encoder, parts)
        if isinstance(model, SamImageEncoder):
            return cls("backbone.", "", ("neck.", "norm."))
        return cls("backbone." if hasattr(model, "backbone") else "", "image_encoder.", ("head.",))

    def name(self, name: str) -> str:
        """The name that a weight has in the model, from ours of it in a checkpoint."""
        if is_of_backbone(name):
            return self.backbone + name.removeprefix("backbone.")
        if name.startswith("image_encoder."):
            return self.encoder + name.removeprefix("image_encoder.")
        return name


def _adopt(
    model: nn.Module, tensors: Mapping[str, Tensor], prefix: str, spatial_dims: int
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, or a copy with the windows and kernels of the checkpoint, and what differs in words."""
    backbone = model.get_submodule(prefix.removesuffix("."))
    if not isinstance(backbone, EfficientVitM) or not _same_dimensions(tensors, prefix, spatial_dims):
        return model, ()
    twin = copy.deepcopy(model)
    return twin, _adopt_in_place(twin, tensors, prefix)


def _adopt_in_place(model: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> tuple[str, ...]:
    backbone = model.get_submodule(prefix.removesuffix("."))
    if not isinstance(backbone, EfficientVitM):
        return ()
    shapes = {name.removeprefix(prefix): tuple(v.shape) for name, v in tensors.items() if name.startswith(prefix)}
    return tuple(backbone.adopt(shapes))


def _same_dimensions(tensors: Mapping[str, Tensor], prefix: str, spatial_dims: int) -> bool:
    stem = next((value for name, value in tensors.items() if is_stem(name.removeprefix(prefix))), None)
    return stem is not None and stem.dim() - 2 == spatial_dims


def _fit(
    wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], fitting: Fitting
) -> tuple[dict[str, Tensor], dict[str, str]]:
    weights: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    for name, own in wanted.items():
        fitted = fit_weight(name, tensors[name], own, fitting) if name in tensors else None
        if fitted is not None:
            weights[name] = fitted.value
            if fitted.changes:
                adapted[name] = ", ".join(fitted.changes)
    return weights, adapted


def _set_eps(model: nn.Module, checkpoint: Checkpoint, found: str, loaded: set[str]) -> tuple[str, ...]:
    """Sets what the published model has; where the checkpoint does not tell, what the network was built with."""
    changes = []
    norm_eps, count = _published_eps(checkpoint, found), 0
    for name, module in model.named_modules():
        if f"{name}.weight" in loaded and isinstance(getattr(module, "eps", None), float):
            built = getattr(module, "built_eps", module.eps)
            wanted = built if norm_eps is None else norm_eps
            count += module.eps != wanted
            module.built_eps, module.eps = built, wanted
    if count:
        what = "as published" if norm_eps is not None else "as built"
        changes.append(f"eps {norm_eps or built:g} in {count} normalisations, {what}")
    if checkpoint.layout.attention_eps is not None:
        attention_eps, count = checkpoint.layout.attention_eps, 0
        for module in model.modules():
            if isinstance(module, LiteMLA) and module.kind.eps != attention_eps:
                module.kind = replace(module.kind, eps=attention_eps)
                count += 1
        if count:
            changes.append(f"eps {attention_eps:g} in {count} attention layers, as in this layout")
    return tuple(changes)


def _published_eps(checkpoint: Checkpoint, found: str) -> float | None:
    """The eps of the model zoo, where the checkpoint tells which model it is."""
    names = checkpoint.tensors
    if any(name.startswith(("image_encoder.", "prompt_encoder.", "mask_decoder.")) for name in names):
        return 1e-6
    is_published = any(name.startswith(("head.op_list.", "head.input_ops.")) for name in names)
    if (is_published or checkpoint.layout.name.startswith("timm")) and found in CLASSIFIERS:
        return CLASSIFIERS[found].norm_eps
    return None
