"""Small temporary bundles to measure on: B0 in 3D for any number of classes, with organ-like or with random answers.

How long labels take depends on what they look like. So there are two kinds. In a *structured* bundle the backbone and
the decoder carry the trained weights of the shipped bundle, and only the last 1x1x1 convolution is fitted, by
multinomial regression, to phantoms whose organs are cut into as many parts as there are classes. The parts are clusters
of the decoder's own features, because a linear layer can tell those apart. The labels are compact regions with the
usual share of border; what they are called means nothing, and no accuracy is claimed. In a *random* bundle all weights
are random, and the last layer is set to the mean and deviation of its input, so that all classes compete everywhere
(an untrained network left as it is would mark nearly everything as one class): far more border than any user's case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor, nn

from effvit_med.engine import read_model
from effvit_med.networks import SegmentationNetwork, build_network, save_weights
from effvit_med.training.phantom import make_case
from effvit_med.transforms import scale_intensity

GRID_MM = 1.5
COUNT = (1, 3, 3)
"""Windows of each phantom for the fit along each axis."""

FITTED_ON = (7001, 7002)
"""Seeds of the phantoms for the fit; none is measured on."""

MARGIN = 4.0
"""How far apart, on average, the two best logits are made."""


@dataclass(frozen=True)
class Kind:
    """What a temporary bundle is.

    Attributes:
        classes: how many, background included.
        stride: of the decoder: 1, 2 or 4.
        structured: organ-like answers; else random weights.
        window: voxels of a window along each axis.
    """

    classes: int
    stride: int = 4
    structured: bool = True
    window: int = 96

    @property
    def name(self) -> str:
        """Such as ``structured-14-stride4``."""
        return f"{'structured' if self.structured else 'random'}-{self.classes}-stride{self.stride}"


def write_bundle(folder: Path, kind: Kind, fitted_on: Sequence[int] = FITTED_ON) -> Path:
    """A bundle's folder with ``configs/model.yaml`` and weights.

    Args:
        folder: where to; the bundle becomes a folder in it.
        kind: what it is.
        fitted_on: seeds of phantoms for a structured one.

    Returns:
        The bundle's folder; one that is there is left as it is.
    """
    bundle = folder / kind.name
    if (bundle / "configs" / "model.yaml").exists():
        return bundle
    shipped = read_model()
    settings = {**shipped.network, "out_channels": kind.classes, "decoder_stride": kind.stride}
    torch.manual_seed(0)
    network = build_network(**settings).eval()
    if kind.structured:
        take_shared_weights(network, shipped.load_network())
    fit_last_layer(network, kind, fitted_on)
    intensity = shipped.preprocess.intensity
    content = {
        "name": kind.name,
        "version": "0",
        "description": "For measuring time and memory only.",
        "modalities": ["CT"],
        "weights": "models/weights.safetensors",
        "network": settings,
        "preprocess": {
            "spacing_mm": [GRID_MM] * 3,
            "orientation": "SPL",
            "intensity": {"kind": intensity.kind, "low": intensity.low, "high": intensity.high},
            "spatial_dims": 3,
            "neighbours": 0,
        },
        "tiling": {"window": [kind.window] * 3, "overlap": 0.5},
        "labels": [_row(value) for value in range(1, kind.classes)],
    }
    for part in ("configs", "models"):
        (bundle / part).mkdir(parents=True, exist_ok=True)
    save_weights(network, bundle / "models" / "weights.safetensors")
    (bundle / "configs" / "model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return bundle


def _row(value: int) -> dict[str, object]:
    colour = [(value * step) % 256 for step in (67, 113, 181)]
    return {"value": value, "name": f"part_{value}", "type": ["91723000", "SCT", f"Part {value}"], "colour": colour}


def take_shared_weights(network: SegmentationNetwork, trained: SegmentationNetwork) -> None:
    """Give a network every trained weight of the layers that both have; the last layer stays as it is.

    Args:
        network: takes them.
        trained: same backbone and decoder, of any stride and number of classes.
    """
    own, theirs = network.state_dict(), trained.state_dict()
    shared = {name: value for name, value in theirs.items() if name in own and not name.startswith("head.classify")}
    network.load_state_dict({**own, **shared})


@torch.no_grad()
def fit_last_layer(network: SegmentationNetwork, kind: Kind, seeds: Sequence[int]) -> None:
    """Set the last 1x1x1 convolution.

    Args:
        network: its other weights stay.
        kind: fitted to parts of organs if structured; else random directions of the scaled features.
        seeds: of the phantoms that it looks at.
    """
    pairs = [_sample(network, kind.window, seed) for seed in seeds]
    features = torch.cat([pair[0] for pair in pairs])
    organs = torch.cat([pair[1] for pair in pairs])
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    scaled = (features - mean) / deviation
    if kind.structured:
        weight, bias = _regress(scaled, cut_into_parts(scaled, organs, network.out_channels), network.out_channels)
    else:
        weight = torch.randn(network.out_channels, features.shape[1], generator=torch.Generator().manual_seed(2))
        weight, bias = nn.functional.normalize(weight), torch.zeros(network.out_channels)
    best = (scaled @ weight.T + bias).topk(2, dim=1).values
    gain = MARGIN / float((best[:, 0] - best[:, 1]).mean())
    weight, bias = gain * weight, gain * bias
    layers = network.get_submodule("head.classify").modules()
    last = next(module for module in layers if isinstance(module, nn.Conv3d))
    last.weight.copy_((weight / deviation)[:, :, None, None, None])
    if last.bias is not None:  # it always has one
        last.bias.copy_(bias - (weight / deviation) @ mean)


def _sample(network: SegmentationNetwork, window: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features of the voxels of one phantom, (n, channels), and where they lie: 0 air, 1 body, 2 and more an organ."""
    values, place = _render(seed, window)
    found: list[Tensor] = []
    last = network.get_submodule("head.classify")
    hook = last.register_forward_pre_hook(lambda _module, inputs: found.append(inputs[0][0].flatten(1).T))
    places = []
    step = network.output_stride
    for start in np.ndindex(*COUNT):
        box = tuple(slice(i * window, (i + 1) * window) for i in start)
        network.logits(values[box][None, None])
        middle = tuple(slice(each // 2, None, each) for each in step)
        places.append(torch.from_numpy(place[box][middle].copy()).flatten())
    hook.remove()
    return torch.cat(found), torch.cat(places)


@lru_cache(maxsize=2)
def _render(seed: int, window: int) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """The scaled values of a phantom, and 0 for air, 1 for the body, 2 and more for organs."""
    shape = (window * COUNT[0], window * COUNT[1], window * COUNT[2])
    phantom = make_case(seed, spacing_mm=(GRID_MM, GRID_MM, GRID_MM), shape=shape)
    values = scale_intensity(torch.from_numpy(phantom.hu).float(), read_model().preprocess.intensity)
    return values, np.where(phantom.labels > 0, phantom.labels.astype(np.int64) + 1, phantom.hu > -300)


def cut_into_parts(features: Tensor, places: Tensor, classes: int) -> Tensor:
    """A class for each voxel: 0 is background; organs, and with many classes the rest of the body too, are cut up.

    Args:
        features: (n, channels), scaled.
        places: 0 for air, 1 for the body, 2 and more for organs.
        classes: how many, background included.

    Returns:
        (n,) numbers from 0 to classes - 1.
    """
    parts = torch.zeros(len(places), dtype=torch.long)
    regions = [places > 1]
    if classes > 20:  # such as the tables that name muscles, ribs and vessels
        regions.append(places == 1)
    left = classes - 1
    for index, region in enumerate(regions):
        count = left if index == len(regions) - 1 else left // 2
        parts[region] = classes - left + _cluster(features[region], count)
        left -= count
    return parts


def _cluster(points: Tensor, count: int, rounds: int = 12) -> Tensor:
    """Nearest of ``count`` means (Lloyd), from points that are drawn with a fixed seed."""
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    few = points[drawn[: 200 * count]]
    means = few[:count].clone()
    for _ in range(rounds):
        nearest = torch.cdist(few, means).argmin(1)
        sums = torch.zeros_like(means).index_add_(0, nearest, few)
        counts = torch.bincount(nearest, minlength=count).clamp_min(1)
        means = sums / counts[:, None]
    return torch.cdist(points, means).argmin(1)


def _regress(features: Tensor, classes: Tensor, count: int, samples: int = 60_000) -> tuple[Tensor, Tensor]:
    """Weight (classes, channels) and bias of a multinomial regression."""
    drawn = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))[:samples]
    x, y = features[drawn], classes[drawn]
    with torch.enable_grad():
        layer = nn.Linear(x.shape[1], count)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=60, history_size=8, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = nn.functional.cross_entropy(layer(x), y) + 1e-4 * layer.weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return layer.weight.detach(), layer.bias.detach()
