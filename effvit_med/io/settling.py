"""Files that are still being copied: wait until their sizes and times stand still."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Clock:
    """What time it is, and how to wait; tests bring their own.

    Attributes:
        now_s: seconds since 1970, to compare with the times of files.
        elapsed_s: seconds that only ever grow.
        sleep: wait that many seconds.
    """

    now_s: Callable[[], float] = time.time
    elapsed_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_until_settled(
    list_files: Callable[[], Iterable[Path]], settle_s: float, timeout_s: float, clock: Clock | None = None
) -> frozenset[Path]:
    """Wait until no file changed for a while.

    A file is settled once its time lies ``settle_s`` back, or once its size and time stood still for so long as we
    looked: the clock of a file server may be ahead of ours.

    Args:
        list_files: lists the files; asked again each time, so that new ones count.
        settle_s: how long a file must not have changed; 0 returns at once.
        timeout_s: how long to wait at most.
        clock: the real one if not given.

    Returns:
        The files that still changed when the time was up; usually none.
    """
    if settle_s <= 0:
        return frozenset()
    clock = clock or Clock()
    start_s = clock.elapsed_s()
    seen: dict[Path, tuple[int, int, float]] = {}
    while True:
        moving = set()
        for path in list_files():
            try:
                status = path.stat()
            except OSError:  # gone or unreadable: whoever opens it says so
                continue
            before = seen.get(path)
            state = (status.st_size, status.st_mtime_ns)
            since_s = before[2] if before and before[:2] == state else clock.elapsed_s()
            seen[path] = (*state, since_s)
            if max(clock.now_s() - status.st_mtime, clock.elapsed_s() - since_s) < settle_s:
                moving.add(path)
        left_s = start_s + timeout_s - clock.elapsed_s()
        if not moving or left_s <= 0:
            return frozenset(moving)
        clock.sleep(min(_LOOK_EVERY_S, settle_s, left_s))
