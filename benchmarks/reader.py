"""How long finding and reading a DICOM series takes, beside SimpleITK's series reader; and how much headers weigh.

Run from the repository's root: ``python -m benchmarks.reader``. A synthetic CT of 300 slices of 512 x 512 is written
uncompressed and with each lossless compression. Both readers sort the folder and decode all slices into memory; they
take turns, and the least of several runs counts, as wall time and as processor time, because other programs may run.
By default a scan of more than 128 MiB goes to a temporary file instead; the last row measures that.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  as all its documentation calls it
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.io.dicom_header import Header
from effvit_med.io.dicom_headers import read_header
from effvit_med.io.find import ReadOptions, find_cases
from effvit_med.io.read import read_case

SLICES, SIDE = 300, 512
HEADERS = 300_000
SYNTAXES: dict[str, UID] = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


@dataclass(frozen=True)
class Timing:
    """The least of several runs.

    Attributes:
        syntax: how the slices are encoded.
        slices: how many.
        ours_s: wall time of finding and reading.
        find_s: of these, finding.
        peer_s: wall time of SimpleITK.
        ours_cpu_s: processor time of all threads.
        peer_cpu_s: the same of SimpleITK.
        equal: whether both gave the same voxels.
    """

    syntax: str
    slices: int
    ours_s: float
    find_s: float
    peer_s: float
    ours_cpu_s: float
    peer_cpu_s: float
    equal: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all encodings and the headers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often each reader reads the uncompressed series")
    parser.add_argument("--slices", type=int, default=SLICES)
    options = parser.parse_args(arguments)
    made = describe_circumstances("benchmarks.reader", arguments)
    timings = []
    with tempfile.TemporaryDirectory() as root:
        for name, syntax in SYNTAXES.items():
            folder = Path(root) / name.replace(" ", "_")
            count = options.slices if syntax == ExplicitVRLittleEndian else max(2, options.slices // 10)
            write_series(folder, count, syntax)
            timings.append(_measure(folder, name, count, options.runs))
        timings.append(
            _measure(Path(root) / "uncompressed", "uncompressed, to a file", options.slices, options.runs, 128)
        )
        weight = _weigh_headers(Path(root) / "uncompressed")
    rows = [
        [
            each.syntax,
            str(each.slices),
            f"{each.ours_s:.2f}",
            f"{each.find_s:.2f}",
            f"{each.peer_s:.2f}",
            f"{each.ours_s / each.peer_s:.2f}",
            f"{each.ours_cpu_s / each.peer_cpu_s:.2f}",
            "yes" if each.equal else "no",
        ]
        for each in timings
    ]
    head = ["encoding", "slices", "ours, s", "of it finding", "SimpleITK, s", "ratio", "ratio of CPU", "same voxels"]
    text = (
        f"# Reading a DICOM series of {SIDE} x {SIDE} slices\n\n{make_table(head, rows)}\n\n"
        f"A header in memory weighs {weight:.0f} bytes: {weight * HEADERS / 2**20:.0f} MiB for {HEADERS} images."
    )
    write_report("reader", text, {"timings": [asdict(each) for each in timings], "header_bytes": weight}, made)


def write_series(folder: Path, count: int, syntax: UID) -> None:
    """A stack of smooth slices with noise, as a scanner gives them."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    wave = np.sin(np.arange(SIDE) / 40)
    plane = 1000 + 500 * wave[:, None] * wave
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for index in range(count):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, index + 1
        dataset.PatientName, dataset.PatientID = "Phantom", "1"
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 1.0
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, float(index)]
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = (plane + noise.normal(0, 20, plane.shape)).astype(np.int16).tobytes()
        if syntax != ExplicitVRLittleEndian:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(folder / f"{(index * 7919) % count:05d}.dcm", enforce_file_format=True)


def _measure(folder: Path, name: str, count: int, runs: int, spill_mb: int = 2**20) -> Timing:
    ours: list[tuple[float, float, float]] = []
    theirs: list[tuple[float, float]] = []
    equal = True
    for _ in range(runs):
        start, cpu = time.perf_counter(), time.process_time()
        (case,) = find_cases(folder, ReadOptions()).cases
        found = time.perf_counter()
        array = read_case(case, ReadOptions(spill_mb=spill_mb)).array
        ours.append((time.perf_counter() - start, time.process_time() - cpu, found - start))
        start, cpu = time.perf_counter(), time.process_time()
        image = _read_peer(folder)
        theirs.append((time.perf_counter() - start, time.process_time() - cpu))
        equal = equal and bool(np.array_equal(array, sitk.GetArrayViewFromImage(image)))
        del array, image
    least: Callable[[list[float]], float] = min
    return Timing(
        name,
        count,
        least([wall for wall, _, _ in ours]),
        least([find for _, _, find in ours]),
        least([wall for wall, _ in theirs]),
        least([cpu for _, cpu, _ in ours]),
        least([cpu for _, cpu in theirs]),
        equal,
    )


def _read_peer(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def _weigh_headers(folder: Path) -> float:
    """Bytes that one more header of a series takes."""
    paths = sorted(folder.iterdir())
    read_header(paths[0])
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept: list[Header] = []
    for path in paths:
        found = read_header(path.with_name(path.name))
        if isinstance(found, tuple):
            kept.extend(found)
    gc.collect()
    weight = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    tracemalloc.stop()
    return weight


if __name__ == "__main__":
    main()
