"""Names that presets share, and the error for a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal

from effvit_med.errors import SettingsError

ActivationName = Literal["hardswish", "gelu_tanh", "relu", "gelu", "prelu"]
"""``prelu`` multiplies negative values by a number that is learnt, one for each convolution."""


def refuse_unknown(what: str, value: object, known: Iterable[str]) -> SettingsError:
    """The error for a name that does not exist, with the nearest names that do.

    Args:
        what: what is named, such as ``preset``.
        value: the name that was given.
        known: the names that exist.

    Examples:
        >>> print(refuse_unknown("preset", "efficientvit_b9", ["efficientvit_b0", "efficientvit_b1", "shvit_s1"]))
        There is no preset 'efficientvit_b9'; the nearest are efficientvit_b1, efficientvit_b0, shvit_s1 (of 3).
    """
    names = list(known)
    begun = [name for name in names if name.startswith(str(value))]
    nearest = begun or difflib.get_close_matches(str(value), names, n=3, cutoff=0.3) or names
    return SettingsError(f"There is no {what} {value!r}; the nearest are {', '.join(nearest)} (of {len(names)}).")
