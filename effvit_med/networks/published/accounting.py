"""Which weights of a checkpoint found a place, which places got none, and when that is too few."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from effvit_med.errors import WeightsError
from effvit_med.networks.published.checkpoint import COUNTER, DERIVED

#: Why a head is left as it is although the file has one.
OTHER_HEAD = "the file has another head; train it"

_STATISTICS = ("running_mean", "running_var", COUNTER)


def account(
    wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, str], dict[str, str]]:
    """Which of a network's weights are missing and which of a checkpoint's are unused, each with the reason.

    Args:
        wanted: the network's.
        weights: those that will be loaded.
        tensors: the checkpoint's, by the names of the network.
    """
    missing = {}
    for name, own in wanted.items():
        if name in weights:
            continue
        if name in tensors:
            shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(own.shape)} in the network"
            missing[name] = f"it has another shape, {shapes}; train it"
        elif name.endswith(COUNTER):
            missing[name] = "it only counts training steps"
        else:
            missing[name] = "the file has no such part; train it"
    unused = {}
    for name in tensors:
        if name in weights:
            continue
        if name.endswith(DERIVED):
            unused[name] = "it follows from the window and is computed"
        elif name in wanted:
            unused[name] = "it has another shape in the network"
        elif name.endswith(_STATISTICS) and f"{name.rpartition('.')[0]}.weight" in wanted:
            unused[name] = "the network normalises without running statistics"
        else:
            unused[name] = "the network has no such part"
    return missing, unused


def refuse_incomplete(
    what: str, prefix: str, of_backbone: Collection[str], missing: Mapping[str, str], unused: Mapping[str, str]
) -> None:
    """Raise WeightsError where the backbone does not fit whole.

    Args:
        what: what does not fit what, for the error.
        prefix: what stands before the names of the network's backbone.
        of_backbone: the names of the checkpoint's weights of the backbone.
        missing: from `account`.
        unused: from `account`.

    Raises:
        WeightsError: if weights of the backbone are missing, or some of the checkpoint's have no place.
    """
    lacking = [name for name in missing if name.startswith(prefix) and not name.endswith(COUNTER)]
    extra = [name for name in unused if name in of_backbone and not name.endswith((DERIVED, *_STATISTICS))]
    findings = []
    if lacking:
        findings.append(
            f"{len(lacking)} weights of the backbone are missing, first {lacking[0]!r} ({missing[lacking[0]]})"
        )
    if extra:
        findings.append(f"{len(extra)} of its weights have no place, first {extra[0]!r} ({unused[extra[0]]})")
    if findings:
        raise WeightsError(f"{what}: {'; '.join(findings)}. Nothing was loaded.")


def leave_out(
    section: str,
    wanted: Mapping[str, Tensor],
    weights: dict[str, Tensor],
    tensors: Mapping[str, Tensor],
    source: str,
) -> bool:
    """Takes a section out of what will be loaded where the checkpoint has another one; whether it did.

    A last layer for another number of classes alone does not make it another one.

    Args:
        section: what stands before the names of the section, such as ``head.``.
        wanted: the network's weights.
        weights: those that will be loaded; changed in place.
        tensors: the checkpoint's, by the names of the network.
        source: what the checkpoint is called, for the error.

    Raises:
        WeightsError: if the checkpoint has only a part of the section.
    """
    own = {name for name in wanted if name.startswith(section) and not name.endswith(COUNTER)}
    there = {name for name in tensors if name.startswith(section) and not name.endswith((COUNTER, DERIVED))}
    if not own or not there & own:
        return False
    changed = {name for name in own & there if name not in weights}
    classes = all(_is_of_other_classes(tensors[name], wanted[name]) for name in changed)
    if own == there and classes:
        return False
    if there < own and classes:
        first = next(name for name in wanted if name in own - there)
        raise WeightsError(
            f"{source} has only a part of {section.removesuffix('.')}: {len(own - there)} of its {len(own)} weights "
            f"are missing, first {first!r}. Nothing was loaded; fetch the file again."
        )
    for name in [name for name in weights if name.startswith(section)]:
        del weights[name]
    return True


def _is_of_other_classes(there: Tensor, own: Tensor) -> bool:
    """Whether two weights differ in their first axis, the classes, and else in single voxels of a kernel at most."""
    return (
        there.dim() > 0
        and there.shape[0] != own.shape[0]
        and (own.dim() == 1 or (there.shape[1] == own.shape[1] and there[0, 0].numel() == own[0, 0].numel() == 1))
    )
