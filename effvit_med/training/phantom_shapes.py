"""Implicit shapes from which the phantom's anatomy is built: signed distances, exact signs, box bounds.

Each shape answers `distance(x, y, z)`: negative inside, positive outside, close to millimetres near the
surface. The sign is what labels are made of; the size is only used to soften an edge over a pixel.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Point = tuple[float, float, float]
Bounds = tuple[Point, Point]

FAR_MM = 1e4
REACH_MM = 600.0


class Shape(Protocol):
    """A solid in space: where it can be at most, and how far a point is from its surface."""

    @property
    def bounds(self) -> Bounds:
        """Lowest and highest corner in mm; no point inside the shape lies outside this box."""
        ...

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm of each point, negative inside."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; `turn_deg` turns it about x, then y, then z through its centre.

    Examples:
        >>> ball = Ellipsoid((0.0, 0.0, 0.0), (10.0, 10.0, 10.0))
        >>> ball.distance(np.array([12.0]), np.array([0.0]), np.array([0.0])).tolist()
        [2.0]
    """

    centre: Point
    radii: Point
    turn_deg: Point = (0.0, 0.0, 0.0)

    @property
    def axes(self) -> Array:
        """The 3x3 rotation whose columns are the ellipsoid's own axes."""
        return rotation(self.turn_deg)

    @property
    def bounds(self) -> Bounds:
        """The box around the turned ellipsoid."""
        half = np.sqrt(((self.axes * np.array(self.radii)) ** 2).sum(axis=1))
        return _corner(np.array(self.centre) - half), _corner(np.array(self.centre) + half)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm, first order near the surface."""
        u, v, w = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        a, b, c = (1.0 / (radius * radius) for radius in self.radii)
        if any(self.turn_deg):
            axes = self.axes
            u, v, w = (axes[0, k] * u + axes[1, k] * v + axes[2, k] * w for k in range(3))
        u, v, w = a * u * u, b * v * v, c * w * w
        # The floors keep the very centre inside, where both would be 0.
        level = np.maximum(u + v + w, 1e-12)
        slope = np.maximum(a * u + b * v + c * w, 1e-12 * min(a, b, c))
        return (level - np.sqrt(level)) / np.sqrt(slope)


@dataclass(frozen=True)
class Capsule:
    """A straight tube with round ends whose radius goes from `radii_mm[0]` at `start` to the other at `end`."""

    start: Point
    end: Point
    radii_mm: tuple[float, float]

    @property
    def bounds(self) -> Bounds:
        """The box around both ends."""
        ends, thick = np.array([self.start, self.end]), max(self.radii_mm)
        return _corner(ends.min(axis=0) - thick), _corner(ends.max(axis=0) + thick)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the axis less the radius there, in mm."""
        along = np.array(self.end) - np.array(self.start)
        u, v, w = x - self.start[0], y - self.start[1], z - self.start[2]
        share = (u * along[0] + v * along[1] + w * along[2]) / float(along @ along)
        share = np.clip(share, 0.0, 1.0)
        u, v, w = u - share * along[0], v - share * along[1], w - share * along[2]
        radius = self.radii_mm[0] + share * (self.radii_mm[1] - self.radii_mm[0])
        return np.sqrt(u * u + v * v + w * w) - radius


@dataclass(frozen=True)
class Line:
    """A curve that runs along z: x and y are parabolas of z/100 mm, x with a wave on top.

    Attributes:
        x_mm: constant, linear and quadratic part of x.
        y_mm: the same for y.
        wave: height in mm, length in mm and phase in radians of a sine added to x.
    """

    x_mm: Point
    y_mm: Point
    wave: Point = (0.0, 200.0, 0.0)

    def at(self, z: Array) -> tuple[Array, Array]:
        """X and y of the curve at each height z, in mm."""
        if not (any(self.x_mm[1:]) or any(self.y_mm[1:]) or self.wave[0]):
            return np.full(1, self.x_mm[0]), np.full(1, self.y_mm[0])
        t = z / 100.0
        x = self.x_mm[0] + t * (self.x_mm[1] + t * self.x_mm[2])
        if self.wave[0]:
            x = x + self.wave[0] * np.sin(2.0 * np.pi / self.wave[1] * z + self.wave[2])
        return x, self.y_mm[0] + t * (self.y_mm[1] + t * self.y_mm[2])

    def spread(self, low_mm: float, high_mm: float) -> tuple[float, float, float, float]:
        """Lowest and highest x, lowest and highest y between two heights, never too narrow."""
        t = np.linspace(low_mm, high_mm, 65)
        x, y = self.at(t)
        slack = 2.0
        return float(x.min()) - slack, float(x.max()) + slack, float(y.min()) - slack, float(y.max()) + slack


STRAIGHT = Line((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Column:
    """An upright column of rounded cross-section along a line, cut flat at two heights.

    Attributes:
        line: where its axis runs.
        radii_mm: half width along x and along y at z = 0.
        heights_mm: lower and upper end; an end at ±600 mm is left open.
        taper: change of both radii per mm of z, as a share of the radius.
        roundness: 1 is an ellipse; less is squarer (down to 0).
    """

    line: Line
    radii_mm: tuple[float, float]
    heights_mm: tuple[float, float] = (-REACH_MM, REACH_MM)
    taper: float = 0.0
    roundness: float = 1.0

    @property
    def bounds(self) -> Bounds:
        """The box around the column."""
        low, high = self.heights_mm
        x0, x1, y0, y1 = self.line.spread(low, high)
        grow = max(1.0 + self.taper * low, 1.0 + self.taper * high)
        across, deep = self.radii_mm[0] * grow, self.radii_mm[1] * grow
        return (x0 - across, y0 - deep, low), (x1 + across, y1 + deep, high)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm to the wall or to the nearer cut end."""
        cx, cy = self.line.at(z)
        a, b = self.radii_mm
        grow = np.maximum(1.0 + self.taper * z, 0.05) if self.taper else 1.0
        u, v = (x - cx) * (1.0 / (a * grow)), (y - cy) * (1.0 / (b * grow))
        u, v = u * u, v * v
        if a == b and self.roundness == 1.0:
            return self._cut((np.sqrt(u + v) - 1.0) * (a * grow), z)
        both = np.maximum(u + v, 1e-12)
        level = np.sqrt(np.sqrt(both * both - 2.0 * (1.0 - self.roundness) * u * v))
        slope = np.maximum(u * (1.0 / (a * a)) + v * (1.0 / (b * b)), 1e-12 / max(a * a, b * b))
        return self._cut((level - 1.0) * grow * np.sqrt(both / slope), z)

    def _cut(self, side: Array, z: Array) -> Array:
        low, high = self.heights_mm
        if high >= REACH_MM:
            return side if low <= -REACH_MM else np.maximum(side, low - z)
        return np.maximum(side, np.maximum(low - z, z - high))


@dataclass(frozen=True)
class HalfSpace:
    """All points p with normal · p < offset; the normal need not have length one."""

    normal: Point
    offset_mm: float

    @property
    def bounds(self) -> Bounds:
        """Limited on one side where the plane stands across an axis, else without limit."""
        low, high = np.full(3, -FAR_MM), np.full(3, FAR_MM)
        across = np.flatnonzero(self.normal)
        if len(across) == 1:
            side, slope = (high, low)[self.normal[across[0]] < 0.0], self.normal[across[0]]
            side[across[0]] = self.offset_mm / slope
        return _corner(low), _corner(high)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm to the plane."""
        a, b, c = self.normal
        return (a * x + b * y + c * z - self.offset_mm) / float(np.sqrt(a * a + b * b + c * c))


def rotation(turn_deg: Point) -> Array:
    """The rotation about x, then y, then z.

    Args:
        turn_deg: the three angles in degrees.

    Returns:
        A 3x3 matrix with determinant one.

    Examples:
        >>> rotation((0.0, 0.0, 90.0)).round(6)[:, 0].tolist()
        [0.0, 1.0, 0.0]
    """
    (ca, cb, cc), (sa, sb, sc) = np.cos(np.deg2rad(turn_deg)), np.sin(np.deg2rad(turn_deg))
    about_x = np.array([[1.0, 0.0, 0.0], [0.0, ca, -sa], [0.0, sa, ca]])
    about_y = np.array([[cb, 0.0, sb], [0.0, 1.0, 0.0], [-sb, 0.0, cb]])
    about_z = np.array([[cc, -sc, 0.0], [sc, cc, 0.0], [0.0, 0.0, 1.0]])
    return about_z @ about_y @ about_x


def _corner(values: Array) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
