"""Where the best weights of a run go in their bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from effvit_med.errors import InputError
from effvit_med.io.atomic import atomic_path, make_folder


def weights_place(named: Path, fold: int) -> Path:
    """The file in a bundle for the weights of a fold.

    Args:
        named: the file that ``model.yaml`` names; the first fold's.
        fold: from 0.

    Examples:
        >>> weights_place(Path("models/liver.safetensors"), 2).name
        'liver_fold2.safetensors'
    """
    return named if fold == 0 else named.with_name(f"{named.stem}_fold{fold}{named.suffix}")


def place_weights(best: str | Path, named: str | Path, fold: int = 0) -> Path:
    """Put the best weights of a run where its bundle names them, whole or not at all.

    Args:
        best: what the run kept.
        named: the file that ``model.yaml`` names.
        fold: that the run validated on; those of folds but the first go beside that file.

    Returns:
        Where they are now.

    Raises:
        InputError: if the run kept none.
        OutputError: if they cannot be written.
    """
    best, place = Path(best), weights_place(Path(named), fold)
    if not best.is_file():
        raise InputError(f"The run kept no weights in {best}: it ended before the first validation.")
    make_folder(place.parent)
    with atomic_path(place) as temporary:
        shutil.copyfile(best, temporary)
    return place
