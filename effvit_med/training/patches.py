"""The patches that a network learns from, fixed by a seed: which case, where, and how it is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset

from effvit_med.errors import SettingsError


class SeededPatches(Dataset[Any]):
    """Random patches of prepared cases; the same seed, epoch and index give the same patch.

    So it does not matter how often a run was started anew, in how many processes patches are made, or how many machines
    share the work. The cases come in an order that is drawn anew each time all had their turn. Processes may make
    patches side by side, threads of one process may not.

    Args:
        cases: prepared cases, one mapping each.
        transform: makes one patch of a case; all its randomness must be MONAI's.
        patches_per_epoch: how many there are in an epoch.
        seed: decides everything that is random.

    Raises:
        SettingsError: if there is no case, or no patch is asked for.
    """

    def __init__(self, cases: Sequence[Any], transform: Compose, patches_per_epoch: int, seed: int = 0) -> None:
        if not len(cases) or patches_per_epoch < 1:
            raise SettingsError(
                f"There are {len(cases)} cases and {patches_per_epoch} patches per epoch; give at least one of each."
            )
        self.cases = cases
        self.transform = transform
        self.patches_per_epoch = patches_per_epoch
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # so that worker processes see it change

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 1; 0 before the first."""
        return int(self._epoch)

    def start_epoch(self, epoch: int) -> None:
        """From now on, give the patches of this epoch.

        Args:
            epoch: its number.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """How many patches there are in an epoch."""
        return self.patches_per_epoch

    def __getitem__(self, index: int) -> Any:
        """One patch.

        Args:
            index: its number in the epoch.
        """
        if not 0 <= index < self.patches_per_epoch:
            raise IndexError(index)
        draws = np.random.RandomState(self._draw(1, self.epoch, index).generate_state(1)[0])
        _share(self.transform, draws)
        tracked = get_track_meta()
        set_track_meta(False)  # nobody asks a patch where it came from, and telling takes a third of the time
        try:
            patch: Any = self.transform(dict(self.cases[self._case_of(index)]))
        finally:
            set_track_meta(tracked)
        return patch[0] if isinstance(patch, list) else patch

    def _case_of(self, index: int) -> int:
        turn, place = divmod(max(0, self.epoch - 1) * self.patches_per_epoch + index, len(self.cases))
        return int(np.random.default_rng(self._draw(0, turn)).permutation(len(self.cases))[place])

    def _draw(self, *numbers: int) -> np.random.SeedSequence:
        return np.random.SeedSequence([self.seed, *numbers])


def _share(transform: Any, draws: np.random.RandomState) -> None:
    """Let all transforms draw from one generator: MONAI's own way makes dozens of them for each patch."""
    if isinstance(transform, Compose):
        transform.R = draws
        for each in transform.transforms:
            _share(each, draws)
    elif isinstance(transform, Randomizable):
        transform.set_random_state(state=draws)


class EpochSeed:
    """A MONAI handler of the trainer that makes all randomness of an epoch depend on the seed and its number alone.

    Args:
        patches: what the trainer learns from.
        seed: decides what torch draws, such as for dropout.
    """

    def __init__(self, patches: SeededPatches, seed: int = 0) -> None:
        self.patches = patches
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Set the seeds as each epoch starts."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        self.patches.start_epoch(engine.state.epoch)
        torch.manual_seed(self.seed + engine.state.epoch)
