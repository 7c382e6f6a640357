"""What the journal and the manifest say of a case: plain values without names, UIDs or dates of a patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from effvit_med import NOT_FOR_CLINICAL_USE, __version__
from effvit_med.batch.jobs import BatchJob
from effvit_med.batch.journal import describe_outputs
from effvit_med.engine.concealment import conceal_uid, digest
from effvit_med.engine.stages import CaseResult
from effvit_med.io import DicomSeries, PhotographFile, RefusedCase
from effvit_med.volume import Source

NOT_JUDGED = "This run did not judge its results."

_STATUS = {"segmented": "done", "refused": "refused", "failed": "failed"}


def describe_job(job: BatchJob, status: str) -> dict[str, Any]:
    """A case that has no result yet.

    Args:
        job: the case.
        status: ``pending`` or ``running``.
    """
    case, keep = job.task.case, job.task.keep_ids
    row: dict[str, Any] = {
        "case_id": job.task.case_id,
        "status": status,
        "code": "",
        "message": "",
        "input": job.task.input,
        "kind": "photograph" if isinstance(case, PhotographFile) else "NIfTI",
        "modality": "",
        "study": "",
        "series": "",
        "input_files": 1,
        "key": job.key,
    }
    if isinstance(case, DicomSeries):
        row |= {
            "kind": "DICOM",
            "modality": case.modality,
            "study": case.study_instance_uid if keep else conceal_uid(case.study_instance_uid),
            "series": case.series_instance_uid if keep else conceal_uid(case.series_instance_uid),
            "input_files": len(set(case.files)),
        }
    return row


def describe_result(
    job: BatchJob, result: CaseResult, model: Mapping[str, Any], output: Path, run: Mapping[str, Any]
) -> dict[str, Any]:
    """A case with its result.

    Args:
        job: the case.
        result: what became of it.
        model: what the segmenting process said of itself.
        output: the folder of all results.
        run: what the run says of itself: its name, its shard, when it began with the case, memory of its processes.

    Raises:
        OutputError: if a written file cannot be read again.
    """
    made = result.provenance
    hidden = job.task.concealment
    quality = result.quality.to_dict() if result.quality else None
    row = describe_job(job, _STATUS[result.status])
    row |= {"code": result.code, "message": result.message, "attempts": result.attempts}
    row |= {
        "findings": sorted({finding.code for finding in result.findings}),
        "shape": list(result.shape) or None,
        "spacing_mm": [round(value, 6) for value in result.spacing_mm] or None,
        "inputs_sha256": digest_inputs(made.source) if made and made.source else None,
        "outputs": describe_outputs(output / result.case_id) if result.status == "segmented" else {},
        "identity": made.identity() if made else None,
        **_describe_model(model),
    }
    if made:
        row |= {
            "bundle": made.bundle,
            "bundle_version": made.bundle_version,
            "weights_sha256": made.weights_sha256,
            "device": made.device,
            "versions": dict(made.versions),
        }
    row |= {
        "seconds": {name: round(value, 3) for name, value in result.stage_seconds.items()},
        "cpu_seconds": {name: round(value, 3) for name, value in result.stage_cpu_seconds.items()},
        "step_seconds": dict(result.seconds),
        "volumes_ml": {
            row.structure: None if row.volume_ml is None else round(row.volume_ml, 3) for row in result.measurements
        },
        "quality": hidden.plain(quality) if hidden else quality,
        "quality_reason": ""
        if result.quality
        else NOT_JUDGED
        if result.status == "segmented"
        else "There is no result.",
        **run,
        "ended": now(),
        "trace": result.trace,
        "notice": NOT_FOR_CLINICAL_USE,
    }
    return row


def describe_refused(refused: RefusedCase, model: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """A case that was refused on sight.

    Args:
        refused: the case, without names.
        model: what the segmenting process said of itself.
        run: what the run says of itself.
    """
    return {
        "case_id": refused.case_id,
        "status": "refused",
        "code": refused.code,
        "message": f"{refused.code}: {refused.message} {refused.remedy}".strip(),
        "attempts": 0,
        "modality": refused.modality,
        "input_files": len(set(refused.files)),
        "key": digest(f"{refused.code}\n{refused.message}", 64),
        "findings": [],
        "outputs": {},
        "volumes_ml": {},
        **_describe_model(model),
        "quality": None,
        "quality_reason": "There is no result.",
        **run,
        "ended": now(),
        "notice": NOT_FOR_CLINICAL_USE,
    }


def digest_inputs(source: Source) -> str:
    """One SHA-256 over those of all input files, in their order."""
    return hashlib.sha256("".join(file.sha256 for file in source.files).encode()).hexdigest()


def now() -> str:
    """The time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _describe_model(model: Mapping[str, Any]) -> dict[str, Any]:
    names = ("bundle", "bundle_version", "weights_sha256", "device")
    versions = dict(model.get("versions") or {"effvit-med": __version__})
    return {**{name: model.get(name, "") for name in names}, "versions": versions}
