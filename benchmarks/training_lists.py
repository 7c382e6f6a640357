"""What the shipped bundles are planned from: lists of the cases to learn from, and folders of those that are not.

Run from the repository's root: ``python -m benchmarks.training_lists --data ../shared/data -o runs/lists``. For each
real set it writes ``NAME/dataset.json``, which ``effvit-med plan`` takes, and copies of the test cases to
``NAME/test/images`` and ``NAME/test/labels``, which ``effvit-med segment`` and ``evaluate`` take; what a second
observer drew goes to ``NAME/test/second``. The split is that of the benchmarks (`benchmarks.splits`), so that a bundle
is scored on cases that it has never seen.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.splits import cut_groups
from effvit_med.io.atomic import write_json
from effvit_med.planning.training_set import TrainingCase


@dataclass(frozen=True)
class RealSet:
    """A real set and what its values mean.

    Attributes:
        folder: below the data folder.
        folds: in how many parts its groups are cut; the first is tested.
        modality: as the Decathlon writes it.
        labels: names of the label values from 1 on.
        find: its cases.
        second: name of the folder beside that of the labels with those of a second observer; empty where there is none.
    """

    folder: str
    folds: int
    modality: str
    labels: tuple[str, ...]
    find: Callable[[Path], Sequence[TrainingCase]]
    second: str = ""


def _find_hippocampus(folder: Path) -> list[TrainingCase]:
    names = sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("images/*.nii.gz"))
    return [
        TrainingCase(name, folder / f"images/{name}.nii.gz", folder / f"labels/{name}.nii.gz", name) for name in names
    ]


def _find_vessels(folder: Path) -> list[TrainingCase]:
    names = sorted(path.stem for path in folder.glob("images/*.jpg"))
    return [
        TrainingCase(
            name, folder / f"images/{name}.jpg", folder / f"labels_1stHO/{name}.png", re.sub("[LR]$", "", name)
        )
        for name in names
    ]


def _find_hearts(folder: Path) -> list[TrainingCase]:
    found = []
    for path in sorted(folder.glob("*/E?_image.nii.gz")):
        patient, phase = path.parent.name, path.name[:2]
        label = path.with_name(f"{phase}_label.nii.gz")
        # at the end of systole only the cavity was drawn
        found.append(
            TrainingCase(f"{patient}_{phase}", path, label, patient, None if phase == "ED" else ("lv_cavity",))
        )
    return found


SETS = {
    "hippocampus": RealSet("seg3d/hippocampus_msd04", 5, "MRI", ("anterior", "posterior"), _find_hippocampus),
    "vessels": RealSet("seg2d/chasedb1", 3, "colour photograph", ("vessel",), _find_vessels, "labels_2ndHO"),
    "cardiac": RealSet("seg3d/cardiac_sunnybrook", 3, "MRI", ("lv_cavity", "lv_myocardium"), _find_hearts),
}


def write_lists(name: str, data: Path, output: Path, *, tests: bool = True) -> Path:
    """Write the list of one set and copy its test cases.

    Args:
        name: one of `SETS`.
        data: the folder of openly licensed scans.
        output: the folder for it; a folder of the set's name is made in it.
        tests: whether the test cases are kept apart; without, all cases are in the list.

    Returns:
        Path of ``dataset.json``.

    Raises:
        SystemExit: if the set is not there, with a line that says where it was looked for.
    """
    real = SETS[name]
    cases = real.find((data / real.folder).resolve())
    if not cases:
        raise SystemExit(f"There are no scans of {name} in {data / real.folder}; name the folder with --data.")
    tested = cut_groups([case.group for case in cases], real.folds)[1] if tests else []
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    for case in (case for case in cases if case.group in tested):
        copied = {"images": case.image, "labels": case.label}
        if real.second:
            copied["second"] = case.label.parent.with_name(real.second) / case.label.name
        for kind, path in copied.items():
            (folder / "test" / kind).mkdir(parents=True, exist_ok=True)
            ending = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
            shutil.copy2(path, folder / "test" / kind / f"{case.case_id}{ending}")
    rows: list[dict[str, Any]] = [
        {"case": case.case_id, "image": str(case.image), "label": str(case.label), "group": case.group}
        | ({} if case.annotated is None else {"annotated": list(case.annotated)})
        for case in cases
        if case.group not in tested
    ]
    labels = {"0": "background", **{str(value): text for value, text in enumerate(real.labels, 1)}}
    write_json(
        folder / "dataset.json",
        {"name": name, "modality": {"0": real.modality}, "labels": labels, "training": rows, "tested": sorted(tested)},
    )
    return folder / "dataset.json"


def main() -> None:
    """Writes all lists and says where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/lists"))
    parser.add_argument("--whole", action="store_true", help="keep no test cases apart: folds leave cases out in turn")
    options = parser.parse_args()
    for name in SETS:
        print(write_lists(name, options.data, options.output, tests=not options.whole))


if __name__ == "__main__":
    main()
