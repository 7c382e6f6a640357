"""Training of a promptable network: it answers, a made-up reader corrects it, and it answers again."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from jaxtyping import Float
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.prompt import PromptNetwork, choose_best
from effvit_med.training.simulated_user import EXACT, Habits, point_at
from effvit_med.transforms.drawing import RADIUS_VOXELS, draw_prompts
from effvit_med.volume.prompts import Prompt


class Proposed(NamedTuple):
    """What a network proposed after each prompt.

    Attributes:
        logits: (batch, rounds, proposals, *space), above 0 inside.
        scores: (batch, rounds, proposals), logits of the Dice that each is expected to have.
    """

    logits: Tensor
    scores: Tensor


class PromptRounds(nn.Module):
    """Some rounds of prompt and answer over a batch whose objects are known.

    Args:
        network: what answers; its parameters are those of this module.
        rounds: prompts for each image.
        habits: of the reader while training; while validating it is `EXACT`.
        seed: of the reader.
        forget: how often the mask so far is kept from the network, so that it can think anew from all prompts.
        processes: readers that work side by side, for a GPU that would wait for one; 0 for none beside this process.
            What they point at does not depend on how many there are.

    Raises:
        SettingsError: if there is not at least one round, or a negative number of processes.
    """

    def __init__(
        self,
        network: PromptNetwork,
        rounds: int = 3,
        habits: Habits | None = None,
        seed: int = 0,
        processes: int = 0,
        forget: float = 0.2,
    ) -> None:
        super().__init__()
        if rounds < 1:
            raise SettingsError(f"rounds is {rounds}; give at least 1.")
        if processes < 0:
            raise SettingsError(f"processes is {processes}; give 0 for none beside this one, or more.")
        self.network = network
        self.rounds = rounds
        self.habits = habits or Habits()
        self.seed = seed
        self.processes = processes
        self.forget = forget
        self._calls = 0

    def start_epoch(self, epoch: int) -> None:
        """From now on the reader draws what it draws in this epoch, however often the run was started anew.

        Args:
            epoch: its number.
        """
        self._calls = epoch * 1_000_003

    def forward(self, batch: Float[Tensor, "batch channels *space"]) -> Proposed | Tensor:
        """What is proposed after each prompt; the next one is about what was judged the best.

        Args:
            batch: the image's channels, then the object and the mask so far, 0 and 1.

        Returns:
            While validating the best alone, (batch, rounds, *space).
        """
        image, truth, before = batch[:, :-2], batch[:, -2], batch[:, -1]
        moods = [self.seed, self._calls] if self.training else [self.seed]
        self._calls += 1
        habits = self.habits if self.training else EXACT
        features = self.network.encode(image)
        prompts: list[list[Prompt]] = [[] for _ in range(len(batch))]
        masks = (truth > 0.5).cpu().numpy()
        now = before
        answers, proposed, judged = [], [], []
        for number in range(self.rounds):
            seen = (now.detach() > 0.5).cpu().numpy()
            jobs = [
                (shown, wanted, habits, [*moods, number, sample])
                for sample, (shown, wanted) in enumerate(zip(seen, masks, strict=True))
            ]
            for mine, new in zip(prompts, self._point(jobs), strict=True):
                if new is not None:
                    mine.append(new)
            maps = [draw_maps(mine, tuple(truth.shape[1:])) for mine in prompts]
            drawn = torch.from_numpy(np.stack(maps)).to(image)
            told = now[:, None] * self._remembered([*moods, number], now)
            logits, scores = self.network.propose(features, torch.cat([drawn, told], dim=1))
            best = choose_best(logits, scores)[:, 0]
            now = best.detach().sigmoid()
            answers.append(best)
            proposed.append(logits)
            judged.append(scores)
        if not self.training:
            return torch.stack(answers, dim=1)
        return Proposed(torch.stack(proposed, dim=1), torch.stack(judged, dim=1))

    def _remembered(self, moods: list[int], now: Tensor) -> Tensor:
        """For each sample 1, or 0 where its mask is kept from the network."""
        kept = np.random.default_rng([*moods, 1]).uniform(size=len(now)) >= (self.forget if self.training else 0.0)
        return torch.from_numpy(kept).to(now).reshape(-1, *[1] * now.ndim)

    def _point(self, jobs: list[_Job]) -> list[Prompt | None]:
        """The next prompt of each sample."""
        if not self.processes:
            return [_point_one(job) for job in jobs]
        share = -(-len(jobs) // self.processes)
        return list(_start_readers(self.processes).map(_point_one, jobs, chunksize=share))


_Mask = np.ndarray[Any, np.dtype[np.bool_]]
_Job = tuple[_Mask, _Mask, Habits, list[int]]


def _point_one(job: _Job) -> Prompt | None:
    """What a reader with a generator of its own says to one sample."""
    seen, wanted, habits, seed = job
    return point_at(_three(seen), _three(wanted), habits, np.random.default_rng(seed))


@functools.cache
def _start_readers(count: int) -> ProcessPoolExecutor:
    """Processes without a copy of this one's memory: a GPU's state must not be forked."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def _three(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return mask[None] if mask.ndim == 2 else mask


def draw_maps(prompts: Sequence[Prompt], shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first three maps of `effvit_med.networks.prompt.PROMPT_CHANNELS`, without the axis of a single slice.

    Args:
        prompts: oldest first, in indices of three axes.
        shape: of the image, two or three axes.
    """
    wide = shape if len(shape) == 3 else (1, *shape)
    drawn = draw_prompts(prompts, wide, (RADIUS_VOXELS,) * 3)
    return drawn if len(shape) == 3 else drawn[:, 0]


class RoundsLoss(nn.Module):
    """Dice and some cross-entropy of every round's answer; of several proposals that of the best.

    The overlap decides: of a first click alone nobody knows how much is meant, and cross-entropy, where it counts as
    much, is least for an answer that believes a little in everything and in nothing by more than half. The judge
    learns which Dice each proposal has.

    Args:
        last: how many times the last round counts as much as the first; those between in proportion.
        entropy: what cross-entropy counts beside Dice.
        others: what the mean over all proposals counts beside the best, so that none is left behind.
        judged: what the loss of the judge counts.
    """

    def __init__(self, last: float = 2.0, entropy: float = 0.2, others: float = 0.1, judged: float = 2.0) -> None:
        super().__init__()
        self.last = last
        self.entropy = entropy
        self.others = others
        self.judged = judged
        self.dice = DiceLoss(sigmoid=True, reduction="none", smooth_nr=1.0, smooth_dr=1.0)

    def forward(self, proposed: Proposed, truth: Float[Tensor, "batch 1 *space"]) -> Float[Tensor, ""]:
        """The mean loss over the batch.

        Args:
            proposed: of `PromptRounds`.
            truth: the object, 0 and 1.
        """
        rounds, count = proposed.logits.shape[1:3]
        logits = proposed.logits.flatten(1, 2)
        wanted = truth.expand_as(logits)
        dice = self.dice(logits, wanted).flatten(2).mean(dim=2)
        entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").flatten(2).mean(dim=2)
        each = (dice + self.entropy * entropy).unflatten(1, (rounds, count))
        loss = each
        if count > 1:
            found = find_overlap(proposed.logits, truth)
            judged = functional.binary_cross_entropy_with_logits(proposed.scores.float(), found)
            judged = judged - (torch.special.entr(found) + torch.special.entr(1 - found)).mean()  # 0 for a right one
            loss = (each.amin(dim=2) + self.others * each.mean(dim=2) + self.judged * judged)[..., None] / (
                1 + self.others
            )
        weights = torch.linspace(1.0, self.last, rounds, device=logits.device)
        total: Tensor = (loss[..., 0] * weights / weights.sum()).sum(dim=1).mean()
        return total


def find_overlap(
    logits: Float[Tensor, "batch rounds proposals *space"], truth: Float[Tensor, "batch 1 *space"]
) -> Float[Tensor, "batch rounds proposals"]:
    """Dice of each proposal with the object.

    Args:
        logits: of proposals, above 0 inside.
        truth: the object, 0 and 1; not empty.
    """
    found = (logits.detach() > 0).flatten(3).float()
    wanted = truth[:, :, None].flatten(3).float()
    return 2 * (found * wanted).sum(dim=3) / (found.sum(dim=3) + wanted.sum(dim=3)).clamp(min=1)


def prepare_rounds(
    batchdata: dict[str, Tensor], device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """MONAI's ``prepare_batch`` for `PromptRounds`: image, object and mask so far go in, the object is the aim.

    Args:
        batchdata: with ``image``, ``truth`` and ``before``.
        device: where to.
        non_blocking: whether the copy may go on meanwhile.
        **kwargs: as MONAI passes them.
    """
    del kwargs
    parts = [batchdata[name].to(device=device, non_blocking=non_blocking) for name in ("image", "truth", "before")]
    return torch.cat(parts, dim=1), parts[1]


class ReaderEpoch:
    """A MONAI handler of the trainer that makes the reader of an epoch depend on its number alone.

    Args:
        rounds: what the trainer trains.
    """

    def __init__(self, rounds: PromptRounds) -> None:
        self.rounds = rounds

    def attach(self, engine: Engine) -> None:
        """Tell the reader as each epoch starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.rounds.start_epoch(engine.state.epoch))


def keep_last_round(output: dict[str, Any]) -> dict[str, Any]:
    """MONAI's ``postprocessing`` for the validation of `PromptRounds`: the mask after the last prompt of one sample.

    Args:
        output: with ``pred``, (rounds, *space) logits.
    """
    return {**output, "pred": (output["pred"][-1:] > 0).float()}
