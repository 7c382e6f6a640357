"""A sitting with a promptable network: prompts in, structures out, with undo, a log, and the same result every time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from effvit_med.engine.devices import choose_device
from effvit_med.engine.prompting.answering import Answer, Answerer, Cancelled, FeatureCache
from effvit_med.engine.prompting.carrying import StopRule, carry
from effvit_med.engine.prompting.log import Event, read_log, read_names, write_log
from effvit_med.engine.prompting.merging import Before, find_change
from effvit_med.engine.prompting.model import PromptModel, read_prompt_model
from effvit_med.engine.prompting.speaking import Speaker
from effvit_med.engine.prompting.steps import Done, StructureState
from effvit_med.engine.prompting.views import View
from effvit_med.engine.prompting.windows import find_window
from effvit_med.engine.record import library_versions
from effvit_med.errors import CancelledError, GeometryError, SettingsError
from effvit_med.volume import Geometry, Label, LabelTable, Provenance, Segmentation, Step, Volume
from effvit_med.volume.changes import LabelArray, VoxelChange
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from effvit_med.volume.prompts import Prompt

FEWEST_SLICES = 8
"""A volume with fewer slices than these is looked at slice by slice."""

SAME_PLACE_MM = 0.1
"""How far the voxels of a scan and of labels to start from may lie apart."""

Progress = Callable[[str, int, int], None]


class PromptSession:
    """Structures of a scan, made and corrected by prompts.

    All calls may come from any thread; `predict` runs one at a time, and `cancel` ends it from another thread.

    Args:
        volume: the scan.
        bundle: as of `read_prompt_model`, or what that gives.
        start: labels to be corrected, on the scan's grid, such as an automatic result; none if left out.
        locked: values of structures of ``start`` that must not lose voxels to others.
        spatial_dims: 2 to look at slices, 3 at blocks; by default blocks where the bundle has a network for them and
            the scan has enough slices.
        axis: across which slices are looked at; by default that of the scan's slices.
        device: as of `choose_device`.
        memory_gb: of the cached features, at most.

    Raises:
        SettingsError: if the bundle has no such network, or a setting is wrong.
        InputError: if there is no such bundle.
        WeightsError: if the weights are missing or do not belong to the network.
        GeometryError: if ``start`` does not lie on the scan's grid.
    """

    def __init__(
        self,
        volume: Volume,
        bundle: PromptModel | Path | str | None = None,
        *,
        start: Segmentation | None = None,
        locked: Sequence[int] = (),
        spatial_dims: int | None = None,
        axis: int | None = None,
        device: str = "auto",
        memory_gb: float = 0.5,
    ) -> None:
        if start is not None:
            _check_grid(start.geometry, volume.geometry)
        self.model = bundle if isinstance(bundle, PromptModel) else read_prompt_model(bundle)
        self.volume = volume
        self.axis = volume.geometry.slice_axis if axis is None else axis
        self.spatial_dims = spatial_dims or self._usual_dims()
        self.device = choose_device(device)
        self._speaker: Speaker = self.model.load(self.spatial_dims, self.device)
        self._cache = FeatureCache(int(memory_gb * 2**30))
        self._labels: LabelArray = np.zeros(volume.geometry.shape, np.uint8)
        if start is not None:
            self._labels = start.labels.copy(order="C")
        self._table = {label.value: label for label in start.table} if start else {}
        self._locked = frozenset(locked)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._done: list[Done] = []
        self._undone: list[Done] = []
        self._log: list[Event] = []
        self._state = threading.RLock()
        self._asking = threading.Lock()
        self._cancelled = threading.Event()

    def _usual_dims(self) -> int:
        enough = self.volume.geometry.shape[self.axis] >= FEWEST_SLICES
        return 3 if self.model.blocks is not None and (enough or self.model.slices is None) else 2

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that was done, also what was undone."""
        with self._state:
            return tuple(self._log)

    @property
    def structures(self) -> dict[int, StructureState]:
        """The structures by their values."""
        with self._state:
            counts = np.bincount(self._labels.reshape(-1), minlength=max(self._table, default=0) + 1)
            found = {}
            for value, label in sorted(self._table.items()):
                mine = [done for done in self._done if done.event.prompt and done.event.prompt.value == value]
                prompts = tuple(done.event.prompt for done in mine if done.event.prompt)
                waiting = sum(done.change is None for done in mine)
                found[value] = StructureState(label, prompts, waiting, int(counts[value]))
            return found

    def name(self, label: Label) -> None:
        """Say what a structure is; structures that nobody names are called ``structure_N``.

        Args:
            label: with the value that prompts have.
        """
        with self._state:
            self._table[label.value] = label

    def add(self, prompt: Prompt) -> None:
        """Take a prompt; it is answered by the next `predict`. What was undone before cannot be redone any more.

        Args:
            prompt: in indices of the scan.

        Raises:
            GeometryError: if it begins outside the scan.
            SettingsError: if its structure is locked, the value is above 255, or it is a box or lasso across another
                axis than that of the slices that the session looks at.
        """
        shape = self.volume.geometry.shape
        if not all(-0.5 <= at <= size - 0.5 for at, size in zip(prompt.index[0], shape, strict=True)):
            raise GeometryError(
                f"A prompt begins at {[round(at, 1) for at in prompt.index[0]]}, outside the scan of {shape} voxels."
            )
        if prompt.value in self._locked:
            raise SettingsError(f"Structure {prompt.value} is locked, so it cannot be corrected.")
        if prompt.value > np.iinfo(self._labels.dtype).max:
            raise SettingsError(f"The value {prompt.value} does not fit labels of type {self._labels.dtype}.")
        if self.spatial_dims == 2 and prompt.axis not in (None, self.axis):
            raise SettingsError(
                f"A {prompt.kind} lies across axis {prompt.axis}, and this session looks at slices across axis "
                f"{self.axis}. Give axis={prompt.axis} for a session that does."
            )
        self._take(Event("prompt", prompt), prompt.value)

    def carry(self, value: int, start: int | None = None, rule: StopRule | None = None) -> None:
        """Look for a structure in the slices beside one; it is done by the next `predict`.

        Args:
            value: of the structure.
            start: number of the slice; by default that of the newest prompt about the structure.
            rule: when to stop.

        Raises:
            SettingsError: if the session looks at blocks, or the structure has no prompt.
            GeometryError: if there is no such slice.
        """
        if self.spatial_dims != 2:
            raise SettingsError("This session looks at blocks, whose answers are volumes; only slices are carried.")
        prompts = self._prompts(value)
        if start is None and not prompts:
            raise SettingsError(f"Structure {value} has no prompt, so nobody knows from which slice to carry it.")
        number = round(prompts[-1].index[0][self.axis]) if start is None else start
        if not 0 <= number < (slices := self.volume.geometry.shape[self.axis]):
            raise GeometryError(f"There is no slice {number} to carry from; the scan has 0 to {slices - 1}.")
        detail = {"start": number, **(rule or StopRule()).to_dict()}
        self._take(Event("carry", value=value, detail=detail), value)

    def _take(self, event: Event, value: int) -> None:
        with self._state:
            self._table.setdefault(value, Label(value, f"structure_{value}", ANATOMICAL_STRUCTURE))
            self._done.append(Done(event))
            self._undone.clear()
            self._log.append(event)

    def undo(self) -> bool:
        """Take the last prompt or carrying back, answered or not; False if there is none."""
        with self._asking, self._state:
            if not self._done:
                return False
            done = self._done.pop()
            if done.change is not None:
                done.change.revert(self._labels)
            self._undone.append(done)
            self._log.append(Event("undo"))
            return True

    def redo(self) -> bool:
        """Do again what was undone last, voxel for voxel; False if there is nothing."""
        with self._asking, self._state:
            if not self._undone:
                return False
            done = self._undone.pop()
            if done.change is not None:
                done.change.apply(self._labels)
            self._done.append(done)
            self._log.append(Event("redo"))
            return True

    def cancel(self) -> None:
        """End a `predict` that runs in another thread; prompts that it has not answered stay and wait."""
        self._cancelled.set()

    @property
    def labels(self) -> LabelArray:
        """The labels as they are now, not to be written; they change with the next answer."""
        view = self._labels.view()
        view.flags.writeable = False
        return view

    def answer(self, progress: Progress | None = None) -> None:
        """Answer the prompts that wait, in order; `labels` has the result, without the cost of a `Segmentation`.

        Args:
            progress: told ``prompts``, how many are answered, and how many there were to answer; while a structure is
                carried also ``slices``, how many are done, and how many there could be.

        Raises:
            CancelledError: if `cancel` was called meanwhile; what was answered before stands.
        """
        with self._asking:
            self._cancelled.clear()
            waiting = [done for done in self._done if done.change is None]
            for number, done in enumerate(waiting):
                if progress:
                    progress("prompts", number, len(waiting))
                self._answer(done, progress)
            if progress and waiting:
                progress("prompts", len(waiting), len(waiting))

    def predict(self, progress: Progress | None = None) -> Segmentation:
        """The structures after all prompts; those that wait are answered first (`answer`).

        Args:
            progress: as of `answer`.

        Raises:
            CancelledError: if `cancel` was called meanwhile; what was answered before stands.
        """
        self.answer(progress)
        return self._result()

    def _answer(self, done: Done, progress: Progress | None) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        event = done.event
        value = event.prompt.value if event.prompt else int(event.value or 0)
        before: Before = lambda box: self._labels[box] == value  # noqa: E731
        flat = self.axis if self.spatial_dims == 2 else None
        cancelled: Cancelled = self._cancelled.is_set
        if event.prompt:
            prompts = [*self._prompts(value, until=done), event.prompt]
            known = self._views(value, until=done)
            answer = self._answerer(prompts).answer(prompts, before, flat, cancelled, known=known)
            answers: list[Answer] = [answer]
            view: View | None = answer.view
            detail: dict[str, Any] = {**answer.to_dict(), "kind": event.prompt.kind, "adds": event.prompt.adds}
        else:
            rule = StopRule(**{name: event.detail[name] for name in StopRule().to_dict()})
            prompts = self._prompts(value, until=done)
            start = event.detail["start"]
            found = carry(self._answerer(prompts), before, prompts, start, self.axis, rule, cancelled, progress)
            answers, view = list(found.answers.values()), None
            detail = {"slices": len(answers), "ended": {str(way): list(end) for way, end in found.ended.items()}}
        nothing = np.zeros(0, np.int64), np.zeros(0, self._labels.dtype)
        asked = (find_change(self._labels, each.mask, each.box, value, self._locked) for each in answers)
        changes = [nothing, *asked]
        places, after = (np.concatenate(parts) for parts in zip(*changes, strict=True))
        with self._state:
            if self._cancelled.is_set():
                raise CancelledError("The answer to a prompt was cancelled; nothing has changed.")
            done.change = VoxelChange.of(self._labels, places, after)
            done.change.apply(self._labels)
            done.view = view
            seconds, used = time.perf_counter() - began, time.process_time() - cpu
            label = self._table[value].name
            done.step = Step(f"answer {event.kind}", seconds, {"structure": label, **detail}, used)

    def _about(self, value: int, until: Done | None) -> list[Done]:
        """What stands of the prompts about a structure; all that came before one, where that is given."""
        with self._state:
            before = itertools.takewhile(lambda done: done is not until, self._done)
            return [done for done in before if done.event.prompt and done.event.prompt.value == value]

    def _prompts(self, value: int, until: Done | None = None) -> list[Prompt]:
        return [done.event.prompt for done in self._about(value, until) if done.event.prompt]

    def _views(self, value: int, until: Done) -> list[View]:
        """Not what the cache holds, so that a log leads to the same views whatever was forgotten or undone between."""
        return [done.view for done in self._about(value, until) if done.view]

    def _answerer(self, prompts: Sequence[Prompt]) -> Answerer:
        """How a structure is looked at: of a CT through a window about what the first prompt that stands points at."""
        clip = find_window(self.volume, prompts[0], self.axis) if prompts else None
        return Answerer(self.volume.array, self._speaker, self._cache, clip)

    def _windows(self) -> dict[str, tuple[float, float]]:
        """The windows of the structures, by their values."""
        found = {str(value): self._answerer(self._prompts(value)).clip for value in sorted(self._table)}
        return {value: clip for value, clip in found.items() if clip}

    def _result(self) -> Segmentation:
        with self._state:
            table = LabelTable(tuple(label for _, label in sorted(self._table.items())))
            steps = tuple(done.step for done in self._done if done.step is not None)
            provenance = Provenance(
                bundle=self.model.name,
                bundle_version=self.model.version,
                weights_sha256=self.model.weights_sha256(self.spatial_dims),
                settings={
                    "spatial_dims": self.spatial_dims,
                    "axis": self.axis,
                    "clip": self._windows(),
                    "events": [done.event.to_dict() for done in self._done],
                },
                versions=library_versions(),
                device=str(self.device),
                started=self._started,
                source=self.volume.source,
                steps=steps,
                findings=self.volume.source.findings if self.volume.source else (),
            )
            return Segmentation(self._labels.copy(), self.volume.geometry, table, provenance)

    def save_log(self, path: Path) -> None:
        """Write everything that was done; `replay` does it again.

        Args:
            path: a JSON file.

        Raises:
            OutputError: if it cannot be written.
        """
        with self._state:
            names = {str(value): label.to_dict() for value, label in sorted(self._table.items())}
            about = {"bundle": self.model.name, "spatial_dims": self.spatial_dims, "axis": self.axis, "labels": names}
            write_log(path, self._log, about)

    def replay(self, events: Sequence[Event] | Path, progress: Progress | None = None) -> Segmentation:
        """Do what a log says, in order, on what is there; the same log gives the same labels.

        Args:
            events: of a session, perhaps with another bundle, or the file of `save_log`.
            progress: told how many events are done.

        Raises:
            InputError: if the file is no log.
            GeometryError: if a prompt lies outside the scan.
            CancelledError: if `cancel` was called meanwhile.
        """
        if isinstance(events, Path):
            events, about = read_log(events, self.volume.geometry)
            for label in read_names(about):
                self.name(label)
        self.answer()
        for number, event in enumerate(events):
            if event.kind == "prompt" and event.prompt:
                self.add(event.prompt)
            elif event.kind == "carry" and event.value is not None:
                rule = StopRule(**{name: event.detail[name] for name in StopRule().to_dict() if name in event.detail})
                self.carry(event.value, event.detail.get("start"), rule)
            elif event.kind == "undo":
                self.undo()
            else:
                self.redo()
            self.answer(progress if event.kind == "carry" else None)
            if progress:
                progress("events", number + 1, len(events))
        return self._result()


def _check_grid(labels: Geometry, scan: Geometry) -> None:
    if labels.shape != scan.shape:
        raise GeometryError(f"The labels to start from have shape {labels.shape}, the scan {scan.shape}.")
    if (distance_mm := labels.max_distance_mm(scan)) > SAME_PLACE_MM:
        raise GeometryError(f"The labels to start from lie up to {distance_mm:.2f} mm from the scan's voxels.")
