"""The engine's tiling as a MONAI inferer: 2D, 2.5D and 3D networks over whole volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from effvit_med.engine.model import Model
from effvit_med.engine.scoring import Scoring, grid_stride, score_volume


class VolumeInferer(Inferer):  # type: ignore[misc]  # MONAI is not typed
    """Run a network over a batch of prepared volumes, as the engine does.

    Args:
        model: the bundle's model: its tiling and its kind of slices.
        batch_size: windows that go through together.
        overlap: overlap of windows; the model's own if None.
        full_size: interpolate the scores to the size of the input, where the network's output is coarser.
    """

    def __init__(
        self, model: Model, batch_size: int = 1, overlap: float | None = None, *, full_size: bool = False
    ) -> None:
        super().__init__()
        self.full_size = full_size
        stride = grid_stride(model.build_network().output_stride)
        tiling = model.tiling
        if overlap is not None:
            tiling = type(tiling)(tiling.window, overlap)
        self.scoring = Scoring(model.preprocess, tiling, stride, batch_size)

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Scores of (batch, channels, g0, g1, g2) volumes at the network's output stride, or at full size."""
        device = inputs.device
        logits = getattr(network, "logits", network)

        def predict(tiles: Tensor) -> Tensor:
            return logits(tiles.to(device), *args, **kwargs).float()  # of half precision under autocast

        volumes = torch.as_tensor(inputs).cpu()
        scores = torch.stack([score_volume(volume, predict, self.scoring) for volume in volumes])
        if self.full_size and scores.shape[2:] != volumes.shape[2:]:
            factors = tuple(float(step) for step in self.scoring.stride)
            whole = torch.nn.functional.interpolate(scores, scale_factor=factors, mode="trilinear")
            scores = whole[:, :, : volumes.shape[2], : volumes.shape[3], : volumes.shape[4]]
        return scores.to(device)
