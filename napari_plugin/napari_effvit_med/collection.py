"""Python's search for garbage, kept from stopping the window while large libraries are loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Load libraries without a search for garbage; what there is afterwards is not searched again.

    A search goes through every object there is. Beside torch and napari these are more than a million, and nothing
    else runs meanwhile: the window stands still for a fifth of a second, again and again while modules are loaded.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
