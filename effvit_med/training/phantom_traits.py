"""What differs from one phantom patient to the next, drawn from a seed, and what an anatomy is made of."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from effvit_med.training.phantom_shapes import STRAIGHT, Array, Column, HalfSpace, Line, Point, Shape

STRUCTURES: dict[int, str] = {
    0: "background",
    1: "liver",
    2: "spleen",
    3: "kidney_left",
    4: "kidney_right",
    5: "spine",
    6: "aorta",
}
# How much further back than the cavity's the centre of the body lies: the back muscles need the room.
BACK_MM = 8.0
Phase = Literal["native", "arterial", "portal", "late"]
PHASES: tuple[Phase, ...] = ("native", "arterial", "portal", "late")

# Mean HU of native, arterial, portal and late phase, and how far a patient may lie from it.
PHASE_HU: dict[str, tuple[tuple[float, float, float, float], float]] = {
    "liver": ((52.0, 66.0, 112.0, 86.0), 10.0),
    "spleen": ((47.0, 122.0, 124.0, 92.0), 8.0),
    "cortex": ((33.0, 172.0, 190.0, 132.0), 12.0),
    "medulla": ((29.0, 72.0, 160.0, 136.0), 8.0),
    "pelvis": ((6.0, 8.0, 14.0, 380.0), 5.0),
    "aorta": ((42.0, 310.0, 158.0, 108.0), 14.0),
    "cava": ((40.0, 72.0, 138.0, 104.0), 10.0),
    "portal_vein": ((41.0, 92.0, 168.0, 108.0), 10.0),
    "muscle": ((54.0, 58.0, 66.0, 62.0), 5.0),
    "pancreas": ((38.0, 104.0, 92.0, 72.0), 8.0),
    "bowel_wall": ((36.0, 70.0, 80.0, 62.0), 8.0),
}


@dataclass(frozen=True)
class Solid:
    """One painted piece of anatomy; later pieces cover earlier ones.

    Attributes:
        name: what it is, for people.
        shape: where it is, in the patient's own mm.
        hu: its mean density.
        label: what its points are called; None leaves the label underneath (vessels, cysts inside an organ).
        texture: height in HU and wavelength in mm of a smooth unevenness.
        clip: what it is cut by, such as a fluid level.
        rigid: True for things outside the patient, which do not take part in the deformation.
    """

    name: str
    shape: Shape
    hu: float
    label: int | None = 0
    texture: tuple[float, float] = (0.0, 40.0)
    clip: HalfSpace | None = None
    rigid: bool = False


@dataclass(frozen=True)
class Traits:
    """The drawn properties of one patient and acquisition (lengths in mm, densities in HU).

    Attributes:
        phase: contrast phase.
        hu: mean density of each tissue of `PHASE_HU`.
        cavity_mm: half width and half depth of the abdominal cavity.
        wall_mm: thickness of the muscle wall.
        fat_mm: thickness of the fat under the skin.
        height: stretch of all heights, 1 being average.
        spine: where the vertebral bodies run.
        organ_size: stretch of liver, spleen, left and right kidney, 1 being average.
        kidney_drop_mm: how much lower than usual the left and right kidney lie.
        noise_hu: sd of the noise at 5 mm slice thickness in a medium body.
        streak_hu: height of horizontal streaks, 0 for none.
        arms: whether the arms lie beside the body.
        bone_hu: density of the spongy bone.
    """

    phase: Phase
    hu: dict[str, float]
    cavity_mm: tuple[float, float]
    wall_mm: float
    fat_mm: float
    height: float
    spine: Line
    organ_size: tuple[float, float, float, float]
    kidney_drop_mm: tuple[float, float]
    noise_hu: float
    streak_hu: float
    arms: bool
    bone_hu: float

    @property
    def cavity(self) -> Column:
        """The abdominal and chest cavity as one upright column."""
        return Column(STRAIGHT, self.cavity_mm, roundness=0.75)

    @property
    def wall(self) -> Column:
        """The outer surface of the muscle wall."""
        return self._around(self.wall_mm, 0.78)

    @property
    def skin(self) -> Column:
        """The outer surface of the body."""
        return self._around(self.wall_mm + self.fat_mm, 0.82)

    @property
    def back_mm(self) -> float:
        """Y of the skin of the back."""
        return self.skin.radii_mm[1] + BACK_MM

    def place(self, x: float, y: float, z: float) -> Point:
        """The point of this patient that lies at x, y, z (mm) in the average one."""
        return x * self.cavity_mm[0] / 130.0, y * self.cavity_mm[1] / 88.0, z * self.height

    def _around(self, extra_mm: float, roundness: float) -> Column:
        across, deep = self.cavity_mm
        line = Line((0.0, 0.0, 0.0), (BACK_MM, 0.0, 0.0))
        return Column(line, (across + extra_mm, deep + extra_mm + BACK_MM), roundness=roundness)


@dataclass(frozen=True)
class Anatomy:
    """One phantom patient: everything needed to say what lies at any point of the world.

    Attributes:
        seed: what it was drawn from.
        traits: the drawn properties.
        solids: the pieces in painting order; the first is the whole body.
        waves: K rows of a deformation: wave vector (rad/mm), phase (rad), shift (mm); seven numbers a row.
        pose: 4x4, world LPS mm to the patient's own mm (rigid).
    """

    seed: int
    traits: Traits
    solids: tuple[Solid, ...]
    waves: Array
    pose: Array


def draw_traits(rng: np.random.Generator, phase: Phase | None = None) -> Traits:
    """Draw the properties of one patient.

    Args:
        rng: the source of chance; the same state gives the same patient.
        phase: contrast phase to use in place of the drawn one.

    Returns:
        The traits, all in human ranges.
    """
    drawn = int(rng.choice(4, p=[0.2, 0.2, 0.4, 0.2]))
    stage = drawn if phase is None else PHASES.index(phase)
    hu = {
        name: means[stage] * (1.0 + (0.12 if means[stage] > 150.0 else 0.0) * rng.uniform(-1.0, 1.0))
        + spread * rng.uniform(-1.0, 1.0)
        for name, (means, spread) in PHASE_HU.items()
    }
    across = rng.uniform(116.0, 143.0)
    size = [rng.uniform(0.94, 1.06), rng.uniform(0.86, 1.08), rng.uniform(0.92, 1.08), rng.uniform(0.92, 1.08)]
    drop = [rng.uniform(-8.0, 10.0), rng.uniform(-5.0, 12.0)]
    variant = rng.uniform()
    if variant < 0.08:
        size[0] *= 0.9
    elif variant < 0.2:
        size[1] *= 1.22
    elif variant < 0.27:
        drop[int(rng.integers(2))] += 25.0
    elif variant < 0.32:
        size[2 + int(rng.integers(2))] *= 0.85
    deep = max(across * rng.uniform(0.63, 0.75), 78.0)
    spine = Line(
        (0.0, rng.uniform(-4.0, 4.0), rng.uniform(-3.0, 3.0)),
        (48.0 * deep / 88.0, rng.uniform(-4.0, 2.0), rng.uniform(1.0, 5.0)),
        (rng.uniform(0.0, 2.5), rng.uniform(180.0, 320.0), rng.uniform(0.0, 6.0)),
    )
    return Traits(
        phase=PHASES[stage],
        hu=hu,
        cavity_mm=(across, deep),
        wall_mm=rng.uniform(9.0, 15.0),
        fat_mm=float(rng.choice([rng.uniform(6.0, 16.0), rng.uniform(12.0, 34.0)])),
        height=rng.uniform(0.93, 1.07),
        spine=spine,
        organ_size=(size[0], size[1], size[2], size[3]),
        kidney_drop_mm=(drop[0], drop[1]),
        noise_hu=rng.uniform(9.0, 24.0),
        streak_hu=rng.uniform(2.0, 8.0) if rng.uniform() < 0.3 else 0.0,
        arms=rng.uniform() < 0.12,
        bone_hu=rng.uniform(130.0, 230.0),
    )
