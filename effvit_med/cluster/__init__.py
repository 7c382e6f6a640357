"""More machines than one: shards of a batch as SLURM arrays, or cases on a dask.distributed cluster."""

from effvit_med.cluster.array_status import ArrayStatus, ShardStatus, report_status
from effvit_med.cluster.dask_pipeline import DaskPipeline, run_on_scheduler
from effvit_med.cluster.local_array import run_here
from effvit_med.cluster.slurm_array import ArrayOptions, parse_extra, submit_array, wait_for_array, write_script

__all__ = [
    "ArrayOptions",
    "ArrayStatus",
    "DaskPipeline",
    "ShardStatus",
    "parse_extra",
    "report_status",
    "run_here",
    "run_on_scheduler",
    "submit_array",
    "wait_for_array",
    "write_script",
]
