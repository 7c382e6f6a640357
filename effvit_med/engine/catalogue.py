"""Every model there is, with what it costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from effvit_med.errors import SettingsError
from effvit_med.networks import FAMILY_OF, Family, build_network, create_backbone, create_sam, fold_batchnorm
from effvit_med.networks.cost import build_empty, count_flops, count_parameters
from effvit_med.networks.presets import refuse_unknown
from effvit_med.networks.presets.sam import SAMS

#: The image and the volume that every model is measured on.
SIZES: dict[int, tuple[int, ...]] = {2: (512, 512), 3: (96, 96, 96)}

#: A call longer than this is timed once, without a call before it to warm up.
_LONG_S = 2.0


@dataclass(frozen=True)
class ModelCost:
    """What one model costs on images or on volumes.

    Attributes:
        name: the name it is built by.
        family: the family it belongs to.
        spatial_dims: 2 or 3.
        size: of the image or volume that was counted and timed.
        parameters: of the backbone, or of the whole SAM.
        flops: of the backbone's maps, or of SAM's image encoder, two for each product.
        backbone_s: seconds for the backbone's maps, or for SAM's embedding; None where not timed.
        segmenter_s: seconds for logits of 7 classes at full size with our decoder; None where not timed or, as SAM,
            without it.
        layouts: the checkpoint layouts that load.
        source: the paper.
    """

    name: str
    family: str
    spatial_dims: int
    size: tuple[int, ...]
    parameters: int
    flops: int
    backbone_s: float | None
    segmenter_s: float | None
    layouts: tuple[str, ...]
    source: str


def model_names() -> tuple[str, ...]:
    """The names of all models: every backbone, then every SAM."""
    return (*FAMILY_OF, *SAMS)


def measure_models(
    names: Sequence[str] = (), spatial_dims: Sequence[int] = (2, 3), *, timed: bool = True
) -> Iterator[ModelCost]:
    """What each model costs, one after the other as they are measured.

    Inputs have one channel and weights are random. Seconds are wall time with batch normalisation folded, the shortest
    of three calls, or the only one where it takes long; other work on this machine lengthens them.

    Args:
        names: the models, or words that their names begin with; all where empty.
        spatial_dims: 2 for a 512 x 512 image, 3 for a 96 x 96 x 96 volume.
        timed: whether to run the models; counting alone takes no memory for weights.

    Raises:
        SettingsError: if a name is that of no model, or spatial_dims is neither 2 nor 3.

    Examples:
        >>> [(cost.name, cost.parameters) for cost in measure_models(["efficientvit_b0"], timed=False)]
        [('efficientvit_b0', 682464), ('efficientvit_b0', 837696)]
    """
    chosen = _choose(names)
    wrong = [dims for dims in spatial_dims if dims not in SIZES]
    if wrong:
        raise SettingsError(f"spatial_dims is {wrong[0]}; a network has 2 (images) or 3 (volumes) spatial axes.")
    for name in chosen:
        for dims in (2, 3):
            if dims in spatial_dims and (dims == 2 or name not in SAMS):
                yield _measure_sam(name, timed) if name in SAMS else _measure(FAMILY_OF[name], name, dims, timed)


def _choose(names: Sequence[str]) -> list[str]:
    every = model_names()
    for wanted in names:
        if not any(name.startswith(wanted) for name in every):
            raise refuse_unknown("model", wanted, every)
    return [name for name in every if not names or any(name.startswith(wanted) for wanted in names)]


def _measure(family: Family, name: str, spatial_dims: int, timed: bool) -> ModelCost:
    size = SIZES[spatial_dims]
    build = partial(create_backbone, name, spatial_dims, in_channels=1)
    empty = build_empty(build)  # type: ignore[arg-type]  # every backbone is a module
    seconds: list[float | None] = [None, None]
    if timed:
        network = fold_batchnorm(build_network(spatial_dims, 1, 7, name))
        image = torch.randn(1, 1, *size)
        seconds = [_seconds(network.backbone.features, image), _seconds(network, image)]
    return ModelCost(
        name=name,
        family=family.name,
        spatial_dims=spatial_dims,
        size=size,
        parameters=count_parameters(empty),
        flops=count_flops(empty, (1, 1, *size)),
        backbone_s=seconds[0],
        segmenter_s=seconds[1],
        layouts=family.layouts,
        source=family.source,
    )


def _measure_sam(name: str, timed: bool) -> ModelCost:
    size = SIZES[2]
    empty = build_empty(partial(create_sam, name, in_channels=1))
    seconds = None
    if timed:
        encoder: nn.Module = fold_batchnorm(create_sam(name, in_channels=1)).image_encoder
        seconds = _seconds(encoder, torch.randn(1, 1, *size))
    return ModelCost(
        name=name,
        family="EfficientViT-SAM",
        spatial_dims=2,
        size=size,
        parameters=count_parameters(empty),
        flops=count_flops(empty.get_submodule("image_encoder"), (1, 1, *size)),
        backbone_s=seconds,
        segmenter_s=None,
        layouts=("mit",),
        source="Zhang et al., CVPR 2024 workshop, arXiv 2402.05008",
    )


def _seconds(call: Callable[[torch.Tensor], object], image: torch.Tensor) -> float:
    taken: list[float] = []
    with torch.inference_mode():
        while len(taken) < 3 and (not taken or taken[0] < _LONG_S):
            start = time.perf_counter()
            call(image)
            taken.append(time.perf_counter() - start)
    return min(taken)
