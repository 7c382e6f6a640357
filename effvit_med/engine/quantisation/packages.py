"""Optional packages, imported without their telemetry, logs and progress bars."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from effvit_med.engine.runtimes.package import import_without_telemetry
from effvit_med.errors import SettingsError


def import_optional(name: str, extra: str) -> Any:
    """An optional package, imported with its telemetry switched off.

    Args:
        name: its import name.
        extra: the extra of effvit-med that brings it.

    Raises:
        SettingsError: if it is not installed; it names the extra.
    """
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise SettingsError(f"Quantising needs {name}, which is not installed; install effvit-med[{extra}].")
    return import_without_telemetry(name)


@contextmanager
def quiet_nncf() -> Iterator[None]:
    """While it lasts, NNCF logs errors only and draws no bars; then both are as they were."""
    logger = logging.getLogger("nncf")
    console = import_optional("rich", "openvino").get_console()
    level, quiet = logger.level, console.quiet
    logger.setLevel(logging.ERROR)
    console.quiet = True
    try:
        yield
    finally:
        logger.setLevel(level)
        console.quiet = quiet
