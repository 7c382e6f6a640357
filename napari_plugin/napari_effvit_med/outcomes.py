"""What a task of the panel made, and what becomes of a review that nobody waits for any more. Neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from effvit_med.errors import CancelledError
from effvit_med.volume import Segmentation, Volume
from effvit_med.volume.measurements import Measurement
from napari_effvit_med.opening import OpenedReview
from napari_effvit_med.reading import LayerData
from napari_effvit_med.tasks import Event, Finished, Reporter


@dataclass(frozen=True, eq=False)
class Result:
    """What a run made.

    Attributes:
        volume: the scan.
        segmentation: its structures.
        rows: the measurements.
        name: of the layer that was segmented.
        layer: its labels as napari takes them, made in the task, so that the window does not wait.
        opened: the review of it, where one was begun.
        remark: why none was begun, where it should.
    """

    volume: Volume
    segmentation: Segmentation
    rows: tuple[Measurement, ...]
    name: str
    layer: LayerData
    opened: OpenedReview | None = None
    remark: str = ""


def keep_unless_cancelled(opened: OpenedReview, report: Reporter) -> OpenedReview:
    """The review, unless nobody waits for it any more: then it is let go.

    Args:
        opened: the review.
        report: of the task that opened it.

    Raises:
        CancelledError: if the task shall stop.
    """
    if report.cancelled():
        opened.session.close()
        raise CancelledError("Stopped.")
    return opened


def let_go(events: Iterable[Event]) -> None:
    """Close the reviews in answers that will not be shown, so that their folders are free.

    Args:
        events: of a task.
    """
    for event in events:
        made = event.value if isinstance(event, Finished) else None
        opened = made.opened if isinstance(made, Result) else made
        if isinstance(opened, OpenedReview):
            opened.session.close()
