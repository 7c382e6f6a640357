"""Many cases, restartable: a journal, three processes, and a manifest that accounts for every series."""

from effvit_med.batch.manifest import collect_manifest, read_manifest
from effvit_med.batch.options import BatchOptions, Shard, Stages
from effvit_med.batch.pipeline import BatchEvent, Pipeline
from effvit_med.batch.run import BatchSummary, CaseOutcome, list_cases, run_batch

__all__ = [
    "BatchEvent",
    "BatchOptions",
    "BatchSummary",
    "CaseOutcome",
    "Pipeline",
    "Shard",
    "Stages",
    "collect_manifest",
    "list_cases",
    "read_manifest",
    "run_batch",
]
