"""Handlers that several parts of a configuration speak of."""

from __future__ import annotations

from typing import Any


def use(handler: Any) -> Any:
    """The handler itself: MONAI's check of a bundle wants a ``_target_`` in every row of a list of handlers.

    Args:
        handler: one that has a name of its own in the configuration.
    """
    return handler
