"""Segmenting one volume: prepare, tile, run the network, blend, and label the scan's own grid."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import effvit_med
from effvit_med.engine.model import Model, read_model
from effvit_med.engine.scoring import Scoring, grid_stride, score_volume
from effvit_med.engine.settings import Settings
from effvit_med.engine.tiling import Tiling, padded_size
from effvit_med.errors import CancelledError, SettingsError
from effvit_med.networks import fold_batchnorm
from effvit_med.transforms import label_grid, prepare, strided_grid
from effvit_med.volume import Finding, Provenance, Segmentation, Step, Volume

Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""

Cancelled = Callable[[], bool]
"""Asked between tiles and slabs; True stops the run with CancelledError."""


def segment(
    volume: Volume,
    bundle: Path | str | None = None,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Segmentation:
    """The structures of a volume, on the volume's own grid.

    Args:
        volume: the scan.
        bundle: folder of the bundle to use; None for the one that comes with effvit-med.
        settings: what the user chose; None for the defaults.
        progress: called as progress(phase, done, total).
        cancelled: asked often; True stops the run.

    Returns:
        Labels of the shape of the volume, with the bundle's label table and the record of how they were made.

    Raises:
        InputError: if the folder is no bundle.
        SettingsError: if a setting is wrong or the device is not there.
        WeightsError: if the weights do not belong to the network.
        CancelledError: if ``cancelled`` said so.
    """
    return Segmenter(read_model(bundle), settings or Settings()).segment(volume, progress, cancelled)


class Segmenter:
    """A model loaded once, for any number of volumes.

    Args:
        model: what the bundle says.
        settings: what the user chose.

    Raises:
        SettingsError: if a setting is wrong or the device is not there.
        WeightsError: if the weights do not belong to the network.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.model = model
        self.settings = settings
        self.device = _choose_device(settings.device)
        network = fold_batchnorm(model.load_network())
        self._network = network.to(self.device)
        padded_size((1, 1, 1), model.tiling.window, grid_stride(network.output_stride))
        overlap = model.tiling.overlap if settings.overlap is None else settings.overlap
        self.scoring = Scoring(
            preprocess=model.preprocess,
            tiling=dataclasses.replace(model.tiling, overlap=overlap),
            stride=grid_stride(network.output_stride),
            batch_size=settings.batch_size,
        )

    def segment(
        self, volume: Volume, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Segmentation:
        """The structures of a volume, on the volume's own grid.

        Args:
            volume: the scan.
            progress: called as progress(phase, done, total).
            cancelled: asked often; True stops the run.

        Returns:
            Labels of the shape of the volume.

        Raises:
            CancelledError: if ``cancelled`` said so.
        """
        started = datetime.now(UTC).isoformat(timespec="seconds")
        report = _Reporter(progress, cancelled)
        steps: list[Step] = []
        with _timed(steps, "prepare") as detail:
            report("prepare", 0, 1)
            prepared = prepare(volume, self.model.preprocess)
            report("prepare", 1, 1)
            detail.update(grid=list(prepared.grid.shape), spacing_mm=list(prepared.grid.spacing_mm))
        with _timed(steps, "network") as detail:
            scoring = self.scoring
            scores = score_volume(prepared.values, self._predict, scoring, partial(report, "network"))
            detail.update(overlap=scoring.tiling.overlap, stride=list(scoring.stride))
        with _timed(steps, "label"):
            grid = strided_grid(prepared.grid, scoring.stride)
            labels = label_grid(scores, grid, volume.geometry, partial(report, "label"))
        array = self.model.values_of(labels.numpy())
        return Segmentation(array, volume.geometry, self.model.labels, self._provenance(volume, started, steps))

    @torch.inference_mode()
    def _predict(self, tiles: Tensor) -> Tensor:
        autocast = self.settings.precision == "bfloat16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=autocast):
            return self._network.logits(tiles.to(self.device))

    def _provenance(self, volume: Volume, started: str, steps: list[Step]) -> Provenance:
        findings = list(volume.source.findings) if volume.source else []
        if self.model.modalities and volume.modality and volume.modality not in self.model.modalities:
            known = ", ".join(self.model.modalities)
            message = f"The modality is {volume.modality}; {self.model.name} was trained on {known} only."
            findings.append(Finding("OTHER_MODALITY", message))
        unusual = _look_at_values(volume, self.model)
        if unusual:
            findings.append(unusual)
        return Provenance(
            bundle=self.model.name,
            bundle_version=self.model.version,
            weights_sha256=self.model.weights_sha256,
            settings={**self.settings.that_change_labels(), **describe_model(self.model, self.scoring.tiling)},
            versions=library_versions(),
            device=_describe_device(self.device),
            started=started,
            source=volume.source,
            steps=tuple(steps),
            findings=tuple(findings),
        )


def _look_at_values(volume: Volume, model: Model) -> Finding | None:
    """A finding if the values of a scan use less than a tenth of the range that the model looks at: no CT does."""
    intensity = model.preprocess.intensity
    if intensity.kind != "window":
        return None
    low, high = float(volume.array.min()), float(volume.array.max())
    seen = min(high, intensity.high) - max(low, intensity.low)
    if seen >= 0.1 * (intensity.high - intensity.low):
        return None
    message = (
        f"The values lie from {low:g} to {high:g}; {model.name} looks from {intensity.low:g} to {intensity.high:g}."
    )
    return Finding("UNUSUAL_VALUES", message)


def describe_model(model: Model, tiling: Tiling) -> dict[str, Any]:
    """The choices of a bundle that change the labels, as plain values for the record."""
    preprocess = dataclasses.asdict(model.preprocess)
    labels = model.labels.to_dicts()
    return {"network": model.network, "preprocess": preprocess, **dataclasses.asdict(tiling), "labels": labels}


def library_versions() -> dict[str, str]:
    """The versions of effvit-med and of what computes and writes for it."""
    names = ("torch", "numpy", "pydicom", "highdicom", "nibabel")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"effvit-med": effvit_med.__version__, "python": platform.python_version(), **versions}


class _Reporter:
    """Passes progress on and stops the run when asked to."""

    def __init__(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        self._progress = progress
        self._cancelled = cancelled

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._cancelled and self._cancelled():
            raise CancelledError(f"Stopped by the user during {phase} ({done} of {total}); nothing was written.")
        if self._progress:
            self._progress(phase, done, total)


@contextmanager
def _timed(steps: list[Step], name: str) -> Iterator[dict[str, Any]]:
    """Append a step with its wall time; the dictionary it yields becomes the step's detail."""
    detail: dict[str, Any] = {}
    start = time.perf_counter()
    yield detail
    steps.append(Step(name, time.perf_counter() - start, detail))


def _choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA, then Apple's MPS, then the processor."""
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


def _describe_device(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)
