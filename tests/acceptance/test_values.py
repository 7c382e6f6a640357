"""Acceptance cases 12 to 17: every voxel has the value that its file gives, exactly."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gdcm
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
)

from effvit_med.errors import RefusedError
from effvit_med.io import open_input, read_case
from effvit_med.volume import Volume
from tests.acceptance.judging import assert_true, claimed_world
from tests.acceptance.series import Stack, make_series, make_slice, save, save_stack, store, value_at
from tests.acceptance.test_geometry import codes_of, read_one

STACK = Stack(size=(32, 36), places_mm=tuple(2.5 * index - 10 for index in range(8)))
Plane = npt.NDArray[np.float64]

# a plane of the phantom, 20 x 24 pixels 1.5 mm apart at place 2 mm, as OpenJPH compressed it
HTJ2K_PLANE = (
    r"|4;u>04YEK0000O0000K00000000000000O0000K000000000000EBy0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?k"
    r"dTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00001`v3v|lfVEbDEtD4bO68r6F>kHKmZc}A^ZY|bN"
    r"~|g0|#^fQTPJ~bO68r6TkoyzyK2f2%z}_i*x`CG1LPAbN~+i0*7<}zyKDM00CV909Swmqo9ci%suNg01%7J0Rwrt0L}F25}v"
    r"OL?EoSHzLo$l@)yd%J(ke^03`!{wgA8Y7fk>FT~q)8bYKOYXh4M|PYUi}5D**kkY#tOl(=;T)d%tcm+bCIB_BQjK!=?G1<Xg"
    r"X9w|NGpKHpN5pY=rAz8%RehjGYSjk`rg8*rJo2nQ<AA~>&od63+7BrZ(ATPb)J}f_3%Ru|WmA^jM<-<k!3pm6`5depo0Kfn*"
    r"O@IJiw*UaU&>CYGG44W)F_hh1b}8d7c6VWSml&uO#xh`}tBf+(CB`l=N}am4tIJ(?;j+u!yX|!0^zd}z68UXY(q;Ht(|_^1H"
    r"k^Unqyg39c>!afz6*~=U6)-vLOli<yV!*;+i6#qUD(}a7j`k$1tW~@>Qa|>>~`$}!)`mfy6ht0QUb^zKsy4+AmCC0bP*sxAi"
    r"(zp?Ov|eVoWb(ZS-*WAwZ5fN(VQ00m*3BZoBO!qh0M{7rWY(jCQpv8OVr?>|$3k+SM+|s2#iP+U|DQ_4N1w$l{6pS;giBx{~"
    r"z4+=c<Vbpij`"
)


def true_plane(index: int) -> Plane:
    """What lies on a plane, rounded."""
    return np.rint(value_at(STACK.plane_world(STACK.places_mm[index])))


def plane_of(volume: Volume, index: int) -> Plane:
    """The values of the plane that a volume says lies where a plane was made."""
    first = claimed_world(volume)[:, 0, 0]
    found = np.linalg.norm(first - STACK.position(STACK.places_mm[index]), axis=-1)
    assert found.min() < 0.001
    return np.asarray(volume.array[int(found.argmin())], np.float64)


def assert_planes(volume: Volume, expected: Callable[[int], Plane]) -> None:
    """Fail unless each plane has exactly the values that float32 can hold."""
    for index in range(len(STACK.places_mm)):
        assert np.array_equal(plane_of(volume, index), np.asarray(expected(index), np.float32).astype(np.float64))


def test_case_12_pet_slope_of_each_slice(tmp_path: Path) -> None:
    """Each slice of a PET series is scaled by its own Rescale Slope."""

    def slope(index: int) -> float:
        return round(0.37 + 0.113 * index, 6)

    def stored(index: int) -> Plane:
        return np.rint((true_plane(index) + 1900) / slope(index))

    def edit(index: int, dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        dataset.Modality, dataset.Units = "PT", "BQML"
        dataset.RescaleSlope = slope(index)
        store(dataset, stored(index), np.int16)

    volume = read_one(save_stack(tmp_path / "in", STACK, edit=edit))
    assert volume.modality == "PT"
    assert_planes(volume, lambda index: stored(index) * slope(index))


def test_case_12_intercept_changes_in_the_series(tmp_path: Path) -> None:
    """A CT series whose Rescale Intercept changes from slice to slice is one scan in HU."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.RescaleIntercept = -2048 if index % 3 else -4096
        store(dataset, true_plane(index) - int(dataset.RescaleIntercept), np.uint16)

    assert_true(read_one(save_stack(tmp_path / "in", STACK, edit=edit)), STACK)


@pytest.mark.parametrize("value", ["absent", "empty", "slope_only"])
def test_case_13_no_rescale_is_the_identity(value: str, tmp_path: Path) -> None:
    """MR images without Rescale Slope, or with an empty one, keep their stored values."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
        dataset.Modality = "MR"
        if value == "absent":
            del dataset.RescaleSlope, dataset.RescaleIntercept
        else:
            dataset.RescaleSlope = None
            dataset.RescaleIntercept = None if value == "empty" else 0

    assert_true(read_one(save_stack(tmp_path / "in", STACK, edit=edit)), STACK)


def test_case_14_signed_16_bits(tmp_path: Path) -> None:
    """Both ends of the signed 16-bit range come out as they are."""

    def values(index: int) -> Plane:
        plane = true_plane(index)
        plane[0, :4] = (-32768, 32767, -1, 0)
        return plane

    def edit(index: int, dataset: Dataset) -> None:
        store(dataset, values(index), np.int16)

    assert_planes(read_one(save_stack(tmp_path / "in", STACK, edit=edit)), values)


def test_case_14_signed_12_bits_with_overlay_bits(tmp_path: Path) -> None:
    """The bits above the twelve that are stored hold an overlay, are no part of the value; the sign is kept."""

    def values(index: int) -> Plane:
        return np.clip(true_plane(index), -2048, 2047)

    def edit(index: int, dataset: Dataset) -> None:
        store(dataset, values(index), np.int16, bits=12)
        words = (values(index).astype(np.int16).view(np.uint16)) & 0x0FFF
        words[::2, ::3] |= 0x1000
        words[1::2] |= 0x8000
        dataset.PixelData = words.tobytes()
        dataset.add_new(0x60000010, "US", dataset.Rows)
        dataset.add_new(0x60000011, "US", dataset.Columns)
        dataset.add_new(0x60000040, "CS", "G")
        dataset.add_new(0x60000050, "SS", [1, 1])
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 12)

    assert_planes(read_one(save_stack(tmp_path / "in", STACK, edit=edit)), values)


def test_case_14_unsigned_above_32767(tmp_path: Path) -> None:
    """Unsigned values above 32767 do not become negative."""

    def values(index: int) -> Plane:
        return np.clip(true_plane(index) * 30 + 20000, 0, 65535)

    def edit(index: int, dataset: Dataset) -> None:
        store(dataset, values(index), np.uint16)

    volume = read_one(save_stack(tmp_path / "in", STACK, edit=edit))
    assert float(volume.array.max()) > 60000
    assert_planes(volume, values)


def test_case_14_the_first_slice_does_not_choose_the_type(tmp_path: Path) -> None:
    """The first slice holds small positive numbers only, a later one -700 and one 40000: nothing wraps around."""

    def values(index: int) -> Plane:
        return np.full(STACK.size, {0: 50.0, 4: -700.0, 5: 40000.0}.get(index, 51.0 + index))

    def edit(index: int, dataset: Dataset) -> None:
        dataset.RescaleIntercept = -1024
        store(dataset, values(index) + 1024, np.uint16)

    assert_planes(read_one(save_stack(tmp_path / "in", STACK, edit=edit)), values)


@pytest.mark.parametrize("written", ["signed", "as unsigned"])
def test_case_15_padding_is_masked(written: str, tmp_path: Path) -> None:
    """Pixels outside the round field of view become the lowest true value, all others stay, and it is reported."""
    rows, columns = np.indices(STACK.size)
    outside = (rows - 15.5) ** 2 + (columns - 17.5) ** 2 > 15**2

    def edit(index: int, dataset: Dataset) -> None:
        store(dataset, np.where(outside, -2000, true_plane(index)), np.int16)
        dataset.add_new(0x00280120, "SS" if written == "signed" else "US", -2000 if written == "signed" else 63536)

    lowest = min(true_plane(index)[~outside].min() for index in range(len(STACK.places_mm)))
    volume = read_one(save_stack(tmp_path / "in", STACK, edit=edit))
    assert "PADDING" in codes_of(volume)
    assert_planes(volume, lambda index: np.where(outside, lowest, true_plane(index)))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_case_16_monochrome1_keeps_its_values(modality: str, tmp_path: Path) -> None:
    """MONOCHROME1 says how an image is displayed: the values stay as they are, with a finding."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.PhotometricInterpretation, dataset.Modality = "MONOCHROME1", modality

    volume = read_one(save_stack(tmp_path / "in", STACK, edit=edit))
    assert "MONOCHROME1" in codes_of(volume)
    assert_true(volume, STACK)


def _compress(uid: str) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.compress(uid, generate_instance_uid=False)
        dataset.save_as(path)

    return convert


def _compress_with_gdcm(selection: int) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(selection))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()

    return convert


def _recode(uid: str) -> Callable[[Path], None]:
    def convert(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.save_as(path, implicit_vr=uid == ImplicitVRLittleEndian, little_endian=True)

    return convert


def _swap_bytes(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)


def _strip_meta(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"


SYNTAXES: dict[str, Callable[[Path], None]] = {
    "rle": _compress(RLELossless),
    "jpeg_ls": _compress(JPEGLSLossless),
    "jpeg_lossless_sv1": _compress_with_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14_1),
    "jpeg_lossless": _compress_with_gdcm(gdcm.TransferSyntax.JPEGLosslessProcess14),
    "jpeg_2000": _compress(JPEG2000Lossless),
    "deflated": _recode(DeflatedExplicitVRLittleEndian),
    "big_endian": _swap_bytes,
    "implicit": _recode(ImplicitVRLittleEndian),
    "implicit_without_meta_header": _strip_meta,
}


@pytest.mark.parametrize("name", sorted(SYNTAXES))
def test_case_17_transfer_syntaxes(name: str, tmp_path: Path) -> None:
    """A compressed or otherwise encoded series has the values of the uncompressed one."""
    folder = save_stack(tmp_path / "in", STACK)
    for path in folder.iterdir():
        SYNTAXES[name](path)
    assert_true(read_one(folder), STACK)


def _high_throughput_slice(folder: Path) -> Stack:
    stack = replace(STACK, size=(20, 24), places_mm=(2.0,))
    dataset = make_slice(stack, 0)
    dataset.PixelData = encapsulate([base64.b85decode("".join(HTJ2K_PLANE))])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
    save(folder, [dataset])
    return stack


def test_case_17_high_throughput_jpeg_2000(tmp_path: Path) -> None:
    """A slice that OpenJPH compressed has the values of the phantom."""
    stack = _high_throughput_slice(tmp_path / "in")
    assert_true(read_one(tmp_path / "in"), stack)


def test_case_17_no_decoder_at_all(tmp_path: Path) -> None:
    """An encoding that nothing decodes, such as JPEG XL, is refused as MISSING_DECODER with its name."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.PixelData = encapsulate([b"\xff\x0a\x00\x00"])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML

    for path in save(tmp_path / "in", make_series(STACK, edit=edit)):  # pydicom does not write what it does not know
        path.write_bytes(path.read_bytes().replace(MPEG2MPML.encode(), b"1.2.840.10008.1.2.4.110"))
    with open_input(tmp_path / "in") as found:
        said = [f"{each.code} {each.message}" for each in found.refused]
        for case in found.cases:
            with pytest.raises(RefusedError) as refusal:
                read_case(case)
            said.append(str(refusal.value))
    assert len(said) == 1
    assert said[0].startswith("MISSING_DECODER")
    assert re.search(r"1\.2\.4\.110|JPEG XL", said[0])


WITHOUT_CODECS = """
import sys
for name in ("gdcm", "jpeg_ls", "pylibjpeg", "openjpeg"):
    sys.modules[name] = None
from pathlib import Path
from effvit_med.errors import RefusedError
from effvit_med.io import open_input, read_case
with open_input(Path(sys.argv[1])) as found:
    for refused in found.refused:
        print(refused.code, refused.remedy)
    for case in found.cases:
        try:
            read_case(case)
        except RefusedError as error:
            print(error.code, error.remedy)
"""


def _missing_codec(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_CODECS, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_case_17_a_missing_codec_for_jpeg_ls_is_named(tmp_path: Path) -> None:
    """On a machine without a JPEG-LS codec the refusal is MISSING_DECODER and names what to install with pip."""
    folder = save_stack(tmp_path / "in", STACK)
    for path in folder.iterdir():
        SYNTAXES["jpeg_ls"](path)
    said = _missing_codec(folder)
    assert said.startswith("MISSING_DECODER")
    assert "pyjpegls" in said


def test_case_17_a_missing_codec_for_high_throughput_is_named(tmp_path: Path) -> None:
    """On a machine without pylibjpeg-openjpeg an HTJ2K slice is refused, and that package is named."""
    _high_throughput_slice(tmp_path / "in")
    said = _missing_codec(tmp_path / "in")
    assert said.startswith("MISSING_DECODER")
    assert "pylibjpeg-openjpeg" in said
