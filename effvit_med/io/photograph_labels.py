"""Label maps of photographs: PNG, one pixel for each pixel of the photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from effvit_med.errors import OutputError, RefusedError
from effvit_med.io.atomic import atomic_path, write_json
from effvit_med.io.photographs import name_photograph
from effvit_med.io.pictures import ORIENTATIONS, as_stored, damage_told, native, opened, read_header
from effvit_med.volume import NOT_FOR_CLINICAL_USE, Geometry, Segmentation, Source, SourceFile
from effvit_med.volume.volume import PHOTOGRAPH

_PNG_LEVEL = 6
_COLOURS = frozenset({"RGB", "RGBX", "RGBA", "LA"})


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
    with opened(path) as (image, sha256):
        if image.format not in ("PNG", "TIFF"):
            message = f"{path.name} is {image.format}, which changes the values of labels."
            raise RefusedError("NOT_GRAYSCALE", message, "Save it as PNG.")
        header = read_header(image, path)
        with damage_told(path):
            image.load()
            pixels = as_stored(np.asarray(image), header)
    geometry = Geometry(np.eye(4)[:, [2, 1, 0, 3]], (1, *pixels.shape[:2]))
    if pixels.ndim == 3:
        colours = pixels[..., : 1 if image.mode == "LA" else 3]
        if image.mode not in _COLOURS or (colours != colours[..., :1]).any():
            message = f"{path.name} has colours ({image.mode}), which are no label values."
            raise RefusedError("NOT_GRAYSCALE", message, "Save it with one number for each structure.")
        pixels = colours[..., 0]
    values = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else native(pixels)
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
    exif[ExifTags.Base.Orientation] = next((n for n, each in ORIENTATIONS.items() if each == letters), 1)
    turned = {} if exif[ExifTags.Base.Orientation] == 1 else {"exif": exif}
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(values[0])).save(temporary, "PNG", compress_level=_PNG_LEVEL, **turned)


def photograph_labels_path(path: Path) -> Path:
    """The JSON file beside a label map of a photograph that says what its values mean."""
    return path.with_suffix(".labels.json")
