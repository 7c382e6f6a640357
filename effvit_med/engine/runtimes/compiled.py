"""Torch compiled: one native program, made for the window and the batch when the runtime is opened."""

from __future__ import annotations

import copy
import importlib.util
import os
import shutil
import sys
import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.graph import LogitsOf
from effvit_med.engine.runtimes.package import package_versions
from effvit_med.engine.runtimes.request import PRECISIONS, RuntimeRequest, split_batch
from effvit_med.errors import SettingsError


def why_not_compiled(device: torch.device) -> str:
    """A sentence that says why torch cannot compile for a device; empty if it can.

    Args:
        device: where the network shall run.
    """
    if device.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "The runtime compile needs triton, which cannot be found."
    if device.type != "cpu":
        return f"The runtime compile knows cpu and cuda; the device is {device}."
    names = ["cl"] if sys.platform == "win32" else ["g++", "clang++", "c++"]
    if any(shutil.which(name) for name in [os.environ.get("CXX", ""), *names] if name):
        return ""
    return f"The runtime compile needs a C++ compiler on a processor ({', '.join(names)}), and there is none."


class CompiledRuntime:
    """The network made into native code by ``torch.compile``; making it takes up to some minutes.

    Batches that are not full run tile by tile, so that there is no more than one other program to make.

    Args:
        request: the network and how it is to be run.

    Raises:
        SettingsError: if there is no compiler, or torch cannot compile the network.
    """

    name = "compile"

    def __init__(self, request: RuntimeRequest) -> None:
        why = why_not_compiled(request.device)
        if why:
            raise SettingsError(why)
        self.precision = request.precision
        self._device = request.device
        self._batch_size = request.batch_size
        away = request.device.type != "cpu"
        network = copy.deepcopy(request.network).to(request.device) if away else request.network
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch to its own developers, while it compiles
                self._logits = torch.compile(LogitsOf(network).eval(), dynamic=False)
                for count in {1, request.batch_size}:
                    self.predict(torch.zeros(count, network.in_channels, *request.window))
        except RuntimeError as error:
            raise SettingsError(
                f"torch cannot compile this network here: {error}. Use the runtime eager or openvino."
            ) from error

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the request."""
        half = self.precision != "float32"
        with torch.autocast(self._device.type, dtype=PRECISIONS[self.precision] if half else None, enabled=half):
            parts = [self._logits(part.to(self._device)).float() for _, part in split_batch(tiles, self._batch_size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "device": str(self._device),
            **package_versions("torch", "triton"),
        }
