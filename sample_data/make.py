"""Write the sample data: five small made-up CT scans, their exact labels, and SHA256SUMS.

    python sample_data/make.py                 write beside this script
    python sample_data/make.py --output DIR    write elsewhere
    python sample_data/make.py --check         make all anew and compare with what lies here

Everything is drawn from fixed seeds by `effvit_med.training.phantom`; nothing comes from a patient.
"""

import argparse
import gzip
import hashlib
import io
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from effvit_med.training.phantom import Phantom, Phase, draw_anatomy, render

HERE = Path(__file__).resolve().parent
SUMS = "SHA256SUMS"
NAMESPACE = uuid.UUID("6d0f3c52-93a1-5d0e-9c58-3f1b7a2e4d60")
INTERCEPT_HU = -1024
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SUMS_HEADER = """\
# SHA-256 of every generated file, written by make.py.
# For names that end in .nii.gz it is the hash of the DEcompressed bytes (zlib versions pack differently):
#   gzip -dc FILE | sha256sum
"""


@dataclass(frozen=True)
class Scan:
    """One made-up scan: who is scanned and how.

    Attributes:
        name: its folder, or the stem of its file.
        seed: the patient; 900000 and up are kept for sample data and never used in training.
        phase: contrast phase.
        shape: slices, rows, columns.
        spacing_mm: step along the table, distance of rows, distance of columns.
        centre_mm: LPS position of the middle of the scan.
        tilt_deg: gantry tilt about the left-right axis.
        left_out: positions (from inferior) whose slice is not written.
        as_nifti: one NIfTI file in place of a DICOM series.
    """

    name: str
    seed: int
    phase: Phase
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    tilt_deg: float = 0.0
    left_out: tuple[int, ...] = ()
    as_nifti: bool = False


SCANS = (
    Scan("ct_axial", 900001, "portal", (40, 192, 192), (5.0, 2.0, 2.0), (0.0, 16.0, 22.0)),
    Scan("ct_tilted", 900002, "portal", (16, 128, 128), (10.0, 3.0, 3.0), (4.0, 12.0, 10.0), tilt_deg=15.0),
    Scan("ct_nonsquare", 900003, "arterial", (20, 112, 144), (8.0, 3.0, 2.4), (-3.0, 10.0, 15.0)),
    Scan("ct_missing_slice", 900004, "portal", (16, 96, 96), (10.0, 4.0, 4.0), (0.0, 10.0, 10.0), left_out=(9,)),
    Scan("ct", 900005, "late", (24, 96, 96), (8.0, 4.0, 4.0), (0.0, 10.0, 12.0), as_nifti=True),
)


def build_affine(scan: Scan) -> NDArray[np.float64]:
    """Array index (slice, row, column) to LPS mm, just as the DICOM headers will say it.

    The table steps along z also where the gantry is tilted, so the tilted grid is sheared.
    """
    step, rows, columns = scan.spacing_mm
    tilt = np.deg2rad(scan.tilt_deg)
    affine = np.eye(4)
    affine[:3, 0] = 0.0, 0.0, step
    affine[:3, 1] = 0.0, rows * round(float(np.cos(tilt)), 12), rows * round(float(np.sin(tilt)), 12)
    affine[:3, 2] = columns, 0.0, 0.0
    middle = affine[:3, :3] @ ((np.array(scan.shape, dtype=np.float64) - 1.0) / 2.0)
    affine[:3, 3] = np.round(np.array(scan.centre_mm) - middle, 3)
    return affine


def make_uid(*words: object) -> str:
    """A UID under 2.25 that depends on the words only (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(str(word) for word in words)).int}"


def write_scan(scan: Scan, folder: Path) -> None:
    """Render one scan and write its image and its labels below a folder."""
    affine = build_affine(scan)
    case = render(draw_anatomy(scan.seed, phase=scan.phase), affine, scan.shape, seed=scan.seed)
    kept = [index for index in range(scan.shape[0]) if index not in scan.left_out]
    if scan.as_nifti:
        write_nifti(case.hu, affine, folder / "nifti" / f"{scan.name}.nii.gz")
        write_nifti(case.labels, affine, folder / "truth" / f"{scan.name}.nii.gz")
        return
    series = folder / scan.name
    series.mkdir(parents=True, exist_ok=True)
    names = np.random.Generator(np.random.PCG64(scan.seed)).permutation(len(kept))
    for place, index in enumerate(kept):
        dataset = _describe_slice(scan, case, index)
        dataset.InstanceNumber = _number(place, len(kept))
        dataset.save_as(series / f"IM{int(names[place]) + 1:04d}.dcm", enforce_file_format=True)
    # The truth lies on the full, even grid, also where a slice of the image is left out.
    write_nifti(case.labels, affine, folder / "truth" / f"{scan.name}.nii.gz")


def _number(place: int, count: int) -> int:
    """Instance numbers that fall with height in the lower half of the scan and rise in the upper half."""
    half = count // 2
    return half - place if place < half else place + 1


def _describe_slice(scan: Scan, case: Phantom, index: int) -> Dataset:
    """One CT Image Storage object (PS3.3 section A.3)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = make_uid(scan.name, "image", index)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = make_uid("implementation")
    dataset.file_meta.ImplementationVersionName = "EFFVITMED_SAMPLE"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    _describe_study(dataset, scan)
    _describe_plane(dataset, scan, case.affine_lps, index)
    stored = case.hu[index].astype(np.int32) - INTERCEPT_HU
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT_HU), "1", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _describe_study(dataset: Dataset, scan: Scan) -> None:
    """Patient, study, series, frame of reference, equipment and acquisition."""
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "Phantom^Sample", f"EFFVIT-{scan.seed}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19700101", "O", "050Y"
    dataset.StudyInstanceUID = make_uid(scan.name, "study")
    dataset.StudyID, dataset.AccessionNumber = "1", ""
    dataset.StudyDescription = "Made-up abdomen, not a patient"
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200101"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.ReferringPhysicianName = ""
    dataset.SeriesInstanceUID = make_uid(scan.name, "series")
    dataset.SeriesNumber, dataset.AcquisitionNumber = "2", "1"
    dataset.SeriesDescription = f"{scan.name} {scan.phase}"
    dataset.Modality, dataset.BodyPartExamined, dataset.PatientPosition = "CT", "ABDOMEN", "HFS"
    dataset.FrameOfReferenceUID = make_uid(scan.name, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "effvit-med", "phantom"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ContrastBolusAgent = "made-up"
    dataset.BurnedInAnnotation = "NO"
    dataset.KVP, dataset.ConvolutionKernel = "120", "SOFT"
    dataset.GantryDetectorTilt = f"{scan.tilt_deg:g}"


def _describe_plane(dataset: Dataset, scan: Scan, affine: NDArray[np.float64], index: int) -> None:
    """Where the slice lies: Image Plane module, PS3.3 section C.7.6.2."""
    step, rows, columns = scan.spacing_mm
    corner = affine[:3, 3] + index * affine[:3, 0]
    direction = [*(affine[:3, 2] / columns), *(affine[:3, 1] / rows)]
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in corner]
    dataset.ImageOrientationPatient = [f"{value:.12f}" for value in direction]
    dataset.PixelSpacing = [f"{rows:g}", f"{columns:g}"]
    thickness = step * np.cos(np.deg2rad(scan.tilt_deg))
    dataset.SliceThickness = f"{thickness:.6f}"
    dataset.SliceLocation = f"{corner[2]:.6f}"


def write_nifti(array: NDArray[np.generic], affine_lps: NDArray[np.float64], path: Path) -> None:
    """Write an array (slice, row, column) as NIfTI: axes column, row, slice, affine in RAS mm.

    A sheared grid has no quaternion form, so that one says where it lies by its sform only.
    """
    affine = LPS_TO_RAS @ affine_lps[:, [2, 1, 0, 3]]
    image = nib.Nifti1Image(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    square = np.allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    image.set_qform(affine, code=1 if square else 0)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed.getvalue())


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every generated file below a folder, by name; of the unpacked bytes for .nii.gz."""
    found = [path for pattern in ("*.dcm", "*.nii.gz") for path in folder.rglob(pattern)]
    sums = {}
    for path in sorted(found):
        content = path.read_bytes()
        if path.name.endswith(".nii.gz"):
            content = gzip.decompress(content)
        sums[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return sums


def read_sums(folder: Path) -> dict[str, str]:
    """The hashes that SHA256SUMS states, by name; empty where there is none."""
    path = folder / SUMS
    lines = path.read_text(encoding="ascii").splitlines() if path.is_file() else []
    pairs = (line.split("  ", 1) for line in lines if line and not line.startswith("#"))
    return {name: digest for digest, name in pairs}


def make_all(folder: Path) -> dict[str, str]:
    """Write everything below a folder; returns the hashes by name."""
    for scan in SCANS:
        write_scan(scan, folder)
    sums = hash_files(folder)
    text = SUMS_HEADER + "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    (folder / SUMS).write_text(text, encoding="ascii", newline="\n")
    return sums


def check_all(folder: Path) -> list[str]:
    """Make everything anew and name each file of a folder that differs, is missing or is too many."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = make_all(Path(scratch))
    problems = []
    for source, sums in (("file", hash_files(folder)), (SUMS, read_sums(folder))):
        for name in sorted(wanted.keys() | sums.keys()):
            if name not in sums:
                problems.append(f"{name}: missing ({source})")
            elif name not in wanted:
                problems.append(f"{name}: not made by make.py ({source})")
            elif sums[name] != wanted[name]:
                problems.append(f"{name}: differs ({source}): {sums[name]}, made anew {wanted[name]}")
    return problems


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Make the sample data of effvit-med.")
    parser.add_argument("--output", type=Path, default=HERE, metavar="DIR", help="where to write (or to check)")
    parser.add_argument("--check", action="store_true", help="make all anew elsewhere and compare")
    options = parser.parse_args(arguments)
    if options.check:
        problems = check_all(options.output)
        for problem in problems:
            print(problem, file=sys.stderr)
        print("sample data differ" if problems else "sample data are as make.py makes them")
        return 1 if problems else 0
    options.output.mkdir(parents=True, exist_ok=True)
    sums = make_all(options.output)
    print(f"{len(sums)} files in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
