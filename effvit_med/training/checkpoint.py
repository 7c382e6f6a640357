"""Checkpoints from which an interrupted training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.handlers import CheckpointSaver

from effvit_med.errors import InputError

log = logging.getLogger(__name__)

_PREFIX = "run"


class RunCheckpoint:
    """A MONAI handler that keeps the whole state of a run after each epoch, and goes on from it.

    Beside the objects it is given it keeps the trainer's own state, which a YAML file cannot name in one of the
    trainer's handlers.

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
        """
        everything = {**self.objects, "trainer": engine}
        if self.resume:
            newest = self._newest()
            engine.add_event_handler(Events.STARTED, lambda: _load(newest, everything))
        CheckpointSaver(
            save_dir=str(self.save_dir),
            save_dict=everything,
            file_prefix=_PREFIX,
            save_interval=self.interval,
            n_saved=1,
            epoch_level=True,
        ).attach(engine)

    def _newest(self) -> Path:
        found = sorted(self.save_dir.glob(f"{_PREFIX}_checkpoint_*.pt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise InputError(f"There is no checkpoint to go on from in {self.save_dir}; leave out --resume true.")
        return found[-1]


def _load(path: Path, objects: Mapping[str, Any]) -> None:
    log.info("going on from %s", path)
    Checkpoint.load_objects(to_load=objects, checkpoint=torch.load(path, map_location="cpu", weights_only=True))
