"""One picture that shows whether the labels of a photograph are where they should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from effvit_med.errors import GeometryError
from effvit_med.io.atomic import atomic_path
from effvit_med.volume.measurements import Measurement, measure
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Volume

WIDTH_PX = 1400

_SHARE = 0.55  # of the colour of a label
_HEAD, _LINE, _MARGIN = 44, 26, 16
_BACKGROUND, _TEXT, _MARK = (17, 19, 23), (232, 234, 237), (255, 214, 102)
_UPRIGHT = "SPL"


def write_photograph_overlay(
    volume: Volume, segmentation: Segmentation, path: Path, measurements: Sequence[Measurement] | None = None
) -> None:
    """Write a PNG picture of the labels over the photograph, beside the photograph alone.

    It shows the one channel that the network saw, upright, in true aspect, with a legend of the structures, the name of
    the case, the bundle with its version, the codes of all findings, and the notice.

    Args:
        volume: the photograph.
        segmentation: labels on its grid.
        path: the file to write, such as ``overlay.png``.
        measurements: what `measure` gave for the two; measured again if None.

    Raises:
        GeometryError: if the labels do not lie on the grid of the photograph.
        OutputError: if the file could not be written.
    """
    if volume.geometry.shape != segmentation.geometry.shape:
        raise GeometryError(
            f"The photograph has shape {volume.geometry.shape}, the labels {segmentation.geometry.shape}."
        )
    rows = measure(volume, segmentation) if measurements is None else measurements
    volume, segmentation = volume.reoriented(_UPRIGHT), segmentation.reoriented(_UPRIGHT)
    plane, labels = _grey(volume.array[0]), segmentation.labels[0]
    tile_px = (WIDTH_PX - 3 * _MARGIN) // 2
    _, down_mm, across_mm = volume.geometry.spacing_mm
    tall = labels.shape[0] * down_mm / (labels.shape[1] * across_mm)
    size = (tile_px, max(1, min(round(tall * tile_px), 2 * tile_px)))
    if tall > 2:
        size = (max(1, round(size[1] / tall)), size[1])
    picture = Image.new("RGB", (WIDTH_PX, _HEAD + size[1] + _LINE * (len(rows) + 2) + _MARGIN), _BACKGROUND)
    for number, pixels in enumerate((plane, _colour(plane, labels, segmentation))):
        tile = Image.fromarray(pixels).resize(size, Image.Resampling.BOX if size[0] < labels.shape[1] else 0)
        picture.paste(tile, (_MARGIN + number * (tile_px + _MARGIN), _HEAD))
    _write_words(picture, segmentation, rows, _HEAD + size[1] + _MARGIN)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=3)


def _grey(plane: npt.NDArray[np.number]) -> npt.NDArray[np.uint8]:
    """(height, width, 3) shades; 8-bit values as they are, others from the smallest to the largest."""
    values = plane.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255 or high <= 1:
        values = (values - low) * (255 / max(high - low, 1e-12))
    return np.repeat(np.rint(values).astype(np.uint8)[..., None], 3, axis=2)


def _colour(
    plane: npt.NDArray[np.uint8], labels: npt.NDArray[np.unsignedinteger], segmentation: Segmentation
) -> npt.NDArray[np.uint8]:
    table = np.zeros((int(labels.max()) + 1, 3), np.float32)
    for label in segmentation.table:
        if label.value < len(table):
            table[label.value] = label.colour
    mixed = np.rint((1 - _SHARE) * plane + _SHARE * table[labels]).astype(np.uint8)
    return np.where(labels[..., None] > 0, mixed, plane)


def _write_words(picture: Image.Image, segmentation: Segmentation, rows: Sequence[Measurement], top: int) -> None:
    made = segmentation.provenance
    draw = ImageDraw.Draw(picture)
    case = made.source.case_id if made.source else ""
    large, small = ImageFont.load_default(24), ImageFont.load_default(16)
    draw.text((_MARGIN, _HEAD // 2), f"{made.bundle} {made.bundle_version}", _TEXT, large, anchor="lm")
    draw.text((WIDTH_PX - _MARGIN, _HEAD // 2), case, _TEXT, small, anchor="rm")
    for number, row in enumerate(rows):
        y = top + _LINE * number + _LINE // 2
        colour = segmentation.table.by_value(row.value).colour
        draw.rectangle((_MARGIN, y - 7, _MARGIN + 14, y + 7), fill=colour if row.voxels else None, outline=colour)
        size = "not found" if row.voxels is None else f"{row.voxels} pixels"
        size += f", {row.area_mm2:.4g} mm\u00b2" if row.area_mm2 is not None else ""
        draw.text((_MARGIN + 24, y), f"{row.structure.replace('_', ' ')}: {size}", _TEXT, small, anchor="lm")
    codes = ", ".join(dict.fromkeys(finding.code for finding in made.findings))
    notice = f"{made.notice}   Findings: {codes}" if codes else made.notice
    draw.text((_MARGIN, picture.height - _LINE), notice, _MARK, small, anchor="lm")
