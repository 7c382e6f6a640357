"""What is kept from run to run in the user's cache folder: graphs, engines and measurements."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from effvit_med.errors import OutputError

VARIABLE = "EFFVIT_MED_CACHE"


def cache_folder(*parts: str) -> Path:
    """A folder inside the user's cache folder; it is made if it is not there.

    Everything in it can be removed at any time: it is made again when needed.

    Args:
        parts: the folders below the cache folder.

    Returns:
        The folder: below the one that the environment variable ``EFFVIT_MED_CACHE`` names, else below the one that
        this system has for the caches of programs.

    Raises:
        OutputError: if it cannot be made.
    """
    chosen = os.environ.get(VARIABLE)
    folder = (Path(chosen) if chosen else platformdirs.user_cache_path("effvit-med")).joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The cache folder {folder} cannot be made: {error.strerror}. Name another in {VARIABLE}."
        ) from error
    return folder
