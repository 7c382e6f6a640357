"""Photographs, and other pictures of one plane: PNG, JPEG and TIFF into a volume of one plane, label maps out of it.

A photograph is a volume of shape (1, height, width). Array axis 1 is the rows, downwards, axis 2 the columns, to the
right, as the pixels are stored; in the world of `effvit_med.volume.geometry` right is left of the patient (+x) and down
is posterior (+y), so that an upright picture has the orientation ``SPL``. A picture that is stored turned, as its
Exif says, keeps its stored pixel grid, and its geometry says which way is up.
"""

from __future__ import annotations

import hashlib
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from effvit_med.errors import InputError, OutputError, RefusedError, SettingsError
from effvit_med.io.atomic import atomic_path, write_json
from effvit_med.io.nifti import name_case
from effvit_med.io.photograph_spacing import Spacing, find_spacing
from effvit_med.volume import NOT_FOR_CLINICAL_USE, Finding, Geometry, Segmentation, Source, SourceFile, Volume
from effvit_med.volume.volume import PHOTOGRAPH

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in one channel where a bundle says nothing. Source: ITU-R BT.601, section 2.5.1."""

MAX_PIXELS = 178_956_970
"""A picture of more pixels is refused before anything is decoded; Pillow's own limit."""

_SUFFIXES = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}
_NAME = re.compile(r"\.(png|jpe?g|tiff?)$", re.IGNORECASE)
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})  # one channel of more than 8 bits
_COLOURS = frozenset({"RGB", "RGBX", "RGBA", "P", "PA", "YCbCr"})
_WITH_ALPHA = frozenset({"LA", "PA", "RGBA"})
_PNG_LEVEL = 6
_BITS_PER_SAMPLE = 258  # of TIFF

# Which way the rows and then the columns grow, by the Exif orientation. Source: Exif 2.3 (CIPA DC-008), tag 0x0112
_ORIENTATIONS = {1: "PL", 2: "PR", 3: "AR", 4: "AL", 5: "LP", 6: "RP", 7: "RA", 8: "LA"}
_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0)}

# what Pillow's readers raise on damaged files
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
           ZeroDivisionError, AttributeError, AssertionError, RuntimeError, struct.error, zlib.error)  # fmt: skip


def is_photograph_name(path: Path) -> bool:
    """Whether a file is called ``.png``, ``.jpg``, ``.jpeg``, ``.tif`` or ``.tiff``, in any case.

    Examples:
        >>> is_photograph_name(Path("eye.JPG")), is_photograph_name(Path("liver.nii.gz"))
        (True, False)
    """
    return _NAME.search(path.name) is not None


def check_colour_weights(weights: Sequence[float]) -> tuple[float, float, float]:
    """Three weights of red, green and blue whose sum is 1, so that grey stays what it is.

    Args:
        weights: shares of red, green and blue; one may be below 0.

    Raises:
        SettingsError: if they are not three finite numbers whose sum is 1.

    Examples:
        >>> check_colour_weights([0, 1, 0])
        (0.0, 1.0, 0.0)
    """
    values = [float(weight) for weight in weights]
    if len(values) != 3 or not np.isfinite(values).all() or abs(sum(values) - 1) > 1e-6:
        raise SettingsError(f"colour_weights is {list(weights)}; give three numbers, of red, green and blue, of sum 1.")
    return values[0], values[1], values[2]


def check_photograph(path: Path) -> tuple[Geometry, tuple[Finding, ...]]:
    """Check the header of a picture, without decoding its pixels.

    Args:
        path: the file.

    Returns:
        Where its pixels lie, and the findings of `read_photograph` that the header shows.

    Raises:
        InputError: if it cannot be read or is no PNG, JPEG or TIFF file.
        RefusedError: as of `read_photograph`, as far as the header shows it.
    """
    path = Path(path)
    with _opened(path) as (image, _):
        _check_mode(image, path)
        return _place(_read_header(image, path), path)


def has_one_bit(path: Path) -> bool:
    """Whether a picture has one bit per pixel, as masks have; False for what cannot be opened.

    Args:
        path: any file.
    """
    try:
        with _opened(Path(path)) as (image, _):
            return image.mode == "1"
    except InputError:
        return False


def read_photograph(path: Path, case_id: str = "", colour_weights: Sequence[float] = LUMA) -> Volume:
    """Read a picture as a volume of one plane and one channel.

    Colours are made one channel by their weights: float32 from 0 to 255, or the channel itself, uint8, where one weight
    is 1 and the others are 0. Grey pictures keep their values: uint8, uint16, or float32. Transparency is ignored.

    Args:
        path: PNG, JPEG or TIFF with one picture.
        case_id: name of the case; by default from the file name.
        colour_weights: shares of red, green and blue; see `check_colour_weights`.

    Returns:
        The volume, of shape (1, height, width), in the order of the stored pixels; its modality is empty.

    Raises:
        InputError: if the file cannot be read or is no PNG, JPEG or TIFF file.
        RefusedError: ``UNREADABLE_PIXELS``, ``MULTI_VOLUME``, ``NOT_GRAYSCALE``, ``TOO_LARGE``.
        SettingsError: as of `check_colour_weights`.
    """
    weights, path = check_colour_weights(colour_weights), Path(path)
    with _opened(path) as (image, sha256):
        _check_mode(image, path)
        header = _read_header(image, path)
        pixels, transparent = _decode(image, header, path)
        if image.format == "PNG":  # whose Exif may stand behind the pixels
            header = replace(header, orientation=_find_orientation(image))
    geometry, findings = _place(header, path)
    if transparent:
        text = f"{path.name} has transparent pixels; they were read as if they were not."
        findings = (*findings, Finding("ALPHA_IGNORED", text))
    values = _weigh(pixels, weights)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        message = f"{path.name} holds values that are not finite."
        raise RefusedError("UNREADABLE_PIXELS", message, "Replace them and save it again.")
    source = Source(case_id or name_photograph(path), PHOTOGRAPH, (SourceFile(path, sha256),), findings=findings)
    return Volume(values[None], geometry, "", source)


def read_picture_values(path: Path) -> tuple[npt.NDArray[Any], Geometry, Source]:
    """The values of a picture as they are stored, for label maps.

    They are placed as an upright picture with pixels of 1 mm, whatever the file says, so that two label maps of one
    photograph always lie on one another: what is measured on them in mm counts pixels.

    Args:
        path: PNG or TIFF. One bit gives 0 and 1, a palette the numbers of its colours, three equal channels one.

    Returns:
        (1, height, width) values, where they lie, and the file.

    Raises:
        InputError: if the file cannot be read or is no PNG or TIFF file.
        RefusedError: ``NOT_GRAYSCALE`` (colours, or JPEG, which changes values), ``UNREADABLE_PIXELS``,
            ``MULTI_VOLUME``, ``TOO_LARGE``.
    """
    path = Path(path)
    with _opened(path) as (image, sha256):
        if image.format not in ("PNG", "TIFF"):
            message = f"{path.name} is {image.format}, which changes the values of labels."
            raise RefusedError("NOT_GRAYSCALE", message, "Save it as PNG.")
        header = _read_header(image, path)
        with _damage_told(path):
            image.load()
            pixels = _as_stored(np.asarray(image), header)
    geometry = Geometry(np.eye(4)[:, [2, 1, 0, 3]], (1, *pixels.shape[:2]))
    if pixels.ndim == 3:
        colours = pixels[..., : 1 if image.mode == "LA" else 3]
        if image.mode not in _WITH_ALPHA | {"RGB", "RGBX"} or (colours != colours[..., :1]).any():
            message = f"{path.name} has colours ({image.mode}), which are no label values."
            raise RefusedError("NOT_GRAYSCALE", message, "Save it with one number for each structure.")
        pixels = colours[..., 0]
    values = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else _native(pixels)
    source = Source(name_photograph(path), PHOTOGRAPH, (SourceFile(path, sha256),))
    return values[None], geometry, source


def write_photograph_labels(segmentation: Segmentation, path: Path) -> None:
    """Write labels as a PNG with one pixel for each pixel of the photograph, and beside it what the values mean.

    Pixel values are label values: 8 bits, or 16 where a value is above 255. Where the photograph was stored turned, the
    PNG has the same Exif orientation, so that programs show both alike. The table goes to ``<name>.labels.json``.

    Args:
        segmentation: labels of one plane.
        path: ``.png``; its folder must exist.

    Raises:
        OutputError: if the labels are not of one plane, the name has another ending, or a file cannot be written.
    """
    path = Path(path)
    wide = any(label.value > 255 for label in segmentation.table)
    labels = segmentation.labels.astype(np.uint16) if wide else segmentation.labels.astype(np.uint8)
    write_plane(labels, segmentation.geometry, path)
    table = {"notice": NOT_FOR_CLINICAL_USE, "labels": segmentation.table.to_dicts()}
    write_json(photograph_labels_path(path), table)


def write_plane(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], geometry: Geometry, path: Path) -> None:
    """Write the values of one plane as a grey PNG, with the Exif orientation of the photograph.

    Args:
        values: (1, height, width).
        geometry: of the photograph.
        path: ``.png``; its folder must exist.

    Raises:
        OutputError: if there is not one plane, the name has another ending, or the file cannot be written.
    """
    if values.shape[0] != 1 or path.suffix.lower() != ".png":
        raise OutputError(f"{path.name}: a PNG of one plane cannot hold {values.shape} voxels; write NIfTI or DICOM.")
    exif = Image.Exif()
    letters = geometry.orientation[1:]
    exif[ExifTags.Base.Orientation] = next((n for n, each in _ORIENTATIONS.items() if each == letters), 1)
    turned = {} if exif[ExifTags.Base.Orientation] == 1 else {"exif": exif}
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(values[0])).save(temporary, "PNG", compress_level=_PNG_LEVEL, **turned)


def photograph_labels_path(path: Path) -> Path:
    """The JSON file beside a label map of a photograph that says what its values mean."""
    return path.with_suffix(".labels.json")


def name_photograph(path: Path, taken: frozenset[str] | set[str] = frozenset()) -> str:
    """A case name from the name of a picture; as `effvit_med.io.nifti.name_case`.

    Args:
        path: the file.
        taken: names in use; letter case makes no difference.

    Examples:
        >>> name_photograph(Path("eye 1.jpg")), name_photograph(Path("eye.png"), {"eye"})
        ('eye_1', 'eye_2')
    """
    return name_case(Path(_NAME.sub("", path.name) or path.name), taken)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, str]]:
    """A picture whose header was read, and the SHA-256 of its file."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on odd metadata and large pictures
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with _opened_image(file, path) as image:
                _check_image(image, path)
                yield image, sha256
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error


def _opened_image(file: Any, path: Path) -> Image.Image:
    try:
        return Image.open(file, formats=["PNG", "JPEG", "TIFF"])
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name} is no PNG, JPEG or TIFF file, or its header is damaged.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many") from error
    except _DAMAGE as error:
        raise InputError(f"{path.name} has a damaged header: {_first_line(error)}.") from error


def _check_image(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} x {height}")
    if width < 1 or height < 1:
        raise RefusedError("UNREADABLE_PIXELS", f"{path.name} has the size {width} x {height}.", "Save it again.")
    with _damage_told(path):
        pages = int(getattr(image, "n_frames", 1))
    if pages > 1 and image.format != "MPO":  # a camera's JPEG with previews behind the picture
        message = f"{path.name} holds {pages} pictures; one is needed."
        raise RefusedError("MULTI_VOLUME", message, "Save each picture as a file of its own.")


def _too_large(path: Path, size: str) -> RefusedError:
    message = f"{path.name} claims {size} pixels, more than {MAX_PIXELS // 10**6} million."
    return RefusedError("TOO_LARGE", message, "Crop it or save it smaller.")


def _check_mode(image: Image.Image, path: Path) -> None:
    if image.mode == "1":
        message = f"{path.name} has one bit per pixel: a mask, no photograph."
        raise RefusedError("NOT_GRAYSCALE", message, "Give the picture that it belongs to.")
    if image.mode not in _DEEP | _COLOURS | {"L", "LA"}:
        message = f"{path.name} has pixels of the kind {image.mode}; grey or red, green and blue are needed."
        raise RefusedError("NOT_GRAYSCALE", message, "Save it as RGB.")


@dataclass(frozen=True)
class _Header:
    """What is known of a picture before its pixels are decoded.

    Attributes:
        size: (height, width) as stored.
        orientation: of Exif, 1 to 8.
        spacing: of the pixels.
        format: such as ``PNG``.
        deep: whether Pillow makes 8 bits out of more, as it does for colours.
    """

    size: tuple[int, int]
    orientation: int
    spacing: Spacing
    format: str
    deep: bool


def _read_header(image: Image.Image, path: Path) -> _Header:
    with _damage_told(path):
        width, height = image.size
        orientation = _find_orientation(image)
        if image.format == "TIFF" and orientation > 4:  # Pillow tells the size of the upright picture
            width, height = height, width
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
        tiles = getattr(image, "tile", ())
        raw = str(tiles[0][3]) if tiles else ""  # such as RGB;16B of a PNG
        deep = any(int(each) > 8 for each in (bits if isinstance(bits, tuple) else (bits,))) or ";16" in raw
        kind = (image.format or "").replace("MPO", "JPEG")
        return _Header((height, width), orientation, find_spacing(image), kind, deep and image.mode not in _DEEP)


def _find_orientation(image: Image.Image) -> int:
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # not that of PNG, which decodes all pixels
    return found if found in _ORIENTATIONS else 1


def _as_stored(pixels: npt.NDArray[Any], header: _Header) -> npt.NDArray[Any]:
    """Pixels as the file has them: those of a TIFF that says it is turned are turned upright by Pillow."""
    if header.format != "TIFF" or header.orientation == 1:
        return pixels
    letters = _ORIENTATIONS[header.orientation]
    rows, columns = letters[0], letters[1]
    turned = pixels.swapaxes(0, 1) if rows in "LR" else pixels
    if rows in "AR":
        turned = turned[::-1]
    return turned[:, ::-1] if columns in "AR" else turned


def _place(header: _Header, path: Path) -> tuple[Geometry, tuple[Finding, ...]]:
    """Where the pixels lie, and what is odd about them."""
    findings, spacing = [], header.spacing
    if spacing.finding:
        findings.append(Finding(spacing.finding, f"{path.name}: {spacing.message}"))
    letters = _ORIENTATIONS[header.orientation]
    if header.orientation != 1:
        text = (
            f"{path.name} is stored turned (Exif orientation {header.orientation}). A network that asks for upright "
            "pictures gets it upright; labels lie on the stored pixels and say the same orientation."
        )
        findings.append(Finding("EXIF_ORIENTATION", text))
    called = _SUFFIXES.get(path.suffix.lower()[1:])
    if called and called != header.format:
        findings.append(Finding("WRONG_SUFFIX", f"{path.name} is in truth {header.format}."))
    if header.deep:
        text = f"{path.name} has more than 8 bits per colour; the lower ones were left out."
        findings.append(Finding("DEPTH_REDUCED", text))
    affine = np.eye(4)
    affine[:3, 0] = (0, 0, 1)
    affine[:3, 1] = np.multiply(_DIRECTIONS[letters[0]], spacing.row_mm)
    affine[:3, 2] = np.multiply(_DIRECTIONS[letters[1]], spacing.column_mm)
    return Geometry(affine, (1, *header.size)), tuple(findings)


def _decode(image: Image.Image, header: _Header, path: Path) -> tuple[npt.NDArray[Any], bool]:
    """(height, width) grey or (height, width, 3) colours, and whether a pixel is transparent."""
    with _damage_told(path):
        image.load()
        sees_through = image.mode in _WITH_ALPHA or "transparency" in image.info
        if image.mode in _DEEP:
            pixels = _as_stored(_native(np.asarray(image)), header)
            whole = pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 65535
            return pixels.astype(np.uint16 if whole else np.float32), False
        if image.mode in ("L", "LA") and not (image.mode == "L" and sees_through):
            values = _as_stored(np.asarray(image), header)
            return (values[..., 0], bool((values[..., 1] < 255).any())) if values.ndim == 3 else (values, False)
        grey = image.mode == "L"
        values = _as_stored(np.asarray(image.convert("RGBA" if sees_through else "RGB")), header)
    transparent = values.shape[2] == 4 and bool((values[..., 3] < 255).any())
    return (values[..., 0] if grey else values[..., :3]), transparent


def _native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _weigh(pixels: npt.NDArray[Any], weights: tuple[float, float, float]) -> npt.NDArray[Any]:
    """One channel out of the colours."""
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels)
    if sorted(weights) == [0, 0, 1]:
        return np.ascontiguousarray(pixels[..., weights.index(1)])
    return sum(  # type: ignore[return-value]  # an array, since there are three
        np.float32(weight) * pixels[..., channel] for channel, weight in enumerate(weights) if weight
    )


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many") from error
    except (RefusedError, InputError):
        raise
    except _DAMAGE as error:
        message = f"{path.name} cannot be decoded: {_first_line(error)}."
        raise RefusedError("UNREADABLE_PIXELS", message, "Copy it again, or save it anew.") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
