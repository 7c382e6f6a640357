"""Data to train on: phantoms written once as an MSD-style data set, and the lists of such data sets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from effvit_med.errors import InputError, SettingsError
from effvit_med.io import write_volume
from effvit_med.io.atomic import write_json
from effvit_med.training.phantom import STRUCTURES, make_case
from effvit_med.volume import Geometry, Volume

log = logging.getLogger(__name__)


def write_phantom_dataset(folder: str | Path, training: Iterable[int], validation: Iterable[int]) -> Path:
    """Write phantoms as NIfTI with a ``dataset.json`` in the manner of the Medical Segmentation Decathlon.

    Cases that are already there stay, so an interrupted call goes on where it stopped.

    Args:
        folder: where to; made if it is not there.
        training: seeds of the cases to learn from.
        validation: seeds of the cases to watch; none may be a training seed.

    Returns:
        The path of ``dataset.json``.

    Raises:
        SettingsError: if a seed is in both lists, or negative.
        OutputError: if the files cannot be written.
    """
    folder = Path(folder)
    training, validation = list(training), list(validation)
    negative = [seed for seed in training + validation if seed < 0]
    if negative:
        raise SettingsError(f"The seeds {negative} are negative; give seeds of 0 or more.")
    shared = sorted(set(training) & set(validation))
    if shared:
        raise SettingsError(f"The seeds {shared} are in training and in validation; a case belongs to one of them.")
    rows: dict[str, list[dict[str, str]]] = {"training": [], "validation": []}
    work = [("training", seed) for seed in training] + [("validation", seed) for seed in validation]
    for part, seed in tqdm(work, desc="phantoms", disable=None):
        names = {"image": f"images/phantom_{seed:06d}.nii.gz", "label": f"labels/phantom_{seed:06d}.nii.gz"}
        if not all((folder / name).exists() for name in names.values()):
            _write_case(folder, seed, names)
        rows[part].append(names)
    labels = {"0": "background", **{str(value): name for value, name in STRUCTURES.items()}}
    document: dict[str, Any] = {
        "name": "effvit-med abdominal CT phantoms",
        "modality": {"0": "CT"},
        "labels": labels,
        **rows,
    }
    document["numTraining"] = len(rows["training"])
    write_json(folder / "dataset.json", document)
    return folder / "dataset.json"


def read_datalist(
    path: str | Path, part: str, held_out: float = 0.2, seed: int = 0, fold: int = 0
) -> list[dict[str, str]]:
    """The cases of an MSD-style ``dataset.json``, or of the ``datalist.json`` of a planned bundle, with absolute paths.

    Args:
        path: the file. Its paths start from its folder, or from its ``root`` where it names one.
        part: ``training``, ``validation`` or ``test``. Where the file has no ``validation`` list, that part is drawn
            from ``training``, and what is drawn is left out of ``training``; if its cases have a ``fold``, those
            of ``fold`` are that part.
        held_out: the share drawn for validation.
        seed: decides which cases are drawn.
        fold: which fold is held out where cases have one.

    Returns:
        One mapping per case, with ``image`` and ``label``.

    Raises:
        InputError: if the file cannot be read, has no cases of that part, or a case lacks a path.
        SettingsError: if the part is unknown.
    """
    path = Path(path)
    if part not in ("training", "validation", "test"):
        raise SettingsError(f"The part is {part!r}; it must be 'training', 'validation' or 'test'.")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        cases: list[dict[str, Any]] = list(document["training"])
        validation = document.get("validation")
        root = path.parent / document.get("root", "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no MSD dataset.json with a 'training' list: {error}.") from error
    if validation is None and any("fold" in case for case in cases):
        validation = [case for case in cases if case.get("fold") == fold]
        cases = [case for case in cases if case.get("fold") != fold]
    elif validation is None:
        order = np.random.default_rng(seed).permutation(len(cases))
        drawn = set(order[: max(1, round(len(cases) * held_out))].tolist())
        validation = [case for number, case in enumerate(cases) if number in drawn]
        cases = [case for number, case in enumerate(cases) if number not in drawn]
    chosen = {"training": cases, "validation": validation, "test": document.get("test") or []}[part]
    if not chosen:
        raise InputError(f"{path} has no {part} cases; it has {len(cases)} for training.")
    try:
        return [{key: str((root / case[key]).resolve()) for key in ("image", "label")} for case in chosen]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: a {part} case lacks an 'image' or a 'label' path ({error}).") from error


def share_batch(batch_size: int, processes: int) -> int:
    """How many patches of a batch each of several processes takes.

    Args:
        batch_size: patches in a step of all together.
        processes: how many there are.

    Raises:
        SettingsError: if they cannot share alike.

    Examples:
        >>> share_batch(8, 4)
        2
    """
    if batch_size % processes:
        raise SettingsError(
            f"batch_size is {batch_size} for {processes} processes; give a multiple, such as --batch_size "
            f"{processes * max(1, round(batch_size / processes))}."
        )
    return batch_size // processes


def is_on(value: object) -> bool:
    """Whether a switch is on; on the command line of ``monai.bundle``, ``false`` comes as text.

    Args:
        value: true, false, or one of them as text.

    Raises:
        SettingsError: if it is neither.

    Examples:
        >>> is_on(True), is_on("false")
        (True, False)
    """
    word = str(value).lower()
    if word not in ("true", "false"):
        raise SettingsError(f"A switch is {value!r}; it must be true or false.")
    return word == "true"


def tracking_uri(place: str) -> str:
    """Where MLflow keeps its records, as it wants to be told.

    Args:
        place: a local file that it makes (an SQLite database), the URI of a server, or empty for nothing.

    Examples:
        >>> tracking_uri("http://localhost:5000"), tracking_uri("/data/mlflow.db")
        ('http://localhost:5000', 'sqlite:////data/mlflow.db')
    """
    if not place or "://" in place:
        return place
    path = Path(place).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}"


def _write_case(folder: Path, seed: int, names: dict[str, str]) -> None:
    """Render one phantom on a scan grid drawn from its seed and write image and labels."""
    rng = np.random.default_rng([seed, 9])
    thickness_mm = float(rng.choice([2.0, 2.5, 3.0, 4.0, 5.0]))
    pixel_mm = float(rng.uniform(1.6, 2.6))
    slices, across = round(rng.uniform(210, 300) / thickness_mm), round(rng.uniform(370, 420) / pixel_mm)
    shape = (slices, across, across)
    case = make_case(seed, spacing_mm=(thickness_mm, pixel_mm, pixel_mm), shape=shape)
    geometry = Geometry(case.affine_lps, shape)
    for kind, array in (("image", case.hu), ("label", case.labels)):
        path = folder / names[kind]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, geometry, "CT"), path)
