"""Good files to begin with: every kind that the reader reads, small, of a phantom whose geometry is known."""

from __future__ import annotations

import gc
import gzip
import io
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.fuzz_mutations import MAX_BYTES, pack_zip
from tests.acceptance.enhanced import make_enhanced
from tests.acceptance.series import Ids, Stack, make_series, make_slice, turned

STACK = Stack(turned((7, -4, 11)), spacing_mm=(1.3, 0.9), size=(32, 36), places_mm=(-7.5, -5.0, -2.5, 0.0, 2.5, 5.0))
MUTANT = 5
"""The slice that is changed; the others lie beside it as they are, and are a series without it too."""

SERIES = Ids().series_uid.encode()
"""What is in a slice that belongs to the others; a file without it is tried alone."""

_SYNTAXES = {"rle": RLELossless, "jpegls": JPEGLSLossless, "jpeg2000": JPEG2000Lossless}
_LARGEST_REAL = 40_000


def to_bytes(dataset: Dataset, **options: Any) -> bytes:
    """A data set as the bytes of a file.

    Args:
        dataset: any.
        options: of `pydicom.filewriter.dcmwrite`.
    """
    written = io.BytesIO()
    dcmwrite(written, dataset, **({"enforce_file_format": True} | options))
    return written.getvalue()


def siblings() -> dict[str, bytes]:
    """The slices that lie beside a changed one, by file name."""
    return {f"s{i}": to_bytes(each) for i, each in enumerate(make_series(STACK)) if i != MUTANT}


def make_seeds() -> dict[str, bytes]:
    """All seeds by name."""
    return {**_slices(), **_multi_frames(), **_niftis(), **_archives()}


def _slices() -> dict[str, bytes]:
    seeds = {f"slice_{index}": to_bytes(make_slice(STACK, index)) for index in (0, MUTANT)}
    for name, syntax in _SYNTAXES.items():
        dataset = make_slice(STACK, MUTANT)
        dataset.compress(syntax, generate_instance_uid=False)
        seeds[f"slice_{name}"] = to_bytes(dataset)
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        dataset = make_slice(STACK, MUTANT)
        dataset.file_meta.TransferSyntaxUID = syntax
        seeds[f"slice_{name}"] = to_bytes(dataset)
    bare = make_slice(STACK, MUTANT)
    del bare.file_meta
    seeds["slice_no_meta"] = to_bytes(bare, enforce_file_format=False, implicit_vr=True, little_endian=True)
    twice = make_slice(STACK, 1)
    twice.SOPInstanceUID = twice.file_meta.MediaStorageSOPInstanceUID = f"{Ids().series_uid}.77"
    seeds["slice_twin"] = to_bytes(twice)
    return seeds


def _multi_frames() -> dict[str, bytes]:
    order = [3, 0, 5, 1, 4, 2]
    small = Stack(turned((7, -4, 11)), spacing_mm=(1.3, 0.9), size=(32, 34), places_mm=STACK.places_mm)
    seeds = {f"frames_{name}": to_bytes(make_enhanced(small, order, modality=name)) for name in ("CT", "MR")}
    seeds["frames_few"] = to_bytes(make_enhanced(small, [1, 0], [(1.0, -4096.0)] * 6, ids=Ids(series=3)))
    for name, syntax in _SYNTAXES.items():
        dataset = make_enhanced(small, order)
        dataset.compress(syntax, generate_instance_uid=False)
        seeds[f"frames_{name}"] = to_bytes(dataset)
    return seeds


def _niftis() -> dict[str, bytes]:
    affine = np.array([[-1.2, 0.1, 0, 30], [0.1, 1.3, 0, -20], [0, 0, 2.5, 10], [0, 0, 0, 1.0]])
    voxels = np.arange(8 * 9 * 7).reshape(8, 9, 7)
    seeds: dict[str, bytes] = {}
    kinds: list[tuple[str, Any, Any]] = [
        ("int16", nibabel.Nifti1Image, np.int16), ("float", nibabel.Nifti1Image, np.float32),
        ("two", nibabel.Nifti2Image, np.uint8),
    ]  # fmt: skip
    for name, kind, dtype in kinds:
        seeds[f"nifti_{name}"] = kind(voxels.astype(dtype), affine).to_bytes()
    turned_only = nibabel.Nifti1Image(voxels.astype(np.int16), None)
    turned_only.set_qform(np.diag([-1.2, 1.3, 2.5, 1.0]), code=1)
    seeds["nifti_qform"] = turned_only.to_bytes()
    four = nibabel.Nifti1Image(voxels[..., None].astype(np.int16), affine)
    seeds["nifti_4d"] = four.to_bytes()
    packed = {f"packed_{name}": gzip.compress(each, 1, mtime=0) for name, each in seeds.items() if "float" in name}
    return seeds | packed


def _archives() -> dict[str, bytes]:
    slices = [(f"a/IM{i}", to_bytes(each)) for i, each in enumerate(make_series(STACK)[:4])]
    nifti = _niftis()["nifti_int16"]
    return {"zip_series": pack_zip(slices), "zip_nifti": pack_zip([("x/scan.nii", nifti), ("readme.txt", b"hello\n")])}


def make_directory(folder: Path) -> bytes:
    """Lay a small medium with a DICOMDIR into a folder, and give the bytes of its DICOMDIR.

    Args:
        folder: is made; without the DICOMDIR itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a FileSet leaves its temporary folder to the collector
        files = FileSet()
        for dataset in make_series(STACK):
            files.add(dataset)
        files.write(folder)
        del files
        gc.collect()
    content = (folder / "DICOMDIR").read_bytes()
    (folder / "DICOMDIR").unlink()
    return content


def real_seeds() -> Iterator[tuple[str, bytes]]:
    """Small files of the shared scans, where they are: real headers, and files that are broken already."""
    data = Path(os.environ.get("EFFVIT_MED_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    for part in ("hostile", "hostile_real", "dicom"):
        for path in sorted(data.glob(f"{part}/**/*")):
            if path.is_file() and 0 < path.stat().st_size <= min(_LARGEST_REAL, MAX_BYTES):
                yield f"real_{path.parent.name}_{path.name}", path.read_bytes()


def write_corpus(folder: Path, *, real: bool = True) -> int:
    """Write all seeds into a folder, one file each, and count them.

    Args:
        folder: emptied and made.
        real: whether files of the shared scans are taken where they are.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    seeds = make_seeds()
    if real:
        seeds |= dict(real_seeds())
    for name, content in seeds.items():
        (folder / name.replace("/", "_")).write_bytes(content)
    return len(seeds)
