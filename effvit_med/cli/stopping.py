"""Ctrl+C and SIGTERM: a wish to stop that holds even where a library swallows the interrupt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

_STOP = threading.Event()


def listen_for_stop() -> None:
    """From now on Ctrl+C and SIGTERM interrupt what runs, and `stop_if_asked` remembers it."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def listen_for_gentle_stop() -> Callable[[], bool]:
    """From now on the first Ctrl+C or SIGTERM is only remembered; the next one interrupts.

    Returns:
        Whether the user asked to stop.
    """

    def remember(number: int, frame: FrameType | None) -> None:
        if _STOP.is_set():
            _interrupt(number, frame)
        _STOP.set()

    signal.signal(signal.SIGINT, remember)
    signal.signal(signal.SIGTERM, remember)
    return _STOP.is_set


def stop_if_asked() -> None:
    """Called often, as progress is told.

    An interrupt that meets a library between its own ``try`` and a bare ``except``, as some have while they are
    imported, is lost; this raises it again.

    Raises:
        KeyboardInterrupt: if the user asked to stop.
    """
    if _STOP.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    _STOP.set()
    raise KeyboardInterrupt
