"""Which letter of the patient stands at which edge of the picture. Knows neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_TOWARDS = (("S", "I"), ("A", "P"), ("R", "L"))  # towards smaller and larger values of napari's world (-z, y, x)
_PLANES = {0: "axial", 1: "coronal", 2: "sagittal"}


@dataclass(frozen=True)
class EdgeLetters:
    """The letters at the edges of a slice.

    Attributes:
        top: of R, L, A, P, S and I, towards the top of the picture; the others likewise.
        bottom: towards the bottom.
        left: towards the left.
        right: towards the right.
        plane: axial, coronal or sagittal.
    """

    top: str
    bottom: str
    left: str
    right: str
    plane: str

    def to_compass(self) -> str:
        """All four in three lines, for a napari that shows one text only.

        Examples:
            >>> edge_letters((0, 1, 2)).to_compass().splitlines()
            ['  A', 'R + L', '  P']
        """
        return f"  {self.top}\n{self.left} + {self.right}\n  {self.bottom}"


def edge_letters(order: Sequence[int], orientation: Sequence[str] = ("down", "right")) -> EdgeLetters | None:
    """The letters of a slice of what `napari_effvit_med.layers` shows.

    Args:
        order: napari's ``dims.order``; its last two axes are shown, down and to the right.
        orientation: napari's ``camera.orientation2d``: where these two axes grow to.

    Returns:
        The letters; None where there are not three axes.

    Examples:
        >>> coronal = edge_letters((1, 0, 2))
        >>> coronal.top, coronal.left, coronal.plane
        ('S', 'R', 'coronal')
    """
    if len(order) != 3:
        return None
    through, vertical, horizontal = order
    top, bottom = _TOWARDS[vertical]
    left, right = _TOWARDS[horizontal]
    if str(orientation[0]) == "up":
        top, bottom = bottom, top
    if str(orientation[1]) == "left":
        left, right = right, left
    return EdgeLetters(top, bottom, left, right, _PLANES[through])


def describe_world(world: Sequence[float]) -> str:
    """A point of the patient as letters and mm.

    Args:
        world: mm, LPS.

    Examples:
        >>> describe_world((12.34, -5.0, 0.04))
        'L 12.3  A 5.0  S 0.0 mm'
    """
    pairs = (("R", "L"), ("A", "P"), ("I", "S"))
    parts = [f"{pair[value >= 0]} {abs(value):.1f}" for pair, value in zip(pairs, world, strict=True)]
    return f"{'  '.join(parts)} mm"
