"""Rendering of an anatomy on any grid: exact labels at voxel centres, and a CT-like image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from effvit_med.errors import GeometryError
from effvit_med.training.phantom_shapes import Array, rotation
from effvit_med.training.phantom_solids import Offset
from effvit_med.training.phantom_traits import Anatomy, Solid

_Window = tuple[slice, slice, slice]
_Memory = dict[int, tuple[_Window, Array]]

AIR_HU = -1000.0
SUBSLICE_MM = 2.0


@dataclass(frozen=True)
class Phantom:
    """One rendered phantom case.

    Attributes:
        hu: int16 image in Hounsfield units, axes as in the affine.
        labels: uint8 structure at each voxel's centre, numbers of `STRUCTURES`.
        affine_lps: 4x4 float64, array index to world LPS mm; column a belongs to array axis a.
        anatomy: what was rendered.
    """

    hu: NDArray[np.int16]
    labels: NDArray[np.uint8]
    affine_lps: Array
    anatomy: Anatomy


def render(
    anatomy: Anatomy, affine_lps: Array, shape: tuple[int, int, int], *, seed: int, thickness_mm: float | None = None
) -> Phantom:
    """Render an anatomy on a grid.

    Args:
        anatomy: the patient.
        affine_lps: 4x4, array index to world LPS mm. Axis 0 is taken as the slice axis; the grid may be
            oblique or sheared.
        shape: voxels along each array axis.
        seed: what the noise is drawn from.
        thickness_mm: slice thickness over which the image is averaged; by default the distance of the slices.

    Returns:
        Image and labels. The labels depend on the anatomy and the world position of the voxel centres only.

    Raises:
        GeometryError: if the affine is not 4x4, is singular, or the shape is not three positive sizes.
    """
    affine = np.asarray(affine_lps, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-9:
        raise GeometryError(f"affine_lps must be an invertible 4x4 matrix, not {affine.tolist()}; give mm per voxel.")
    if min(shape) < 1:
        raise GeometryError(f"shape must be three positive sizes, not {shape}; give slices, rows, columns.")
    grid = _Grid.over(anatomy, affine, shape, thickness_mm)
    sharp = np.empty(shape, dtype=np.float64)
    depth = np.empty(shape, dtype=np.float64)
    labels = np.zeros(shape, dtype=np.uint8)
    boxes = [grid.box(solid, anatomy.waves) for solid in anatomy.solids]
    for index in range(shape[0]):
        here = [(s, b) for s, b in zip(anatomy.solids, boxes, strict=True) if b[0].start <= index < b[0].stop]
        sharp[index], depth[index] = _paint(here, grid.points(index), anatomy.waves, labels[index], grid.pixel_mm)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 2])))
    hu = _expose(sharp, depth, anatomy, grid, rng)
    return Phantom(hu, labels, affine, anatomy)


@dataclass(frozen=True)
class _Grid:
    """The grid in the patient's own mm, with the shifts of the sub-slices."""

    to_patient: Array
    shape: tuple[int, int, int]
    shifts: Array
    thickness_mm: float
    pixel_mm: tuple[float, float]

    @classmethod
    def over(cls, anatomy: Anatomy, affine: Array, shape: tuple[int, int, int], thickness_mm: float | None) -> "_Grid":
        to_patient = anatomy.pose @ affine
        normal = np.cross(to_patient[:3, 1], to_patient[:3, 2])
        normal /= np.linalg.norm(normal)
        thick = abs(float(normal @ to_patient[:3, 0])) if thickness_mm is None else thickness_mm
        pairs = np.ceil(round((thick / SUBSLICE_MM - 1.0) / 2.0, 9))  # rounded: processors differ in the last digit
        count = int(np.clip(2 * pairs + 1, 1, 7))
        offsets = (np.arange(count) - count // 2) * (thick / count)
        pixel = np.linalg.norm(to_patient[:3, 1:3], axis=0)
        return cls(to_patient, shape, np.outer(offsets, normal), thick, (float(pixel[0]), float(pixel[1])))

    def points(self, index: int) -> tuple[Array, Array, Array]:
        """X, y and z of the sub-slices of one slice, each (sub-slice, row, column)."""
        rows, columns = np.arange(self.shape[1])[:, None], np.arange(self.shape[2])[None, :]
        m, result = self.to_patient, []
        for axis in range(3):
            plane = m[axis, 0] * index + m[axis, 1] * rows + m[axis, 2] * columns + m[axis, 3]
            result.append(plane[None] + self.shifts[:, axis, None, None])
        return result[0], result[1], result[2]

    def box(self, solid: Solid, waves: Array) -> tuple[slice, slice, slice]:
        """The index ranges outside which the solid cannot reach."""
        low, high = (np.array(corner) for corner in solid.shape.bounds)
        if (low > high).any():
            return (slice(0, 0),) * 3
        margin = np.abs(waves[:, 4:]).sum(axis=0) + max(self.pixel_mm)
        low, high = np.maximum(low - margin, -2e4), np.minimum(high + margin, 2e4)
        corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, 8)
        inverse = np.linalg.inv(self.to_patient)
        index = inverse[:3, :3] @ corners + inverse[:3, 3:]
        half = np.abs(inverse[:3, :3] @ self.shifts.T).max(axis=1)
        first = np.floor(index.min(axis=1) - half).astype(int)
        last = np.ceil(index.max(axis=1) + half).astype(int) + 1
        first, last = np.clip(first, 0, self.shape), np.clip(last, 0, self.shape)
        return slice(first[0], last[0]), slice(first[1], last[1]), slice(first[2], last[2])


def _paint(
    solids: list[tuple[Solid, tuple[slice, slice, slice]]],
    points: tuple[Array, Array, Array],
    waves: Array,
    labels: NDArray[np.uint8],
    pixel_mm: tuple[float, float],
) -> tuple[Array, Array]:
    """Paint one slice; returns its HU averaged over the sub-slices, and the depth under the skin in mm."""
    still, moved = points, _deform(points, waves)
    hu = np.full(still[0].shape, AIR_HU)
    depth = np.zeros(labels.shape)
    memory: _Memory = {}
    middle, width = len(hu) // 2, 0.5 * (pixel_mm[0] + pixel_mm[1])
    for order, (solid, (_, rows, columns)) in enumerate(solids):
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        window = (slice(None), rows, columns)
        x, y, z = (axis[window] for axis in (still if solid.rigid else moved))
        distance = _distance(solid, (x, y, z), (window, memory))
        cover = np.clip(0.5 - distance / width, 0.0, 1.0)
        view = hu[window]
        view += cover * (_density(solid, x[middle], y[middle], z[middle]) - view)
        if solid.label is not None:
            labels[rows, columns][distance[middle] < 0.0] = solid.label
        if order == 0:
            depth[rows, columns] = np.maximum(-distance[middle], 0.0)
    return hu.mean(axis=0), depth


def _distance(solid: Solid, points: tuple[Array, Array, Array], cache: tuple["_Window", "_Memory"]) -> Array:
    """Distance to a solid, taken from the last solid where this one is only its offset or its cut."""
    window, memory = cache
    outline = solid.shape
    shape, grow = (outline.body, outline.grow_mm) if isinstance(outline, Offset) else (outline, 0.0)
    known = memory.get(id(shape))
    if known is not None and known[0] == window:
        distance = known[1] - grow
    else:
        base = shape.distance(*points)
        memory.clear()
        memory[id(shape)] = (window, base)
        distance = base - grow
    return distance if solid.clip is None else np.maximum(distance, solid.clip.distance(*points))


def _deform(points: tuple[Array, Array, Array], waves: Array) -> tuple[Array, Array, Array]:
    x, y, z = points
    u, v, w = x, y, z
    for kx, ky, kz, phase, dx, dy, dz in waves:
        swell = np.sin(kx * x + ky * y + kz * z + phase)
        u, v, w = u + dx * swell, v + dy * swell, w + dz * swell
    return u, v, w


def _density(solid: Solid, x: Array, y: Array, z: Array) -> Array | float:
    height, length = solid.texture
    if not height:
        return solid.hu
    k = 2.0 * np.pi / length
    first = np.sin(k * (x + 0.4 * z) + 2.0 * np.sin(k * (0.57 * y - 0.31 * z)))
    return solid.hu + height * first * np.sin(k * (0.9 * y + 0.5 * z - 0.37 * x))


def _expose(sharp: Array, depth: Array, anatomy: Anatomy, grid: _Grid, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur in the plane, add noise that is stronger deep inside, round and clip."""
    traits = anatomy.traits
    sigma = [0.0, 0.55 / grid.pixel_mm[0], 0.55 / grid.pixel_mm[1]]
    image = ndimage.gaussian_filter(sharp, sigma, mode="nearest", truncate=3.0)
    white = rng.standard_normal(sharp.shape)
    grain = [0.0, max(0.45, 0.9 / grid.pixel_mm[0]), max(0.45, 0.9 / grid.pixel_mm[1])]
    noise = ndimage.gaussian_filter(white, grain, mode="wrap", truncate=3.0)
    noise -= 0.7 * ndimage.gaussian_filter(noise, [0.0, 2 * grain[1], 2 * grain[2]], mode="wrap", truncate=3.0)
    noise /= noise.std()
    size = float(np.sqrt(traits.skin.radii_mm[0] * traits.skin.radii_mm[1]) / 130.0)
    level = traits.noise_hu * size * np.sqrt(5.0 / max(grid.thickness_mm, 1.0))
    level = float(np.clip(level, 8.0, 35.0))
    image += noise * (level * (0.6 + 0.5 * np.minimum(depth / 90.0, 1.0)))
    if traits.streak_hu:
        rows = rng.standard_normal((*sharp.shape[:2], 1))
        image += traits.streak_hu * rows * (depth > 0.0)
    return np.rint(np.clip(image, -1024.0, 3071.0)).astype(np.int16)


def place_patient(rng: np.random.Generator) -> Array:
    """Draw how the patient lies in the scanner.

    Args:
        rng: the source of chance.

    Returns:
        4x4, world LPS mm to the patient's own mm; turned by a few degrees, shifted by some mm.
    """
    turn = rotation((rng.uniform(-2.5, 2.5), rng.uniform(-2.5, 2.5), rng.uniform(-5.0, 5.0)))
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = rng.uniform([-10.0, -10.0, -4.0], [10.0, 10.0, 4.0])
    return pose
