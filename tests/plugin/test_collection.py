"""The search for garbage is off only for as long as it shall be."""

from __future__ import annotations

import gc

import pytest

from napari_effvit_med.collection import collection_paused


def test_the_search_goes_on_afterwards_also_after_an_error() -> None:
    """Within it is off; what was there is set aside, so that later searches are short."""
    assert gc.isenabled()

    def load() -> None:
        with collection_paused():
            assert not gc.isenabled()
            raise ImportError("no such library")

    try:
        with pytest.raises(ImportError, match="no such library"):
            load()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


def test_a_search_that_was_off_stays_off() -> None:
    """Somebody else may have reasons of his own."""
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
