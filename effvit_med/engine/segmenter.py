"""Segmenting one volume as a stream: rows are prepared, run through the network, blended and labelled as they come."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effvit_med.engine.contract import is_exported, open_model
from effvit_med.engine.devices import choose_device
from effvit_med.engine.estimating import Estimate, estimate_windows
from effvit_med.engine.memory import process_bytes
from effvit_med.engine.mirroring import mirror_axes, mirrored
from effvit_med.engine.model import Model
from effvit_med.engine.planning import CaseSize, Plan, PlanOptions, plan_run
from effvit_med.engine.predictor import Predictor
from effvit_med.engine.record import (
    describe_device,
    describe_model,
    find_oddities,
    library_versions,
    refuse_photograph,
)
from effvit_med.engine.recovery import Recovering, refuse_shortage
from effvit_med.engine.region import BoxRows, find_body, find_organs
from effvit_med.engine.scoring import Predict, Scoring, stream_scores
from effvit_med.engine.settings import Settings
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.engine.tiling import padded_size
from effvit_med.errors import CancelledError, SettingsError
from effvit_med.io.spill import make_scratch
from effvit_med.transforms import PreparedRows, network_grid, strided_grid
from effvit_med.transforms.loops import inner_loops
from effvit_med.transforms.pipeline import preparing_memory
from effvit_med.volume import Finding, Geometry, Provenance, Segmentation, Step, Volume
from effvit_med.volume.pages import lies_on_disk

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""

Cancelled = Callable[[], bool]
"""Asked between tiles; True stops the run with CancelledError."""

GIB = 2**30

CONFIDENCE_IN_MEMORY = 64 * 2**20
"""Bytes of confidence above which it lies in a temporary file: more than 256 slices of 512 x 512."""


def segment(
    volume: Volume,
    bundle: Path | str | None = None,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> Segmentation:
    """The structures of a volume, on the volume's own grid.

    Args:
        volume: the scan.
        bundle: folder of the bundle or exported model to use, or the name of a bundle that comes with effvit-med; None
            for the default one.
        settings: what the user chose; None for the defaults.
        progress: called as progress(phase, done, total).
        cancelled: asked often; True stops the run.

    Returns:
        Labels of the shape of the volume and how sure each is, with the bundle's label table and the record of how they
        were made.

    Raises:
        InputError: if the folder is no bundle, or a value of the scan is not finite.
        SettingsError: if a setting is wrong or the device is not there.
        WeightsError: if the weights do not belong to the network.
        RefusedError: if the scan is too large for the memory, or the network gives numbers that are not finite.
        CancelledError: if ``cancelled`` said so.
    """
    return Segmenter(open_model(bundle), settings or Settings()).segment(volume, progress, cancelled)


class Segmenter:
    """A model loaded once, for any number of volumes.

    Args:
        model: what the bundle says.
        settings: what the user chose.
        keeps_freed_memory: what `effvit_med.engine.allocation.keep_freed_memory` returned, for the plan.

    Attributes:
        model: with one fold only where the settings ask for one.
        settings: as given.
        device: where the network runs.
        scoring: how a grid is cut up, before any plan.

    Raises:
        SettingsError: if a setting is wrong or the device is not there.
        WeightsError: if the weights do not belong to the network.
    """

    def __init__(self, model: Model, settings: Settings, *, keeps_freed_memory: bool = False) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        if settings.fold is not None and is_exported(model.weights.parent):
            raise SettingsError(
                f"The fold is {settings.fold}; {model.weights.parent} is exported and holds one network."
            )
        self.model = model if settings.fold is None else model.with_fold(settings.fold)
        self.settings = settings
        self.device = choose_device(settings.device)
        inner_loops()  # loaded now, so that the plan counts what they hold
        self._process_bytes = process_bytes()  # before weights and scans, which the plan counts by themselves
        watch = Stopwatch()
        with watch("load model"):
            self._predictor = Predictor(self.model, settings, self.device)
            self._predictor.open(self.model.tiling.window, settings.batch_size)  # what cannot run is said now
        self._loading = watch.steps()  # goes into the record of the first volume
        self._keeps_freed_memory = keeps_freed_memory
        padded_size((1, 1, 1), model.tiling.window, self._predictor.stride)
        overlap = model.tiling.overlap if settings.overlap is None else settings.overlap
        self.scoring = Scoring(
            preprocess=model.preprocess,
            tiling=replace(model.tiling, overlap=overlap),
            stride=self._predictor.stride,
            batch_size=settings.batch_size,
        )

    def plan(self, volume: Volume) -> Plan:
        """What segmenting a volume will take, and what gives way where that is too much.

        Args:
            volume: the scan; only its sizes are looked at.

        Raises:
            RefusedError: ``NOT_ENOUGH_MEMORY``, if it does not fit whatever gives way; ``NOT_FOR_PHOTOGRAPHS``, if it
                is a photograph and the model is made for scans.
        """
        refuse_photograph(volume, self.model)
        preprocess, scoring = self.model.preprocess, self.scoring
        whole = network_grid(volume.geometry, preprocess.orientation, preprocess.spacing_mm)
        window = self._predictor.fit_window(whole.shape)
        limit = None if self.settings.memory_gb is None else int(self.settings.memory_gb * GIB)
        size = CaseSize(
            shape=volume.geometry.shape,
            item_bytes=volume.array.dtype.itemsize,
            grid=padded_size(whole.shape, window, scoring.stride),
            classes=self._predictor.classes,
            stride=scoring.stride,
            confidence=math.prod(volume.geometry.shape) <= CONFIDENCE_IN_MEMORY,
            scan_in_memory=not lies_on_disk(volume.array),
            preparing=preparing_memory(volume, preprocess),
        )
        options = PlanOptions(
            device=self.device,
            precision=self.settings.precision,
            window=window,
            overlap=scoring.tiling.overlap,
            batch_size=scoring.batch_size,
            spatial_dims=preprocess.spatial_dims,
            slices_per_input=preprocess.slices_per_input,
            smallest_window=self._predictor.smallest_window,
            memory_limit_bytes=limit,
            accelerator_limit_bytes=limit,
            process_bytes=self._process_bytes,
            keeps_freed_memory=self._keeps_freed_memory,
            mirror=self.settings.mirror,
            folds=len(self.model.folds),
        )
        return plan_run(size, options, self._predictor.memory)

    def estimate(self, volume: Volume) -> Estimate:
        """How long the network will take for a volume, from windows that it is given now; the result does not change.

        Args:
            volume: the scan; only its sizes are looked at.

        Raises:
            RefusedError: ``NOT_ENOUGH_MEMORY``, as of `plan`.
        """
        self._use_threads()
        plan, preprocess = self.plan(volume), self.model.preprocess
        grid = network_grid(volume.geometry, preprocess.orientation, preprocess.spacing_mm)
        predict: Predict = self._open(plan)
        if self.settings.mirror:
            predict = mirrored(predict, mirror_axes(self.model, grid))
        at_most = self.settings.region != "whole"
        return estimate_windows(grid.shape, predict, self._scoring_of(plan), plan, at_most=at_most)

    def segment(
        self, volume: Volume, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Segmentation:
        """The structures of a volume, on the volume's own grid.

        Args:
            volume: the scan.
            progress: called as progress(phase, done, total).
            cancelled: asked often; True stops the run.

        Returns:
            Labels and confidence of the shape of the volume.

        Raises:
            InputError: if a value of the scan is not finite.
            RefusedError: if the scan is too large for the memory, or the network gives numbers that are not finite.
            CancelledError: if ``cancelled`` said so.
        """
        self._use_threads()
        run = _Run(volume, datetime.now(UTC).isoformat(timespec="seconds"), _Reporter(progress, cancelled))
        run.report("prepare", 0, 1)
        with run.watch("prepare"), refuse_shortage("preparing the scan"):
            plan = self.plan(volume)
            rows = PreparedRows(volume, self.model.preprocess, plan.device)
        for rung in plan.rungs:
            log.warning("memory is short: %s", rung)
        run.findings += find_oddities(volume, rows.value_range, self.model)
        scoring = self._scoring_of(plan)
        recovering = self._open(plan)
        run.report("prepare", 1, 1)
        with self._inside(run, rows, recovering, scoring) as (source, grid, limited):
            predict = self._mirrored(run, recovering, grid)
            nodes = strided_grid(grid, scoring.stride)
            confidence = _make_confidence(volume.geometry, nodes)
            labeller = self.model.make_labeller(nodes, volume.geometry, limited=limited, confidence=confidence)
            stream = stream_scores(
                source, predict, scoring, run.watch, partial(run.report, "network"), plan.slab_device
            )
            for scores in stream:
                with run.watch("label"), refuse_shortage("labelling"):
                    labeller.push(scores)
        run.findings += [*plan.findings(), *recovering.findings]
        run.details["prepare"] |= {"grid": list(rows.grid.shape), "spacing_mm": list(rows.grid.spacing_mm)}
        run.details["network"] |= {
            "window": list(scoring.tiling.window),
            "overlap": scoring.tiling.overlap,
            "stride": list(scoring.stride),
            "batch_size": scoring.batch_size,
            **self._predictor.describe(),
            "plan": plan.to_dict(),
        }
        provenance = self._provenance(run, scoring, recovering)
        with run.watch("check"):
            table = self.model.table_of(labeller.labels)
            result = Segmentation(labeller.labels, volume.geometry, table, provenance, labeller.confidence)
        result = result.with_provenance(replace(provenance, steps=self._steps(run)))
        self._loading = ()
        return result

    def _use_threads(self) -> None:
        if self.settings.threads is not None:  # for the whole process, and another Segmenter may have chosen since
            torch.set_num_threads(self.settings.threads)

    def _open(self, plan: Plan) -> Recovering:
        """The network as the plan has it, going on where memory runs out all the same."""
        dims = self.model.preprocess.spatial_dims
        predict = self._predictor.open(plan.window, plan.batch_size, plan.device)
        cpu = torch.device("cpu")
        fallback = None if plan.device == cpu else partial(self._predictor.open, plan.window, 1, cpu)
        return Recovering(predict, self.scoring.stride[-dims:], self._predictor.smallest_window[-dims:], fallback)

    def _scoring_of(self, plan: Plan) -> Scoring:
        tiling = replace(self.scoring.tiling, window=plan.window)
        return replace(self.scoring, tiling=tiling, batch_size=plan.batch_size)

    @contextmanager
    def _inside(
        self, run: _Run, rows: PreparedRows, predict: Predict, scoring: Scoring
    ) -> Iterator[tuple[PreparedRows | BoxRows, Geometry, bool]]:
        """The rows to look at closely and their grid, and whether that is a part of the scan only."""
        box = None
        if self.settings.region != "whole":
            with run.watch("region"):
                if self.settings.region == "body":
                    box = find_body(run.volume, rows.grid)
                else:
                    told = partial(run.report, "region")
                    box = find_organs(run.volume, rows.grid, predict, scoring, told, self.model.head.decision)
        if box is None:
            if self.settings.region != "whole":
                text = f"No {self.settings.region} was found at low resolution, so the whole scan was segmented."
                run.findings.append(Finding("REGION_NOT_FOUND", text))
            yield rows, rows.grid, False
            return
        k = self.model.preprocess.neighbours
        box = box.grown(scoring.tiling.window, (k, 0, 0), rows.grid.shape)
        run.findings.append(box.tell(self.settings.region, rows.grid))
        run.details["region"] |= {"start": list(box.start), "stop": list(box.stop)}
        yield BoxRows(rows, box), box.crop(rows.grid), True

    def _mirrored(self, run: _Run, predict: Predict, grid: Geometry) -> Predict:
        """The network, or the mean over mirrored tiles where the settings ask for it."""
        if not self.settings.mirror:
            return predict
        axes = mirror_axes(self.model, grid)
        names = ", ".join(grid.orientation[axis] for axis in axes)
        text = "No tile was mirrored, as this model takes no mirrored scans."
        if axes:
            text = f"Scores are means over tiles mirrored along the axes towards {names}."
        run.findings.append(Finding("MIRRORED", text))
        return mirrored(predict, axes)

    def _provenance(self, run: _Run, scoring: Scoring, recovering: Recovering) -> Provenance:
        volume = run.volume
        tiling = scoring.tiling
        if self.model.preprocess.spatial_dims == 2:  # how many slices go through together changes nothing
            tiling = replace(tiling, window=(self.model.tiling.window[0], *tiling.window[1:]))
        decisive = {**self.settings.that_change_labels(), **self._predictor.decisive()}
        if recovering.changed_scores:
            decisive["memory_short"] = [finding.message for finding in recovering.findings]
        return Provenance(
            bundle=self.model.name,
            bundle_version=self.model.version,
            weights_sha256=self.model.weights_sha256,
            settings={**decisive, **describe_model(self.model, tiling)},
            versions=library_versions(),
            device=describe_device(self.device),
            started=run.started,
            source=volume.source,
            steps=self._steps(run),
            findings=(*(volume.source.findings if volume.source else ()), *run.findings),
        )

    def _steps(self, run: _Run) -> tuple[Step, ...]:
        return (*self._loading, *run.watch.steps(run.details))


@dataclass
class _Run:
    """What is gathered while a volume is segmented."""

    volume: Volume
    started: str
    report: _Reporter

    def __post_init__(self) -> None:
        self.watch = Stopwatch()
        self.findings: list[Finding] = []
        self.details: dict[str, dict[str, Any]] = {"prepare": {}, "network": {}, "region": {}}


class _Reporter:
    """Passes progress on and stops the run when asked to."""

    def __init__(self, progress: Progress | None, cancelled: Cancelled | None) -> None:
        self._progress = progress
        self._cancelled = cancelled

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._cancelled and self._cancelled():
            raise CancelledError(f"Stopped by the user during {phase} ({done} of {total}); nothing was written.")
        if self._progress:
            self._progress(phase, done, total)


def _make_confidence(scan: Geometry, nodes: Geometry) -> npt.NDArray[np.uint8]:
    """Zeros of the shape of a scan, in memory or on disk, planes in the order in which they are labelled."""
    along = np.abs((np.linalg.inv(nodes.affine) @ scan.affine)[0, :3]) * np.array(scan.shape)
    order = [int(axis) for axis in np.argsort(-along, kind="stable")]
    shape = (scan.shape[order[0]], scan.shape[order[1]], scan.shape[order[2]])
    return make_scratch(shape, np.uint8, CONFIDENCE_IN_MEMORY).transpose(np.argsort(order))
