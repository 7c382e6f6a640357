"""What a training run keeps: its state after each epoch, and the best weights so far; each file whole."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver

from effvit_med.errors import InputError, SettingsError
from effvit_med.networks import SegmentationNetwork, load_weights, save_weights

log = logging.getLogger(__name__)

_PREFIX = "run"


class RunCheckpoint:
    """A MONAI handler that keeps network, optimizer and schedule after each epoch, and goes on from them.

    With `EpochSeed` the run goes on as if it had not been stopped. Beside the objects it is given it keeps the
    trainer's own state, which a YAML file cannot name in one of the trainer's handlers. A checkpoint is written beside
    the one before it and renamed, so that a run killed at any moment leaves one to go on from. It should come last of
    the handlers, to keep what the others did at the end of an epoch. Of several processes only the first writes.

    Args:
        save_dir: folder of the checkpoints.
        objects: what to keep, by name: network, optimizer, scheduler.
        resume: go on from the newest checkpoint in ``save_dir``.
        interval: epochs between checkpoints.
    """

    def __init__(self, save_dir: str, objects: Mapping[str, Any], *, resume: bool = False, interval: int = 1) -> None:
        self.save_dir = Path(save_dir)
        self.objects = dict(objects)
        self.resume = resume
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        """Save while the trainer runs, and load when it starts if asked to.

        Raises:
            InputError: if asked to go on and there is no checkpoint.
            SettingsError: when the run starts, if the checkpoint is of a run over another number of epochs.
        """
        everything = {**self.objects, "trainer": engine}
        if self.resume:
            newest = self._newest()
            engine.add_event_handler(Events.STARTED, lambda: _load(newest, everything))
        saver = DiskSaver(str(self.save_dir), atomic=True, create_dir=True, require_empty=False)
        checkpoint = Checkpoint(everything, saver, filename_prefix=_PREFIX, n_saved=2, global_step_transform=_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), checkpoint)

    def _newest(self) -> Path:
        found = sorted(self.save_dir.glob(f"{_PREFIX}_checkpoint_*.pt"), key=_epoch_of)
        if not found:
            raise InputError(f"There is no checkpoint to go on from in {self.save_dir}; leave out --resume true.")
        return found[-1]


class BestWeights:
    """A MONAI handler of an evaluator that keeps the weights with the best key metric, as a bundle takes them.

    Of several processes only the first writes.

    Args:
        network: whose weights.
        path: the safetensors file; it appears at the first validation.
        about: more to write into the file's metadata.
        resume: the file, if it is there, holds the best so far.
    """

    def __init__(
        self, network: SegmentationNetwork, path: str, about: Mapping[str, str] | None = None, *, resume: bool = False
    ) -> None:
        self.network = network
        self.path = Path(path)
        self.about = dict(about or {})
        self.best = float("-inf")
        if resume and self.path.exists():
            self.best = float(load_weights(network, self.path).get("key_metric", "-inf"))

    def attach(self, engine: Engine) -> None:
        """Look at the metric after each validation."""
        engine.add_event_handler(Events.COMPLETED, self._keep_if_best)

    def _keep_if_best(self, engine: Engine) -> None:
        state: Any = engine.state
        value = float(state.metrics[state.key_metric_name])
        if value > self.best:
            self.best = value
            if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_weights(self.network, self.path, {**self.about, "key_metric": f"{value:.6f}"})
            log.info("best so far: %s %.4f, kept in %s", state.key_metric_name, value, self.path)


def _epoch(engine: Engine, _: object) -> int:
    return int(engine.state.epoch)


def _epoch_of(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def _load(path: Path, objects: Mapping[str, Any]) -> None:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    planned, found = objects["trainer"].state.max_epochs, checkpoint["trainer"]["max_epochs"]
    if planned != found:
        raise SettingsError(
            f"{path} belongs to a run over {found} epochs, not {planned}: the learning rate follows the whole run. "
            f"Go on with --epochs {found}."
        )
    log.info("going on from %s", path)
    Checkpoint.load_objects(to_load=objects, checkpoint=checkpoint)
