"""What must be there before a review can be shown: the session, its labels as a layer, places in doubt. No Qt here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError, OutputError
from effvit_med.volume import Finding, Segmentation, Volume
from effvit_med.volume.measurements import Measurement
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame, DisplayGrid, LayerRecord
from napari_effvit_med.reading import LayerData, as_labels_layer

if TYPE_CHECKING:
    from effvit_med.engine import Model
    from effvit_med.io import Predecessor
    from effvit_med.review import Doubt, ReviewSession
    from effvit_med.volume.changes import VoxelChange

Reasons = tuple[tuple[int, Finding], ...]

DONE_STATES = frozenset({"accepted", "rejected"})
_REASONS, _PREDECESSOR = "reasons", "predecessor"


class SettledPlaces:
    """Voxels that a reader has agreed to or corrected, by how many steps that stand say so.

    Args:
        session: whose steps count from the start.
    """

    def __init__(self, session: ReviewSession) -> None:
        self._session = session
        self._times: npt.NDArray[np.uint8] = np.zeros(session.geometry.shape, np.uint8)
        for step in session.steps:
            if step.kind == "agree":
                self.agree(step.prompt["box"] if step.prompt else ())
            else:
                self.note(step.voxels())

    def note(self, change: VoxelChange | None) -> None:
        """Count what changed."""
        if change is not None and len(change):
            flat = self._times.reshape(-1)
            flat[change.flat] = np.minimum(flat[change.flat], 254) + 1

    def agree(self, box: Sequence[Sequence[int]]) -> None:
        """Count a box that is right as it is."""
        part = self._times[tuple(slice(start, stop) for start, stop in box)]
        part[...] = np.minimum(part, 254) + 1

    def take(self, other: SettledPlaces) -> None:
        """Be as another count of the same review."""
        self._times = other._times

    def mask(self) -> npt.NDArray[np.bool_]:
        """Where nothing is in doubt any more; structures that are accepted or rejected belong to it."""
        settled = self._times > 0
        done = [value for value, state in self._session.states.items() if state in DONE_STATES]
        if done:
            chosen = np.zeros(np.iinfo(self._session.labels.dtype).max + 1, np.bool_)
            chosen[done] = True
            for number, labels in enumerate(self._session.labels):  # at once it would take 8 bytes a voxel
                settled[number] |= chosen[labels]
        return settled


@dataclass(frozen=True, eq=False)
class DoubtSurvey:
    """What is in doubt at one moment.

    Attributes:
        doubts: places to look at, the most expected wrong volume first.
        strips: the expected wrong volume per slice in mL along each array axis; none without a confidence map.
    """

    doubts: tuple[Doubt, ...] = ()
    strips: tuple[npt.NDArray[np.float64], ...] = ()


@dataclass(frozen=True, eq=False)
class OpenedReview:
    """A review that can be shown.

    Attributes:
        session: the review; it must be closed by whoever shows it.
        volume: the scan.
        layer: the labels of the session as napari takes them; they share their memory.
        grid: how they are shown.
        reasons: what the rules say against structures.
        settled: what is in no doubt any more.
        survey: what is in doubt as it is opened.
        predecessor: what names the DICOM SEG that is reviewed, if it was opened from one.
    """

    session: ReviewSession
    volume: Volume
    layer: LayerData
    grid: DisplayGrid
    reasons: Reasons
    settled: SettledPlaces
    survey: DoubtSurvey
    predecessor: Predecessor | None = None


def start_review(
    volume: Volume,
    segmentation: Segmentation,
    root: Path,
    frame: DisplayFrame,
    name: str,
    reasons: Reasons = (),
    predecessor: Path | None = None,
) -> OpenedReview:
    """Begin a review in a new folder.

    Args:
        volume: the scan.
        segmentation: the automatic result, on the grid of the scan.
        root: the folder of all reviews.
        frame: where the scan is shown.
        name: of the scan's layer.
        reasons: what the rules say against structures.
        predecessor: the DICOM SEG that the labels came from.

    Raises:
        OutputError: if something cannot be written, or the scan is shown resampled: its labels could not be painted.
        GeometryError: if the labels do not lie on the scan.
        InputError: if the predecessor cannot be read.
    """
    from effvit_med.io import read_predecessor
    from effvit_med.review import ReviewSession
    from effvit_med.review.existing import note_source

    before = None if predecessor is None else read_predecessor(predecessor)
    if segmentation.provenance.source is None:
        segmentation = segmentation.with_provenance(replace(segmentation.provenance, source=volume.source))
    note = {**note_source(volume), _REASONS: [[value, each.code, each.message] for value, each in reasons]}
    if before is not None:
        note[_PREDECESSOR] = asdict(before)
    folder = _new_folder(root, segmentation.provenance.identity())
    session = ReviewSession.start(folder, segmentation, note)
    return _show(session, volume, frame, name, reasons, before)


def resume_review(folder: Path, volume: Volume, frame: DisplayFrame, name: str) -> OpenedReview:
    """Go on with a review that is on the disk, also after a crash.

    Args:
        folder: of the review.
        volume: the scan.
        frame: where the scan is shown.
        name: of the scan's layer.

    Raises:
        InputError: if the review is damaged, or is of another scan.
        SettingsError: if another program has it.
        OutputError: as of `start_review`.
        GeometryError: if the review is of another grid.
    """
    from effvit_med.io import Predecessor
    from effvit_med.review import ReviewSession
    from effvit_med.review.existing import is_review_of

    session = ReviewSession.resume(folder)
    try:
        if not is_review_of(session, volume):
            raise InputError(f"The review in {folder} is of another scan than {name}; choose the scan it belongs to.")
        note = session.source_note
        reasons = tuple((int(value), Finding(code, message)) for value, code, message in note.get(_REASONS, ()))
        before = Predecessor(**note[_PREDECESSOR]) if _PREDECESSOR in note else None
    except BaseException:
        session.close()
        raise
    return _show(session, volume, frame, name, reasons, before)


def survey_doubts(session: ReviewSession, settled: SettledPlaces, reasons: Reasons) -> DoubtSurvey:
    """What is in doubt now; takes up to a second for a large scan.

    Args:
        session: the review.
        settled: what is in no doubt any more.
        reasons: what the rules say against structures.
    """
    from effvit_med.review import find_doubts, measure_strip

    labels, confidence, mask = session.labels, session.confidence, settled.mask()
    doubts = find_doubts(labels, confidence, session.geometry, settled=mask, reasons=reasons)
    if confidence is None:
        return DoubtSurvey(doubts)
    axes = range(3)
    strips = tuple(measure_strip(labels, confidence, session.geometry, axis, settled=mask) for axis in axes)
    return DoubtSurvey(doubts, strips)


def _show(
    session: ReviewSession,
    volume: Volume,
    frame: DisplayFrame,
    name: str,
    reasons: Reasons,
    predecessor: Predecessor | None,
) -> OpenedReview:
    """The session with all that is shown of it; it is closed if that cannot be made."""
    from effvit_med.review.saving import check_scan

    try:
        check_scan(session, volume)
        shown = Segmentation(session.labels, session.geometry, session.table, session.provenance)
        data, arguments, kind = as_labels_layer(shown, frame, f"{name} structures", volume)
        record = arguments["metadata"][METADATA_KEY]
        if record.is_resampled:
            raise OutputError(
                f"{name} is shown resampled beside another scan, so its labels cannot be painted on. Open it in a "
                "viewer of its own to review it."
            )
        digest = "" if session.edited else record.digest  # labels that are edited already are not as they were made
        arguments["metadata"] = {METADATA_KEY: LayerRecord(record.grid, volume, shown, digest=digest)}
        warm_up()
        warm_up_layer(data, arguments)
        settled = SettledPlaces(session)
        survey = survey_doubts(session, settled, reasons)
    except BaseException:
        session.close()
        raise
    layer = (data, arguments, kind)
    return OpenedReview(session, volume, layer, record.grid, reasons, settled, survey, predecessor)


def warm_up() -> None:
    """Load what the first correction needs, so that it is as quick as the second."""
    from effvit_med.review import LocalRefiner, RefineRequest
    from effvit_med.volume.prompts import Prompt

    image = np.zeros((5, 8, 8), np.float32)
    image[1:4, 2:6, 2:6] = 1
    click = Prompt("point", 1, True, ((2, 4, 4),))
    LocalRefiner().refine(RefineRequest(image, np.zeros(image.shape, np.uint8), 1, (click,), (1.0, 1.0, 1.0)))


def warm_up_layer(data: npt.NDArray[Any], arguments: Mapping[str, Any]) -> None:
    """Let napari compile now what it draws such labels with, which else keeps the window for some seconds.

    Args:
        data: of the labels layer that will be shown.
        arguments: of the same layer.
    """
    try:
        from napari.layers import Labels
    except ImportError:
        return
    if "colormap" in arguments:
        Labels(np.ones((1, 8, 8), data.dtype), colormap=arguments["colormap"])


def _new_folder(root: Path, identity: str) -> Path:
    """A folder that is not there yet; its name says when and what, but not of whom."""
    started = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    name, number = f"{started}-{identity[:8]}", 1
    while (root / name).exists():
        number += 1
        name = f"{started}-{identity[:8]}-{number}"
    return root / name


def judge(volume: Volume, segmentation: Segmentation, rows: Sequence[Measurement], model: Model) -> Reasons:
    """What the rules say against structures.

    Args:
        volume: the scan.
        segmentation: its structures.
        rows: their measurements.
        model: that found them.
    """
    from effvit_med.engine.quality import judge_case
    from effvit_med.review.doubts import list_reasons

    return list_reasons(judge_case(volume, segmentation, rows, model), segmentation.table)
