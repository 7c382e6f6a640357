"""When a series that arrives is complete: nothing more came for a while, and its association is closed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Arrivals:
    """Which series have new instances, and since when.

    One association is not one series, and a series may come over several; so a series counts as stable when no
    instance came for some seconds and no association that brought one is still open.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._last: dict[str, float] = {}
        self._from: dict[str, set[threading.Thread]] = {}

    def note(self, series: str, association: threading.Thread | None = None) -> None:
        """An instance of a series came over an association, or lay there before the start."""
        with self._changed:
            self._last[series] = self._clock()
            if association is not None:
                self._from.setdefault(series, set()).add(association)
            self._changed.notify_all()

    def tell(self) -> None:
        """Wake who waits: an association ended."""
        with self._changed:
            self._changed.notify_all()

    def take_stable(self, stable_s: float) -> str | None:
        """The series that has been stable for longest, which is then no longer among those that arrive."""
        with self._changed:
            now = self._clock()
            for series, last in sorted(self._last.items(), key=lambda item: item[1]):
                if now - last >= stable_s and not self._is_open(series):
                    del self._last[series]
                    self._from.pop(series, None)
                    return series
        return None

    def wait(self, stable_s: float, longest_s: float) -> None:
        """Wait until a series may be stable, something comes, or ``longest_s`` is over."""
        with self._changed:
            now = self._clock()
            rests = [last + stable_s - now for series, last in self._last.items() if not self._is_open(series)]
            timeout = min([longest_s, *rests], default=math.inf)
            if timeout > 0:
                self._changed.wait(timeout)

    def _is_open(self, series: str) -> bool:
        return any(association.is_alive() for association in self._from.get(series, ()))
