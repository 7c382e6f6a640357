"""What becomes of every DICOM series of a folder, and whether its grid is that of dcm2niix.

Run from the repository's root: ``python -m benchmarks.dicom_series`` for ``sample_data/``, or
``python -m benchmarks.dicom_series --data FOLDER`` for any other folder, each folder in it by itself. A series agrees
if for each of our volumes dcm2niix has one whose eight corner voxels lie at the same eight points, whatever the order
and direction of its axes. Where none does, Image Position (Patient) of every slice decides, and the column "off" says
how far our slices lie from it: dcm2niix takes the first distance for all slices, and leaves the shear of a tilted scan
out of the affine.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import dcm2niix  # type: ignore[import-not-found,import-untyped,unused-ignore]
import nibabel
import numpy as np
import numpy.typing as npt
import pydicom
from nibabel.affines import apply_affine

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.io.cases import DicomSeries, RefusedCase
from effvit_med.io.find import ReadOptions, find_cases

SAMPLES = Path(__file__).parents[1] / "sample_data"
TOLERANCE_MM = 0.05
_UNNAMED = "dcm2nii"  # how dcm2niix calls series whose UID it does not take for a name
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What became of one volume, or of one refused part of a series.

    Attributes:
        folder: where it was found.
        case_id: its name.
        status: read, findings or refused.
        codes: of findings, or of the refusal.
        shape: slices, rows, columns; empty if refused.
        spacing_mm: along the same axes; empty if refused.
        dcm2niix: ``agrees``, ``none`` if dcm2niix wrote nothing of the series, or its nearest grid.
        distance_mm: the farthest of the corners from those of the nearest grid of dcm2niix; None if there is none.
        off_mm: the farthest of our slices' first voxels from their Image Position (Patient); None if refused.
    """

    folder: str
    case_id: str
    status: str
    codes: tuple[str, ...]
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    dcm2niix: str
    distance_mm: float | None
    off_mm: float | None


@dataclass(frozen=True)
class Grid:
    """One file that dcm2niix wrote: its size, and where its corner voxels lie in LPS."""

    shape: tuple[int, ...]
    corners: Points


def main(arguments: Sequence[str] | None = None) -> None:
    """Look at all folders and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLES, help="folder of folders of DICOM files")
    options = parser.parse_args(arguments)
    circumstances = describe_circumstances("benchmarks.dicom_series", arguments)
    verdicts = [verdict for folder in _folders(options.data) for verdict in judge_folder(folder)]
    table = make_table(
        ["folder", "case", "verdict", "codes", "slices, rows, columns", "mm", "dcm2niix", "apart, mm", "off, mm"],
        [
            [
                each.folder,
                each.case_id,
                each.status,
                ", ".join(each.codes),
                " x ".join(map(str, each.shape)),
                " x ".join(f"{step:.4g}" for step in each.spacing_mm),
                each.dcm2niix,
                "" if each.distance_mm is None else f"{each.distance_mm:.3f}",
                "" if each.off_mm is None else f"{each.off_mm:.3f}",
            ]
            for each in verdicts
        ],
        texts=4,
    )
    counts = Counter(each.status for each in verdicts)
    read = [each for each in verdicts if each.shape]
    agreeing = sum(each.dcm2niix == "agrees" for each in read)
    compared = sum(each.dcm2niix != "none" for each in read)
    summary = ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))
    text = (
        f"# DICOM series against dcm2niix\n\n{summary}; of {compared} volumes that dcm2niix wrote too, {agreeing} lie "
        f"at the same place within {TOLERANCE_MM} mm.\n\n{table}"
    )
    name = "dicom_series" if options.data == SAMPLES else f"dicom_series_{options.data.name}"
    write_report(name, text, {"verdicts": [asdict(each) for each in verdicts]}, circumstances)


def _folders(root: Path) -> Iterator[Path]:
    return (each for each in sorted(root.iterdir()) if each.is_dir())


def judge_folder(folder: Path) -> list[Verdict]:
    """One verdict for each volume and refusal of a folder."""
    found = find_cases(folder, ReadOptions())
    theirs = _run_dcm2niix(folder)
    verdicts = []
    for case in found.cases:
        if isinstance(case, DicomSeries):
            corners = case.geometry.index_to_world(_corner_indices(case.geometry.shape))
            grids = theirs.get(case.series_instance_uid) or theirs.get(_UNNAMED, [])
            word, distance = _compare(corners, case.geometry.shape, grids)
            status, codes = ("findings" if case.findings else "read"), tuple(f.code for f in case.findings)
            grid = case.geometry
            verdicts.append(
                Verdict(
                    folder.name, case.case_id, status, codes, grid.shape, grid.spacing_mm, word, distance, _off(case)
                )
            )
    verdicts.extend(_refusal(folder, refused, theirs) for refused in found.refused if refused.is_dicom)
    return verdicts


def _off(case: DicomSeries) -> float:
    """How far slices of single-frame files lie from where their files say; 0 for multi-frame files."""
    away = [0.0]
    for index, (path, frame) in enumerate(case.images):
        if not frame:
            position = np.array(pydicom.dcmread(path, stop_before_pixels=True, force=True).ImagePositionPatient, float)
            away.append(float(np.linalg.norm(case.geometry.index_to_world([index, 0, 0]) - position)))
    return max(away)


def _refusal(folder: Path, refused: RefusedCase, theirs: dict[str, list[Grid]]) -> Verdict:
    grids = theirs.get(refused.series_instance_uid, [])
    return Verdict(folder.name, refused.case_id, "refused", (refused.code,), (), (), _name_grids(grids), None, None)


def _run_dcm2niix(folder: Path) -> dict[str, list[Grid]]:
    """The grids that dcm2niix makes of a folder, by Series Instance UID."""
    grids: dict[str, list[Grid]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as output:
        command = [dcm2niix.bin, "-f", "%j", "-z", "n", "-b", "n", "-o", output, str(folder)]
        subprocess.run(command, check=False, capture_output=True)
        for path in sorted(Path(output).glob("*.nii")):
            image = nibabel.load(path)
            shape = tuple(int(size) for size in image.shape[:3])
            corners = apply_affine(LPS @ image.affine, _corner_indices(shape))
            grids[path.stem.split("_")[0]].append(Grid(shape, corners))
    return grids


def _corner_indices(shape: Sequence[int]) -> Points:
    return np.array(list(itertools.product(*[(0, size - 1) for size in shape])), dtype=np.float64)


def _compare(corners: Points, shape: Sequence[int], grids: Sequence[Grid]) -> tuple[str, float | None]:
    """Whether one of the grids has these corners, and how far the nearest is off."""
    same = [grid for grid in grids if sorted(grid.shape) == sorted(shape)]
    if not same:
        return _name_grids(grids), None
    away = [np.linalg.norm(corners[:, None] - grid.corners, axis=-1) for grid in same]
    nearest = min(float(max(each.min(axis=0).max(), each.min(axis=1).max())) for each in away)
    return ("agrees" if nearest <= TOLERANCE_MM else "differs"), nearest


def _name_grids(grids: Sequence[Grid]) -> str:
    return ", ".join(sorted({" x ".join(map(str, grid.shape)) for grid in grids})) or "none"


if __name__ == "__main__":
    main()
