"""The names that weights carry in published checkpoints, and how they become ours.

Ours are the official ones of each family, with ``backbone.`` before those of the backbone and ``head.`` before those of
the head. Official files of EfficientViT have these prefixes already; the others and timm's do not.

Source:
    The checkpoints of mit-han-lab/efficientvit, microsoft/Cream (EfficientViT-M), ysj9909/SHViT,
    ma-xu/EfficientMod and timm: names only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from effvit_med.errors import WeightsError
from effvit_med.networks.presets import refuse_unknown

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Layout:
    """One way of naming weights.

    Attributes:
        name: the layout and, for timm, the family within it.
        mark: a pattern that a name of every such file has and no name of another layout's.
        rules: patterns and what replaces them, tried in order; the first that matches wins. A name that none matches
            stays as it is.
        attention_eps: added to the denominator of linear attention in the models of this layout, or None.
    """

    name: str
    mark: str
    rules: tuple[Rule, ...]
    attention_eps: float | None = None


def _mit_timm_stage(series: str) -> Rule:
    """Timm counts the stages of the L series from 0, the official files from 1."""
    shift = 0 if series == "b" else 1
    return (r"^stages\.(\d+)\.blocks\.", lambda m: f"backbone.stages.{int(m[1]) + shift}.op_list.")


_MIT_TIMM_HEAD: tuple[Rule, ...] = (
    (r"^head\.in_conv\.", "head.op_list.0."),
    (r"^head\.classifier\.0\.", "head.op_list.2.linear."),
    (r"^head\.classifier\.1\.", "head.op_list.2.norm."),
    (r"^head\.classifier\.4\.", "head.op_list.3.linear."),
)

_FLAT: tuple[Rule, ...] = ((r"^(patch_embed\.|blocks\d\.)", r"backbone.\1"),)
_BACKBONE = r"^(backbone\.)?"


def _large_stride_block(match: re.Match[str]) -> str:
    """Timm's stage s, block b: the official list holds the three parts of the downsampling first."""
    stage, block = int(match[1]), int(match[2])
    return f"backbone.blocks{stage + 1}.{block if stage == 0 else block + 3}."


_TIMM_M: tuple[Rule, ...] = (
    (r"^patch_embed\.conv(\d)\.", lambda m: f"backbone.patch_embed.{2 * (int(m[1]) - 1)}."),
    (r"^stages\.(\d)\.downsample\.res1\.", lambda m: f"backbone.blocks{int(m[1]) + 1}.0."),
    (r"^stages\.(\d)\.downsample\.patchmerge\.", lambda m: f"backbone.blocks{int(m[1]) + 1}.1."),
    (r"^stages\.(\d)\.downsample\.res2\.", lambda m: f"backbone.blocks{int(m[1]) + 1}.2."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.", _large_stride_block),
    (r"^head\.linear\.", "head.l."),
)

_SHVIT_DOWN = {"0": "0.0", "1": "0.1", "2": "1", "3": "2.0", "4": "2.1"}

_TIMM_SHVIT: tuple[Rule, ...] = (
    (r"^patch_embed\.", "backbone.patch_embed."),
    (r"^stages\.(\d)\.downsample\.(\d)\.", lambda m: f"backbone.blocks{int(m[1]) + 1}.{_SHVIT_DOWN[m[2]]}."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.", _large_stride_block),
)

LAYOUTS = (
    Layout("mit", r"(^|\.)(input_stem|stages\.\d+)\.op_list\.", (
        (r"^image_encoder\.backbone\.", "backbone."),
        (r"^(neck|norm)\.", r"image_encoder.\1."),
        (r"^(input_stem|stages)\.", r"backbone.\1."),
    ), 1e-15),
    Layout("timm efficientvit_b", r"^stem\.res0\.main\.depth_conv\.", (
        (r"^stem\.in_conv\.", "backbone.input_stem.op_list.0."),
        (r"^stem\.res(\d+)\.", lambda m: f"backbone.input_stem.op_list.{int(m[1]) + 1}."),
        _mit_timm_stage("b"),
        *_MIT_TIMM_HEAD,
    ), 1e-5),
    Layout("timm efficientvit_l", r"^stem\.res0\.main\.conv1\.", (
        (r"^stem\.in_conv\.", "backbone.stages.0.op_list.0."),
        (r"^stem\.res(\d+)\.", lambda m: f"backbone.stages.0.op_list.{int(m[1]) + 1}."),
        _mit_timm_stage("l"),
        *_MIT_TIMM_HEAD,
    ), 1e-5),
    Layout("timm efficientvit_m", r"^patch_embed\.conv1\.", _TIMM_M),
    Layout("timm shvit", r"^stages\.0\.blocks\.\d+\.conv\.m\.", _TIMM_SHVIT),
    Layout("cream", _BACKBONE + r"blocks1\.0\.dw0\.", _FLAT),
    Layout("shvit", _BACKBONE + r"blocks1\.0\.conv\.m\.", _FLAT),
    Layout("efficientmod", _BACKBONE + r"layers\.0\.blocks\.0\.(mlp|modulation)\.", (
        (r"^(patch_embed|layers)\.", r"backbone.\1."),
        (r"^norm\.", "head.norm."),
        (r"^head\.(?=weight|bias)", "head.head."),
    )),
)  # fmt: skip

#: What a caller may ask for: a layout, all of timm's, or our own names as they are.
LAYOUT_NAMES = ("auto", "mit", "timm", "cream", "shvit", "efficientmod", "own")  # and "official": any but timm's

_OWN = Layout("own", "", ())

#: Other words for a layout.
_ALIASES = {"mit_han_lab": "mit", "efficientvit": "mit", "msra": "cream", "microsoft": "cream"}

#: Words that training loops put before every name, and a number that some add.
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_NO_WEIGHT = ("n_averaged",)


def find_layout(names: list[str], wanted: str, source: str, own: Collection[str] = ()) -> Layout:
    """The layout of a checkpoint.

    Args:
        names: of its weights.
        own: the names of the network that is to be filled; ``auto`` knows them too.
        wanted: one of `LAYOUT_NAMES`; ``auto`` to tell it from the names.
        source: what the checkpoint is called, for the error.

    Raises:
        SettingsError: if there is no layout of the wanted name.
        WeightsError: if the names are of none, or not of the wanted one.

    Examples:
        >>> find_layout(["stem.res0.main.conv1.conv.weight"], "auto", "l1.safetensors").name
        'timm efficientvit_l'
    """
    plain = wanted.lower().replace("-", "_")
    plain = _ALIASES.get(plain, plain)
    if plain not in (*LAYOUT_NAMES, "official"):
        raise refuse_unknown("layout", wanted, LAYOUT_NAMES)
    if plain == "own":
        return _OWN
    found = next((each for each in LAYOUTS if any(re.search(each.mark, name) for name in names)), None)
    if found is None and plain == "auto" and any(name.startswith("backbone.") or name in own for name in names):
        return _OWN
    first = ", ".join(repr(name) for name in names[:3]) or "nothing"
    if found is None:
        raise WeightsError(
            f"{source} is in no layout that is known here: its first names are {first}. "
            f"Known are the checkpoints of {', '.join(LAYOUT_NAMES[1:-1])}, and our own."
        )
    is_timm = found.name.startswith("timm")
    if plain not in ("auto", found.name.split()[0]) and (plain != "official" or is_timm):
        raise WeightsError(f"{source} is in the layout {found.name}, not {wanted}: its first names are {first}.")
    return found


def unwrap_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without a word that a training loop put before every name, such as ``module.``.

    Args:
        tensors: weights by name.
    """
    plain = {name: value for name, value in tensors.items() if name not in _NO_WEIGHT}
    while wrapper := next((each for each in _WRAPPERS if plain and all(n.startswith(each) for n in plain)), None):
        plain = {name.removeprefix(wrapper): value for name, value in plain.items()}
    return plain


def our_name(layout: Layout, name: str) -> str:
    """Our name of a weight.

    Args:
        layout: the layout of its file.
        name: its name there.

    Examples:
        >>> our_name(LAYOUTS[1], "stages.2.blocks.1.context_module.main.qkv.conv.weight")
        'backbone.stages.2.op_list.1.context_module.main.qkv.conv.weight'
    """
    if layout.name == "timm efficientvit_m":
        name = re.sub(r"\.conv\.(?=weight|bias)", ".c.", name)
    for pattern, replacement in layout.rules:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
