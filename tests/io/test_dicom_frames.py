"""Facts about multi-frame images: each frame lies where its functional groups say, whatever its number."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    LegacyConvertedEnhancedMRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    NuclearMedicineImageStorage,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from effvit_med.io import dicom_pixels
from effvit_med.io.cases import DicomSeries, Found
from effvit_med.io.find import ReadOptions, find_cases
from effvit_med.io.read import read_case
from effvit_med.volume import Volume
from tests.io.dicom_cases import COLUMNS, ORIGIN, ROWS, SPACING, make_series, orientations, pixels, save
from tests.io.enhanced_cases import make_enhanced, set_dimensions, set_macro


def _find(folder: Path, *datasets: Dataset) -> Found:
    save(folder, datasets)
    return find_cases(folder, ReadOptions())


def _cases(found: Found) -> list[DicomSeries]:
    assert found.refused == ()
    return [case for case in found.cases if isinstance(case, DicomSeries)]


def _volume(folder: Path, *datasets: Dataset) -> Volume:
    (case,) = _cases(_find(folder, *datasets))
    return read_case(case)


@pytest.mark.parametrize("orientation", orientations()[::5], ids=str)
def test_voxel_lies_where_its_frame_says(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    """Frames in any order lie at their own positions, by equation C.7.6.2.1-1."""
    places = [4.0, 0.0, 6.0, 2.0]
    volume = _volume(tmp_path, make_enhanced(places, orientation))
    row_direction, column_direction = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row_direction, column_direction)
    assert volume.geometry.spacing_mm == pytest.approx((2.0, *SPACING))
    for frame, (row, column) in enumerate([(0, 0), (ROWS - 1, 2), (3, COLUMNS - 1), (5, 5)]):
        position = np.array(ORIGIN) + places[frame] * normal
        world = position + row_direction * SPACING[1] * column + column_direction * SPACING[0] * row
        place = np.rint(volume.geometry.world_to_index(world)).astype(int)
        assert np.allclose(volume.geometry.index_to_world(place), world, atol=1e-5)
        assert volume.array[tuple(place)] == pixels(frame)[row, column]


@given(order=st.permutations(range(7)))
def test_order_of_frames_makes_no_difference(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    """Shuffled frames give the volume of the frames in their order in space."""
    folder = tmp_path_factory.mktemp("shuffled")
    volume = _volume(folder, make_enhanced([2.0 * place for place in order]))
    expected = np.empty_like(volume.array)
    for frame, place in enumerate(order):
        expected[place] = pixels(frame)
    assert np.array_equal(volume.array, expected)


def test_source_names_the_frame_of_each_slice(tmp_path: Path) -> None:
    """The source of each slice is the file, with the number of the frame from 1."""
    source = _volume(tmp_path, make_enhanced([4.0, 0.0, 2.0])).source
    assert source is not None
    assert [file.frame for file in source.files] == [2, 3, 1]
    assert len({(file.path, file.sha256, file.sop_instance_uid) for file in source.files}) == 1


def test_single_frame_file_has_frame_zero(tmp_path: Path) -> None:
    """A file that is one image has the frame number 0."""
    source = _volume(tmp_path, *make_series(3)).source
    assert source is not None
    assert [file.frame for file in source.files] == [0, 0, 0]


def test_each_frame_has_its_own_scale(tmp_path: Path) -> None:
    """Slope and intercept of the Pixel Value Transformation are applied frame by frame."""

    def scale(index: int, frame: Dataset) -> None:
        values = {"RescaleSlope": index + 1, "RescaleIntercept": -10 * index}
        set_macro(frame, "PixelValueTransformationSequence", **values)

    array = _volume(tmp_path, make_enhanced([0.0, 4.0, 2.0], edit=scale)).array
    assert np.array_equal(array, np.stack([pixels(0), pixels(2) * 3 - 20, pixels(1) * 2 - 10]))


@pytest.mark.parametrize("where", ["shared", "top"])
def test_scale_for_all_frames(tmp_path: Path, where: str) -> None:
    """A slope and intercept of the shared groups, or of the file itself, hold for all frames."""
    dataset = make_enhanced([0.0, 2.0])
    if where == "top":
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
    else:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        set_macro(shared, "PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=-1024)
    assert np.array_equal(_volume(tmp_path, dataset).array, np.stack([pixels(0), pixels(1)]) * 2 - 1024)


def test_frame_wins_over_the_top_of_the_file(tmp_path: Path) -> None:
    """A wrong Pixel Spacing and position at the top of the file are not used where frames have their own."""
    dataset = make_enhanced([0.0, 2.0])
    dataset.PixelSpacing, dataset.ImagePositionPatient = [9.0, 9.0], [0.0, 0.0, 0.0]
    geometry = _volume(tmp_path, dataset).geometry
    assert geometry.spacing_mm == pytest.approx((2.0, *SPACING))
    assert geometry.affine[:3, 3] == pytest.approx(ORIGIN)


def test_padding_of_frames_is_filled(tmp_path: Path) -> None:
    """The padding value of the file marks pixels in every frame."""
    dataset = make_enhanced([0.0, 2.0])
    dataset.PixelPaddingValue = int(pixels(1).min())
    volume = _volume(tmp_path, dataset)
    assert volume.array.min() == 0
    assert volume.source is not None
    assert "PADDING" in [finding.code for finding in volume.source.findings]


_SPLITS = {
    "time": ("FrameContentSequence", "TemporalPositionIndex", [1, 2]),
    "stack": ("FrameContentSequence", "StackID", ["1", "2"]),
    "echo": ("MREchoSequence", "EffectiveEchoTime", [10.0, 30.0]),
    "b-value": ("MRDiffusionSequence", "DiffusionBValue", [0.0, 800.0]),
    "type": ("MRImageFrameTypeSequence", "FrameType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]]),
    "phase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", [40.0, 75.0]),
    "inversion": ("MRModifierSequence", "InversionTimes", [100.0, 200.0]),
    "kernel": ("CTReconstructionSequence", "ConvolutionKernel", ["B30", "B70"]),
}


@pytest.mark.parametrize(("macro", "name", "values"), _SPLITS.values(), ids=_SPLITS)
@pytest.mark.parametrize("interleaved", [True, False])
def test_volumes_of_one_file_are_split(
    tmp_path: Path, macro: str, name: str, values: list[object], interleaved: bool
) -> None:
    """Two volumes in one file become a case each by the attribute that tells them apart, never interleaved."""
    pairs = [(place, part) for place in (0.0, 2.0, 4.0) for part in (0, 1)]
    pairs = pairs if interleaved else sorted(pairs, key=lambda pair: pair[1])
    dataset = make_enhanced(
        [place for place, _ in pairs],
        edit=lambda index, frame: set_macro(frame, macro, **{name: values[pairs[index][1]]}),
    )
    volumes = [read_case(case) for case in _cases(_find(tmp_path, dataset))]
    expected = [np.stack([pixels(pairs.index((place, part))) for place in (0.0, 2.0, 4.0)]).tolist() for part in (0, 1)]
    assert sorted(volume.array.tolist() for volume in volumes) == sorted(expected)
    codes = {finding.code for volume in volumes if volume.source for finding in volume.source.findings}
    assert codes in ({"SPLIT"}, {"SEVERAL_GRIDS"})


def test_private_dimension_splits_volumes(tmp_path: Path) -> None:
    """Volumes that only the Dimension Index Values tell apart are split by them."""
    pairs = list(itertools.product((1, 2, 3), (1, 2)))

    def number(index: int, frame: Dataset) -> None:
        frame.FrameContentSequence[0].DimensionIndexValues = list(pairs[index])

    dataset = make_enhanced([2.0 * place for place, _ in pairs], edit=number)
    set_dimensions(dataset, ["InStackPositionNumber", "NominalScannedPixelSpacing"])
    cases = _cases(_find(tmp_path, dataset))
    assert [case.geometry.shape[0] for case in cases] == [3, 3]
    assert sorted(case.frames for case in cases) == [(1, 3, 5), (2, 4, 6)]


def test_interleaved_stacks_are_not_one_volume(tmp_path: Path) -> None:
    """Stacks that lie between one another are volumes of their own."""
    dataset = make_enhanced(
        [0.0, 1.0, 4.0, 5.0, 8.0, 9.0],
        edit=lambda index, frame: set_macro(frame, "FrameContentSequence", StackID=str(index % 2)),
    )
    cases = _cases(_find(tmp_path, dataset))
    assert sorted(case.frames for case in cases) == [(1, 3, 5), (2, 4, 6)]
    assert {case.geometry.spacing_mm[0] for case in cases} == {4.0}


def test_orientations_of_one_file_are_split(tmp_path: Path) -> None:
    """Frames of two orientations in one file become two volumes."""

    def turn(index: int, frame: Dataset) -> None:
        if index < 3:
            set_macro(frame, "PlaneOrientationSequence", ImageOrientationPatient=[0.0, 1, 0, 0, 0, -1])
            set_macro(frame, "PlanePositionSequence", ImagePositionPatient=[-2.0 * index, 0.0, 0.0])

    cases = _cases(_find(tmp_path, make_enhanced([0.0, 2, 4, 6, 8, 10], edit=turn)))
    assert [case.geometry.shape[0] for case in cases] == [3, 3]
    assert len({case.geometry.orientation for case in cases}) == 2


def test_several_files_make_one_volume(tmp_path: Path) -> None:
    """Multi-frame files of one series join to one volume, each frame in its place."""
    one, two = make_enhanced([0.0, 4.0]), make_enhanced([6.0, 2.0], uid="1.2.3.8")
    two.PixelData = pixels(2).tobytes() + pixels(3).tobytes()
    volume = _volume(tmp_path, one, two)
    assert np.array_equal(volume.array, np.stack([pixels(0), pixels(3), pixels(1), pixels(2)]))
    assert volume.source is not None
    assert [(file.path.name, file.frame) for file in volume.source.files] == [
        ("000.dcm", 1), ("001.dcm", 2), ("000.dcm", 2), ("001.dcm", 1),
    ]  # fmt: skip


def test_copied_file_is_kept_once(tmp_path: Path) -> None:
    """A multi-frame file that is there twice gives each slice once."""
    dataset = make_enhanced([0.0, 2.0])
    (case,) = _cases(_find(tmp_path, dataset, dataset))
    assert case.geometry.shape[0] == 2
    assert [finding.code for finding in case.findings] == ["DUPLICATE_FILE"]


def test_missing_frame_is_a_missing_slice(tmp_path: Path) -> None:
    """A gap between frames is a gap between slices."""
    (refused,) = _find(tmp_path, make_enhanced([0.0, 2, 4, 8, 10])).refused
    assert refused.code == "MISSING_SLICES"


def test_one_enhanced_frame_is_a_slice(tmp_path: Path) -> None:
    """Enhanced files of a single frame stack like other files."""
    files = [make_enhanced([2.0 * index], uid=f"1.2.3.{index + 1}") for index in range(3)]
    assert _volume(tmp_path, *files).array.shape == (3, ROWS, COLUMNS)


def test_legacy_converted_frames_keep_their_attributes(tmp_path: Path) -> None:
    """What a converter could not place in a macro tells volumes apart too."""

    def convert(index: int, frame: Dataset) -> None:
        set_macro(frame, "UnassignedPerFrameConvertedAttributesSequence", EchoTime=10.0 * (1 + index // 3))

    dataset = make_enhanced([0.0, 2, 4, 0, 2, 4], edit=convert)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = LegacyConvertedEnhancedMRImageStorage
    cases = _cases(_find(tmp_path, dataset))
    assert sorted(case.frames for case in cases) == [(1, 2, 3), (4, 5, 6)]


def test_secondary_capture_with_places_is_read(tmp_path: Path) -> None:
    """A grey multi-frame secondary capture whose functional groups place each frame is a volume."""
    dataset = make_enhanced([0.0, 2.0, 4.0])
    kind = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    assert _volume(tmp_path, dataset).array.shape == (3, ROWS, COLUMNS)


@pytest.mark.parametrize("kind", [NuclearMedicineImageStorage, UltrasoundMultiFrameImageStorage])
def test_frames_without_places_are_refused(tmp_path: Path, kind: str) -> None:
    """Frames that nothing places are refused, also where one position stands at the top of the file."""
    dataset = make_enhanced([0.0, 2.0, 4.0])
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = list(ORIGIN), [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = list(SPACING)
    (refused,) = _find(tmp_path, dataset).refused
    assert (refused.code, "for 3 frames" in refused.message) == ("NO_GEOMETRY", True)


def test_groups_of_another_number_of_frames_are_refused(tmp_path: Path) -> None:
    """Functional groups for fewer frames than the file has place none of them."""
    dataset = make_enhanced([0.0, 2.0, 4.0])
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    (refused,) = _find(tmp_path, dataset).refused
    assert refused.code == "NO_GEOMETRY"


def test_cut_off_frames_are_refused_without_decoding(tmp_path: Path) -> None:
    """A file that ends within its last frame is refused on sight."""
    (path,) = save(tmp_path, [make_enhanced([0.0, 2.0, 4.0])])
    path.write_bytes(path.read_bytes()[:-5])
    (refused,) = find_cases(tmp_path, ReadOptions()).refused
    assert (refused.code, "is cut off" in refused.message) == ("UNREADABLE_PIXELS", True)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda uid: uid.name,
)
def test_encodings_of_frames_are_exact(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    """Frames come out alike from each encoding without image compression."""
    dataset = make_enhanced([4.0, 0.0, 2.0])
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        stored = np.frombuffer(dataset.PixelData, "<i2").astype(">i2")
        dataset.PixelData = stored.tobytes()
    assert np.array_equal(_volume(tmp_path, dataset).array, np.stack([pixels(i) for i in (1, 2, 0)]))


@pytest.mark.parametrize("table", ["full", "empty", "extended"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_compressed_frames_are_exact(tmp_path: Path, syntax: pydicom.uid.UID, table: str) -> None:
    """Each frame is found in compressed data, whatever the offset table; decoding takes the frames asked for."""
    images = np.random.default_rng(0).integers(0, 3000, (4, 64, 48)).astype(np.int16)
    dataset = make_enhanced([6.0, 0.0, 2.0, 4.0])
    dataset.Rows, dataset.Columns = images.shape[1:]
    dataset.PixelData = images.tobytes()
    dataset.compress(syntax, generate_instance_uid=False)
    streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=4))
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(streams)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        data = encapsulate(streams, has_bot=table == "full")
    dataset.PixelData = data
    dataset["PixelData"].is_undefined_length = True
    assert np.array_equal(_volume(tmp_path, dataset).array, images[[1, 2, 3, 0]])


def test_fragments_of_a_frame_are_joined(tmp_path: Path) -> None:
    """A frame in several fragments is found by the offset table."""
    images = np.random.default_rng(0).integers(0, 3000, (3, 64, 48)).astype(np.int16)
    dataset = make_enhanced([0.0, 4.0, 2.0])
    dataset.Rows, dataset.Columns = images.shape[1:]
    dataset.PixelData = images.tobytes()
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    streams = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = encapsulate(streams, fragments_per_frame=3, has_bot=True)
    dataset["PixelData"].is_undefined_length = True
    assert np.array_equal(_volume(tmp_path, dataset).array, images[[0, 2, 1]])


def test_one_frame_at_a_time_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane is put in its place before the next frame is decoded."""
    alive: list[int] = []
    real = dicom_pixels._scale

    def count(path: Path, raw: np.ndarray, *rest: object) -> dicom_pixels.Plane:
        alive.append(raw.nbytes)
        return real(path, raw, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(dicom_pixels, "_scale", count)
    (path,) = save(tmp_path, [make_enhanced([0.0, 2.0, 4.0])])
    planes = dicom_pixels.read_planes(path, [3, 1, 2])
    assert next(planes).values[0, 0] == pixels(2)[0, 0]
    assert alive == [2 * ROWS * COLUMNS]


def test_empty_functional_groups_are_refused(tmp_path: Path) -> None:
    """Frames whose groups are empty have no place."""
    dataset = make_enhanced([0.0, 2.0])
    dataset.PerFrameFunctionalGroupsSequence = Items([Dataset(), Dataset()])
    (refused,) = _find(tmp_path, dataset).refused
    assert refused.code == "NO_GEOMETRY"
