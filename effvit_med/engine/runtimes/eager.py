"""Torch as it comes: channels last, batch normalisations folded, half precision by autocast."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.package import package_versions
from effvit_med.engine.runtimes.request import PRECISIONS, RuntimeRequest


class EagerRuntime:
    """The network itself.

    Args:
        request: the network and how it is to be run.
    """

    name = "eager"

    def __init__(self, request: RuntimeRequest) -> None:
        self.precision = request.precision
        self._device = request.device
        away = request.device.type != "cpu"
        self._network = copy.deepcopy(request.network).to(request.device) if away else request.network

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the request."""
        half = self.precision != "float32"
        with torch.autocast(self._device.type, dtype=PRECISIONS[self.precision] if half else None, enabled=half):
            return self._network.logits(tiles.to(self._device)).float()

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "device": str(self._device),
            **package_versions("torch"),
        }
