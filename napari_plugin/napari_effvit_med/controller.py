"""What the panel does: reads, segments, shows. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effvit_med.errors import EffvitError, InputError
from effvit_med.volume import Segmentation, Volume
from effvit_med.volume.measurements import Measurement
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame, LayerRecord, foreign_grid, record_of
from napari_effvit_med.reading import LayerData, as_labels_layer, as_volume_layer, frame_of
from napari_effvit_med.state import Countdown, ModelCard, ScanRow, describe_seconds, read_card, rows_of
from napari_effvit_med.tasks import Event, Failed, Finished, Progressed, Reporter, Task, Work

Starter = Callable[[Task], Task]

_PHASES = {
    "look": "looking at files",
    "open": "opening the scan",
    "load": "loading the model",
    "prepare": "preparing the scan",
    "region": "looking for the body",
    "network": "segmenting",
}


@dataclass(frozen=True, eq=False)
class Result:
    """What a run made.

    Attributes:
        volume: the scan.
        segmentation: its structures.
        rows: the measurements.
        name: of the layer that was segmented.
        layer: its labels as napari takes them, made in the task, so that the window does not wait.
    """

    volume: Volume
    segmentation: Segmentation
    rows: tuple[Measurement, ...]
    name: str
    layer: LayerData


class Controller:
    """The panel without its looks; every method is called from the thread of the window.

    Args:
        viewer: napari's viewer, or its model.
        start: how a task is begun; `Task.run_here` for scripts.

    Attributes:
        rows: the scans of the input that was looked at.
        card: the model that will be used.
        device: where it will run.
        message: the last thing to say.
        is_error: whether that is bad news.
        fraction: how far the running task is, 0 to 1; None if that is not known.
        result: of the last run.
        on_change: called after anything changed.
    """

    def __init__(self, viewer: Any, start: Starter = Task.start) -> None:
        self.viewer = viewer
        self.rows: tuple[ScanRow, ...] = ()
        self.card: ModelCard = read_card()
        self.device = "auto"
        self.message, self.is_error = "", False
        self.fraction: float | None = None
        self.result: Result | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._start = start
        self._task: Task | None = None
        self._then: Callable[[Any], None] = lambda _: None
        self._countdown = Countdown()
        self._source: Path | None = None
        self._segmenters: dict[tuple[Path | None, str], Any] = {}

    @property
    def running(self) -> str:
        """What is running; empty if nothing is."""
        return self._task.name if self._task else ""

    def look(self, path: Path) -> None:
        """List the scans of a folder or file.

        Args:
            path: where to look.
        """

        def work(report: Reporter) -> Any:
            from effvit_med.io.inspection import inspect_input

            return inspect_input(path, on_file=lambda number: report("look", number, 0))

        def show(entries: Any) -> None:
            self._source, self.rows = path, rows_of(entries)
            count = sum(row.can_open for row in self.rows)
            self._say(f"{count} scan{'' if count == 1 else 's'} in {path.name}" if self.rows else "There is no scan.")

        self._begin("Looking", work, show)

    def open_scan(self, row: ScanRow) -> None:
        """Open a scan of the list as a layer.

        Args:
            row: one of ``rows``.
        """
        source = self._source
        if source is None or not row.can_open:
            self._say(row.details or "This cannot be opened.", error=True)
            return

        frame = frame_of(self.viewer.layers)

        def work(report: Reporter) -> tuple[Volume, LayerData]:
            from effvit_med.io import open_input, read_case

            report("open", 0, 0)
            with open_input(source) as found:
                for case in found.cases:
                    if case.case_id == row.case_id:
                        volume = read_case(case)
                        report("open", 0, 0)
                        return volume, as_volume_layer(volume, frame)
            raise InputError(f"{row.case_id} is not in {source.name} any more; look again.")

        self._begin("Opening", work, lambda made: self._add_volume(*made))

    def show_volume(self, volume: Volume) -> None:
        """Show a scan as an image layer, in the frame of what is shown already.

        Args:
            volume: the scan.
        """
        self._add_volume(volume, as_volume_layer(volume, frame_of(self.viewer.layers)))

    def _add_volume(self, volume: Volume, made: LayerData) -> None:
        data, arguments, _ = made
        self.viewer.add_image(data, **arguments)
        remarks = arguments["metadata"][METADATA_KEY].grid.remarks()
        findings = [finding.message for finding in volume.source.findings] if volume.source else []
        self._say("\n".join([*remarks, *findings]) or "Opened.")

    def image_layers(self) -> tuple[Any, ...]:
        """The layers that can be segmented: images of three axes that are not colour pictures."""
        return tuple(
            layer
            for layer in self.viewer.layers
            if type(layer).__name__ == "Image" and layer.ndim == 3 and not layer.rgb and not layer.multiscale
        )

    def choose_model(self, folder: Path | None) -> bool:
        """Take the model of another bundle.

        Args:
            folder: of the bundle; None for the one that comes with effvit-med.

        Returns:
            Whether that is a bundle; else the old one stays, and the message says why.
        """
        try:
            self.card = read_card(folder)
        except EffvitError as error:
            self._say(str(error), error=True)
            return False
        self._say(f"{self.card.name} {self.card.version}")
        return True

    def segment(self, layer: Any) -> None:
        """Segment the scan of an image layer; the result becomes a labels layer on the scan's own grid.

        Args:
            layer: one of `image_layers`.
        """
        try:
            volume = volume_of(layer)
        except EffvitError as error:
            self._say(str(error), error=True)
            return
        card, device, name = self.card, self.device, str(layer.name)
        record = record_of(layer.metadata)
        frame = record.grid.frame if record else DisplayFrame()
        looks = {} if record else {"units": layer.units, "axis_labels": layer.axis_labels}

        def work(report: Reporter) -> Result:
            from effvit_med.volume.measurements import measure

            segmenter = self._segmenter(card, device, report)
            segmentation = segmenter.segment(volume, report, report.cancelled)
            rows = measure(volume, segmentation)
            data, arguments, kind = as_labels_layer(segmentation, frame, f"{name} structures", volume)
            return Result(volume, segmentation, rows, name, (data, {**arguments, **looks}, kind))

        self._countdown = Countdown()
        self._begin("Segmenting", work, self._show_result)

    def stop(self) -> None:
        """Ask the running task to stop; it does within one window."""
        if self._task:
            self._task.stop()
            self._say("Stopping ...")

    def poll(self) -> None:
        """Take in what the running task reported; the window calls this many times a second."""
        task = self._task
        if task is None:
            return
        for event in task.poll():
            if task is not self._task:
                return  # what an older task says is of no use any more
            self._take(event)

    def close(self) -> None:
        """Stop what is running and forget about it."""
        if self._task:
            self._task.stop()
        self._task = None
        self.on_change = lambda: None

    def _begin(self, name: str, work: Work, then: Callable[[Any], None]) -> None:
        if self._task:
            self._say(f"{self._task.name} is not finished yet; stop it first.", error=True)
            return
        self._then, self.fraction = then, None
        self._say(f"{name} ...")
        self._task = Task(name, work)
        self._start(self._task)
        self.on_change()

    def _take(self, event: Event) -> None:
        if isinstance(event, Progressed):
            left = self._countdown.update(event.phase, event.done, event.total, time.monotonic())
            self.fraction = event.done / event.total if event.total else None
            words = _PHASES.get(event.phase, event.phase)
            seconds = describe_seconds(left)
            self._say(f"{words}, {seconds}" if seconds else words)
            return
        self._task, self.fraction = None, None
        if isinstance(event, Failed):
            self._say(event.message, error=not event.cancelled)
        elif isinstance(event, Finished):
            try:
                self._then(event.value)
            except EffvitError as error:
                self._say(str(error), error=True)

    def _show_result(self, result: Result) -> None:
        data, arguments, _ = result.layer
        self.viewer.add_labels(data, **arguments)
        self.result = result
        found = sum(row.voxels is not None for row in result.rows)
        doubt = self.card.doubt(result.volume.modality)
        device = result.segmentation.provenance.device
        said = [f"{found} of {len(result.rows)} structures found on {device}.", doubt]
        said += [finding.message for finding in result.segmentation.provenance.findings]
        self._say("\n".join(line for line in dict.fromkeys(said) if line), error=bool(doubt))

    def _segmenter(self, card: ModelCard, device: str, report: Reporter) -> Any:
        """The model, loaded once; runs in the thread of the task."""
        key = (card.folder, device)
        if key not in self._segmenters:
            report("load", 0, 0)
            from effvit_med.engine import Segmenter, Settings, open_model

            self._segmenters.clear()  # one model in memory
            self._segmenters[key] = Segmenter(open_model(card.folder), Settings.from_values(device=device))
        return self._segmenters[key]

    def _say(self, message: str, *, error: bool = False) -> None:
        self.message, self.is_error = message, error
        self.on_change()


def volume_of(layer: Any) -> Volume:
    """The scan of an image layer, on its own grid.

    Args:
        layer: of napari; one that this plugin did not make is taken to lie where napari draws it, as (-z, y, x) in mm.

    Raises:
        InputError: if its values are not those of a scan.
        GeometryError: if it has no place in a patient.
    """
    record = record_of(layer.metadata)
    if record is not None and record.volume is not None:
        return record.volume
    if record is None:
        record = LayerRecord(foreign_grid(_affine_of(layer), layer.data.shape))
    import numpy as np

    data = np.asarray(layer.data)
    if data.dtype.kind not in "iuf":
        raise InputError(f"{layer.name} holds values of type {data.dtype}; a scan has numbers.")
    return Volume(record.grid.unview(data), record.grid.geometry)


def _affine_of(layer: Any) -> Any:
    """From the data of a layer to napari's world, by what napari says of four points."""
    import numpy as np

    points = np.vstack([np.zeros(3), np.eye(3)])
    ends = [np.asarray(layer.data_to_world(point), dtype=float) for point in points]
    affine = np.eye(4)
    affine[:3, 3] = ends[0]
    affine[:3, :3] = np.stack([end - ends[0] for end in ends[1:]], axis=1)
    return affine
