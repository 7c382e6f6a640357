"""Facts about `effvit_med.io.dicom_pixels` and `effvit_med.io.dicom`: values come out as they were measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from effvit_med.errors import RefusedError
from effvit_med.io.dicom_codestreams import check_codestream
from effvit_med.io.dicom_pixels import read_plane
from effvit_med.io.find import ReadOptions, find_cases
from effvit_med.io.read import read_case
from effvit_med.io.values import PlaneStack, rescale
from effvit_med.volume import Volume
from tests.io.dicom_cases import COLUMNS, ROWS, make_series, pixels, save

STORED = np.stack([pixels(index) for index in range(3)])


def _read(folder: Path) -> Volume:
    found = find_cases(folder, ReadOptions())
    for refused in found.refused:
        raise RefusedError(refused.code, refused.message, refused.remedy)
    (case,) = found.cases
    return read_case(case)


def _read_edited(folder: Path, edit: Callable[[int, Dataset], None]) -> Volume:
    save(folder, make_series(3), edit=edit)
    return _read(folder)


def _codes(volume: Volume) -> list[str]:
    assert volume.source is not None
    return [finding.code for finding in volume.source.findings]


def test_each_slice_has_its_own_scale(tmp_path: Path) -> None:
    """Slope and intercept that change from slice to slice are applied slice by slice."""

    def scale(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = index + 1, -1000 + index

    array = _read_edited(tmp_path, scale).array
    expected = np.stack([STORED[index] * (index + 1) - 1000 + index for index in range(3)])
    assert (array.dtype, np.array_equal(array, expected)) == (np.int16, True)


@pytest.mark.parametrize("value", [None, ""])
def test_empty_scale_is_the_identity(tmp_path: Path, value: str | None) -> None:
    """An empty Rescale Slope and Intercept leave the stored values."""

    def empty(_: int, dataset: Dataset) -> None:
        dataset.RescaleSlope = dataset.RescaleIntercept = value

    assert np.array_equal(_read_edited(tmp_path, empty).array, STORED)


def test_absent_scale_is_the_identity(tmp_path: Path) -> None:
    """Without Rescale Slope and Intercept, as in MR, the stored values stay int16."""
    array = _read_edited(tmp_path, lambda *_: None).array
    assert (array.dtype, np.array_equal(array, STORED)) == (np.int16, True)


def test_late_fraction_makes_float(tmp_path: Path) -> None:
    """A slope of 0.5 in the last slice only makes all values float32, none of them changed."""

    def scale(index: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = (0.5 if index == 2 else 1), 0

    array = _read_edited(tmp_path, scale).array
    assert array.dtype == np.float32
    assert np.array_equal(array, STORED * np.array([1, 1, 0.5])[:, None, None])


def test_late_negative_does_not_wrap(tmp_path: Path) -> None:
    """A negative value in a later slice of signed data stays negative."""

    def negate(index: int, dataset: Dataset) -> None:
        dataset.PixelData = (pixels(index) * (1 - index)).astype(np.int16).tobytes()

    assert _read_edited(tmp_path, negate).array[2].min() == -int(pixels(2).max())


def test_large_unsigned_does_not_wrap(tmp_path: Path) -> None:
    """Unsigned values above 32767 come out as they are."""

    def make_unsigned(index: int, dataset: Dataset) -> None:
        dataset.PixelRepresentation = 0
        dataset.PixelData = (pixels(index).astype(np.uint16) + 65000).tobytes()

    array = _read_edited(tmp_path, make_unsigned).array
    assert (array.dtype, np.array_equal(array, STORED.astype(np.float32) + 65000)) == (np.float32, True)


def test_signed_12_bits_with_overlay_bits(tmp_path: Path) -> None:
    """Of 12 stored bits the sign is extended, and what stands in the upper four bits is ignored."""

    def pack(index: int, dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 11
        stored = (pixels(index) - 200).astype(np.int16).view(np.uint16) & 0x0FFF
        dataset.PixelData = (stored | 0xA000).astype(np.uint16).tobytes()

    assert np.array_equal(_read_edited(tmp_path, pack).array, STORED - 200)


def test_monochrome1_is_kept_raw(tmp_path: Path) -> None:
    """An image that is displayed inverted keeps its values, with a finding."""
    volume = _read_edited(tmp_path, lambda _, dataset: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1"))
    assert np.array_equal(volume.array, STORED)
    assert _codes(volume) == ["MONOCHROME1"]


@pytest.mark.parametrize(("kind", "declared"), [("SS", -2000), ("US", 63536)])
def test_padding_becomes_the_smallest_value(tmp_path: Path, kind: str, declared: int) -> None:
    """Padding pixels, also where -2000 is written as 63536, take the smallest value of all others and are counted."""

    def pad(index: int, dataset: Dataset) -> None:
        image = pixels(index) + 5
        image[0, :4] = -2000
        dataset.add_new("PixelPaddingValue", kind, declared)
        dataset.RescaleIntercept, dataset.RescaleSlope = -1024, 1
        dataset.PixelData = image.astype(np.int16).tobytes()

    volume = _read_edited(tmp_path, pad)
    assert volume.array.min() == 4 + 5 - 1024
    assert (volume.array[:, 0, :4] == 4 + 5 - 1024).all()
    assert _codes(volume) == ["PADDING"]
    assert volume.source is not None
    assert "12 of 240 voxels are padding (value -3024)" in volume.source.findings[0].message


def test_zero_slope_is_a_finding(tmp_path: Path) -> None:
    """A slope of zero, which would wipe the image, is taken as one and reported."""

    def scale(_: int, dataset: Dataset) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0, 0

    volume = _read_edited(tmp_path, scale)
    assert (_codes(volume), np.array_equal(volume.array, STORED)) == (["ZERO_SLOPE"], True)


@pytest.mark.parametrize("missing", [1, ROWS * COLUMNS])
def test_truncated_file_is_named(tmp_path: Path, missing: int) -> None:
    """A file that lost its last bytes is refused by name; the volume is not made shorter."""
    paths = save(tmp_path, make_series(3))
    paths[1].write_bytes(paths[1].read_bytes()[:-missing])
    with pytest.raises(RefusedError, match=r"UNREADABLE_PIXELS: 001\.dcm is cut off: ") as caught:
        _read(tmp_path)
    assert caught.value.code == "UNREADABLE_PIXELS"


def test_false_length_is_refused(tmp_path: Path) -> None:
    """Pixel data that claim 4 GiB are refused, also where as many bytes are there as the image needs."""
    (path,) = save(tmp_path, make_series(1))
    content = path.read_bytes()
    at = content.rindex(b"\xe0\x7f\x10\x00OW") + 8
    path.write_bytes(content[:at] + b"\xfe\xff\xff\xff" + content[at + 4 :])
    with pytest.raises(RefusedError, match="is cut off: 160 of 4294967294 bytes"):
        _read(tmp_path)


def test_vanished_file_is_named(tmp_path: Path) -> None:
    """A file that is gone when its pixels are wanted is refused by name."""
    paths = save(tmp_path, make_series(3))
    (case,) = find_cases(tmp_path, ReadOptions()).cases
    paths[2].unlink()
    with pytest.raises(RefusedError, match=r"002\.dcm cannot be read: No such file"):
        read_case(case)


def test_exchanged_file_is_named(tmp_path: Path) -> None:
    """A file that has become another image since the folder was searched is refused."""
    save(tmp_path, make_series(3))
    (case,) = find_cases(tmp_path, ReadOptions()).cases
    save(tmp_path, make_series(3, series=2))
    with pytest.raises(RefusedError, match=r"000\.dcm is no longer the image"):
        read_case(case)


def test_false_size_is_refused(tmp_path: Path) -> None:
    """A header that claims 65535 by 65535 pixels costs no memory."""

    def lie(_: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 65535

    save(tmp_path, make_series(3), edit=lie)
    with pytest.raises(RefusedError, match="UNREADABLE_PIXELS"):
        _read(tmp_path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_compressed_images_are_exact(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    """Lossless compression gives the same values as none."""
    images = np.random.default_rng(0).integers(-1024, 3000, (3, 64, 48)).astype(np.int16)

    def compress(index: int, dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = images.shape[1:]
        dataset.PixelData = images[index].tobytes()
        dataset.compress(syntax, generate_instance_uid=False)

    assert np.array_equal(_read_edited(tmp_path, compress).array, images)


def test_jpeg2000_stream_of_another_size_is_refused(tmp_path: Path) -> None:
    """A JPEG 2000 stream that says it is 60000 pixels wide is refused before it is decoded."""

    def lie(index: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 64
        dataset.PixelData = np.zeros((64, 64), np.int16).tobytes()
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        wide = (60000).to_bytes(4, "big")
        start = dataset.PixelData.index(b"\xff\x4f\xff\x51") + 8
        dataset.PixelData = dataset.PixelData[:start] + wide + dataset.PixelData[start + 4 :]
        dataset["PixelData"].is_undefined_length = True

    save(tmp_path, make_series(2), edit=lie)
    with pytest.raises(RefusedError, match="the JPEG 2000 stream has 64 by 60000 pixels, the header 64 by 64"):
        _read(tmp_path)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name
)
def test_encodings_are_exact(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    """Implicit, deflated and big-endian files give the same values."""

    def encode(index: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = pixels(index).astype(">i2").tobytes()

    assert np.array_equal(_read_edited(tmp_path, encode).array, STORED)


@pytest.mark.parametrize("implicit", [True, False])
def test_file_without_preamble_is_read(tmp_path: Path, implicit: bool) -> None:
    """A bare data set without preamble and file meta information is read."""
    for index, dataset in enumerate(make_series(3)):
        del dataset.file_meta
        dataset.save_as(tmp_path / f"{index}", implicit_vr=implicit, little_endian=True)
    assert np.array_equal(_read(tmp_path).array, STORED)


@pytest.mark.parametrize("signed", [True, False])
def test_jpeg_lossless_is_exact(tmp_path: Path, signed: bool) -> None:
    """JPEG Lossless, as GDCM writes it, gives the same values as no compression."""
    gdcm = pytest.importorskip("gdcm")
    low = -1024 if signed else 0
    images = np.random.default_rng(0).integers(low, 3000, (3, 64, 48)).astype(np.int16 if signed else np.uint16)

    def fill(index: int, dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = images.shape[1:]
        dataset.PixelRepresentation = int(signed)
        dataset.PixelData = images[index].tobytes()

    for path in save(tmp_path, make_series(3), edit=fill):
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert np.array_equal(_read(tmp_path).array, images)


def test_extended_jpeg_of_12_bits_names_its_package() -> None:
    """A real 12-bit JPEG Extended image, which only a GPL package decodes, is refused with that package's name."""
    path = Path(get_testdata_file("JPGExtended.dcm", download=False))
    if "pylibjpeg" in get_decoder(JPEGExtended12Bit).available_plugins:
        pytest.skip("pylibjpeg-libjpeg is installed here")
    with pytest.raises(RefusedError, match=r"MISSING_DECODER: .* 12 bits; .* Install pylibjpeg-libjpeg"):
        read_plane(path)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL], ids=lambda uid: uid.name)
def test_decoder_of_high_throughput_jpeg_is_installed(syntax: pydicom.uid.UID) -> None:
    """The three HTJ2K encodings, which nothing here can write, have a decoder among our dependencies."""
    assert "pylibjpeg" in get_decoder(syntax).available_plugins


def test_high_bit_says_which_bits_count(tmp_path: Path) -> None:
    """Values in the upper twelve bits of a word are taken from there."""

    def shift(index: int, dataset: Dataset) -> None:
        dataset.BitsStored, dataset.HighBit = 12, 15
        dataset.PixelData = ((pixels(index) - 100) * 16 + 7).astype(np.int16).tobytes()

    assert np.array_equal(_read_edited(tmp_path, shift).array, STORED - 100)


def test_modality_table_is_applied(tmp_path: Path) -> None:
    """Values are looked up in a Modality LUT."""

    def look_up(_: int, dataset: Dataset) -> None:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [256, 0, 16])
        item.ModalityLUTType = "US"
        item.add_new("LUTData", "US", [3 * value for value in range(256)])
        dataset.PixelRepresentation = 0
        dataset.ModalityLUTSequence = [item]

    assert np.array_equal(_read_edited(tmp_path, look_up).array, STORED * 3)


def test_float_pixels_are_read(tmp_path: Path) -> None:
    """Float Pixel Data come out as float32."""

    def make_float(index: int, dataset: Dataset) -> None:
        dataset.BitsAllocated = 32
        del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.PixelData
        dataset.FloatPixelData = (pixels(index) / 3).astype(np.float32).tobytes()

    array = _read_edited(tmp_path, make_float).array
    assert array.dtype == np.float32
    assert np.array_equal(array, (STORED / 3).astype(np.float32))


def test_missing_decoder_is_told(tmp_path: Path) -> None:
    """An encoding that nothing decodes is refused as such, naming encoding and file."""

    def claim(_: int, dataset: Dataset) -> None:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG2
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x0a" * 10])
        dataset["PixelData"].is_undefined_length = True

    save(tmp_path, make_series(1), edit=claim)
    with pytest.raises(RefusedError, match=r"MISSING_DECODER: 000\.dcm is encoded as MPEG2"):
        _read(tmp_path)


def test_source_has_digest_and_uid_of_each_slice(tmp_path: Path) -> None:
    """The source lists, slice by slice, the SHA-256 of the file and its SOP Instance UID."""
    paths = save(tmp_path, make_series(3, -2.0))
    source = _read(tmp_path).source
    assert source is not None
    assert [file.path for file in source.files] == paths[::-1]
    assert [file.sha256 for file in source.files] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[::-1]
    ]
    assert source.files[0].sop_instance_uid.endswith(".3.1.3")


@given(
    raw=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=6),
    slope=st.integers(-40, 40).filter(bool),
    intercept=st.integers(-70000, 70000),
)
def test_whole_scale_is_exact(raw: list[int], slope: int, intercept: int) -> None:
    """Whole slopes and intercepts give exact whole numbers, whatever the size."""
    values = rescale(np.array(raw, np.int16), float(slope), float(intercept))
    assert values.tolist() == [value * slope + intercept for value in raw]


@given(st.lists(st.lists(st.integers(-40000, 70000), min_size=2, max_size=2), min_size=1, max_size=5))
def test_stack_is_small_and_exact(planes: list[list[int]]) -> None:
    """A stack is int16 exactly where all values fit, and never changes a value."""
    stack = PlaneStack(len(planes))
    for index, plane in enumerate(planes):
        stack.put(index, np.array([plane], np.int64))
    assert stack.array[:, 0].tolist() == planes
    fits = all(-(2**15) <= value < 2**15 for plane in planes for value in plane)
    assert stack.array.dtype == (np.int16 if fits else np.float32)


def test_a_stream_of_another_kind_never_reaches_the_decoder(tmp_path: Path) -> None:
    """JPEG 2000 that is called JPEG would end the whole process in GDCM; it is refused."""

    def lie(index: int, dataset: Dataset) -> None:
        dataset.Rows = dataset.Columns = 64
        dataset.PixelData = np.zeros((64, 64), np.int16).tobytes()
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

    save(tmp_path, make_series(2), edit=lie)
    with pytest.raises(RefusedError, match="the JPEG stream has no size"):
        _read(tmp_path)


def test_the_size_of_a_jpeg_stands_in_its_frame_header() -> None:
    """Segments before it are passed over; the size of the header must be the same."""
    stream = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc3\x00\x0b\x10\x00\x20\x00\x24\x01\x00\x11\x00\xff\xda"
    check_codestream(stream, JPEGLosslessSV1, 32, 36)
    with pytest.raises(ValueError, match="32 by 36 pixels, the header 36 by 32"):
        check_codestream(stream, JPEGLosslessSV1, 36, 32)
