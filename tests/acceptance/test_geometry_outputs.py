"""Acceptance cases 2 to 11 and 22 as results: labels lie at their true places in every kind of file.

Dice must be 1.000 in programs that know nothing of this one: dcmqi and highdicom for the segmentation, plastimatch for
the structure set, SimpleITK for NIfTI and NRRD, dcmqi's tid1500reader for the report.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from benchmarks.seg_readback import read_back
from effvit_med.engine import Job, Segmenter, Settings, segment_input
from effvit_med.engine.contract import open_model
from effvit_med.io import (
    ReadOptions,
    SegOptions,
    write_dicom_seg,
    write_dicom_sr,
    write_nifti,
    write_nrrd,
    write_rtstruct,
)
from effvit_med.volume import Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.acceptance.enhanced import make_enhanced
from tests.acceptance.judging import (
    assert_labels_true,
    dice,
    need_program,
    open_image,
    read_with_dcmqi,
    read_with_plastimatch,
    run_program,
)
from tests.acceptance.series import Edit, Stack, label_at, save, save_stack, turned
from tests.acceptance.test_geometry import CORONAL, IRREGULAR, ORIENTATIONS, SAGITTAL, read_one
from tests.acceptance.threshold import TABLE, threshold, write_threshold_bundle


@dataclass(frozen=True, eq=False)
class Written:
    """A stack, what was read from it and what was written of it."""

    stack: Stack
    folder: Path
    volume: Volume
    segmentation: Segmentation
    seg: Path


def write_seg(
    folder: Path, stack: Stack, edit: Edit | None = None, options: SegOptions | None = None, allow: str = ""
) -> Written:
    """Save a stack, read it, threshold it and write a SEG."""
    source = save_stack(folder / "in", stack, edit=edit)
    read = ReadOptions(allow=frozenset({allow})) if allow else None  # type: ignore[arg-type]
    volume = read_one(source, read)
    segmentation = threshold(volume)
    write_dicom_seg(segmentation, folder / "out.seg.dcm", options)
    return Written(stack, source, volume, segmentation, folder / "out.seg.dcm")


def assert_all_outputs(tmp_path: Path, stack: Stack) -> None:
    """Fail unless SEG, RTSTRUCT, NIfTI and NRRD of a stack have Dice 1.000 in other programs."""
    done = write_seg(tmp_path, stack)
    assert read_back(done.seg, done.segmentation).is_right
    assert_labels_true(read_with_dcmqi(done.seg, tmp_path / "dcmqi"), stack)
    write_nifti(done.segmentation, tmp_path / "out.nii.gz")
    assert_labels_true(open_image(tmp_path / "out.nii.gz"), stack)
    write_nrrd(done.segmentation, tmp_path / "out.seg.nrrd")
    assert_labels_true(open_image(tmp_path / "out.seg.nrrd"), stack)
    write_rtstruct(done.segmentation, tmp_path / "out.rt.dcm")
    masks = read_with_plastimatch(tmp_path / "out.rt.dcm", done.folder, tmp_path / "plastimatch")
    truth = label_at(stack.world())
    for label in TABLE:
        found = masks[label.name].at(stack.world()) > 0
        assert dice(found, truth == label.value) == 1.0, f"{label.name} in RTSTRUCT"


@pytest.mark.parametrize("name", ["prone", "decubitus", "row_flip", "column_flip", "transposed"])
def test_case_02_outputs(name: str, tmp_path: Path) -> None:
    """Prone, decubitus, flipped and transposed: every output has Dice 1.000."""
    assert_all_outputs(tmp_path, Stack(ORIENTATIONS[name], spacing_mm=(0.9, 1.3)))


@pytest.mark.parametrize("name", sorted(CORONAL | SAGITTAL))
def test_case_03_outputs(name: str, tmp_path: Path) -> None:
    """Coronal and sagittal, each of four flips, with an oblong matrix: every output has Dice 1.000."""
    assert_all_outputs(tmp_path, Stack((CORONAL | SAGITTAL)[name], size=(30, 42)))


@pytest.mark.parametrize("degrees", [(17, -23, 11), (40, 0, 0)], ids=str)
def test_case_04_outputs(degrees: tuple[float, ...], tmp_path: Path) -> None:
    """Doubly oblique and 40 degrees: every output has Dice 1.000."""
    assert_all_outputs(tmp_path, Stack(turned(degrees), spacing_mm=(0.9, 1.2)))


OBLONG = Stack(spacing_mm=(0.9, 0.7), size=(60, 76))


def test_case_05_outputs(tmp_path: Path) -> None:
    """Pixels of 0.9 x 0.7 mm: every output has Dice 1.000."""
    assert_all_outputs(tmp_path, OBLONG)


def read_report(seg: Path, segmentation: Segmentation, volume: Volume, folder: Path) -> list[dict[str, Any]]:
    """The measurement groups of a structured report, as dcmqi reads it."""
    program = need_program("tid1500reader")
    write_dicom_sr(segmentation, measure(volume, segmentation), seg, folder / "out.sr.dcm")
    run_program(program, "--inputDICOM", folder / "out.sr.dcm", "--outputMetadata", folder / "sr.json")
    groups: list[dict[str, Any]] = json.loads((folder / "sr.json").read_text(encoding="utf-8"))["Measurements"]
    return groups


def volumes_ml(groups: list[dict[str, Any]]) -> list[float]:
    """The volume of each group, in millilitres."""
    found = []
    for group in groups:
        (item,) = [each for each in group["measurementItems"] if each["quantity"]["CodeMeaning"] == "Volume"]
        assert item["units"]["CodeValue"].lower() == "ml"
        found.append(float(item["value"]))
    return found


def test_case_05_volume_in_the_report(tmp_path: Path) -> None:
    """The volumes in the structured report are voxels times 0.9 x 0.7 x 2 mm, exactly."""
    done = write_seg(tmp_path, OBLONG)
    found = volumes_ml(read_report(done.seg, done.segmentation, done.volume, tmp_path))
    assert found == pytest.approx([OBLONG.volume_ml(1), OBLONG.volume_ml(2)], rel=1e-5)


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(
        open_model(write_threshold_bundle(tmp_path_factory.mktemp("model") / "bundle")), Settings(device="cpu")
    )


def test_case_06_tilt_through_the_network(segmenter: Segmenter, tmp_path: Path) -> None:
    """A tilted scan is segmented on a straight grid; the SEG lies on its slices and volumes are within 2 %."""
    places = tuple(1.25 * index - 20 for index in range(33))
    stack = Stack(spacing_mm=(1.0, 1.0), size=(64, 64), places_mm=places, tilt_degrees=15)
    save_stack(tmp_path / "in", stack)
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert "SHEARED" in {finding.code for finding in case.findings}
    for row in case.measurements:
        assert row.volume_ml == pytest.approx(stack.volume_ml(row.value), rel=0.02)
    labels = labels_by_slice(case.outputs["dicom-seg"], stack)
    truth = label_at(stack.world())
    assert dice(labels == 1, truth == 1) > 0.97
    assert dice(labels == 2, truth == 2) > 0.97


def _group(frame: Dataset, dataset: Dataset, name: str) -> Dataset:
    """A functional group, of the frame itself or of all frames."""
    return (frame if name in frame else dataset.SharedFunctionalGroupsSequence[0])[name].value[0]


def labels_by_slice(path: Path, stack: Stack) -> np.ndarray:
    """The label of each pixel of each plane, found by the place of the frames, as pydicom gives them.

    Raises:
        AssertionError: if a frame does not lie on a plane of the stack.
    """
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array.reshape(-1, *stack.size)
    labels = np.zeros((len(stack.places_mm), *stack.size), np.uint16)
    planes = np.array([stack.position(place) for place in stack.places_mm])
    names = {item.SegmentNumber: item.SegmentLabel for item in dataset.SegmentSequence}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(_group(group, dataset, "PlanePositionSequence").ImagePositionPatient, float)
        distance = np.linalg.norm(planes - position, axis=1)
        assert distance.min() < 0.001
        number = _group(group, dataset, "SegmentIdentificationSequence").ReferencedSegmentNumber
        labels[distance.argmin()][frame > 0] = TABLE.by_name(names[number]).value
    return labels


def assert_on_slices(done: Written) -> None:
    """Fail unless a SEG has the true labels on the source slices, in highdicom and by its own frames."""
    assert read_back(done.seg, done.segmentation).is_right
    assert np.array_equal(labels_by_slice(done.seg, done.stack), label_at(done.stack.world()))


def test_case_07_outputs_with_a_gap(tmp_path: Path) -> None:
    """Where gaps are allowed the SEG has the slices that are there, right, and the finding is in the record."""
    done = write_seg(tmp_path, Stack().without(7), allow="gaps")
    assert_on_slices(done)
    assert "MISSING_SLICES" in {finding.code for finding in done.segmentation.provenance.findings}


def test_case_08_outputs_of_irregular_slices(tmp_path: Path) -> None:
    """Irregular slices: SEG slice by slice, and the report's volume by the thickness that each slice stands for."""
    done = write_seg(tmp_path, IRREGULAR)
    assert_on_slices(done)
    found = volumes_ml(read_report(done.seg, done.segmentation, done.volume, tmp_path))
    assert found == pytest.approx([IRREGULAR.volume_ml(1), IRREGULAR.volume_ml(2)], rel=1e-5)


def test_case_08_irregular_slices_through_the_network(segmenter: Segmenter, tmp_path: Path) -> None:
    """The network sees irregular slices on a regular grid; its labels come back onto the slices themselves."""
    save_stack(tmp_path / "in", IRREGULAR)
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert "IRREGULAR_SPACING" in {finding.code for finding in case.findings}
    labels, truth = labels_by_slice(case.outputs["dicom-seg"], IRREGULAR), label_at(IRREGULAR.world())
    assert dice(labels == 1, truth == 1) > 0.9
    assert dice(labels == 2, truth == 2) > 0.9


@pytest.mark.parametrize("options", ["binary", "labelmap"])
def test_case_09_the_seg_carries_the_true_spacing(options: Any, tmp_path: Path) -> None:
    """Spacing Between Slices of 5 in the source does not get into the SEG: highdicom reads a volume of 2 mm."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.SpacingBetweenSlices, dataset.SliceThickness = 5.0, 7.0

    done = write_seg(tmp_path, Stack(), edit, SegOptions(segmentation_type=options))
    volume = hd.seg.segread(done.seg).get_volume(combine_segments=True, allow_missing_positions=True)
    assert volume.spacing[0] == pytest.approx(2.0)
    assert_labels_true(read_with_dcmqi(done.seg, tmp_path / "dcmqi"), done.stack)


def test_case_10_outputs_of_rounded_headers(tmp_path: Path) -> None:
    """A series whose directions differ by 2e-5 and positions by 0.01 mm gives a SEG that highdicom reads right."""
    stack, draw = Stack(turned((5, 8, -3))), np.random.default_rng(5)

    def edit(index: int, dataset: Dataset) -> None:
        dataset.ImageOrientationPatient = [
            f"{v:.6f}" for v in np.array(stack.orientation) + draw.uniform(-2e-5, 2e-5, 6)
        ]
        place = stack.position(stack.places_mm[index]) + draw.uniform(-0.01, 0.01, 3)
        dataset.ImagePositionPatient = [f"{value:.3f}" for value in place]

    done = write_seg(tmp_path, stack, edit)
    found = read_back(done.seg, done.segmentation)
    assert found.wrong_voxels == 0
    assert found.max_distance_mm < 0.03


def test_case_11_outputs_of_a_single_slice(tmp_path: Path) -> None:
    """One slice gives a SEG of one plane."""
    assert_on_slices(write_seg(tmp_path, replace(Stack(), places_mm=(2.0,))))


@pytest.mark.parametrize("name", sorted(ORIENTATIONS))
def test_case_02_through_the_network(name: str, segmenter: Segmenter, tmp_path: Path) -> None:
    """The whole engine, tiles and all, gives Dice 1.000 in any patient position: SEG by dcmqi, NIfTI by SimpleITK."""
    stack = Stack(ORIENTATIONS[name], spacing_mm=(0.9, 1.3))
    save_stack(tmp_path / "in", stack)
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert_labels_true(read_with_dcmqi(case.outputs["dicom-seg"], tmp_path / "dcmqi"), stack)
    assert_labels_true(open_image(case.outputs["nifti"]), stack)


def test_case_22_outputs_of_an_enhanced_source(tmp_path: Path) -> None:
    """A SEG of a shuffled multi-frame file has Dice 1.000 in dcmqi, and each frame names the frame it lies on."""
    stack = Stack(SAGITTAL["sagittal+1-1"], spacing_mm=(0.9, 1.3))
    order = [int(i) for i in np.random.default_rng(1).permutation(len(stack.places_mm))]
    save(tmp_path / "in", [make_enhanced(stack, order)])
    segmentation = threshold(read_one(tmp_path / "in"))
    write_dicom_seg(segmentation, tmp_path / "out.seg.dcm")
    assert_labels_true(read_with_dcmqi(tmp_path / "out.seg.dcm", tmp_path / "dcmqi"), stack)
    assert np.array_equal(labels_by_slice(tmp_path / "out.seg.dcm", stack), label_at(stack.world()))
    for frame in pydicom.dcmread(tmp_path / "out.seg.dcm").PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = stack.position(stack.places_mm[order[int(source.ReferencedFrameNumber) - 1]])
        assert np.allclose(np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float), place, atol=1e-5)
