"""Photographs, and other pictures of one plane: PNG, JPEG and TIFF into a volume of one plane.

A photograph is a volume of shape (1, height, width). Array axis 1 is the rows, downwards, axis 2 the columns, to the
right, as the pixels are stored; in the world of `effvit_med.volume.geometry` right is left of the patient (+x) and down
is posterior (+y), so that an upright picture has the orientation ``SPL``. A picture that is stored turned, as its
Exif says, keeps its stored pixel grid, and its geometry says which way is up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from effvit_med.errors import InputError, RefusedError, SettingsError
from effvit_med.io.nifti import name_case
from effvit_med.io.pictures import (
    DEEP,
    ORIENTATIONS,
    Header,
    as_stored,
    damage_told,
    find_orientation,
    native,
    opened,
    read_header,
)
from effvit_med.volume import Finding, Geometry, Source, SourceFile, Volume
from effvit_med.volume.volume import PHOTOGRAPH

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in one channel where a bundle says nothing. Source: ITU-R BT.601, section 2.5.1."""

_SUFFIXES = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}
_NAME = re.compile(r"\.(png|jpe?g|tiff?)$", re.IGNORECASE)
_COLOURS = frozenset({"RGB", "RGBX", "RGBA", "P", "PA", "YCbCr"})
_WITH_ALPHA = frozenset({"LA", "PA", "RGBA"})

_DIRECTIONS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0)}


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
    with opened(path) as (image, _):
        _check_mode(image, path)
        return _place(read_header(image, path), path)


def has_one_bit(path: Path) -> bool:
    """Whether a picture has one bit per pixel, as masks have; False for what cannot be opened.

    Args:
        path: any file.
    """
    try:
        with opened(Path(path)) as (image, _):
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
    with opened(path) as (image, sha256):
        _check_mode(image, path)
        header = read_header(image, path)
        pixels, transparent = _decode(image, header, path)
        if image.format == "PNG":  # whose Exif may stand behind the pixels
            header = replace(header, orientation=find_orientation(image))
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


def _check_mode(image: Image.Image, path: Path) -> None:
    if image.mode == "1":
        message = f"{path.name} has one bit per pixel: a mask, no photograph."
        raise RefusedError("NOT_GRAYSCALE", message, "Give the picture that it belongs to.")
    if image.mode not in DEEP | _COLOURS | {"L", "LA"}:
        message = f"{path.name} has pixels of the kind {image.mode}; grey or red, green and blue are needed."
        raise RefusedError("NOT_GRAYSCALE", message, "Save it as RGB.")


def _place(header: Header, path: Path) -> tuple[Geometry, tuple[Finding, ...]]:
    """Where the pixels lie, and what is odd about them."""
    findings, spacing = [], header.spacing
    if spacing.finding:
        findings.append(Finding(spacing.finding, f"{path.name}: {spacing.message}"))
    letters = ORIENTATIONS[header.orientation]
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


def _decode(image: Image.Image, header: Header, path: Path) -> tuple[npt.NDArray[Any], bool]:
    """(height, width) grey or (height, width, 3) colours, and whether a pixel is transparent."""
    with damage_told(path):
        image.load()
        sees_through = image.mode in _WITH_ALPHA or "transparency" in image.info
        if image.mode in DEEP:
            pixels = as_stored(native(np.asarray(image)), header)
            whole = pixels.dtype.kind in "iu" and pixels.min() >= 0 and pixels.max() <= 65535
            return pixels.astype(np.uint16 if whole else np.float32), False
        if image.mode in ("L", "LA") and not (image.mode == "L" and sees_through):
            values = as_stored(np.asarray(image), header)
            return (values[..., 0], bool((values[..., 1] < 255).any())) if values.ndim == 3 else (values, False)
        grey = image.mode == "L"
        values = as_stored(np.asarray(image.convert("RGBA" if sees_through else "RGB")), header)
    transparent = values.shape[2] == 4 and bool((values[..., 3] < 255).any())
    return (values[..., 0] if grey else values[..., :3]), transparent


def _weigh(pixels: npt.NDArray[Any], weights: tuple[float, float, float]) -> npt.NDArray[Any]:
    """One channel out of the colours."""
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels)
    if sorted(weights) == [0, 0, 1]:
        return np.ascontiguousarray(pixels[..., weights.index(1)])
    return sum(  # type: ignore[return-value]  # an array, since there are three
        np.float32(weight) * pixels[..., channel] for channel, weight in enumerate(weights) if weight
    )
