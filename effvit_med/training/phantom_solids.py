"""Shapes made of shapes: union, difference, intersection, offset, bend and repetition."""

from dataclasses import dataclass

import numpy as np

from effvit_med.training.phantom_shapes import FAR_MM, STRAIGHT, Array, Bounds, Column, Line, Point, Shape


@dataclass(frozen=True)
class Union:
    """All parts together, melted into one another over `blend_mm` where they meet."""

    parts: tuple[Shape, ...]
    blend_mm: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """The box around all parts, and what melting adds."""
        lows, highs = np.array([part.bounds for part in self.parts]).swapaxes(0, 1)
        extra = 0.25 * self.blend_mm * (len(self.parts) - 1)
        low, high = lows.min(axis=0) - extra, highs.max(axis=0) + extra
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """The smallest distance of the parts, rounded off by a polynomial where two are near."""
        result = self.parts[0].distance(x, y, z)
        for part in self.parts[1:]:
            other = part.distance(x, y, z)
            if self.blend_mm:
                near = np.maximum(self.blend_mm - np.abs(result - other), 0.0)
                result = np.minimum(result, other) - near * near / (4.0 * self.blend_mm)
            else:
                result = np.minimum(result, other)
        return result


@dataclass(frozen=True)
class Difference:
    """`body` without `cut`; the edge is rounded over `blend_mm`."""

    body: Shape
    cut: Shape
    blend_mm: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """The box of the body."""
        return self.body.bounds

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """The larger of the body's distance and the cut's turned round."""
        inside, outside = self.body.distance(x, y, z), -self.cut.distance(x, y, z)
        result = np.maximum(inside, outside)
        if self.blend_mm:
            near = np.maximum(self.blend_mm - np.abs(inside - outside), 0.0)
            result = result + near * near / (4.0 * self.blend_mm)
        return result


@dataclass(frozen=True)
class Intersection:
    """What lies in every part."""

    parts: tuple[Shape, ...]

    @property
    def bounds(self) -> Bounds:
        """The box common to all parts."""
        lows, highs = np.array([part.bounds for part in self.parts]).swapaxes(0, 1)
        low, high = lows.max(axis=0), highs.min(axis=0)
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """The largest distance of the parts."""
        result = self.parts[0].distance(x, y, z)
        for part in self.parts[1:]:
            result = np.maximum(result, part.distance(x, y, z))
        return result


@dataclass(frozen=True)
class Offset:
    """A shape grown by `grow_mm` on all sides (shrunk where negative)."""

    body: Shape
    grow_mm: float

    @property
    def bounds(self) -> Bounds:
        """The grown box, generous since distances are exact only near the surface."""
        low, high = self.body.bounds
        extra = 3.0 * max(self.grow_mm, 0.0)
        return (low[0] - extra, low[1] - extra, low[2] - extra), (
            high[0] + extra,
            high[1] + extra,
            high[2] + extra,
        )

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """The shape's distance less the growth."""
        return self.body.distance(x, y, z) - self.grow_mm


@dataclass(frozen=True)
class Stack:
    """One shape repeated along z every `pitch_mm` and carried along a line, between two heights.

    The shape is given once, around the origin, and must be lower than the pitch.
    """

    body: Shape
    pitch_mm: float
    heights_mm: tuple[float, float]
    phase_mm: float = 0.0
    line: Line = STRAIGHT

    @property
    def bounds(self) -> Bounds:
        """The box around all copies."""
        low, high = self.heights_mm
        x0, x1, y0, y1 = self.line.spread(low, high)
        (a0, b0, _), (a1, b1, _) = self.body.bounds
        return (x0 + a0, y0 + b0, low), (x1 + a1, y1 + b1, high)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm to the nearest copy."""
        low, high = self.heights_mm
        cx, cy = self.line.at(z)
        turns = (z - self.phase_mm) / self.pitch_mm
        local = (turns - np.round(turns)) * self.pitch_mm
        result = self.body.distance(x - cx, y - cy, local)
        return np.maximum(result, np.maximum(low - z, z - high))


@dataclass(frozen=True)
class Ribs:
    """Bony hoops in the body wall that run downwards from back to front.

    Attributes:
        shell: the surface in whose middle the ribs run.
        half_mm: half thickness across the wall and half height.
        pitch_mm: from one rib to the next.
        slope: mm of descent for each mm towards the front.
        margin: z of the costal margin at y = 0, and its rise towards the front per mm.
    """

    shell: Column
    half_mm: tuple[float, float]
    pitch_mm: float
    slope: float
    margin: tuple[float, float]
    phase_mm: float = 0.0

    @property
    def bounds(self) -> Bounds:
        """The box of the shell grown by the thickness; upwards from the lowest rib."""
        low, high = Offset(self.shell, self.half_mm[0]).bounds
        return (low[0], low[1], self.margin[0] - self.margin[1] * high[1]), high

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm to the nearest rib, cut at the costal margin."""
        turns = (z - self.slope * y - self.phase_mm) / self.pitch_mm
        local = (turns - np.round(turns)) * self.pitch_mm / self.half_mm[1]
        across = self.shell.distance(x, y, z) / self.half_mm[0]
        hoop = (np.sqrt(local * local + across * across) - 1.0) * self.half_mm[0]
        return np.maximum(hoop, self.margin[0] - self.margin[1] * y - z)


@dataclass(frozen=True)
class Pyramids:
    """A pattern of lobes around an axis, for the medulla of a kidney (no bounds of its own)."""

    centre: Point
    pitch_mm: float
    lobes: int
    phase: float

    @property
    def bounds(self) -> Bounds:
        """Without limit: meant to be intersected."""
        return (-FAR_MM,) * 3, (FAR_MM,) * 3

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Negative in the lobes; in mm only roughly."""
        angle = np.arctan2(y - self.centre[1], x - self.centre[0])
        along = np.sin(2.0 * np.pi / self.pitch_mm * (z - self.centre[2]) + self.phase)
        return -5.0 * (0.25 + np.cos(self.lobes * angle + self.phase) * along)
