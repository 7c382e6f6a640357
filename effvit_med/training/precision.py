"""The arithmetic of a training run, and what makes it repeatable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import set_determinism

from effvit_med.errors import SettingsError

_MODES = ("auto", "bfloat16", "float16", "off")


class MixedPrecision:
    """A MONAI handler of the trainer that chooses half precision where the device is good at it.

    bfloat16 needs no scaling of the loss; for float16 the loss is scaled, and the scale goes into checkpoints. On a
    processor everything stays in float32.

    Args:
        mode: ``auto`` (bfloat16 on a GPU that has it, else float16), ``bfloat16``, ``float16`` or ``off``; false and
            true stand for off and auto.
        device: where the network is.

    Attributes:
        enabled: whether there is half precision at all.
        autocast: what the trainer's and the evaluator's ``amp_kwargs`` are.

    Raises:
        SettingsError: if the mode is unknown.
    """

    def __init__(self, mode: str | bool, device: torch.device) -> None:
        name = {True: "auto", False: "off"}[mode] if isinstance(mode, bool) else mode
        if name not in _MODES:
            raise SettingsError(f"amp is {mode!r}; give one of {', '.join(_MODES)}.")
        self.enabled = name != "off" and device.type == "cuda"
        if name == "auto":
            name = "bfloat16" if self.enabled and torch.cuda.is_bf16_supported() else "float16"
        self.autocast: dict[str, Any] = {"dtype": getattr(torch, name)} if self.enabled else {}
        self._scaler = torch.GradScaler("cuda", enabled=self.enabled and name == "float16")

    def attach(self, engine: Engine) -> None:
        """Give the trainer its scaler when it starts."""
        if self.enabled:
            engine.add_event_handler(Events.STARTED, self._start)

    def state_dict(self) -> dict[str, Any]:
        """The scale; empty where nothing is scaled."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a scale.

        Args:
            state: what `state_dict` gave.
        """
        if state:
            self._scaler.load_state_dict(dict(state))

    def _start(self, engine: Any) -> None:
        engine.scaler = self._scaler


def fix_randomness(seed: int, *, deterministic: bool = True) -> None:
    """Seed everything; with ``deterministic`` two runs on the same machine give the same weights.

    Args:
        seed: for Python, numpy, torch and MONAI's transforms.
        deterministic: whether a GPU's convolutions must be repeatable too; else the fastest are searched for.
    """
    set_determinism(seed=seed)
    if not deterministic:
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = True
