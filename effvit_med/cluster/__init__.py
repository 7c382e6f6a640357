"""More machines than one: shards of a batch as SLURM arrays, or cases on a dask.distributed cluster."""
