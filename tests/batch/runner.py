"""A batch with cheap stages in a process of its own, for tests that kill or stop it: python -m tests.batch.runner."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from effvit_med.batch import BatchOptions, Shard, run_batch
from effvit_med.cli.stopping import listen_for_stop, stop_if_asked
from effvit_med.engine import Job
from tests.batch.conftest import QUICK


def main(source: Path, output: Path, shard: str) -> int:
    """Run it and print its summary."""
    listen_for_stop()
    logging.basicConfig(level=logging.INFO)
    options = BatchOptions(job=Job(output_types=("dicom-seg",)), stages=QUICK, shard=Shard.from_text(shard))
    summary = run_batch(source, output, options, cancelled=lambda: bool(stop_if_asked()))
    print(json.dumps({"exit_code": summary.exit_code, "counts": dict(summary.counts), "message": summary.message}))
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "1/1"))
