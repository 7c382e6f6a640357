"""What a reader points at: points, scribbles, boxes and lassos on the grid of a scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from effvit_med.errors import GeometryError

Kind = Literal["point", "scribble", "box", "lasso"]
Index = tuple[float, float, float]

_FEWEST = {"point": 1, "scribble": 1, "box": 2, "lasso": 3}
_FLAT_WITHIN = 0.5
"""Vertices of a box or lasso lie in one slice: no farther apart than this along the axis, in voxels."""


@dataclass(frozen=True)
class Prompt:
    """One thing a reader has said about one structure.

    Args:
        kind: ``point`` (one or several), ``scribble`` (a line through the vertices), ``box`` (two opposite corners) or
            ``lasso`` (the vertices of a closed outline).
        value: of the structure in the label table.
        adds: whether what is pointed at belongs to the structure, or does not.
        index: the vertices as array indices of the grid, also fractional; 0 is the centre of the first voxel.
        axis: the array axis across which a box or lasso lies; its vertices are all in one slice along it. None for
            points and scribbles.

    Raises:
        GeometryError: if the kind is unknown, the value below 1, a vertex is not three finite numbers, there are too
            few or too many vertices, or a box or lasso does not lie in one slice along its axis.

    Examples:
        >>> click = Prompt("point", 3, True, ((10, 20, 30),))
        >>> Prompt.from_dict(click.to_dict()) == click
        True
        >>> click.moved((-8, -16, -16)).index
        ((2.0, 4.0, 14.0),)
    """

    kind: Kind
    value: int
    adds: bool
    index: tuple[Index, ...]
    axis: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise GeometryError(f"The kind of a prompt is {self.kind!r}; use one of {', '.join(get_args(Kind))}.")
        if type(self.value) is not int or self.value < 1:
            raise GeometryError(f"The value of a prompt is {self.value!r}; give that of a structure, 1 or more.")
        if type(self.adds) is not bool:
            raise GeometryError(f"adds is {self.adds!r}; give True or False.")
        index = _as_index(self.index)
        count, fewest = len(index), _FEWEST[self.kind]
        if count < fewest or (self.kind == "box" and count != 2):
            raise GeometryError(
                f"A {self.kind} has {count} vertices; give {'' if fewest == 2 else 'at least '}{fewest}."
            )
        if self.kind in ("point", "scribble"):
            if self.axis is not None:
                raise GeometryError(f"A {self.kind} has axis {self.axis}; only a box and a lasso lie in a slice.")
        elif self.axis not in (0, 1, 2):
            raise GeometryError(f"The axis of a {self.kind} is {self.axis}; give 0, 1 or 2.")
        elif np.ptp([vertex[self.axis] for vertex in index]) > _FLAT_WITHIN:
            places = sorted({vertex[self.axis] for vertex in index})
            raise GeometryError(
                f"The vertices of a {self.kind} lie in slices {places[0]:g} to {places[-1]:g} along axis {self.axis}; "
                "they must all be in one."
            )
        object.__setattr__(self, "index", index)

    @property
    def slice_number(self) -> int | None:
        """The slice along ``axis`` in which a box or lasso lies; None for points and scribbles."""
        return None if self.axis is None else round(float(np.mean([vertex[self.axis] for vertex in self.index])))

    def moved(self, by: Sequence[float]) -> Prompt:
        """The same prompt on a grid whose origin lies elsewhere.

        Args:
            by: what is added to each index: minus the start of a crop, for indices in the crop.
        """
        moved = tuple(tuple(a + b for a, b in zip(vertex, by, strict=True)) for vertex in self.index)
        return dataclasses.replace(self, index=moved)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The prompt as plain values for JSON; `from_dict` reads it back."""
        written: dict[str, Any] = {"kind": self.kind, "value": self.value, "adds": self.adds}
        written["index"] = [list(vertex) for vertex in self.index]
        return written if self.axis is None else {**written, "axis": self.axis}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Prompt:
        """The prompt that `to_dict` wrote.

        Args:
            written: with ``kind``, ``value``, ``adds``, ``index`` and, for a box or lasso, ``axis``.

        Raises:
            GeometryError: if a field is missing or unknown, or the values make no prompt.
        """
        needed, known = {"kind", "value", "adds", "index"}, {field.name for field in dataclasses.fields(cls)}
        if not needed <= set(written) <= known:
            raise GeometryError(
                f"A prompt has the fields {sorted(written)}; it needs {sorted(needed)} and may have axis besides."
            )
        return cls(**written)


def _as_index(index: Any) -> tuple[Index, ...]:
    try:
        points = np.asarray(index, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise GeometryError(f"The index of a prompt is {index!r}; give vertices of three finite numbers each.")
    return tuple((float(a), float(b), float(c)) for a, b, c in points)
