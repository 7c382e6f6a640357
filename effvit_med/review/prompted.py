"""Corrections by a promptable network: what a prompt means in a whole scan, with features kept from click to click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.engine.devices import choose_device
from effvit_med.engine.prompting import Answerer, FeatureCache, PromptModel, Speaker, read_prompt_model
from effvit_med.engine.prompting.carrying import Carried, carry, cut_slice, find_deepest
from effvit_med.engine.prompting.views import Box, View
from effvit_med.engine.prompting.windows import find_window
from effvit_med.errors import SettingsError
from effvit_med.volume.prompts import Prompt
from effvit_med.volume.volume import Volume

FEWEST_SLICES = 8


@dataclass
class NetworkRefiner:
    """Answers prompts by a promptable network; see `effvit_med.review.refining.ScanRefiner`.

    It is loaded at the first prompt, and keeps the features of the scan that it was asked about last. Slices are
    looked at one by one where the scan has few, or the bundle no network for blocks.

    Attributes:
        bundle: as of `effvit_med.engine.prompting.read_prompt_model`.
        device: as of `effvit_med.engine.devices.choose_device`.
        memory_gb: of the features, at most.
    """

    bundle: PromptModel | Path | str | None = None
    device: str = "auto"
    memory_gb: float = 0.5
    _speakers: dict[int, Speaker] = field(default_factory=dict)
    _cache: FeatureCache | None = None
    _views: dict[tuple[int, int | None], list[View]] = field(default_factory=dict)
    _scan: Volume | None = None

    def refine_scan(
        self,
        volume: Volume,
        labels: npt.NDArray[np.unsignedinteger],
        prompts: Sequence[Prompt],
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[npt.NDArray[np.bool_], Box]:
        """The structure in a part of the scan after the newest prompt, and which part that is.

        Args:
            volume: the scan.
            labels: of the scan, as they are now.
            prompts: about one structure, oldest first, in indices of the scan.
            cancelled: asked now and then.

        Raises:
            InputError: if there is no such bundle.
            SettingsError: if the bundle has no network that suits the scan.
            WeightsError: if the weights are missing or do not belong to the network.
            CancelledError: if ``cancelled`` said so.
        """
        self._turn_to(volume)
        newest = prompts[-1]
        flat = self._flat(volume, newest)
        answerer = self._answerer(volume, prompts[0], 3 if flat is None else 2)
        known = self._views.setdefault((newest.value, flat), [])
        answer = answerer.answer(
            list(prompts), lambda box: np.asarray(labels[box] == newest.value), flat, cancelled, known=known
        )
        known.append(answer.view)
        return answer.mask, answer.box

    def carry_scan(
        self,
        volume: Volume,
        mask: npt.NDArray[np.bool_],
        prompts: Sequence[Prompt],
        place: tuple[int, int],
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Carried:
        """A structure looked for in the slices beside one; see `effvit_med.engine.prompting.carrying.carry`.

        Args:
            volume: the scan.
            mask: the structure in the slice to start from, with three axes, that across which it lies of length 1.
            prompts: about the structure, oldest first, in indices of the scan; there may be none.
            place: across which axis the slice lies, and its number.
            cancelled: asked before each slice.
            progress: told how far it came.

        Raises:
            InputError: if there is no such bundle.
            SettingsError: if the bundle has no network that sees slices, or nothing is in the slice.
            WeightsError: if the weights are missing or do not belong to the network.
            CancelledError: if ``cancelled`` said so.
        """
        axis, number = place
        if not mask.any():
            raise SettingsError(f"The structure has no voxel in slice {number}; go to a slice that shows it right.")
        self._turn_to(volume)
        first = prompts[0] if prompts else find_deepest(mask, number, axis, 1)
        before = partial(cut_slice, mask, axis)
        return carry(self._answerer(volume, first, 2), before, prompts, number, axis, None, cancelled, progress)

    def _turn_to(self, volume: Volume) -> None:
        """Forget what was kept of another scan."""
        if volume is not self._scan:
            self._scan, self._views = volume, {}
            self._cache = FeatureCache(int(self.memory_gb * 2**30))

    def _model(self) -> PromptModel:
        if not isinstance(self.bundle, PromptModel):
            self.bundle = read_prompt_model(self.bundle)
        return self.bundle

    def _flat(self, volume: Volume, newest: Prompt) -> int | None:
        """Across which axis slices are looked at: that of a box or lasso, else that of the scan; None for blocks."""
        model, axis = self._model(), volume.geometry.slice_axis
        few = volume.geometry.shape[axis] < FEWEST_SLICES
        if model.blocks is not None and not (few and model.slices is not None):
            return None
        return axis if newest.axis is None else newest.axis

    def _answerer(self, volume: Volume, first: Prompt, spatial_dims: int) -> Answerer:
        """How the structure of a prompt is looked at; only the features are kept from click to click."""
        if spatial_dims not in self._speakers:
            self._speakers[spatial_dims] = self._model().load(spatial_dims, choose_device(self.device))
        clip = find_window(volume, first, volume.geometry.slice_axis)
        return Answerer(volume.array, self._speakers[spatial_dims], self._cache or FeatureCache(), clip)
