"""How a node segments: with the processes of a batch, whose model stays loaded and whose deaths cost one series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from effvit_med.batch import BatchOptions, Pipeline
from effvit_med.batch.finding import find_in_process
from effvit_med.batch.jobs import plan_jobs
from effvit_med.engine.stages import CaseResult
from effvit_med.errors import InputError
from effvit_med.pacs.service import SegmentSeries, SeriesAnswer


def segment_with(pipeline: Pipeline, options: BatchOptions, cancelled: Callable[[], bool]) -> SegmentSeries:
    """A function that segments the series in a folder.

    Args:
        pipeline: entered already.
        options: those of the pipeline.
        cancelled: asked twice a second; True stops a segmentation, which is then not answered.
    """

    def segment(received: Path, results: Path) -> SeriesAnswer:
        made: list[CaseResult] = []
        try:
            with find_in_process(received, options, pipeline.scratch, lambda *_: None, cancelled) as found:
                plan = plan_jobs(found, received, results.resolve(), options, pipeline.model)
                pipeline.run((job.task for job in plan.jobs), made.append, cancelled=cancelled)
        except InputError as error:
            return SeriesAnswer("refused", "NOTHING_TO_SEGMENT", str(error))
        if any(case.status == "segmented" for case in made):
            return SeriesAnswer("segmented")
        for case in made:
            return SeriesAnswer(case.status, case.code, case.message)
        for refused in plan.refused:
            return SeriesAnswer("refused", refused.code, f"{refused.message} {refused.remedy}".strip())
        return SeriesAnswer("refused", "NOTHING_TO_SEGMENT", "There is no image to segment in the series.")

    return segment
