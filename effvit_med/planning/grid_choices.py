"""What the network will see: slices or blocks, on which grid, in which range of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effvit_med.planning.choice import Chooser
from effvit_med.planning.fingerprint import Fingerprint, Triple

ANISOTROPIC = 3.0
"""From this ratio of spacings on, slices are thick: not resampled, and nothing is turned out of their plane."""

FEW_SLICES = 5
"""Fewer slices than these are no volume."""

_AXES = ("slices", "rows", "columns")


@dataclass(frozen=True)
class Grid:
    """What was decided about the grid.

    Attributes:
        spatial_dims: 2 or 3.
        neighbours: slices on each side that a 2D network sees beside its own.
        orientation: of the grid.
        spacing_mm: as `effvit_med.transforms.Preprocess` takes it; None keeps a scan's own.
        steps_mm: the spacing that this gives in the middle case.
        middle: voxels of the middle case on this grid.
        largest: voxels of the largest along each axis.
    """

    spatial_dims: int
    neighbours: int
    orientation: str | None
    spacing_mm: tuple[float | None, float | None, float | None]
    steps_mm: Triple
    middle: tuple[int, int, int]
    largest: tuple[int, int, int]

    @property
    def channels(self) -> int:
        """What the network sees at once as channels."""
        return 2 * self.neighbours + 1

    @property
    def is_thick(self) -> bool:
        """Whether its slices are much thicker than its pixels are wide."""
        return max(self.steps_mm) >= ANISOTROPIC * min(self.steps_mm)


def choose_modality(chooser: Chooser, said: str, lowest: float, photographs: bool) -> str:
    """Decide the DICOM Modality: what the data set says, or what the values suggest; empty if unknown.

    Args:
        chooser: takes the decision.
        said: by the data set.
        lowest: the smallest value of any image.
        photographs: whether all are pictures.
    """
    if said:
        found, reason = said, "The data set says so."
    elif photographs:
        found, reason = "", "Pictures from no scanner that the data set names."
    elif lowest <= -500:
        found, reason = "CT", f"Nothing says it, but values reach down to {lowest:g}, as air does in HU. Please check."
    else:
        found, reason = "", f"Nothing says it, and values from {lowest:g} on do not tell. Set it if you know it."
    decided: str = chooser.choose("modality", found, reason)
    return decided


def choose_grid(chooser: Chooser, fingerprint: Fingerprint) -> Grid:
    """Decide what the network sees.

    Args:
        chooser: takes the decisions.
        fingerprint: of the data set, on the grid's orientation.
    """
    dims = _choose_dims(chooser, fingerprint)
    neighbours = _choose_neighbours(chooser, fingerprint, dims)
    own = fingerprint.spacing_mm.median
    spacing = _choose_spacing(chooser, fingerprint, dims)
    _choose_intensity(chooser, fingerprint)
    steps = tuple(mine if wanted is None else wanted for wanted, mine in zip(spacing, own, strict=True))
    return Grid(
        spatial_dims=dims,
        neighbours=neighbours,
        orientation=fingerprint.orientation,
        spacing_mm=spacing,
        steps_mm=(steps[0], steps[1], steps[2]),
        middle=_count(fingerprint.shape.median, fingerprint.size_mm.median, spacing),
        largest=_count(fingerprint.shape.highest, fingerprint.size_mm.highest, spacing),
    )


def _count(shape: Triple, size_mm: Triple, spacing: tuple[float | None, ...]) -> tuple[int, int, int]:
    rows = zip(shape, size_mm, spacing, strict=True)
    sizes = [max(1, round(own if step is None else size / step)) for own, size, step in rows]
    return sizes[0], sizes[1], sizes[2]


def _choose_dims(chooser: Chooser, fingerprint: Fingerprint) -> int:
    slices = fingerprint.shape.median[0]
    if fingerprint.shape.highest[0] == 1:
        value, reason = 2, "Every case is a single picture."
    elif slices < FEW_SLICES:
        value, reason = 2, f"Half of the cases have {slices:g} slices or fewer: too few to be seen as a volume."
    else:
        value = 3
        reason = (
            f"The middle case has {slices:g} slices, {fingerprint.spacing_mm.median[0]:.3g} mm apart "
            f"({fingerprint.anisotropy:.2g} times its pixels): a volume, of which a slice alone shows less. To compare "
            "the two, plan again with --set spatial_dims=2."
        )
    dims: int = chooser.choose("spatial_dims", value, reason)
    return dims


def _choose_neighbours(chooser: Chooser, fingerprint: Fingerprint, dims: int) -> int:
    if dims == 3:
        value, reason = 0, "Blocks hold their neighbours already."
    elif fingerprint.shape.median[0] < 3:
        value, reason = 0, "There are no neighbouring slices worth looking at."
    else:
        value, reason = 1, "2.5D: the slice above and the one below, as more channels, tell how a structure goes on."
    neighbours: int = chooser.choose("neighbours", value, reason)
    return neighbours


def _choose_spacing(
    chooser: Chooser, fingerprint: Fingerprint, dims: int
) -> tuple[float | None, float | None, float | None]:
    spread = fingerprint.spacing_mm
    value: list[float | None] = [round(step, 4) for step in spread.median]
    low, high = ([f"{step:.3g}" for step in each] for each in (spread.lowest, spread.highest))
    told = ", ".join(f"{axis} {a}" + (f" to {b}" * (a != b)) for axis, a, b in zip(_AXES, low, high, strict=True))
    if fingerprint.photographs:
        value, reason = [None, None, None], "Pictures are taken pixel by pixel; what a pixel measures is seldom known."
    else:
        reason = f"The medians over the cases ({told})."
        if dims == 2 or value[0] >= ANISOTROPIC * min(step for step in value if step):  # type: ignore[operator]
            value[0] = None
            reason += " Slices stay as they are: to interpolate between thick slices invents what was not seen."
    spacing: tuple[float | None, float | None, float | None] = chooser.choose("spacing_mm", tuple(value), reason)
    return spacing


def _choose_intensity(chooser: Chooser, fingerprint: Fingerprint) -> None:
    low, _, middle, _, high = fingerprint.percentiles
    value: dict[str, Any] = {"kind": "percentile", "low": 0.5, "high": 99.5}
    told = f"0.5 % of marked voxels lie below {low:.4g} and 0.5 % above {high:.4g}, half below {middle:.4g}"
    if fingerprint.modality == "CT" and low < high:
        value = {"kind": "window", "low": round(low, 1), "high": round(high, 1)}
        reason = f"HU mean the same in every CT, so one window serves all: {told}."
    elif fingerprint.photographs:
        reason = "Exposure differs from picture to picture, so each is clipped at its own percentiles and normalised."
    else:
        unit = fingerprint.modality or "These"
        reason = (
            f"{unit} values have no fixed unit ({told}), so each scan is clipped at its own percentiles and normalised."
        )
    chooser.choose("intensity", value, reason)
