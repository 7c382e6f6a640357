"""The command line with a threshold in place of the network, also in the tasks that it submits."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from effvit_med.batch import BatchOptions
from effvit_med.cli import batching, clustering, main
from tests.cluster.stages import CHEAP

_make_batch_options = batching.make_batch_options


def _make_cheap_options(options: dict[str, Any]) -> BatchOptions:
    return replace(_make_batch_options(options), stages=CHEAP)


batching.make_batch_options = _make_cheap_options
clustering.BATCH_COMMAND = (sys.executable, "-m", "tests.cluster.cheap_cli", "batch")

if __name__ == "__main__":
    main()
