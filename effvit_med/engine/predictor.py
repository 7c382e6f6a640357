"""A model ready to run: its networks, one for each fold, on a device, in a runtime, for windows of any size."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

import effvit_med
from effvit_med.engine.contract import is_exported, read_contract
from effvit_med.engine.export import open_exported
from effvit_med.engine.memory import NetworkMemory, network_memory
from effvit_med.engine.model import Model
from effvit_med.engine.runtimes import (
    Choice,
    Runtime,
    RuntimeName,
    RuntimeRequest,
    available_runtimes,
    cache_folder,
    choose_runtime,
    open_runtime,
)
from effvit_med.engine.scoring import Predict, grid_stride
from effvit_med.engine.settings import Settings
from effvit_med.engine.tiling import Size, fit_window
from effvit_med.errors import OutputError, SettingsError
from effvit_med.io.atomic import write_json
from effvit_med.networks import SegmentationNetwork, fold_batchnorm


class Predictor:
    """A model's networks, loaded once.

    Args:
        model: what the bundle says.
        settings: what the user chose.
        device: where the networks run.

    Attributes:
        stride: grid voxels per voxel of the networks' output, along the three axes of the grid.
        choice: what ``auto`` measured, once a runtime was opened that way; else None.

    Raises:
        SettingsError: if a setting is wrong.
        WeightsError: if the weights do not belong to the network.
    """

    def __init__(self, model: Model, settings: Settings, device: torch.device) -> None:
        self.model, self.device = model, device
        self._settings = settings
        self._exported = model.weights.parent if is_exported(model.weights.parent) else None
        contract = read_contract(self._exported) if self._exported else None
        if contract and settings.runtime not in ("auto", "eager", contract.runtime):
            raise SettingsError(
                f"The runtime is {settings.runtime}; {self._exported} was exported for {contract.runtime}."
            )
        if contract and settings.precision not in ("float32", contract.precision):
            made = contract.precision
            raise SettingsError(
                f"The precision is {settings.precision}; {self._exported} was exported in {made}. Leave it out, or "
                "export it anew."
            )
        self._files = [file.sha256 for file in contract.files] if contract else []
        paths = (None,) if self._exported else model.folds
        self._networks = [_network(model, path) for path in paths]
        self.stride = grid_stride(self._networks[0].output_stride)
        self.choice: Choice | None = None
        self._opened: dict[tuple[tuple[int, ...], int, str], list[Runtime]] = {}
        self._memory: dict[tuple[int, ...], NetworkMemory] = {}

    @property
    def classes(self) -> int:
        """How many classes the networks tell apart, background included."""
        return self._networks[0].out_channels

    @property
    def smallest_window(self) -> Size:
        """What windows must not fall below along each axis of the grid; the window itself where it cannot change."""
        window = self.model.tiling.window
        if self._exported:
            return window
        deepest = grid_stride(tuple(int(step) for step in self._networks[0].backbone.strides[-1]))
        a, b, c = (min(size, max(step, own)) for size, step, own in zip(window, deepest, self.stride, strict=True))
        return (1 if self.model.preprocess.spatial_dims == 2 else a), b, c

    def fit_window(self, shape: Size) -> Size:
        """The window for a grid: of a 2D network no larger than the grid needs, since it takes images of any size.

        Args:
            shape: of the grid.
        """
        window = self.model.tiling.window
        return fit_window(window, shape, self.smallest_window) if self.model.preprocess.spatial_dims == 2 else window

    def open(self, window: Size, batch_size: int, device: torch.device | None = None) -> Predict:
        """The mean of the networks' logits on tiles.

        Tiles of another size than the window open the runtime anew for that size, once.

        Args:
            window: of the grid.
            batch_size: windows that go through together.
            device: another than that of the settings.

        Raises:
            SettingsError: if the runtime is not installed, or cannot run on the device or in the precision.
            WeightsError: if an exported file is damaged.
        """
        device = device or self.device
        dims = self.model.preprocess.spatial_dims
        tiles = batch_size * (window[0] if dims == 2 else 1)
        self._runtimes(window[-dims:], tiles, device)  # what cannot be opened is said now

        def predict(values: Tensor) -> Tensor:
            runtimes = self._runtimes(tuple(values.shape[2:]), tiles, device)
            total = runtimes[0].predict(values)
            for runtime in runtimes[1:]:
                total = total + runtime.predict(values)
            return total / len(runtimes) if len(runtimes) > 1 else total

        return predict

    def describe(self) -> dict[str, object]:
        """What ran, for the record."""
        described: dict[str, object] = {"folds": len(self._networks)}
        if self._opened:  # the last, since a plan may have moved the network to another device
            described |= next(reversed(self._opened.values()))[0].describe()
        if self.choice:
            described["measured_s"] = {name: round(value, 4) for name, value in self.choice.seconds.items()}
        return described

    def decisive(self) -> dict[str, object]:
        """What of it changes labels: the runtime and the arithmetic that ran, and the files of an exported model."""
        described = self.describe()
        found: dict[str, object] = {name: described[name] for name in ("runtime", "precision")}
        return {**found, "exported_sha256": self._files} if self._files else found

    def memory(self, tile_shape: tuple[int, ...]) -> NetworkMemory:
        """What a call needs with tiles of (batch, channels, *window); the weights are those of all folds."""
        if tile_shape not in self._memory:
            found = self._known_memory(tile_shape)
            self._memory[tile_shape] = replace(found, weights_bytes=found.weights_bytes * len(self._networks))
        return self._memory[tile_shape]

    def _known_memory(self, tile_shape: tuple[int, ...]) -> NetworkMemory:
        """What one network needs: from the cache of this machine, since finding it takes a second, or found anew."""
        about = [self.model.network, tile_shape, self._settings.precision, self.device.type, torch.__version__]
        name = hashlib.sha256(json.dumps([effvit_med.__version__, *about], default=str).encode()).hexdigest()
        try:
            path = cache_folder("memory") / f"{name[:40]}.json"
        except OutputError:  # a cache is a comfort, not a need
            return network_memory(self._networks[0], tile_shape, self._settings.precision)
        try:
            return NetworkMemory(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            found = network_memory(self._networks[0], tile_shape, self._settings.precision)
        with contextlib.suppress(OutputError):
            write_json(path, asdict(replace(found, tracing_bytes=0)))  # what finding it out took is taken once
        return found

    def _runtimes(self, window: tuple[int, ...], tiles: int, device: torch.device) -> list[Runtime]:
        key = (window, tiles, str(device))
        if key not in self._opened:
            self._opened[key] = self._open(window, tiles, device)
        return self._opened[key]

    def _open(self, window: tuple[int, ...], tiles: int, device: torch.device) -> list[Runtime]:
        if self._exported:
            # its file has an arithmetic of its own
            slices = self.model.tiling.window[0] if self.model.preprocess.spatial_dims == 2 else 1
            return [open_exported(self._exported, device, self._settings.threads, batch_size=max(1, tiles // slices))]
        requests = [
            RuntimeRequest(network, device, self._settings.precision, window, tiles, self._key(path))
            for network, path in zip(self._networks, self.model.folds, strict=True)
        ]
        return [open_runtime(self._choose(requests[0]), request) for request in requests]

    def _choose(self, request: RuntimeRequest) -> RuntimeName:
        """The runtime of the settings; on another device than theirs, where memory is short, eager if need be."""
        name = self._settings.runtime
        if name != "auto":
            usable = request.device == self.device or not available_runtimes(request.device)[name]
            return name if usable else "eager"
        if request.device != self.device:
            return "eager"
        self.choice = self.choice or choose_runtime(request)
        return self.choice.name

    def _key(self, weights: Path) -> str:
        network = json.dumps(self.model.network, sort_keys=True, default=str)
        return hashlib.sha256(weights.read_bytes() + network.encode()).hexdigest()


def _network(model: Model, weights: Path | None) -> SegmentationNetwork:
    """A network for inference; without weights, for its shape only."""
    if weights is None:
        return model.build_network().eval()
    return fold_batchnorm(model.load_network(weights))
