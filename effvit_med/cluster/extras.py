"""The packages of the optional part ``cluster``."""

from __future__ import annotations

from importlib.util import find_spec

from effvit_med.errors import EffvitError


def require(package: str) -> None:
    """Make sure that a package of the optional part is there.

    Raises:
        EffvitError: if it is not installed; the message holds the command that installs it.

    Examples:
        >>> require("no_such_package")
        Traceback (most recent call last):
        effvit_med.errors.EffvitError: no_such_package is not installed. Install it with: ...
    """
    if find_spec(package) is None:
        raise EffvitError(f'{package} is not installed. Install it with: pip install "effvit-med[cluster]"')
