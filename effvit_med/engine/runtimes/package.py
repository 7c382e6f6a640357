"""Packages that only some runtimes need: found, imported, or named with what installs them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from effvit_med.errors import SettingsError

PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
    "tensorrt": ("tensorrt", "onnx", "onnxscript"),
}
"""What each runtime needs that effvit-med does not bring along."""

_OPT_OUT = {"CI": "true", "NNCF_CI": "1"}
"""What openvino_telemetry and NNCF look at when they are imported."""

_INSTALL = {
    "onnx": "effvit-med[onnx]",
    "openvino": "effvit-med[openvino]",
    "tensorrt": "tensorrt and effvit-med[onnx]",
}


def why_absent(runtime: str, packages: Sequence[str] | None = None) -> str:
    """A sentence that names the packages a runtime misses and what installs them; empty if all are there.

    Args:
        runtime: ``onnx``, ``openvino`` or ``tensorrt``.
        packages: the packages to look for; None for all that making and running a graph takes.
    """
    absent = [name for name in packages or PACKAGES[runtime] if importlib.util.find_spec(name) is None]
    if not absent:
        return ""
    return f"The runtime {runtime} needs {' and '.join(absent)}, which cannot be found; install {_INSTALL[runtime]}."


def load_package(name: str, runtime: str) -> Any:
    """An optional package, imported.

    Args:
        name: of the package.
        runtime: which runtime needs it.

    Raises:
        SettingsError: if it is not installed; the message says what installs it.
    """
    absent = why_absent(runtime, [name])
    if absent:
        raise SettingsError(absent)
    return import_without_telemetry(name)


def import_without_telemetry(name: str) -> Any:
    """A module, imported so that it sends nothing from this machine, now or later in this process.

    OpenVINO and NNCF decide while they are imported whether they report their use to their makers.

    Args:
        name: of the module.
    """
    before = {key: os.environ.get(key) for key in _OPT_OUT}
    os.environ.update(_OPT_OUT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package to its own developers
            return importlib.import_module(name)
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def package_versions(*names: str) -> dict[str, str]:
    """The versions of installed packages; one that is not installed is left out.

    Args:
        names: of packages.

    Examples:
        >>> list(package_versions("torch", "no-such-package"))
        ['torch']
    """
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def without_notes_on_torchvision() -> Iterator[None]:
    """A block in which torch's ONNX exporter does not log that it skips the operators of torchvision, not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_other(record: logging.LogRecord) -> bool:
        return "torchvision" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
