"""What the panel does: reads, segments, shows. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effvit_med.errors import EffvitError, InputError
from effvit_med.volume import Volume
from napari_effvit_med.desk import ReviewDesk
from napari_effvit_med.doubt_map import ASIDE
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame, record_of
from napari_effvit_med.opening import OpenedReview, judge, resume_review, start_review
from napari_effvit_med.outcomes import Result, keep_unless_cancelled, let_go
from napari_effvit_med.reading import LayerData, as_labels_layer, as_volume_layer, frame_of
from napari_effvit_med.refiners import make_refiner
from napari_effvit_med.running import Starter, TaskRunner
from napari_effvit_med.scans import labels_of, seg_file_of, volume_of
from napari_effvit_med.settings import PluginSettings
from napari_effvit_med.state import ModelCard, ScanRow, describe_seconds, read_card, rows_of
from napari_effvit_med.tasks import Failed, Finished, Reporter, Task, Worker

if TYPE_CHECKING:
    from effvit_med.review.existing import FoundReview


class Controller(TaskRunner):
    """The panel without its looks; every method is called from the thread of the window.

    Args:
        viewer: napari's viewer, or its model.
        start: how a task is begun; `Task.run_here` for scripts.
        settings: what the user prefers.

    Attributes:
        desk: the review.
        settings: what the user prefers.
        found: reviews of the chosen scan that are on the disk, the latest first.
        expected: how long a run will take, as the user reads it; empty if it was not measured.
        rows: the scans of the input that was looked at.
        card: the model that will be used.
        device: where it will run.
        result: of the last run.
    """

    def __init__(self, viewer: Any, start: Starter = Task.start, settings: PluginSettings | None = None) -> None:
        super().__init__(start)
        self.viewer = viewer
        self.settings = settings or PluginSettings()
        inline = start is not Task.start
        self.desk = ReviewDesk(viewer, self.say, make_refiner(self.settings), inline=inline)
        self.desk.extent_mm = self.settings.click_extent_mm
        self.found: tuple[FoundReview, ...] = ()
        self.expected = ""
        self.rows: tuple[ScanRow, ...] = ()
        self.card: ModelCard = read_card()
        self.device = self.settings.device
        self.result: Result | None = None
        self._source: Path | None = None
        self._segmenters: dict[tuple[Path | None, str], Any] = {}
        self._choice = 0
        self._aside = Worker("Looking for reviews", inline=inline)

    @property
    def unfinished(self) -> str:
        """What would be lost or broken off if the window were closed now; empty if nothing would."""
        return self.running or ("Saving" if self.desk.saving else "")

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
            self.say(f"{count} scan{'' if count == 1 else 's'} in {path.name}" if self.rows else "There is no scan.")

        self._begin("Looking", work, show)

    def open_scan(self, row: ScanRow) -> None:
        """Open a scan of the list as a layer.

        Args:
            row: one of ``rows``.
        """
        source = self._source
        if source is None or not row.can_open:
            self.say(row.details or "This cannot be opened.", error=True)
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
        self.say("\n".join([*remarks, *findings]) or "Opened.")

    def image_layers(self) -> tuple[Any, ...]:
        """The layers that can be segmented: images of three axes that are not colour pictures."""
        return tuple(
            layer
            for layer in self.viewer.layers
            if type(layer).__name__ == "Image" and layer.ndim == 3 and not layer.rgb and not layer.multiscale
            if not layer.metadata.get(ASIDE)
        )

    def found_review(self) -> FoundReview | None:
        """The latest review of the chosen scan that can be continued; not the one that is open."""
        opened = self.desk.opened.session.folder if self.desk.opened is not None else None
        return next((found for found in self.found if found.folder != opened), None)

    def labels_layers(self) -> tuple[Any, ...]:
        """The layers that can be reviewed: labels of three axes, but for those under review."""
        return tuple(
            layer
            for layer in self.viewer.layers
            if type(layer).__name__ == "Labels" and layer.ndim == 3 and not self.desk.shows(layer)
        )

    def choose_model(self, folder: Path | None) -> bool:
        """Take the model of another bundle.

        Args:
            folder: of the bundle; None for the one that comes with effvit-med.

        Returns:
            Whether that is a bundle; else the old one stays, and the message says why.
        """
        try:
            self.card, self.expected = read_card(folder), ""
        except EffvitError as error:
            self.say(str(error), error=True)
            return False
        self.say(f"{self.card.name} {self.card.version}")
        return True

    def segment(self, layer: Any) -> None:
        """Segment the scan of an image layer; the result becomes a labels layer on the scan's own grid.

        Args:
            layer: one of `image_layers`.
        """
        volume = self._scan_of(layer)
        if volume is None:
            return
        card, device, name = self.card, self.device, str(layer.name)
        record = record_of(layer.metadata)
        frame = record.grid.frame if record else DisplayFrame()
        looks = {} if record else {"units": layer.units, "axis_labels": layer.axis_labels}
        root = self.settings.reviews_folder if self.settings.review_after_segmenting else None
        if record is not None and record.is_resampled:
            root = None  # its labels can be looked at, but not be painted on

        def work(report: Reporter) -> Result:
            from effvit_med.volume.measurements import measure

            segmenter = self._segmenter(card, device, report)
            segmentation = segmenter.segment(volume, report, report.cancelled)
            report("measure", 0, 0)
            rows = measure(volume, segmentation)
            if root is None:
                data, arguments, kind = as_labels_layer(segmentation, frame, f"{name} structures", volume)
                return Result(volume, segmentation, rows, name, (data, {**arguments, **looks}, kind))
            reasons = judge(volume, segmentation, rows, segmenter.model)
            report("review", 0, 0)
            try:
                opened = start_review(volume, segmentation, root, frame, name, reasons)
            except EffvitError as error:  # what took so long is shown all the same
                data, arguments, kind = as_labels_layer(segmentation, frame, f"{name} structures", volume)
                shown = (data, {**arguments, **looks}, kind)
                return Result(volume, segmentation, rows, name, shown, remark=f"There is no review of it: {error}")
            opened.layer[1].update(looks)
            kept = replace(segmentation, labels=opened.session.automatic)  # one copy of it in memory is enough
            return Result(volume, kept, rows, name, opened.layer, keep_unless_cancelled(opened, report))

        self._begin("Segmenting", work, self._show_result)

    def measure_time(self, layer: Any) -> None:
        """Say how long segmenting a scan will take here, by one window of the network.

        Args:
            layer: one of `image_layers`.
        """
        volume = self._scan_of(layer)
        if volume is None:
            return
        card, device, choice = self.card, self.device, self._choice

        def work(report: Reporter) -> Any:
            segmenter = self._segmenter(card, device, report)
            report("estimate", 0, 0)
            return segmenter.estimate(volume)

        def show(made: Any) -> None:
            if (card, device, choice) != (self.card, self.device, self._choice):
                self.say("Something else was chosen meanwhile; ask again how long it takes.")
                return
            words = "At most" if made.at_most else "About"
            self.expected = f"{words} {describe_seconds(made.seconds, '')}"
            self.say(
                f"{self.expected} for {made.windows} windows; what comes before and after the network is not in it."
            )

        self._begin("Measuring the time", work, show)

    def review_labels(self, labels: Any, layer: Any) -> None:
        """Begin a review of labels that are open; it works on a copy of them.

        Args:
            labels: a labels layer.
            layer: the image layer of its scan.
        """
        record = record_of(layer.metadata)
        frame, name = record.grid.frame if record else DisplayFrame(), str(layer.name)
        root = self.settings.reviews_folder
        volume = self._scan_of(layer)
        if volume is None:
            return
        predecessor = seg_file_of(labels)

        def work(report: Reporter) -> OpenedReview:
            report("review", 0, 0)
            segmentation = labels_of(labels, layer, volume)  # a second for a large one, so not in the window's thread
            opened = start_review(volume, segmentation, root, frame, name, (), predecessor)
            return keep_unless_cancelled(opened, report)

        def show(opened: OpenedReview) -> None:
            labels.visible = False
            self._open_review(opened)
            self.say(f"The review works on a copy of {labels.name}, which is hidden.")

        self._begin("Opening the review", work, show)

    def look_for_reviews(self, layer: Any) -> None:
        """Look on the disk for reviews of a scan that can be continued; `found` has them later.

        Args:
            layer: one of `image_layers`; None to forget those found.
        """
        self.found, self.expected = (), ""
        self._choice += 1
        choice, root = self._choice, self.settings.reviews_folder
        record = record_of(layer.metadata) if layer is not None else None
        if layer is None or (record is not None and record.is_resampled):
            return
        try:
            volume = volume_of(layer)
        except EffvitError:  # whoever wants to segment it is told
            return

        def work() -> tuple[FoundReview, ...]:
            from effvit_med.review.existing import find_reviews

            return find_reviews(root, volume)

        def show(answer: Finished | Failed) -> None:
            if isinstance(answer, Finished) and choice == self._choice:
                self.found = answer.value
                self.on_change()

        self._aside.put(work, show)

    def continue_review(self, found: FoundReview, layer: Any) -> None:
        """Go on with a review where it ended, also where it ended with a crash.

        Args:
            found: one of `found`.
            layer: the image layer of its scan.
        """
        record = record_of(layer.metadata)
        volume = self._scan_of(layer)
        if volume is None:
            return
        frame, name = record.grid.frame if record else DisplayFrame(), str(layer.name)

        def work(report: Reporter) -> OpenedReview:
            report("review", 0, 0)
            return keep_unless_cancelled(resume_review(found.folder, volume, frame, name), report)

        def show(opened: OpenedReview) -> None:
            self._open_review(opened)
            said = [f"The review goes on where it ended, with {len(opened.session.steps)} steps."]
            self.say("\n".join([*said, *(finding.message for finding in opened.session.findings)]))

        if self.desk.opened is not None and self.desk.opened.session.folder == found.folder:
            self.say("This review is open already.")
            return
        self._begin("Opening the review", work, show)

    def poll(self) -> None:
        """Take in what was done meanwhile; the window calls this many times a second."""
        self.desk.poll()
        self._aside.poll()
        super().poll()

    def close(self) -> None:
        """Stop what is running and forget about it; the review is on the disk and is let go."""
        self.on_change = self.desk.on_change = lambda: None
        task, self._task = self._task, None
        if task is not None:
            task.stop()
            let_go(task.poll())
        self.desk.close()
        self._aside.close(0)

    def _show_result(self, result: Result) -> None:
        if result.opened is not None:
            self._open_review(result.opened)
        else:
            data, arguments, _ = result.layer
            self.viewer.add_labels(data, **arguments)
        self.result = result
        found = sum(row.voxels is not None for row in result.rows)
        doubt = self.card.doubt(result.volume.modality)
        device = result.segmentation.provenance.device
        said = [f"{found} of {len(result.rows)} structures found on {device}.", doubt, result.remark]
        said += [finding.message for finding in result.segmentation.provenance.findings]
        self.say("\n".join(line for line in dict.fromkeys(said) if line), error=bool(doubt or result.remark))

    def _scan_of(self, layer: Any) -> Volume | None:
        """The scan of a layer; None where there is none, and then the user was told why."""
        try:
            return volume_of(layer)
        except EffvitError as error:
            self.say(str(error), error=True)
            return None

    def _open_review(self, opened: OpenedReview) -> None:
        self.desk.on_change = self.on_change
        self.desk.open(opened)

    def _segmenter(self, card: ModelCard, device: str, report: Reporter) -> Any:
        """The model, loaded once; runs in the thread of the task."""
        key = (card.folder, device)
        if key not in self._segmenters:
            report("load", 0, 0)
            from effvit_med.engine import Segmenter, Settings, open_model

            self._segmenters.clear()  # one model in memory
            self._segmenters[key] = Segmenter(open_model(card.folder), Settings.from_values(device=device))
        return self._segmenters[key]
