"""Which inner loops run: compiled with numba where it is installed, else the same in torch."""

from __future__ import annotations

import functools
import importlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import torch

from effvit_med.errors import SettingsError
from effvit_med.transforms import tensor_loops

log = logging.getLogger(__name__)

SWITCH = "EFFVIT_MED_LOOPS"
"""Environment variable: ``torch`` takes the loops in torch even where numba is there."""


def inner_loops() -> ModuleType:
    """`compiled_loops` where numba is installed and not switched off, else `tensor_loops`.

    Raises:
        SettingsError: if the switch says something else.
    """
    switch = os.environ.get(SWITCH, "")
    if switch not in ("", "numba", "torch"):
        raise SettingsError(f"{SWITCH} is {switch!r}; it must be torch or numba, or not be set.")
    return tensor_loops if switch == "torch" else _load()


@functools.cache
def _load() -> ModuleType:
    start = time.perf_counter()
    try:
        loops = importlib.import_module("effvit_med.transforms.compiled_loops")
    except ImportError as error:
        log.info("numba is not there (%s); labels are made in torch, which is slower", error)
        return tensor_loops
    if time.perf_counter() - start > 3:
        log.info("compiled the inner loops, once for this machine (%.0f s)", time.perf_counter() - start)
    return loops


def in_parts(count: int, work: Callable[[slice], None], threads: int | None = None) -> None:
    """Do the work on parts of a range, one part a thread; what comes out does not depend on how many.

    Args:
        count: length of the range.
        work: called with each part; parts do not touch one another's results.
        threads: how many; torch's number of threads if None.
    """
    parts = _cut(count, torch.get_num_threads() if threads is None else threads)
    if len(parts) == 1:
        work(parts[0])
        return
    with ThreadPoolExecutor(len(parts)) as pool:
        for done in [pool.submit(work, part) for part in parts]:
            done.result()


def _cut(count: int, pieces: int) -> Sequence[slice]:
    pieces = max(1, min(pieces, count))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges)]
