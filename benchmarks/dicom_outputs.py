"""What it costs to write a large result: 104 structures in 200 slices of 512 x 512, in every kind of file.

Run from the repository's root: ``python -m benchmarks.dicom_outputs``. The scan is made up: its labels are ellipsoids,
every fourth of them hollow, about as large as organs. Each kind is written in a process of its own, which tells wall
and processor seconds, the size of the file, and how much memory it needed at the worst moment beyond scan and labels.
Every SEG and RTSTRUCT is read back and compared by its writer before it takes its name; that is part of the time.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from benchmarks.engine_process import Stopwatch, peak_mib, reset_peak, run_alone
from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.io import SegOptions, write_dicom_seg, write_dicom_sr, write_nifti, write_nrrd, write_rtstruct
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Source, SourceFile, Volume
from effvit_med.volume.measurements import measure

SHAPE, STRUCTURES, FEW = (200, 512, 512), 104, 3
SMALL_SHAPE, SMALL_STRUCTURES = (8, 64, 64), 12
KINDS = (
    "labelmap", "binary", "binary, 3 structures", "fractional", "fractional, 3 structures", "rtstruct", "nrrd", "nifti",
    "sr",
)  # fmt: skip
TARGETS_S = {"labelmap": 3.0, "binary": 10.0}
TARGET_MB = 500.0

_UID = "1.2.826.0.1.3680043.8.498.3"


def draw_labels(shape: tuple[int, int, int], structures: int) -> npt.NDArray[np.uint8]:
    """Ellipsoids side by side on a grid, shifted and sized by chance; every fourth is hollow.

    Args:
        shape: slices, rows, columns.
        structures: how many, at most 255.
    """
    rng = np.random.default_rng(0)
    labels = np.zeros(shape, np.uint8)
    cells = (4, -(-structures // 24), 6) if structures > 24 else (1, 3, -(-structures // 3))
    step = np.array(shape) / cells
    for value in range(1, structures + 1):
        cell = np.array(np.unravel_index(value - 1, cells))
        radius = step * rng.uniform(0.3, 0.48, 3)
        centre = (cell + 0.5) * step + rng.uniform(-0.1, 0.1, 3) * step
        first = np.maximum((centre - radius).astype(int), 0)
        last = np.minimum((centre + radius).astype(int) + 2, shape)
        place = np.ogrid[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(place, centre, radius, strict=True))
        inside = (distance < 1) & ((distance > 0.2) | (value % 4 > 0))
        labels[first[0] : last[0], first[1] : last[1], first[2] : last[2]][inside] = value
    return labels


def write_scan(folder: Path, shape: tuple[int, int, int]) -> None:
    """A CT series of noise, one file a slice.

    Args:
        folder: where to.
        shape: slices, rows, columns.
    """
    noise = np.random.default_rng(0).integers(-1000, 1000, shape[1:], np.int16)
    for k in range(shape[0]):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{_UID}.1.{k + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{_UID}.2", f"{_UID}.3"
        dataset.FrameOfReferenceUID, dataset.Modality, dataset.PatientID = f"{_UID}.4", "CT", "phantom"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 1.5 * k], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.9, 0.7], 1.5
        dataset.Rows, dataset.Columns = shape[1:]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelData = noise.tobytes()
        dataset.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)


def read_scan(folder: Path, labels: npt.NDArray[np.uint8], structures: int) -> tuple[Volume, Segmentation]:
    """The scan as the reader would give it, and its labels with a confidence that is low at borders.

    Args:
        folder: of the series.
        labels: its labels.
        structures: of the table.
    """
    affine = np.array([[0, 0, 0.7, 0], [0, 0.9, 0, 0], [1.5, 0, 0, 0], [0, 0, 0, 1]])
    geometry = Geometry(affine, (labels.shape[0], labels.shape[1], labels.shape[2]), f"{_UID}.4")
    files = tuple(
        SourceFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), f"{_UID}.1.{k + 1}")
        for k, path in enumerate(sorted(folder.glob("*.dcm")))
    )
    source = Source("phantom", "DICOM", files, f"{_UID}.2", f"{_UID}.3")
    kinds = [Code("91723000", "Anatomical Structure"), Code("64033007", "Kidney")]
    table = LabelTable(
        tuple(
            Label(value, f"structure_{value}", kinds[value % 2], colour=(value, 255 - value, 128))
            for value in range(1, structures + 1)
        )
    )
    made = Provenance("phantom", "1", "a" * 64, {}, {"effvit-med": "0"}, "cpu", "2026-01-01T12:00:00+00:00", source)
    confidence = np.full(labels.shape, 255, np.uint8)
    for axis in range(3):
        changes = np.diff(labels, axis=axis, append=labels.take([-1], axis)) != 0
        confidence[changes] = 90 + 40 * axis
    volume = Volume(np.zeros(labels.shape, np.int16), geometry, "CT", source)
    return volume, Segmentation(labels, geometry, table, made, confidence)


def measure_kind(kind: str, folder: str, small: bool) -> dict[str, Any]:
    """Write one kind of file, alone in this process.

    Args:
        kind: one of `KINDS`.
        folder: of the series.
        small: whether the small result is written.
    """
    shape, structures = (SMALL_SHAPE, SMALL_STRUCTURES) if small else (SHAPE, STRUCTURES)
    labels = draw_labels(shape, structures)
    if "3 structures" in kind:
        labels[labels > FEW] = 0
    volume, segmentation = read_scan(Path(folder), labels, structures)
    with tempfile.TemporaryDirectory() as place:
        seg_path = Path(place) / "segmentation.dcm"
        rows = measure(volume, segmentation)
        if kind == "sr":
            write_dicom_seg(segmentation, seg_path)
        watch = Stopwatch()
        reset_peak()
        before = psutil.Process().memory_info().rss / 2**20
        with watch.phase("write"):
            path = _write(kind, segmentation, Path(place), rows, seg_path)
        peak = peak_mib()
        megabytes = path.stat().st_size / 1e6
    found = int(np.count_nonzero(np.bincount(labels.reshape(-1))[1:]))
    return {"kind": kind, "structures": found, "wall_s": watch.wall["write"], "cpu_s": watch.cpu["write"],
            "file_mb": megabytes, "extra_mib": max(0.0, peak - before)}  # fmt: skip


def _write(kind: str, segmentation: Segmentation, folder: Path, rows: Any, seg_path: Path) -> Path:
    name = kind.split(",", maxsplit=1)[0]
    suffix = {"nrrd": ".seg.nrrd", "nifti": ".nii.gz"}.get(name, ".dcm")
    path = folder / f"{name}{suffix}"
    if name == "rtstruct":
        write_rtstruct(segmentation, path)
    elif name == "nrrd":
        write_nrrd(segmentation, path)
    elif name == "nifti":
        write_nifti(segmentation, path)
    elif name == "sr":
        write_dicom_sr(segmentation, rows, seg_path, path)
    else:
        write_dicom_seg(segmentation, path, SegOptions(name))  # type: ignore[arg-type]  # one of its kinds
    return path


def to_markdown(results: Sequence[dict[str, Any]], shape: tuple[int, int, int], repeats: int) -> str:
    """The table and whether the targets are met.

    Args:
        results: of `measure_kind`.
        shape: slices, rows, columns.
        repeats: how often each was written.
    """
    head = ["kind", "structures", "seconds", "processor seconds", "MB", "extra memory MiB"]
    rows = [
        [each["kind"], str(each["structures"]), f"{each['wall_s']:.2f}", f"{each['cpu_s']:.2f}",
         f"{each['file_mb']:.1f}", f"{each['extra_mib']:.0f}"]
        for each in results
    ]  # fmt: skip
    missed = [each["kind"] for each in results if each["cpu_s"] > TARGETS_S.get(each["kind"], float("inf"))]
    large = [each["kind"] for each in results if each["extra_mib"] > TARGET_MB]
    verdict = "All targets are met." if not missed + large else f"Missed: {', '.join(missed + large)}."
    lines = [
        f"# Writing {' x '.join(map(str, shape))} voxels",
        "",
        (
            f"Median of {repeats} by processor time; SEG and RTSTRUCT with their check after writing. Targets: "
            f"labelmap {TARGETS_S['labelmap']:.0f} s, binary {TARGETS_S['binary']:.0f} s of processor, each below "
            f"{TARGET_MB:.0f} MiB of extra memory. **{verdict}** Wall time is longer where other programs are at work."
        ),
        "",
        make_table(head, rows),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table and writes it into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--small", action="store_true", help="a small result once, to see that it runs; nothing is kept"
    )
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS, help="which; all if not given")
    parser.add_argument("--repeats", type=int, default=3, help="processes for each kind; the median counts")
    options = parser.parse_args()
    made = describe_circumstances("benchmarks.dicom_outputs")
    shape, repeats = (SMALL_SHAPE, 1) if options.small else (SHAPE, options.repeats)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder), shape)
        for kind in options.kinds:
            request = {"kind": kind, "folder": folder, "small": options.small}
            tries = [run_alone("benchmarks.dicom_outputs:measure_kind", request) for _ in range(repeats)]
            results.append(sorted(tries, key=lambda each: each["cpu_s"])[len(tries) // 2])
            print(time.strftime("%H:%M:%S"), kind, f"{results[-1]['cpu_s']:.2f} s of processor", flush=True)
    text = to_markdown(results, shape, repeats)
    if options.small:
        print(text)
    else:
        write_report("dicom_outputs", text, {"shape": shape, "results": results}, made)


if __name__ == "__main__":
    main()
