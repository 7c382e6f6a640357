"""Trying again: a bounded number of times, with growing waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from effvit_med.errors import PeerUnreachableError

log = logging.getLogger(__name__)
Value = TypeVar("Value")
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Backoff:
    """How often to try again and how long to wait between.

    Attributes:
        retries: how many times after the first.
        first_s: the first wait.
        factor: each wait is this much longer than the one before.
        longest_s: no wait is longer.
    """

    retries: int = 4
    first_s: float = 1.0
    factor: float = 3.0
    longest_s: float = 60.0

    def waits(self) -> Iterator[float]:
        """The waits in seconds, one before each retry.

        Examples:
            >>> list(Backoff(retries=5, first_s=1, factor=3, longest_s=20).waits())
            [1, 3, 9, 20, 20]
        """
        wait = self.first_s
        for _ in range(self.retries):
            yield min(wait, self.longest_s)
            wait *= self.factor


def retry(
    action: Callable[[], Value],
    backoff: Backoff,
    *,
    sleep: Sleep = time.sleep,
    count_progress: Callable[[], int] = lambda: 0,
) -> Value:
    """What an action returns, tried again while its peer cannot be reached.

    Args:
        action: what to do.
        backoff: how often to try and how long to wait.
        sleep: called with the seconds to wait.
        count_progress: how much is done so far; a failed try that did some starts the count of tries again.

    Raises:
        PeerUnreachableError: the last one, when the retries are used up.
    """
    waits = backoff.waits()
    done = count_progress()
    while True:
        try:
            return action()
        except PeerUnreachableError as error:
            if count_progress() > done:
                waits, done = backoff.waits(), count_progress()
            wait = next(waits, None)
            if wait is None:
                raise
            log.warning("%s Trying again in %.0f s.", error, wait)
            sleep(wait)
