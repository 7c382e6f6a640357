"""Acceptance cases 18 to 24: which files make which volume, and what is left out, split or refused."""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from effvit_med.errors import InputError, RefusedError
from effvit_med.io import Found, open_input, read_case
from tests.acceptance.enhanced import add_to_frames, make_enhanced
from tests.acceptance.judging import assert_true, need_program, run_program
from tests.acceptance.series import Ids, Stack, make_series, make_slice, new_dataset, save, save_stack, store, value_at
from tests.acceptance.test_geometry import codes_of, only_series, read_one, refused_codes

STACK = Stack(size=(24, 28), places_mm=tuple(2.5 * index - 10 for index in range(8)))


def aside_codes(found: Found) -> list[str]:
    """Why files were set aside."""
    return sorted(each.code for each in found.set_aside)


@pytest.mark.parametrize("marked", [True, False], ids=["by_image_type", "by_geometry"])
def test_case_18_a_localizer_in_the_series(marked: bool, tmp_path: Path) -> None:
    """A coronal scout under the same Series UID does not become a slice, and is reported."""
    folder = save_stack(tmp_path / "in", STACK)
    scout = Stack((1, 0, 0, 0, 0, -1), spacing_mm=(2.0, 2.0), size=(40, 30), places_mm=(0.0,))
    dataset = make_slice(scout, 0)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{Ids().series_uid}.99"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER" if marked else "AXIAL"]
    save(folder, [dataset], ["a_scout.dcm"])
    with open_input(folder) as found:
        (case, *others) = sorted(only_series(found), key=lambda case: -len(case.files))
        assert all(len(other.files) == 1 for other in others)
        assert_true(read_case(case), STACK)
        said = aside_codes(found) + [finding.code for other in others for finding in other.findings]
    assert {"LOCALIZER", "SINGLE_SLICE"} & set(said)


def _study(folder: Path) -> dict[str, Stack]:
    """Three series of two patients in nested folders, with junk between."""
    stacks = {
        "a/b/first": STACK,
        "a/second": replace(STACK, orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)),
        "other patient/deep/er/third": replace(STACK, spacing_mm=(1.1, 1.7)),
    }
    ids = [Ids(1, 1, 1), Ids(1, 1, 2), Ids(2, 1, 1)]
    for (name, stack), each in zip(stacks.items(), ids, strict=True):
        save_stack(folder / name, stack, each)
    for name in ("readme.txt", "a/Thumbs.db", "a/b/first/.DS_Store", "a/empty.dcm"):
        content = {"readme.txt": b"hello there\n", "a/empty.dcm": b""}.get(name, bytes(range(256)) * 4)
        (folder / name).write_bytes(content)
    return stacks


def _assert_study_found(found: Found, stacks: dict[str, Stack]) -> None:
    assert not found.refused
    assert len(found.cases) == len({case.case_id for case in found.cases}) == len(stacks)
    left = list(stacks.values())
    for case in only_series(found):
        volume = read_case(case)
        stack = next(
            each
            for each in left
            if np.allclose(volume.geometry.index_to_world([0, 0, 0]), each.position(each.places_mm[0]))
        )
        assert_true(volume, stack)
        left.remove(stack)
    assert not left


def test_case_19_several_series_patients_and_junk(tmp_path: Path) -> None:
    """Each series in nested folders is one case with its own voxels; every junk file is listed with a reason."""
    stacks = _study(tmp_path / "in")
    with open_input(tmp_path / "in") as found:
        _assert_study_found(found, stacks)
        assert aside_codes(found) == ["EMPTY_FILE", "TEXT", "UNKNOWN_FORMAT", "UNKNOWN_FORMAT"]


def test_case_19_all_in_one_folder(tmp_path: Path) -> None:
    """Three series mixed in one folder are told apart by their UIDs, never mixed."""
    stacks = _study(tmp_path / "in")
    (tmp_path / "flat").mkdir()
    for number, path in enumerate(sorted(tmp_path.glob("in/**/*.dcm"))):
        shutil.copy(path, tmp_path / "flat" / f"{random.Random(number).random()}.dcm")
    with open_input(tmp_path / "flat") as found:
        _assert_study_found(found, stacks)


def test_case_19_zip(tmp_path: Path) -> None:
    """A zip archive of the folder gives the same cases."""
    stacks = _study(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    with open_input(tmp_path / "study.zip") as found:
        _assert_study_found(found, stacks)


@pytest.fixture(name="disc")
def _disc(tmp_path: Path) -> tuple[Path, dict[str, Stack]]:
    """A CD with a DICOMDIR that dcmtk made."""
    program = need_program("dcmmkdir")
    stacks = _study(tmp_path / "in")
    disc = tmp_path / "disc"
    (disc / "IMG").mkdir(parents=True)
    for number, path in enumerate(sorted(tmp_path.glob("in/**/0*.dcm"))):
        shutil.copy(path, disc / "IMG" / f"I{number:04d}")
    run_program(program, "+D", disc / "DICOMDIR", "+id", disc, "+r", "-Pgp", "+I", "--no-consistency-check", "IMG")
    return disc, stacks


def test_case_19_dicomdir(disc: tuple[Path, dict[str, Stack]]) -> None:
    """The folder of a DICOMDIR gives its series; the directory file itself is listed as such."""
    folder, stacks = disc
    with open_input(folder) as found:
        _assert_study_found(found, stacks)
        assert aside_codes(found) == ["DICOMDIR"]


def test_case_19_dicomdir_given_as_the_input(disc: tuple[Path, dict[str, Stack]]) -> None:
    """The path of a DICOMDIR file itself stands for the images that it lists."""
    folder, stacks = disc
    with open_input(folder / "DICOMDIR") as found:
        _assert_study_found(found, stacks)


def test_case_20_the_same_file_twice(tmp_path: Path) -> None:
    """Copies of files under other names are dropped, with a finding."""
    folder = save_stack(tmp_path / "in", STACK)
    shutil.copy(folder / "0003.dcm", folder / "copy of 3.dcm")
    shutil.copytree(folder, folder / "again")
    volume = read_one(folder)
    assert_true(volume, STACK)
    assert "DUPLICATE_FILE" in codes_of(volume)


def _twin(index: int, **changes: object) -> Dataset:
    dataset = make_slice(STACK, index)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{Ids().series_uid}.99"
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_case_20_the_same_slice_under_a_new_uid(tmp_path: Path) -> None:
    """A slice that is there again under another UID is kept once, and that is noted."""
    folder = save_stack(tmp_path / "in", STACK)
    save(folder, [_twin(3)], ["twin.dcm"])
    volume = read_one(folder)
    assert_true(volume, STACK)
    assert "DUPLICATE_POSITION" in codes_of(volume)


def test_case_20_two_different_slices_at_one_position(tmp_path: Path) -> None:
    """Two slices with other pixels at one position: CONFLICTING_DUPLICATES, none is chosen."""
    folder = save_stack(tmp_path / "in", STACK)
    other = _twin(3)
    store(other, np.rint(value_at(STACK.plane_world(STACK.places_mm[5]))), np.int16)
    save(folder, [other], ["twin.dcm"])
    assert refused_codes(folder) == ["CONFLICTING_DUPLICATES"]


SPLITS: dict[str, Callable[[Dataset, int], None]] = {
    "TemporalPositionIdentifier": lambda dataset, phase: setattr(dataset, "TemporalPositionIdentifier", phase + 1),
    "AcquisitionNumber": lambda dataset, phase: setattr(dataset, "AcquisitionNumber", phase + 3),
    "DiffusionBValue": lambda dataset, phase: setattr(dataset, "DiffusionBValue", (0.0, 800.0)[phase]),
    "EchoTime": lambda dataset, phase: setattr(dataset, "EchoTime", ("4.6", "92.0")[phase]),
    "TriggerTime": lambda dataset, phase: setattr(dataset, "TriggerTime", ("0", "410")[phase]),
    "ImageType": lambda dataset, phase: setattr(dataset, "ImageType", ["ORIGINAL", "PRIMARY", "MP"[phase]]),
    "b-value (private 0019,100C)": lambda dataset, phase: dataset.private_block(
        0x0019, "SIEMENS MR HEADER", create=True
    ).add_new(0x0C, "IS", ("0", "800")[phase]),
}


@pytest.mark.parametrize("attribute", sorted(SPLITS))
def test_case_21_two_phases_in_one_series(attribute: str, tmp_path: Path) -> None:
    """Two volumes under one Series UID, files interleaved, are split by the attribute, which is named; never mixed."""
    shifts = (0, 10000)
    datasets = []
    for phase, shift in enumerate(shifts):
        for index, dataset in enumerate(make_series(STACK)):
            number = 2 * index + phase + 1
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{Ids().series_uid}.{number}"
            dataset.InstanceNumber, dataset.RescaleIntercept = number, shift
            SPLITS[attribute](dataset, phase)
            datasets.append(dataset)
    random.Random(1).shuffle(datasets)
    save(tmp_path / "in", datasets)
    with open_input(tmp_path / "in") as found:
        assert not found.refused
        volumes = [read_case(case) for case in found.cases]
    assert len(volumes) == 2
    volumes.sort(key=lambda volume: float(volume.array.min()))
    for volume, shift in zip(volumes, shifts, strict=True):
        assert_true(replace(volume, array=volume.array.astype(float) - shift), STACK)
        assert volume.source is not None
        message = next(finding.message for finding in volume.source.findings if finding.code == "SPLIT")
        assert attribute in message


def _shuffled(seed: int = 2) -> list[int]:
    order = list(range(len(STACK.places_mm)))
    random.Random(seed).shuffle(order)
    return order


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_case_22_enhanced_frames_in_any_order(modality: str, tmp_path: Path) -> None:
    """An enhanced file whose frames do not lie in the order of their places is right."""
    stack = replace(STACK, orientation=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0), spacing_mm=(0.9, 1.3))
    save(tmp_path / "in", [make_enhanced(stack, _shuffled(), modality=modality)])
    assert_true(read_one(tmp_path / "in"), stack)


def test_case_22_enhanced_rescale_of_each_frame(tmp_path: Path) -> None:
    """Each frame is scaled by its own slope and intercept."""
    rescale = [(1.0 if index % 2 else 0.5, -2048.0 - 100 * index) for index in range(len(STACK.places_mm))]
    save(tmp_path / "in", [make_enhanced(STACK, _shuffled(), rescale)])
    assert_true(read_one(tmp_path / "in"), STACK)


def test_case_22_enhanced_with_two_phases(tmp_path: Path) -> None:
    """An enhanced MR file of two time points gives two volumes, not one of double length."""
    once = _shuffled()
    dataset = make_enhanced(STACK, [*once, *once], modality="MR")
    phases = [1] * len(once) + [2] * len(once)
    add_to_frames(dataset, "TemporalPositionSequence", TemporalPositionTimeOffset=[float(phase) for phase in phases])
    for frame, phase in zip(dataset.PerFrameFunctionalGroupsSequence, phases, strict=True):
        frame.FrameContentSequence[0].TemporalPositionIndex = phase
        frame.PixelValueTransformationSequence[0].RescaleIntercept = -2048 + 10000 * (phase - 1)
    save(tmp_path / "in", [dataset])
    with open_input(tmp_path / "in") as found:
        assert not found.refused
        volumes = sorted((read_case(case) for case in found.cases), key=lambda volume: float(volume.array.min()))
    assert len(volumes) == 2
    for number, volume in enumerate(volumes):
        assert_true(replace(volume, array=volume.array.astype(float) - 10000 * number), STACK)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def _cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [_cut, _cut_in_header, _empty], ids=["pixels_cut", "header_cut", "zero_bytes"])
@pytest.mark.parametrize("where", ["0000.dcm", "0004.dcm"], ids=["end", "middle"])
def test_case_23_damaged_files(damage: Callable[[Path], None], where: str, tmp_path: Path) -> None:
    """A series with a damaged file is refused with a code, or read without it and that is said; others are not hurt."""
    folder = save_stack(tmp_path / "in" / "bad", STACK)
    damage(folder / where)
    save_stack(tmp_path / "in" / "good", STACK, Ids(series=2))
    codes = set()
    with open_input(tmp_path / "in") as found:
        codes |= {each.code for each in (*found.refused, *found.set_aside)}
        good = 0
        for case in only_series(found):
            try:
                volume = read_case(case)
            except RefusedError as error:
                codes.add(error.code)
                continue
            assert_true(volume, STACK if len(case.files) == len(STACK.places_mm) else STACK.without(0))
            good += len(case.files) == len(STACK.places_mm)
    assert good == 1
    assert codes & {"UNREADABLE_PIXELS", "UNREADABLE", "EMPTY_FILE", "MISSING_SLICES"}


def test_case_24_what_is_no_scan_is_refused_with_a_code(tmp_path: Path) -> None:
    """Colour images, captures, SEG, RTSTRUCT, SR and PDF each get a code; nothing raises, and the scan is read."""
    folder = save_stack(tmp_path / "in", STACK)
    colour = make_slice(STACK, 0, Ids(series=5))
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    colour.BitsAllocated, colour.BitsStored, colour.HighBit, colour.PixelRepresentation = 8, 8, 7, 0
    colour.PixelData = bytes(3 * STACK.size[0] * STACK.size[1])
    capture = make_slice(STACK, 0, Ids(series=6))
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    del capture.ImagePositionPatient, capture.ImageOrientationPatient
    others = []
    kinds = (SegmentationStorage, "SEG"), (RTStructureSetStorage, "RTSTRUCT"), (BasicTextSRStorage, "SR")
    for number, (kind, modality) in enumerate((*kinds, (EncapsulatedPDFStorage, "DOC"))):
        dataset = new_dataset(kind, f"{Ids(series=7 + number).series_uid}.1", Ids(series=7 + number))
        dataset.Modality = modality
        if modality == "SEG":
            dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 8, 8, 1
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
            dataset.PixelData = bytes(8)
        if modality == "DOC":
            dataset.MIMETypeOfEncapsulatedDocument, dataset.EncapsulatedDocument = "application/pdf", b"%PDF-1.4\n"
        others.append(dataset)
    names = ["colour.dcm", "capture.dcm", "seg.dcm", "rtstruct.dcm", "sr.dcm", "report.dcm"]
    save(folder, [colour, capture, *others], names)
    with open_input(folder) as found:
        (case,) = found.cases
        assert_true(read_case(case), STACK)
        codes = {each.path.name: each.code for each in found.set_aside}
    assert codes["colour.dcm"] == "NOT_GRAYSCALE"
    assert codes["capture.dcm"] == "SECONDARY_CAPTURE"
    assert [codes[name] for name in names[2:]] == ["NOT_AN_IMAGE"] * 4


@pytest.mark.parametrize("kind", ["colour", "pdf"])
def test_case_24_alone_it_is_an_error_in_words(kind: str, tmp_path: Path) -> None:
    """A folder with nothing but such a file is one of our errors, which says what the file is."""
    dataset = new_dataset(EncapsulatedPDFStorage, f"{Ids().series_uid}.1", Ids())
    dataset.Modality = "DOC"
    if kind == "colour":
        dataset = make_slice(STACK, 0)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.PixelData = bytes(3 * STACK.size[0] * STACK.size[1])
    save(tmp_path / "in", [dataset])
    with pytest.raises(InputError, match=r"colour image|no image"), open_input(tmp_path / "in") as found:
        pytest.fail(f"{found} was read")
