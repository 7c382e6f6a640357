"""What a plan decides, one by one, each with its reason; a person can decide otherwise."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from effvit_med.errors import SettingsError

_Size = Annotated[int, Field(ge=1)]
_Count = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0)]
_Sizes = tuple[_Size, _Size, _Size]
_Spacing = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
_Stride = _Size | tuple[_Size, _Size] | _Sizes


@dataclass(frozen=True)
class Kind:
    """What a choice is about and which values it takes.

    Attributes:
        title: its name for people.
        values: the type of its value.
        separator: stands between the parts of its value: that of sizes, or of a list.
    """

    title: str
    values: Any
    separator: str = " x "


KINDS: dict[str, Kind] = {
    "modality": Kind("Modality", str),
    "spatial_dims": Kind("Network sees", Literal[2, 3]),
    "neighbours": Kind("Neighbouring slices on each side", _Count),
    "orientation": Kind("Orientation of the grid", str | None),
    "spacing_mm": Kind("Spacing of the grid, mm", tuple[_Spacing, _Spacing, _Spacing]),
    "intensity": Kind("Intensity", dict[str, Any]),
    "colour_weights": Kind("Shares of red, green and blue", tuple[float, float, float], ", "),
    "preset": Kind("Network", str),
    "stage_strides": Kind("Strides of the stages", tuple[_Stride, ...], ", "),
    "decoder_stride": Kind("Stride of the decoder", Literal[1, 2, 4]),
    "norm": Kind("Normalisation", Literal["batch", "instance"]),
    "patch": Kind("Patch to learn from, voxels", _Sizes),
    "batch_size": Kind("Patches in a step", _Size),
    "window": Kind("Window in use, voxels", _Sizes),
    "overlap": Kind("Overlap of windows in use", Annotated[float, Field(ge=0, le=0.9)]),
    "foreground_share": Kind("Patches centred on a structure", _Share),
    "mirror_axes": Kind("Axes mirrored at random", tuple[Literal[0, 1, 2], ...], ", "),
    "rotate_degrees": Kind("Random rotation about each axis, degrees", tuple[float, float, float]),
    "scale_range": Kind("Random scaling of each axis", tuple[_Share, _Share, _Share]),
    "deep_supervision": Kind("Levels that must know the labels", Annotated[int, Field(ge=1, le=4)]),
    "steps_per_epoch": Kind("Steps in an epoch", _Size),
    "epochs": Kind("Epochs", _Size),
    "val_interval": Kind("Epochs between validations", _Size),
    "warmup_steps": Kind("Steps in which the rate rises", _Count),
    "learning_rate": Kind("Highest learning rate", _Positive),
}
"""Every choice there is, in the order in which they are made."""


_ROW = re.compile(r"\s*[\d.]+(\s*x\s*[\d.]+)+\s*")
"""Numbers in a row as people write sizes."""


@dataclass(frozen=True)
class Choice:
    """One decision of a plan.

    Attributes:
        name: as ``--set`` takes it.
        value: plain values.
        reason: one or two sentences with the numbers that led to it.
        overridden: whether a person decided otherwise than the plan would have.
    """

    name: str
    value: Any
    reason: str
    overridden: bool = False

    @property
    def title(self) -> str:
        """Its name for people."""
        return KINDS[self.name].title

    @property
    def shown(self) -> str:
        """Its value for people."""
        return show_value(self.value, KINDS[self.name].separator)


class Chooser:
    """Takes decisions one after the other, and lets those of a person stand before its own.

    Args:
        overrides: values by the names of choices, as `read_overrides` gives them.

    Examples:
        >>> chooser = Chooser({"epochs": 7})
        >>> chooser.choose("epochs", 100, "Long enough."), chooser.choose("norm", "instance", "Small batches.")
        (7, 'instance')
        >>> chooser.choices[-1].overridden
        True
    """

    def __init__(self, overrides: Mapping[str, Any]) -> None:
        self._overrides = dict(overrides)
        self._choices: dict[str, Choice] = {}

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What was decided so far, in the order of `KINDS`."""
        return tuple(self._choices[name] for name in KINDS if name in self._choices)

    def is_set(self, name: str) -> bool:
        """Whether a person decides a choice."""
        return name in self._overrides

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Decide one choice.

        Args:
            name: of the choice.
            value: that the plan would take.
            reason: why.

        Returns:
            The value that holds: the person's, where there is one.
        """
        if name in self._overrides:
            given = self._overrides[name]
            reason = f"Set by hand. Otherwise it would be {show_value(value, KINDS[name].separator)}: {reason}"
            self._choices[name] = Choice(name, given, reason, overridden=True)
            return given
        self._choices[name] = Choice(name, value, reason)
        return value


def read_overrides(entries: Iterable[str]) -> dict[str, Any]:
    """Decisions of a person, from ``name=value`` as the command line takes them.

    Args:
        entries: such as ``patch=[64,64,64]`` or ``preset=fullres_base``; values are written as in YAML, and numbers in
            a row also as ``plan.md`` shows them, ``64 x 64 x 64``.

    Returns:
        Checked values by name.

    Raises:
        SettingsError: if an entry has no ``=``, its name is unknown, or its value is not of the kind that is needed.

    Examples:
        >>> read_overrides(["patch=[32, 64, 64]", "norm=batch"])
        {'patch': (32, 64, 64), 'norm': 'batch'}
        >>> read_overrides(["patch=32x64x64"])
        {'patch': (32, 64, 64)}
    """
    found: dict[str, Any] = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        name = name.strip()
        if not equals:
            raise SettingsError(f"--set {entry} has no '='; write name=value, such as --set epochs=100.")
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0)
            raise SettingsError(f"There is no choice {name!r}. Did you mean {near[0]!r}? There are {', '.join(KINDS)}.")
        try:
            found[name] = TypeAdapter(KINDS[name].values).validate_python(_read_value(text))
        except (ValidationError, yaml.YAMLError) as error:
            told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no YAML"
            if "tuple" in told:
                told = f"several numbers are needed, such as {name}=[40,56,40] or {name}=40x56x40"
            raise SettingsError(f"--set {name}={text} cannot be: {told} ({KINDS[name].title}).") from error
    return found


def _read_value(text: str) -> Any:
    if _ROW.fullmatch(text):
        text = f"[{text.replace('x', ',')}]"
    return yaml.safe_load(text)


def show_value(value: Any, separator: str = " x ") -> str:
    """A value as a person reads it.

    Args:
        value: plain values.
        separator: between the parts of a list or tuple; those of one within it are sizes.

    Examples:
        >>> show_value((1.0, None, 0.7812345)), show_value({"kind": "window", "low": -16.0})
        ('1 x own x 0.781', 'window, low -16')
        >>> show_value([1, [1, 2, 2]], ", ")
        '1, 1 x 2 x 2'
    """
    if value is None:
        return "own"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        kind = [str(value["kind"])] if "kind" in value else []
        return ", ".join([*kind, *(f"{name} {show_value(part)}" for name, part in value.items() if name != "kind")])
    if isinstance(value, (tuple, list)):
        return separator.join(map(show_value, value)) or "none"
    return str(value)
