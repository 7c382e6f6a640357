"""One picture that shows whether a segmentation is where it should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effvit_med.errors import GeometryError
from effvit_med.io.atomic import atomic_path
from effvit_med.io.overlay_panels import (
    CT_WINDOW_HU,
    PLANE_NAMES,
    SIDES,
    Box,
    DisplayStack,
    draw_plane,
    find_box,
    find_centre,
    find_touched,
    make_stack,
    place_on_axis,
    size_mm,
)
from effvit_med.volume.measurements import Measurement, measure
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Volume

Colour = tuple[int, int, int]

WIDTH_PX = 1400

_MARGIN = 16
_PNG_LEVEL = 3  # half the time of the usual 6 for a file a tenth larger
_COLUMNS = 4
_TILE = (WIDTH_PX - (_COLUMNS + 1) * _MARGIN) // _COLUMNS
_MAX_SLICES = 8
_HEAD, _FOOT, _LINE = 64, 48, 26
_LEGEND_COLUMNS = 2
_BACKGROUND: Colour = (17, 19, 23)
_TILE_COLOUR: Colour = (0, 0, 0)
_TEXT: Colour = (232, 234, 237)
_FAINT: Colour = (140, 146, 156)
_MARK: Colour = (255, 214, 102)


@dataclass(frozen=True)
class _Panel:
    """One plane to show: the axis across which it is cut, where, and its caption."""

    axis: int
    index: int
    caption: str


def write_overlay(
    volume: Volume, segmentation: Segmentation, path: Path, measurements: Sequence[Measurement] | None = None
) -> None:
    """Write a PNG picture, 1400 pixels wide, of the labels over the scan.

    It shows up to eight whole slices in the plane of acquisition, spread over the extent of the labels, one plane in
    each of the two other directions through the centre of mass of the labels with the eight slices marked, and a legend
    with the volume of each structure. Patient right is on the left, front or head is up, and aspect is true in mm. It
    carries the case name, which holds no patient name, the bundle with its version, the codes of all findings, and the
    notice.

    Args:
        volume: the scan.
        segmentation: labels on its grid.
        path: the file to write, such as ``overlay.png``.
        measurements: what `measure` gave for the two; measured again if None.

    Raises:
        GeometryError: if the labels do not lie on the grid of the scan.
        OutputError: if the file could not be written.
    """
    if volume.geometry.shape != segmentation.geometry.shape:
        raise GeometryError(
            f"The scan has shape {volume.geometry.shape}, the labels {segmentation.geometry.shape}; they must be the "
            "same to be drawn over each other."
        )
    rows = measure(volume, segmentation) if measurements is None else measurements
    picture = _compose(volume, segmentation, rows)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=False, compress_level=_PNG_LEVEL)


def _compose(volume: Volume, segmentation: Segmentation, measurements: Sequence[Measurement]) -> Image.Image:
    stack = make_stack(volume, segmentation)
    box = find_box(stack)
    main = stack.geometry.slice_axis
    chosen = _choose_slices(stack, box, main)
    panels = [_Panel(main, index, _caption(stack, main, index)) for index in chosen]
    centre = find_centre(stack)
    sides = [_Panel(axis, centre[axis], PLANE_NAMES[axis]) for axis in range(3) if axis != main]
    rows = -(-len(panels) // _COLUMNS)
    heights = [_row_height(stack, box, [main])] * rows + [_row_height(stack, box, [panel.axis for panel in sides])]
    lines = -(-len(measurements) // _LEGEND_COLUMNS)
    heights[-1] = max(heights[-1], min(lines + 2, 17) * _LINE)
    height = _HEAD + sum(heights) + _MARGIN * len(heights) + _FOOT
    picture = Image.new("RGB", (WIDTH_PX, height), _BACKGROUND)
    _draw_frame(picture, volume, segmentation)
    top = _HEAD
    for row, row_height in enumerate(heights[:-1]):
        for column, panel in enumerate(panels[row * _COLUMNS : (row + 1) * _COLUMNS]):
            tile = _draw_panel(stack, box, panel, row_height)
            picture.paste(tile, (_MARGIN + column * (_TILE + _MARGIN), top))
        top += row_height + _MARGIN
    for column, panel in enumerate(sides):
        tile = _draw_panel(stack, box, panel, heights[-1], marks=(main, chosen))
        picture.paste(tile, (_MARGIN + column * (_TILE + _MARGIN), top))
    left = _MARGIN + 2 * (_TILE + _MARGIN)
    _draw_legend(picture, (left, top), heights[-1], measurements, segmentation)
    return picture


def _choose_slices(stack: DisplayStack, box: Box, axis: int) -> list[int]:
    """Up to eight slices spread evenly over the slices that hold labels, head or left or front first."""
    touched = find_touched(stack, axis)
    first, last = (touched[0], touched[-1]) if touched.size else (box.start[axis], box.stop[axis] - 1)
    count = min(_MAX_SLICES, int(last - first) + 1)
    places = first + (np.arange(count) + 0.5) * (last - first + 1) / count - 0.5
    chosen = sorted({int(place) for place in np.rint(places)})
    return chosen[::-1] if axis == 0 else chosen


def _caption(stack: DisplayStack, axis: int, index: int) -> str:
    """The plane and the place in mm of its centre along the patient axis it is cut across."""
    middle = [(size - 1) / 2 for size in stack.geometry.shape]
    middle[axis] = float(index)
    world = stack.geometry.index_to_world(middle)
    name, coordinate = ("z", world[2]) if axis == 0 else ("y", world[1]) if axis == 1 else ("x", world[0])
    return f"{PLANE_NAMES[axis]}  {name} {coordinate:.1f} mm"


def _row_height(stack: DisplayStack, box: Box, axes: Sequence[int]) -> int:
    """The height of a row of tiles: as much as its tallest plane needs at full width, within reason."""
    ratios = [height / width for height, width in (size_mm(stack, box, axis) for axis in axes)]
    return int(np.clip(max(ratios), 0.45, 1.15) * _TILE)


def _draw_panel(
    stack: DisplayStack, box: Box, panel: _Panel, row_height: int, marks: tuple[int, Sequence[int]] | None = None
) -> Image.Image:
    """A tile with a plane in true aspect, its caption, the side letters and lines where other slices lie."""
    tall, wide = size_mm(stack, box, panel.axis)
    scale = min(_TILE / wide, row_height / tall)
    height, width = max(1, round(tall * scale)), max(1, round(wide * scale))
    plane = draw_plane(stack, box, panel.axis, panel.index, (height, width))
    tile = Image.new("RGB", (_TILE, row_height), _TILE_COLOUR)
    left, top = (_TILE - width) // 2, (row_height - height) // 2
    tile.paste(plane, (left, top))
    draw = ImageDraw.Draw(tile, "RGBA")
    if marks:
        down = [axis for axis in range(3) if axis != panel.axis].index(marks[0]) == 0
        for index in marks[1]:
            place = place_on_axis(stack, box, marks[0], index)
            if down:
                y = top + height * (place if marks[0] != 0 else 1 - place)
                draw.line((left, y, left + width, y), fill=(*_MARK, 90))
            else:
                draw.line((left + width * place, top, left + width * place, top + height), fill=(*_MARK, 90))
    _draw_sides(draw, SIDES[panel.axis], row_height)
    _write(draw, (8, row_height - 8), panel.caption, 14, _TEXT, anchor="ls")
    return tile


def _draw_sides(draw: ImageDraw.ImageDraw, letters: Sequence[str], row_height: int) -> None:
    middle = row_height // 2
    _write(draw, (6, middle), letters[0], 18, _MARK, anchor="lm")
    _write(draw, (_TILE - 6, middle), letters[1], 18, _MARK, anchor="rm")
    _write(draw, (_TILE // 2, 6), letters[2], 15, _MARK, anchor="ma")


def _draw_frame(picture: Image.Image, volume: Volume, segmentation: Segmentation) -> None:
    """The lines above and below the pictures."""
    made = segmentation.provenance
    draw = ImageDraw.Draw(picture)
    _write(draw, (_MARGIN, _HEAD // 2), f"{made.bundle} {made.bundle_version}", 26, _TEXT, anchor="lm")
    case = made.source.case_id if made.source else ""
    window = f"level {CT_WINDOW_HU[0]:.0f} width {CT_WINDOW_HU[1]:.0f} HU" if volume.modality == "CT" else ""
    right = "   ".join(part for part in (case, volume.modality, window) if part)
    _write(draw, (WIDTH_PX - _MARGIN, _HEAD // 2), right, 16, _FAINT, anchor="rm")
    foot = picture.height - _FOOT // 2
    codes = ", ".join(dict.fromkeys(finding.code for finding in made.findings))
    notice = f"{made.notice}   Findings: {codes}" if codes else made.notice
    _write(draw, (_MARGIN, foot), notice, 18, _MARK, anchor="lm")
    version = f"effvit-med {made.versions.get('effvit-med', '')}".strip()
    _write(draw, (WIDTH_PX - _MARGIN, foot), f"{version}   {made.identity()[:12]}", 14, _FAINT, anchor="rm")


def _draw_legend(
    picture: Image.Image,
    corner: tuple[int, int],
    height: int,
    measurements: Sequence[Measurement],
    segmentation: Segmentation,
) -> None:
    """The structures with their colours and volumes, those that were found first."""
    draw = ImageDraw.Draw(picture)
    width = (WIDTH_PX - _MARGIN - corner[0]) // _LEGEND_COLUMNS
    rows = height // _LINE - 2
    ordered = sorted(measurements, key=lambda row: row.voxels is None)
    if not any(row.voxels for row in ordered):
        _write(draw, corner, "No structure was found", 16, _MARK, anchor="la")
    else:
        _write(draw, corner, "Structure and volume", 16, _FAINT, anchor="la")
    shown = ordered[: rows * _LEGEND_COLUMNS]
    for position, row in enumerate(shown):
        x = corner[0] + position // rows * width
        y = corner[1] + _LINE * (position % rows + 1) + _LINE // 2
        _draw_legend_row(draw, (x, y), width, row, segmentation.table.by_value(row.value).colour)
    notes = []
    if len(shown) < len(ordered):
        notes.append(f"and {len(ordered) - len(shown)} more structures")
    if any(row.cut_by_field_of_view for row in shown):
        notes.append("* touches the border of the scan: a part may be missing")
    bottom = corner[1] + height - _LINE // 2
    _write(draw, (corner[0], bottom), ";  ".join(notes), 14, _FAINT, anchor="lm")


def _draw_legend_row(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], width: int, row: Measurement, colour: Colour
) -> None:
    x, y = place
    found = row.volume_ml is not None
    if found:
        draw.rounded_rectangle((x, y - 7, x + 14, y + 7), radius=3, fill=colour)
    else:
        draw.rounded_rectangle((x, y - 7, x + 14, y + 7), radius=3, outline=_FAINT)
    volume = "not found" if row.volume_ml is None else f"{_three_digits(row.volume_ml)} mL"
    star = " *" if row.cut_by_field_of_view else ""
    name = _shorten(row.structure.replace("_", " "), 24) + star
    _write(draw, (x + 24, y), name, 16, _TEXT if found else _FAINT, anchor="lm")
    _write(draw, (x + width - 24, y), volume, 16, _TEXT if found else _FAINT, anchor="rm")


def _three_digits(value: float) -> str:
    """A volume with about three digits that mean something."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, colour: Colour, *, anchor: str
) -> None:
    draw.text(
        place,
        text,
        fill=colour,
        font=ImageFont.load_default(size),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=_TILE_COLOUR,
    )
