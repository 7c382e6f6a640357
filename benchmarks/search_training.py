"""One short training run and what came of it: Dice on cases never trained on, and time on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from benchmarks.search_data import Case, SearchSet
from effvit_med.transforms import cut_mirrored


@dataclass(frozen=True)
class ShortRun:
    """How a candidate is trained: the same for all.

    Attributes:
        steps: optimizer steps.
        batch_size: patches a step.
        learning_rate: the highest of the one-cycle schedule.
        seed: of weights and samples.
    """

    steps: int = 600
    batch_size: int = 2
    learning_rate: float = 0.01
    seed: int = 0


def train_shortly(network: nn.Module, data: SearchSet, run: ShortRun) -> float:
    """Train a network in place.

    Args:
        network: with fresh weights.
        data: what to learn from.
        run: how.

    Returns:
        Processor seconds of the training.
    """
    generator = torch.Generator().manual_seed(run.seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=run.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=run.learning_rate, total_steps=run.steps + 1, pct_start=0.1
    )
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)
    network.train()
    started = time.process_time()
    for _ in range(run.steps):
        pairs = [_draw(data, generator) for _ in range(run.batch_size)]
        images, labels = (torch.stack(each) for each in zip(*pairs, strict=True))
        optimizer.zero_grad()
        loss(network(images), labels[:, None]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - started


def show_whole(image: Tensor, patch: Sequence[int]) -> Tensor:
    """A whole case as networks are shown it: mirrored at the far ends up to the size of a training patch.

    Args:
        image: (1, *space).
        patch: sizes along the spatial axes.
    """
    sizes = [max(wanted, have) for wanted, have in zip(patch, image.shape[1:], strict=True)]
    return cut_mirrored(image, [0] * len(sizes), sizes)


def mean_dice(network: nn.Module, cases: Sequence[Case], data: SearchSet) -> tuple[float, ...]:
    """The mean Dice of the structures of each case, every case seen whole.

    Args:
        network: trained.
        cases: images and labels.
        data: the set that they are of.
    """
    network.eval()
    found = []
    with torch.inference_mode():
        for image, label in cases:
            inside = tuple(slice(size) for size in label.shape)
            labels = network(show_whole(image, data.patch)[None]).argmax(1)[0][inside]
            shares = []
            for value in range(1, data.classes):
                a, b = labels == value, label == value
                if total := int(a.sum() + b.sum()):
                    shares.append(2 * int((a & b).sum()) / total)
            found.append(sum(shares) / len(shares))
    return tuple(found)


def _draw(data: SearchSet, generator: torch.Generator) -> Case:
    """A patch: in every second one a voxel of a structure is near its middle."""

    def number(below: int) -> int:
        return int(torch.randint(below, (1,), generator=generator))

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand(1, generator=generator))

    image, label = data.training[number(len(data.training))]
    sizes = [max(wanted, have) for wanted, have in zip(data.patch, label.shape, strict=True)]
    image, label = (cut_mirrored(part, [0] * len(sizes), sizes) for part in (image, label[None]))
    label = label[0]
    starts = [number(have - wanted + 1) for have, wanted in zip(label.shape, data.patch, strict=True)]
    if uniform(0, 1) < 0.5 and len(voxels := label.nonzero()):
        centre = voxels[number(len(voxels))].tolist()
        ends = [have - wanted for have, wanted in zip(label.shape, data.patch, strict=True)]
        starts = [
            min(max(0, place - wanted // 2), end) for place, wanted, end in zip(centre, data.patch, ends, strict=True)
        ]
    box = tuple(slice(start, start + size) for start, size in zip(starts, data.patch, strict=True))
    image, label = image[(slice(None), *box)], label[box]
    flips = [axis for axis in data.mirrored if uniform(0, 1) < 0.5]
    image, label = image.flip([axis + 1 for axis in flips]), label.flip(flips)
    image = image * uniform(0.85, 1.15) + uniform(-0.15, 0.15)
    noise: Tensor = torch.randn(image.shape, generator=generator)
    return image + uniform(0, 0.1) * noise, label
