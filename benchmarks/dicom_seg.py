"""Whether DICOM SEG files hold the labels at the right place, as another program reads them.

Run from the repository's root: ``python -m benchmarks.dicom_seg`` for the DICOM series of ``sample_data/``, or
``python -m benchmarks.dicom_seg --data FOLDER --labels blobs`` for any other folder. Each series is segmented, written
as binary and as labelmap, and read back with highdicom: every voxel is compared with the labels that were written, the
four corners of every frame with those of the source slice, and the frame of reference. ``dciodvfy`` judges the files
where it is installed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.report import describe_circumstances, make_table, write_report
from benchmarks.scans import attach_labels, draw_blobs
from benchmarks.seg_readback import TOLERANCE_MM, Complaints, ReadBack, check_conformance, read_back
from effvit_med.engine import Model, Remedy, Segmenter, Settings, read_model
from effvit_med.errors import EffvitError, InputError, RefusedError
from effvit_med.io import ReadOptions, SegOptions, open_input, read_case, write_dicom_seg
from effvit_med.volume import Segmentation, Volume

SAMPLES = Path(__file__).parents[1] / "sample_data"
KINDS: tuple[Literal["binary", "labelmap"], ...] = ("binary", "labelmap")

Segment = Callable[[Volume], Segmentation]


@dataclass(frozen=True)
class Written:
    """One file that was written and read back.

    Attributes:
        folder: where the series was found.
        case_id: its name.
        modality: CT, MR, ...
        shape: slices, rows, columns.
        kind: binary or labelmap.
        seconds: wall time of writing.
        kilobytes: size of the file.
        found: what another program reads.
        complaints: of dciodvfy; None where it is not installed.
    """

    folder: str
    case_id: str
    modality: str
    shape: tuple[int, int, int]
    kind: str
    seconds: float
    kilobytes: float
    found: ReadBack
    complaints: Complaints | None


@dataclass(frozen=True)
class Refused:
    """A series without a file.

    Attributes:
        folder: where it was found.
        case_id: its name; empty if the folder holds no image.
        code: a short word.
        message: a sentence.
    """

    folder: str
    case_id: str
    code: str
    message: str


def find_inputs(folder: Path) -> list[Path]:
    """The folders below, each an input of its own; the folder itself if there are none."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) or [folder]


def check_input(source: Path, options: ReadOptions, segment: Segment) -> Iterator[Written | Refused]:
    """Every DICOM series of an input: written in both kinds and read back, or refused with its code.

    Args:
        source: a folder.
        options: what is accepted that is refused by default.
        segment: makes the labels.
    """
    try:
        with open_input(source, options) as found:
            for refused in found.refused:
                yield Refused(source.name, refused.case_id, refused.code, _without_folder(refused.message, source))
            for case in found.cases:
                try:
                    volume = read_case(case)
                    if volume.source is not None and volume.source.kind == "DICOM":
                        yield from _write_both(source.name, segment(volume), volume)
                except EffvitError as error:
                    code = error.code if isinstance(error, RefusedError) else type(error).__name__
                    yield Refused(source.name, case.case_id, code, _without_folder(str(error), source))
    except InputError as error:
        yield Refused(source.name, "", "NO_IMAGES", _without_folder(str(error), source))


def _without_folder(message: str, source: Path) -> str:
    """A message that names no folder above the input: results are kept, and folders may hold names of people."""
    return message.replace(str(source), source.name)


def _write_both(folder: str, segmentation: Segmentation, volume: Volume) -> Iterator[Written]:
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "segmentation.dcm"
            start = time.perf_counter()
            write_dicom_seg(segmentation, path, SegOptions(kind))
            yield Written(
                folder=folder,
                case_id=volume.source.case_id if volume.source else "",
                modality=volume.modality,
                shape=volume.geometry.shape,
                kind=kind,
                seconds=time.perf_counter() - start,
                kilobytes=path.stat().st_size / 1000,
                found=read_back(path, segmentation),
                complaints=check_conformance(path, segmentation),
            )


def choose_labels(kind: str, model: Model) -> Segment:
    """What makes the labels: the shipped network, or ``blobs`` that lie anywhere."""
    if kind == "network":
        return Segmenter(model, Settings(device="cpu")).segment
    values = tuple(label.value for label in model.labels)
    return lambda volume: attach_labels(volume, draw_blobs(volume.geometry.shape, values), model.labels)


def to_markdown(written: Sequence[Written], refused: Sequence[Refused], data: str, labels: str) -> str:
    """The tables and a sentence of what is wrong."""
    head = ["series", "slices x rows x columns", "kind", "segments", "frames", "labelled voxels", "wrong voxels",
            "max mm", "frame of reference", "dciodvfy errors (known, inherited)", "kB", "s"]  # fmt: skip
    wrong = [each for each in written if not each.found.is_right]
    errors = sum(each.complaints.errors for each in written if each.complaints)
    checked = sum(each.complaints is not None for each in written)
    worst = max((each.found.max_distance_mm for each in written), default=0.0)
    verdict = f"{len(wrong)} of {len(written)} files are wrong" if wrong else f"All {len(written)} files are right"
    lines = [
        f"# DICOM SEG read back by highdicom: {data}",
        "",
        (
            f"Labels: {labels}. Right means: every voxel as written, every corner of every frame within "
            f"{TOLERANCE_MM} mm of its source slice, the source's frame of reference."
        ),
        "",
        (
            f"**{verdict}**; the largest distance is {worst:.2g} mm; dciodvfy finds {errors} errors in {checked} "
            "files. Known are two complaints that the dciodvfy of 2022 has of every LABELMAP, which it does not know; "
            "inherited are those that quote a wrong UID of the source itself."
        ),
        "",
        make_table(head, [_row(each) for each in written], texts=3),
    ]
    if refused:
        rows = [[each.folder, each.case_id, each.code, each.message.replace("|", "/")] for each in refused]
        lines += ["", "Refused, so without a file:", "", make_table(["folder", "case", "code", "why"], rows, texts=4)]
    return "\n".join(lines)


def _row(each: Written) -> list[str]:
    complaints = "not installed" if each.complaints is None else each.complaints.to_text()
    return [
        f"{each.folder}/{each.case_id}",
        " x ".join(map(str, each.shape)),
        each.kind,
        str(each.found.segments),
        str(each.found.frames),
        str(each.found.labelled_voxels),
        str(each.found.wrong_voxels),
        f"{each.found.max_distance_mm:.2g}",
        "same" if each.found.same_frame_of_reference else "OTHER",
        complaints,
        f"{each.kilobytes:.0f}",
        f"{each.seconds:.2f}",
    ]


def main() -> None:
    """Writes, reads back, prints the tables and writes them into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder of series or of such folders; sample_data if not given")
    parser.add_argument("--labels", choices=["network", "blobs"], default="network", help="what makes the labels")
    parser.add_argument("--allow", nargs="*", choices=get_args(Remedy), default=["gaps"], help="as of effvit-med")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the shipped one if not given")
    options = parser.parse_args()
    made = describe_circumstances("benchmarks.dicom_seg")
    inputs = find_inputs(options.data) if options.data else sorted(SAMPLES.glob("ct_*"))
    model = read_model(options.bundle)
    segment = choose_labels(options.labels, model)
    read = ReadOptions(allow=frozenset(options.allow))
    results = [each for source in inputs for each in check_input(source, read, segment)]
    written = [each for each in results if isinstance(each, Written)]
    refused = [each for each in results if isinstance(each, Refused)]
    data = options.data.name if options.data else SAMPLES.name
    labels = "random ellipsoids" if options.labels == "blobs" else f"{model.name}, weights {model.weights_sha256[:12]}"
    figures = {
        "labels": options.labels,
        "allow": options.allow,
        "written": [{**asdict(each), "is_right": each.found.is_right} for each in written],
        "refused": [asdict(each) for each in refused],
    }
    is_default = options.data is None and options.labels == "network"
    name = "dicom_seg" if is_default else f"dicom_seg_{data}_{options.labels}"
    write_report(name, to_markdown(written, refused, data, labels), figures, made)


if __name__ == "__main__":
    main()
