"""Ctrl+C and SIGTERM: a wish to stop that holds even where a library swallows the interrupt."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_STOP = threading.Event()


def listen_for_stop() -> None:
    """From now on Ctrl+C and SIGTERM interrupt what runs, and `stop_if_asked` remembers it."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


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
