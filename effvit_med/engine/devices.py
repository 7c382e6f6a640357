"""Where networks run, by the names that users give."""

from __future__ import annotations

import torch

from effvit_med.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA, then Apple's MPS, then the processor.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        SettingsError: if the name is unknown or there is no such device.

    Examples:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"The device {name!r} is unknown; use auto, cpu, cuda, cuda:N or mps.") from error
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(device.type, False) or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise SettingsError(f"The device {name!r} is not on this machine; use auto or cpu.")
    return device
