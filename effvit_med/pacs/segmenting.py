"""How a node segments: with the engine, and a model that is loaded once."""

from __future__ import annotations

from pathlib import Path

from effvit_med.engine import Job, Segmenter, segment_input
from effvit_med.errors import InputError
from effvit_med.pacs.service import SegmentSeries, SeriesAnswer


def segment_with(segmenter: Segmenter, job: Job) -> SegmentSeries:
    """A function that segments the series in a folder.

    Args:
        segmenter: the loaded model.
        job: what to write and how strictly to read.
    """

    def segment(received: Path, results: Path) -> SeriesAnswer:
        try:
            batch = segment_input(received, results, segmenter, job)
        except InputError as error:
            return SeriesAnswer("refused", "NOTHING_TO_SEGMENT", str(error))
        if any(case.status == "segmented" for case in batch.cases):
            return SeriesAnswer("segmented")
        case = batch.cases[0]
        return SeriesAnswer(case.status, case.code, case.message)

    return segment
