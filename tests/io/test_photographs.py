"""Photographs: pixels, places, refusals, and label maps out of them."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from effvit_med.errors import InputError, OutputError, RefusedError, SettingsError
from effvit_med.io.photograph_labels import read_picture_values, write_photograph_labels
from effvit_med.io.photographs import LUMA, check_colour_weights, check_photograph, read_photograph
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation
from tests.photographs import colours, save

TABLE = LabelTable((Label(1, "vessel", Code("59820001", "Blood vessel")), Label(3, "disc", Code("24999009", "Disc"))))


def codes(path: Path) -> list[str]:
    """The codes of what is found in a picture."""
    source = read_photograph(path).source
    assert source is not None
    return [finding.code for finding in source.findings]


def segmentation(labels: np.ndarray, geometry: Geometry, table: LabelTable = TABLE) -> Segmentation:
    """Labels of one plane."""
    made = Provenance("tiny", "1", "", {}, {}, "cpu", "2026-01-01T00:00:00+00:00")
    return Segmentation(labels, geometry, table, made)


def test_rows_go_down_and_columns_to_the_right(tmp_path: Path) -> None:
    """Array axes are plane, row, column; in the world, rows grow to P and columns to L, 1 mm a pixel."""
    volume = read_photograph(save(colours(40, 56)[..., 1], tmp_path / "a.png"))
    assert volume.array.shape == (1, 40, 56)
    assert volume.geometry.orientation == "SPL"
    assert np.array_equal(volume.geometry.index_to_world([0, 2, 5]), [5, 2, 0])
    assert volume.is_photograph


def test_colours_become_one_channel_by_their_weights(tmp_path: Path) -> None:
    """BT.601 where nothing is said."""
    pixels = colours()
    array = read_photograph(save(pixels, tmp_path / "a.png")).array
    assert array.dtype == np.float32
    np.testing.assert_allclose(array[0], pixels @ np.array(LUMA), atol=1e-3)


def test_one_colour_alone_keeps_its_bytes(tmp_path: Path) -> None:
    """Green, as for vessels."""
    pixels = colours()
    array = read_photograph(save(pixels, tmp_path / "a.png"), colour_weights=(0, 1, 0)).array
    assert array.dtype == np.uint8
    assert np.array_equal(array[0], pixels[..., 1])


@pytest.mark.parametrize("weights", [(0, 1), (0.5, 0.5, 0.5), (0, float("nan"), 1), (1, 1, -2)])
def test_weights_that_change_grey_are_refused(weights: tuple[float, ...]) -> None:
    """Their sum is 1."""
    with pytest.raises(SettingsError, match="sum 1"):
        check_colour_weights(weights)


@pytest.mark.parametrize(
    ("dtype", "suffix", "wanted"),
    [
        (np.uint8, "png", np.uint8),
        (np.uint16, "png", np.uint16),
        (np.uint8, "tif", np.uint8),
        (np.uint16, "tif", np.uint16),
        (np.int32, "tif", np.uint16),
        (np.float32, "tif", np.float32),
    ],
)
def test_grey_pictures_keep_their_values(tmp_path: Path, dtype: type, suffix: str, wanted: type) -> None:
    """Whatever the colour weights are."""
    pixels = np.arange(40 * 50, dtype=np.float64).reshape(40, 50) * (60 if dtype == np.uint16 else 0.1)
    pixels = pixels.astype(dtype)
    array = read_photograph(save(pixels, tmp_path / f"a.{suffix}"), colour_weights=(0, 1, 0)).array
    assert array.dtype == wanted
    assert np.array_equal(array[0], pixels)


def test_big_endian_16_bit_values_are_right(tmp_path: Path) -> None:
    """A TIFF of a Motorola byte order."""
    pixels = np.arange(1200, dtype=">u2").reshape(30, 40)
    data = pixels.tobytes()
    tags = [(256, 3, 40), (257, 3, 30), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 30),
            (279, 4, len(data))]  # fmt: skip
    entries = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in tags
    )
    head = struct.pack(">2sHI", b"MM", 42, 8 + len(data))
    (tmp_path / "a.tif").write_bytes(head + data + struct.pack(">H", len(tags)) + entries + bytes(4))
    array = read_photograph(tmp_path / "a.tif").array
    assert array.dtype == np.dtype(np.uint16)
    assert array.dtype.isnative
    assert np.array_equal(array[0], pixels)


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    """Not the numbers of its entries."""
    image = Image.fromarray(colours()).quantize(16)
    image.save(tmp_path / "a.png")
    array = read_photograph(tmp_path / "a.png", colour_weights=(1, 0, 0)).array
    assert np.array_equal(array[0], np.asarray(image.convert("RGB"))[..., 0])


def test_transparency_is_ignored_and_told(tmp_path: Path) -> None:
    """Only where a pixel is transparent; the colour under it counts."""
    pixels = np.dstack([colours(), np.full((40, 56), 255, np.uint8)])
    assert "ALPHA_IGNORED" not in codes(save(pixels, tmp_path / "solid.png"))
    pixels[3, 4, 3] = 0
    assert "ALPHA_IGNORED" in codes(save(pixels, tmp_path / "clear.png"))
    array = read_photograph(tmp_path / "clear.png", colour_weights=(0, 1, 0)).array
    assert np.array_equal(array[0], pixels[..., 1])
    assert "ALPHA_IGNORED" in codes(save(pixels[..., 2:], tmp_path / "grey.png"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_is_stored_turned_is_upright_in_the_world(tmp_path: Path, orientation: int) -> None:
    """The array has the stored pixels; turned to SPL it is what a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = colours()[..., 0]
    path = save(pixels, tmp_path / "a.png", exif=exif)
    volume = read_photograph(path)
    assert np.array_equal(volume.array[0], pixels)
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(volume.reoriented("SPL").array[0], shown)
    assert ("EXIF_ORIENTATION" in codes(path)) == (orientation != 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_keeps_its_stored_pixels_too(tmp_path: Path, orientation: int) -> None:
    """Pillow turns it upright while it decodes; the stored grid is what counts, in images and in label maps."""
    pixels = colours()[..., 0]
    path = save(pixels, tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    volume = read_photograph(path)
    assert np.array_equal(volume.array[0], pixels)
    assert check_photograph(path)[0].max_distance_mm(volume.geometry) == 0
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
        assert np.array_equal(volume.reoriented("SPL").array[0], np.asarray(image))
    assert np.array_equal(read_picture_values(path)[0][0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_lie_on_the_stored_pixels_and_are_shown_as_the_photograph_is(tmp_path: Path, orientation: int) -> None:
    """The PNG has the Exif orientation of the photograph, and its width and height."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    volume = read_photograph(save(colours(), tmp_path / "a.jpg", exif=exif))
    labels = (volume.array > 128).astype(np.uint8) * 3
    write_photograph_labels(segmentation(labels, volume.geometry), tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as image:
        assert image.mode == "L"
        assert image.getexif().get(0x0112, 1) == orientation
        assert np.array_equal(np.asarray(image), labels[0])
    rows = json.loads((tmp_path / "out.labels.json").read_text(encoding="utf-8"))["labels"]
    assert [row["value"] for row in rows] == [1, 3]


def test_labels_above_255_need_16_bits(tmp_path: Path) -> None:
    """Values come back as they were."""
    labels = np.zeros((1, 20, 30), np.uint16)
    labels[0, 4] = 700
    table = LabelTable((Label(700, "far", Code("1", "Far")),))
    write_photograph_labels(segmentation(labels, Geometry(np.eye(4), (1, 20, 30)), table), tmp_path / "a.png")
    assert np.array_equal(read_picture_values(tmp_path / "a.png")[0], labels)


def test_a_volume_is_no_plane(tmp_path: Path) -> None:
    """Several planes do not go into one PNG, and nothing is left behind."""
    labels = np.zeros((2, 20, 30), np.uint8)
    with pytest.raises(OutputError, match="one plane"):
        write_photograph_labels(segmentation(labels, Geometry(np.eye(4), (2, 20, 30))), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_dots_per_inch_are_no_size_of_what_is_shown(tmp_path: Path) -> None:
    """72 dpi are said, and not used."""
    path = save(colours(), tmp_path / "a.png", dpi=(72, 72))
    geometry, findings = check_photograph(path)
    assert geometry.spacing_mm == (1, 1, 1)
    assert [finding.code for finding in findings] == ["SPACING_ASSUMED"]
    assert "72.01 dots per inch" in findings[0].message


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"description": "ImageJ=1.53\nunit=micron\n", "resolution": (4.0, 2.0)}, (0.0005, 0.00025)),
        ({"description": "ImageJ=1.53\nunit=mm\n", "resolution": (10.0, 10.0)}, (0.1, 0.1)),
        ({"description": '<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="0.25"/></OME>'}, (0.00025, 0.0005)),
        (
            {
                "description": '<OME><Pixels PhysicalSizeX="2" PhysicalSizeXUnit="mm" PhysicalSizeY="3" '
                'PhysicalSizeYUnit="mm"/></OME>'
            },
            (3.0, 2.0),
        ),
    ],
)
def test_a_microscope_says_how_large_a_pixel_is(tmp_path: Path, options: dict, wanted: tuple[float, float]) -> None:
    """ImageJ and OME, each in its unit; (row, column) in mm."""
    tags = {270: options["description"].encode()}
    if "resolution" in options:
        tags |= {282: options["resolution"][0], 283: options["resolution"][1]}
    path = save(colours()[..., 0], tmp_path / "a.tif", tiffinfo=tags)
    geometry, findings = check_photograph(path)
    np.testing.assert_allclose(geometry.spacing_mm[1:], wanted)
    assert not findings


def test_a_multi_page_tiff_is_refused(tmp_path: Path) -> None:
    """With the number of pages and what to do."""
    pages = [Image.fromarray(colours(seed=seed)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(RefusedError, match=r"holds 3 pictures.*a file of its own") as caught:
        check_photograph(tmp_path / "a.tif")
    assert caught.value.code == "MULTI_VOLUME"


def test_cmyk_and_masks_are_no_photographs(tmp_path: Path) -> None:
    """Inks are no light; one bit is a mask."""
    Image.fromarray(colours()).convert("CMYK").save(tmp_path / "inks.jpg")
    Image.fromarray(colours()).convert("1").save(tmp_path / "mask.png")
    for name, word in (("inks.jpg", "CMYK"), ("mask.png", "a mask")):
        with pytest.raises(RefusedError, match=word) as caught:
            read_photograph(tmp_path / name)
        assert caught.value.code == "NOT_GRAYSCALE"


def test_sixteen_bits_per_colour_are_told(tmp_path: Path) -> None:
    """Pillow keeps the upper eight."""
    pixels = np.full((6, 5, 3), 0x1234, ">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    parts = (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"".join(parts))
    assert "DEPTH_REDUCED" in codes(tmp_path / "a.png")
    assert read_photograph(tmp_path / "a.png", colour_weights=(1, 0, 0)).array.max() == 0x12


def test_a_name_that_says_another_format_is_told(tmp_path: Path) -> None:
    """The content decides."""
    Image.fromarray(colours()).save(tmp_path / "a.png", format="JPEG")
    assert "WRONG_SUFFIX" in codes(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, suffix: str, keep: float) -> None:
    """Never read as a part of itself."""
    whole = save(
        np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8), tmp_path / f"a.{suffix}"
    ).read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(InputError, match=rf"b\.{suffix}"):
        read_photograph(tmp_path / f"b.{suffix}")


def test_a_picture_that_claims_billions_of_pixels_is_refused(tmp_path: Path) -> None:
    """Before anything is decoded."""
    data = bytearray(save(colours()[..., 0], tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(RefusedError) as caught:
        check_photograph(tmp_path / "b.png")
    assert caught.value.code == "TOO_LARGE"


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    """Whatever it is called, and where it is not there."""
    (tmp_path / "a.png").write_bytes(b"hello" * 100)
    for name in ("a.png", "none.png"):
        with pytest.raises(InputError, match=name):
            check_photograph(tmp_path / name)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """No labels can be made of them."""
    pixels = np.ones((20, 30), np.float32)
    pixels[3, 4] = np.nan
    with pytest.raises(RefusedError, match="not finite"):
        read_photograph(save(pixels, tmp_path / "a.tif"))


def test_label_values_are_those_of_the_pixels(tmp_path: Path) -> None:
    """One bit, a palette, three equal channels, 16 bits."""
    labels = (np.arange(600).reshape(20, 30) % 4).astype(np.uint8)
    palette = Image.frombytes("P", (30, 20), labels.tobytes())
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    palette.save(tmp_path / "palette.png")
    save(np.dstack([labels] * 3), tmp_path / "rgb.png")
    save(labels.astype(np.uint16) * 300, tmp_path / "deep.tif")
    Image.fromarray(labels > 1).save(tmp_path / "bit.png")
    wanted = {"palette.png": labels, "rgb.png": labels, "deep.tif": labels * np.uint16(300), "bit.png": labels > 1}
    for name, values in wanted.items():
        assert np.array_equal(read_picture_values(tmp_path / name)[0][0], values), name


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_colours_and_jpeg_are_no_labels(tmp_path: Path, name: str) -> None:
    """JPEG changes values; colours have no order."""
    with pytest.raises(RefusedError) as caught:
        read_picture_values(save(colours(), tmp_path / name))
    assert caught.value.code == "NOT_GRAYSCALE"
