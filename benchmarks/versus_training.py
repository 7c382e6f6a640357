"""Training one network within its budget, in a process of its own; an interrupted run goes on from its checkpoint."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.engine_process import peak_mib, reset_peak
from benchmarks.versus_models import Adapter, Contender, build_adapter, find_contender
from benchmarks.versus_prediction import keep_scores, score_prepared, watch_dice
from benchmarks.versus_recipe import (
    CLIPPED_NORM,
    EMA_DECAY,
    WEIGHT_DECAY,
    Plateau,
    Sampler,
    fit_learning_rate,
    make_loss,
)
from benchmarks.versus_runs import Run, RunFolder, read_request
from benchmarks.versus_sets import PreparedCase, describe_split, prepare_cases
from effvit_med.io.atomic import atomic_path
from effvit_med.networks.cost import count_parameters

LOOKS = {False: 12, True: 60}
"""How often the watched cases are looked at within the budget, and within the limit of a run to convergence."""

SAVE_EVERY_S = 60.0


@dataclass
class Training:
    """A network while it learns.

    Attributes:
        run: which.
        contender: its row.
        network: what learns.
        average: the moving average of its weights, which is scored.
        optimizer: AdamW.
        plateau: says when a run to convergence ends.
        step: how many steps are done.
        spent_s: what they took: of the processor, or on a GPU of the clock.
        curve: pairs of seconds and watched Dice.
        peak: most memory of the process in MiB.
    """

    run: Run
    contender: Contender
    network: Adapter
    average: Adapter
    optimizer: torch.optim.Optimizer
    plateau: Plateau
    step: int = 0
    spent_s: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)
    peak: float = 0.0

    @classmethod
    def begin(cls, run: Run) -> Training:
        """A new one with random weights of the run's seed."""
        torch.manual_seed(run.seed)
        contender = find_contender(run.model)
        network = build_adapter(contender, run.labelled).to(run.device)
        average = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
        optimizer = torch.optim.AdamW(network.parameters(), contender.learning_rate, weight_decay=WEIGHT_DECAY)
        return cls(run, contender, network, average, optimizer, Plateau(run.minutes * 60))

    @property
    def learning_rate(self) -> float:
        """The share of the largest; 0 when training is over."""
        if self.run.converge:
            return self.plateau.learning_rate(self.spent_s)
        return fit_learning_rate(self.spent_s / (self.run.minutes * 60))

    @property
    def next_look_s(self) -> float:
        """When the watched cases are looked at next."""
        return len(self.curve) * self.run.minutes * 60 / LOOKS[self.run.converge]

    def learn(self, sampler: Sampler, loss: nn.Module, rate: float) -> None:
        """One step; its time is counted, with that of drawing the crops."""
        start = read_clock(self.run.device)
        image, label = (tensor.to(self.run.device) for tensor in sampler.draw())
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.contender.learning_rate
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss(self.network(image), label).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIPPED_NORM)
        self.optimizer.step()
        self.step += 1
        update_average(self.average, self.network, self.step)
        self.spent_s += read_clock(self.run.device) - start

    def look(self, cases: list[PreparedCase]) -> None:
        """Add a point to the curve; its time is not counted."""
        with torch.inference_mode():
            dice = watch_dice(self.run.labelled, self.predict, cases)
        self.curve.append((self.spent_s, dice))
        self.plateau.look(dice, self.spent_s)

    def predict(self, x: Tensor) -> Tensor:
        """Logits of the averaged weights, on the processor."""
        logits: Tensor = self.average(x.to(self.run.device))
        return logits.cpu()

    def save(self, path: Path) -> None:
        """Write the checkpoint; the file appears whole."""
        plain = {name: getattr(self, name) for name in ("step", "spent_s", "curve")}
        modules = {name: getattr(self, name).state_dict() for name in ("network", "average", "optimizer")}
        content = {**plain, **modules, "plateau": asdict(self.plateau), "peak": max(self.peak, peak_mib())}
        with atomic_path(path) as temporary:
            torch.save(content, temporary)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not path.exists():
            return
        content = torch.load(path, map_location=self.run.device, weights_only=False)
        for name in ("network", "average", "optimizer"):
            getattr(self, name).load_state_dict(content[name])
        for name in ("step", "spent_s", "curve", "peak"):
            setattr(self, name, content[name])
        self.plateau = Plateau(**content["plateau"])


def read_clock(device: str) -> float:
    """Seconds of this process's processor, or of the clock where a GPU works."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, step: int) -> None:
    """Move an average of weights and buffers towards the network's; early on it follows closely.

    Args:
        average: is changed.
        network: of the same layers.
        step: how many steps the network has made.
    """
    share = 1 - min(EMA_DECAY, (1 + step) / (10 + step))
    current = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], share)
        else:
            value.copy_(current[name])


def train_run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Train, score the test cases, and keep weights and result in the run's folder.

    Args:
        request: of `RunFolder.request`.
    """
    folder = read_request(request)
    run, split = folder.run, folder.split
    folder.path.mkdir(parents=True, exist_ok=True)
    checkpoint = folder.path / "checkpoint.pt"
    train, watched, test = (prepare_cases(run.labelled, part, folder.cache) for part in vars(split).values())
    sampler = Sampler(run.labelled, train, run.seed)
    training = Training.begin(run)
    training.load(checkpoint)
    sampler.restart(training.step)
    reset_peak()
    train_on(training, sampler, watched, folder)
    training.save(checkpoint)
    with atomic_path(folder.path / "weights.pt") as temporary:
        torch.save(training.average.state_dict(), temporary)
    with torch.inference_mode():
        scores = {case.name: score_prepared(run.labelled, training.predict, case) for case in test}
    result = {
        "scores": keep_scores(scores),
        "split": describe_split(split),
        "steps": training.step,
        "epochs": training.step * run.labelled.batch / len(train),
        "spent_s": training.spent_s,
        "curve": training.curve,
        "parameters": count_parameters(training.network),
        "learning_rate": training.contender.learning_rate,
        "train_peak_mib": training.peak,
        "hit_limit": training.plateau.hit_limit,
    }
    folder.write("result.json", result)
    checkpoint.unlink()
    return {}


def train_on(training: Training, sampler: Sampler, watched: list[PreparedCase], folder: RunFolder) -> None:
    """Step until the learning rate has fallen to nothing.

    Args:
        training: is changed.
        sampler: gives the crops.
        watched: cases of the curve.
        folder: takes checkpoints.
    """
    loss, saved = make_loss(), time.monotonic()
    while True:
        if training.spent_s >= training.next_look_s:
            training.look(watched)
            folder.write("progress.json", {"steps": training.step, "curve": training.curve})
        rate = training.learning_rate
        if rate <= 0:
            break
        training.learn(sampler, loss, rate)
        if time.monotonic() - saved > SAVE_EVERY_S:
            training.save(folder.path / "checkpoint.pt")
            saved = time.monotonic()
    training.peak = max(training.peak, peak_mib())
    if not training.curve or training.curve[-1][0] < training.spent_s:
        training.look(watched)
