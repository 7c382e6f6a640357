"""From a scan and a file of prompts to a folder of results, without a person: for studies and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from effvit_med.engine.batch import name_input
from effvit_med.engine.prompting.log import read_log, read_names
from effvit_med.engine.prompting.model import read_prompt_model
from effvit_med.engine.prompting.session import Progress, PromptSession
from effvit_med.engine.results import Job
from effvit_med.engine.stages import CaseResult, Task, read_stage, write_stage
from effvit_med.errors import CancelledError, InputError
from effvit_med.io import open_input
from effvit_med.io.atomic import make_folder
from effvit_med.io.label_files import read_labels


@dataclass(frozen=True)
class PromptRun:
    """What to do with a scan.

    Attributes:
        bundle: as of `effvit_med.engine.prompting.read_prompt_model`.
        sam: which EfficientViT-SAM a file of published weights is, where its name does not say so.
        spatial_dims: 2 to look at slices, 3 at blocks; None for what suits bundle and scan.
        axis: across which slices are looked at; None for that of the scan's slices.
        device: as of `effvit_med.engine.devices.choose_device`.
        start: a label map on the scan's grid to be corrected; None to begin with nothing.
    """

    bundle: Path | str | None = None
    sam: str = ""
    spatial_dims: int | None = None
    axis: int | None = None
    device: str = "auto"
    start: Path | None = None


def prompt_case(
    source: Path,
    prompts: Path,
    output: Path,
    run: PromptRun,
    job: Job | None = None,
    progress: Progress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> CaseResult:
    """Answer the prompts of a file about the one scan of an input, and write what comes out.

    Args:
        source: a folder, a file or a zip archive with one scan or photograph.
        prompts: as of `effvit_med.engine.prompting.read_log`.
        output: the folder for the results; made if it is not there.
        run: what answers, and how.
        job: what to write and how strictly to read.
        progress: told how many events of the file are done.
        stopped: asked before each event; True ends the run, and nothing is written.

    Raises:
        InputError: if the input does not hold exactly one scan, or a file cannot be read.
        SettingsError: if the bundle cannot do what is asked.
        CancelledError: if ``stopped`` said so.
        GeometryError: if a prompt or the labels to start from do not lie on the scan.
        OutputError: if a result cannot be written.
    """
    model = read_prompt_model(run.bundle, run.sam)
    job = job or Job()
    job = replace(job, read=replace(job.read, photographs="alone"))
    with open_input(source, job.read) as found:
        if len(found.cases) != 1:
            names = ", ".join(case.case_id for case in found.cases[:5]) or "none that can be read"
            raise InputError(
                f"{source} holds {len(found.cases)} scans ({names}); prompts belong to one. Name its file."
            )
        case = found.cases[0]
        task = Task(case, name_input(case, source), output, job)
        scan = read_stage(task)
        events, about = read_log(prompts, scan.volume.geometry)
        start = None if run.start is None else read_labels(run.start)
        session = PromptSession(
            scan.volume, model, start=start, spatial_dims=run.spatial_dims, axis=run.axis, device=run.device
        )
        for label in read_names(about):
            session.name(label)

        def tell(phase: str, done: int, total: int) -> None:
            if stopped and stopped():
                raise CancelledError(f"Stopped by the user during {phase} ({done} of {total}); nothing was written.")
            if progress:
                progress(phase, done, total)

        segmentation = session.replay(events, tell)
        make_folder(output)
        record = segmentation.provenance
        record = replace(record, steps=(*scan.steps, *record.steps), findings=(*record.findings, *scan.findings))
        return write_stage(task, scan, segmentation.with_provenance(record))
