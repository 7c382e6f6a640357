"""How large a pixel of a picture is, where its file truly says so."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from PIL import Image

from effvit_med.volume.volume import SPACING_ASSUMED

_IMAGE_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION = 270, 282, 283  # tags of TIFF
_MM = {"nm": 1e-6, "µm": 1e-3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}


@dataclass(frozen=True)
class Spacing:
    """The size of a pixel.

    Attributes:
        row_mm: from a row to the next.
        column_mm: from a column to the next.
        finding: code of what is to be said; empty for nothing.
        message: its sentence.
    """

    row_mm: float = 1.0
    column_mm: float = 1.0
    finding: str = ""
    message: str = ""


def find_spacing(image: Image.Image) -> Spacing:
    """The size of a pixel, from what a microscope or ImageJ wrote into a TIFF; else 1 mm with a finding.

    Dots per inch are no size of what the picture shows: they say how large it is to be printed, and are not used.

    Args:
        image: its header was read.

    Source:
        OME-XML (PhysicalSizeX, PhysicalSizeXUnit, micrometres where left out); the ImageDescription of ImageJ
        (``unit=``) with XResolution in pixels per unit.
    """
    tags = getattr(image, "tag_v2", {})
    text = str(tags.get(_IMAGE_DESCRIPTION, ""))
    steps = _from_ome(text) or _from_imagej(text, tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION))
    if steps and all(math.isfinite(step) and 1e-9 < step < 1e4 for step in steps):
        return Spacing(*steps)
    printed = image.info.get("dpi")
    more = f" ({float(printed[0]):.4g} dots per inch say how to print it, not what it shows)" if printed else ""
    message = f"the file does not say how large a pixel is{more}: 1 mm was taken, so lengths and areas count pixels."
    return Spacing(1.0, 1.0, SPACING_ASSUMED, message)


def _from_ome(text: str) -> tuple[float, float] | None:
    """Row and column step in mm."""
    if "<OME" not in text:
        return None
    steps = []
    for axis in "YX":
        size = re.search(rf'PhysicalSize{axis}="([-+.eE\d]+)"', text)
        unit = re.search(rf'PhysicalSize{axis}Unit="([^"]+)"', text)
        mm = _MM.get(unit.group(1) if unit else "µm")
        if size is None or mm is None:
            return None
        steps.append(_number(size.group(1)) * mm)
    return steps[0], steps[1]


def _from_imagej(text: str, across: object, down: object) -> tuple[float, float] | None:
    """Row and column step in mm."""
    unit = re.search(r"^unit=(\S+)", text, re.MULTILINE)
    mm = _MM.get(unit.group(1).replace("\\u00B5", "µ")) if unit else None
    if not text.startswith("ImageJ=") or mm is None or across is None or down is None:
        return None
    per_unit = _number(down), _number(across)
    return (mm / per_unit[0], mm / per_unit[1]) if min(per_unit) > 0 else None


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number is found below
    except (TypeError, ValueError, ZeroDivisionError):
        return math.nan
