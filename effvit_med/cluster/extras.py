"""The packages of the optional part ``cluster``."""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec

from effvit_med.errors import EffvitError

_LOGGING_OF_SUBMITIT = "SUBMITIT_LOG_LEVEL"


def require_submitit() -> None:
    """Make sure that submitit is there, and import it without letting it set up logging.

    Left to itself, its import closes every log handler of the process. The tasks that it starts, processes of its own,
    keep its logging.

    Raises:
        EffvitError: if it is not installed.
    """
    require("submitit")
    before = os.environ.get(_LOGGING_OF_SUBMITIT)
    os.environ[_LOGGING_OF_SUBMITIT] = "NOCONFIG"
    try:
        importlib.import_module("submitit")
    finally:
        if before is None:
            del os.environ[_LOGGING_OF_SUBMITIT]
        else:
            os.environ[_LOGGING_OF_SUBMITIT] = before


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
