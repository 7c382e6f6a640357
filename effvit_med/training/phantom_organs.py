"""The labelled organs of the phantom: liver, spleen, kidneys, spine and aorta, as painted solids."""

import numpy as np

from effvit_med.training.phantom_shapes import (
    STRAIGHT,
    Array,
    Capsule,
    Column,
    Ellipsoid,
    HalfSpace,
    Line,
    Point,
    Shape,
)
from effvit_med.training.phantom_solids import Difference, Intersection, Offset, Pyramids, Stack, Union
from effvit_med.training.phantom_traits import Solid, Traits

LIVER, SPLEEN, KIDNEY_LEFT, KIDNEY_RIGHT, SPINE, AORTA = range(1, 7)


def sized(radii: Point, stretch: float) -> Point:
    """Radii times a stretch."""
    return radii[0] * stretch, radii[1] * stretch, radii[2] * stretch


def build_abdomen(traits: Traits, sides: str = "RL") -> Shape:
    """The space below the domes of the diaphragm: the right one (R), the left one (L) or both."""
    width, depth = traits.cavity_mm[0] / 130.0, traits.cavity_mm[1] / 88.0
    right = Ellipsoid(traits.place(-62, -4, -40), (82 * width, 94 * depth, 152 * traits.height))
    left = Ellipsoid(traits.place(60, -4, -45), (84 * width, 94 * depth, 142 * traits.height))
    middle = Ellipsoid(traits.place(0, -10, -60), (80 * width, 84 * depth, 140 * traits.height))
    lower = HalfSpace((0.0, 0.0, 1.0), -20.0)
    domes = tuple(dome for side, dome in (("R", right), ("L", left)) if side in sides)
    return Union((*domes, middle, lower), blend_mm=14.0)


def build_kidneys(traits: Traits, rng: np.random.Generator) -> tuple[list[Solid], dict[int, Shape], list[Point]]:
    """Both kidneys with medulla, sinus fat and pelvis.

    Returns:
        The solids, the outline of each kidney by label, and the point of each hilum (left, right).
    """
    solids: list[Solid] = []
    outlines: dict[int, Shape] = {}
    hila: list[Point] = []
    for side, label in ((1.0, KIDNEY_LEFT), (-1.0, KIDNEY_RIGHT)):
        which = 0 if side > 0 else 1
        stretch = traits.organ_size[2 + which]
        x, y, z = traits.place(side * 62.0, 42.0, 8.0 if side > 0 else -8.0)
        z -= traits.kidney_drop_mm[which]
        lean, swing = side * rng.uniform(8.0, 18.0), -side * rng.uniform(25.0, 45.0)
        turn = (rng.uniform(-4.0, 8.0), -lean, swing)
        radii = sized((29.0, 25.0, rng.uniform(53.0, 60.0)), stretch)
        bean = Ellipsoid((x, y, z), radii, turn)
        inward = np.array([-side * np.cos(np.deg2rad(swing)), -side * np.sin(np.deg2rad(swing)), 0.0])
        mouth = np.array([x, y, z]) + inward * 27.0 * stretch
        deep = np.array([x, y, z]) + inward * 15.0 * stretch
        notch: Shape = Ellipsoid(_point(mouth), sized((15.0, 10.0, 17.0), stretch), (0.0, 0.0, swing))
        sinus: Shape = Ellipsoid(_point(deep), sized((11.0, 7.0, 21.0), stretch), (0.0, -lean, swing))
        hollow = Union((notch, sinus), blend_mm=5.0)
        kidney = Difference(bean, hollow, blend_mm=3.0)
        pyramids = Pyramids(_point(deep), 26.0, 4, rng.uniform(0.0, 6.0))
        medulla = Intersection((Offset(bean, -6.0 * stretch), pyramids))
        pelvis = Union(
            (
                Ellipsoid(_point(deep), sized((5.0, 3.5, 10.0), stretch), (0.0, 0.0, swing)),
                Capsule(_point(deep), _point(mouth + inward * 4.0 + (0.0, 0.0, -8.0)), (4.0, 3.0)),
            ),
            blend_mm=3.0,
        )
        solids += [
            Solid("kidney", kidney, traits.hu["cortex"], label, (3.0, 37.0)),
            Solid("medulla", Intersection((kidney, medulla)), traits.hu["medulla"], None),
            Solid("renal pelvis", Intersection((Offset(hollow, -1.0), pelvis)), traits.hu["pelvis"]),
        ]
        if rng.uniform() < 0.25:
            at = np.array([x, y, z]) - inward * radii[0] * 0.7 + (0.0, 0.0, rng.uniform(-30.0, 30.0))
            cyst = Ellipsoid(_point(at), (rng.uniform(6.0, 15.0),) * 3)
            solids.append(Solid("cyst", Intersection((kidney, cyst)), rng.uniform(2.0, 14.0), None))
        outlines[label] = bean
        hila.append(_point(mouth))
    return solids, outlines, hila


def build_liver(traits: Traits, rng: np.random.Generator, kidney: Shape) -> list[Solid]:
    """The liver with both lobes, its veins, and sometimes lesions."""
    place, stretch = traits.place, traits.organ_size[0]
    width = traits.cavity_mm[0] / 130.0
    right = Ellipsoid(place(-72, -2, 42), sized((68 * width, 76 * width, 80), stretch), (0.0, 12.0, 0.0))
    tip = Ellipsoid(place(-94, -4, -28 + rng.uniform(-14, 10)), sized((36, 54, 58), stretch), (0.0, 6.0, 0.0))
    left_reach = rng.uniform(-12.0, 16.0)
    left = Ellipsoid(
        place(left_reach, -50, 62), sized((66, 32, 34), stretch), (rng.uniform(-8, 8), rng.uniform(8, 20), 12.0)
    )
    whole = Union((right, tip, left), blend_mm=26.0)
    hollow = Ellipsoid(place(-12, 36, -2), sized((52, 66, 56), 1.0), (0.0, 24.0, 0.0))
    cleft = Ellipsoid(place(-18, -62, 34), (3.5, 24.0, 26.0), (0.0, 0.0, rng.uniform(-15.0, 15.0)))
    carved = Difference(Difference(whole, hollow, blend_mm=16.0), cleft, blend_mm=3.0)
    inside = (carved, Offset(traits.cavity, -3.0), Offset(build_abdomen(traits, "R"), -3.0))
    liver = Difference(Intersection(inside), Offset(kidney, 5.0), blend_mm=3.0)
    solids = [Solid("liver", liver, traits.hu["liver"], LIVER, (3.0, 55.0))]
    gate, fork = place(-26, -6, 14), place(-48, -6, 36)
    confluence = place(-26, 18, 96)
    tubes = [
        (Capsule(gate, fork, (6.5, 5.5)), "portal_vein"),
        (Capsule(fork, place(-88, 4, 32), (5.0, 2.5)), "portal_vein"),
        (Capsule(fork, place(-84, -30, 58), (4.5, 2.0)), "portal_vein"),
        (Capsule(fork, place(-24, -44, 56), (4.5, 2.5)), "portal_vein"),
        (Capsule(confluence, place(-100, 12, 62), (5.0, 2.0)), "cava"),
        (Capsule(confluence, place(-68, -44, 62), (5.0, 2.0)), "cava"),
        (Capsule(confluence, place(-6, -44, 78), (4.5, 2.0)), "cava"),
    ]
    # A vein keeps what is under it: liver inside, fat at the gate.
    solids += [Solid("hepatic vessel", tube, traits.hu[kind], None) for tube, kind in tubes]
    for _ in range(int(rng.choice([0, 1, 3], p=[0.7, 0.2, 0.1]))):
        at = place(rng.uniform(-105, -45), rng.uniform(-40, 30), rng.uniform(10, 85))
        ball = Ellipsoid(at, (rng.uniform(5, 16), rng.uniform(5, 16), rng.uniform(5, 16)))
        density = float(rng.choice([rng.uniform(2, 15), 0.6 * traits.hu["liver"]]))
        solids.append(Solid("lesion", Intersection((liver, ball)), density, None))
    return solids


def build_spleen(traits: Traits, rng: np.random.Generator, kidney: Shape) -> list[Solid]:
    """The spleen, a crescent at the left back under the dome."""
    place, stretch = traits.place, traits.organ_size[1]
    turn = (rng.uniform(-22.0, -6.0), rng.uniform(-8.0, 8.0), rng.uniform(8.0, 28.0))
    core = Ellipsoid(place(92, 34, 48 + rng.uniform(-8, 8)), sized((39, 58, 66), stretch), turn)
    bite = Ellipsoid(place(44, 4, 50), sized((40, 54, 70), 1.0), (0.0, 0.0, 20.0))
    carved = Difference(core, bite, blend_mm=8.0)
    inside = (carved, Offset(traits.cavity, -3.0), Offset(build_abdomen(traits, "L"), -3.0))
    spleen = Difference(Intersection(inside), Offset(kidney, 4.0), blend_mm=3.0)
    mottle = 18.0 if traits.phase == "arterial" else 3.0
    return [Solid("spleen", spleen, traits.hu["spleen"], SPLEEN, (mottle, 24.0))]


def build_spine(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    """Vertebral bodies with bright shell, discs, arches and processes; the canal stays background."""
    line, pitch, ends = traits.spine, 36.0 * traits.height, (-420.0, 420.0)
    phase, stretch = rng.uniform(0.0, pitch), rng.uniform(0.92, 1.08)
    across, deep = 23.0 * stretch, 17.0 * stretch
    canal_y = deep + 9.0
    block = Column(STRAIGHT, (across, deep), (-0.5 * pitch + 4.5, 0.5 * pitch - 4.5), roundness=0.9)
    disc = Column(line, (across + 0.5, deep + 0.5), ends)
    canal = Column(_beside(line, 0.0, canal_y), (11.0, 8.5), ends)
    ring = Ellipsoid((0.0, canal_y, -2.0), (16.5, 14.0, 15.0))
    wings = Union(
        tuple(Capsule((s * 12.0, canal_y - 2.0, 2.0), (s * 38.0, canal_y + 6.0, 3.0), (5.0, 3.0)) for s in (-1, 1))
    )
    facets = Union(tuple(Ellipsoid((s * 15.0, canal_y + 8.0, 0.0), (7.0, 7.5, 15.5)) for s in (-1, 1)))
    crest = Ellipsoid((0.0, canal_y + 20.0, -5.0), (3.8, 14.0, 10.5))
    arch = Stack(Union((ring, wings, facets, crest), blend_mm=3.0), pitch, ends, phase, line)
    blocks = Stack(block, pitch, ends, phase, line)
    shell_hu, spongy_hu = 2.3 * traits.bone_hu, traits.bone_hu
    return [
        Solid("disc", disc, 82.0, SPINE),
        Solid("arch", arch, 1.9 * traits.bone_hu, SPINE),
        Solid("arch core", Offset(arch, -3.0), 1.2 * spongy_hu, None),
        Solid("cortical bone", blocks, shell_hu, SPINE),
        Solid("spongy bone", Offset(blocks, -2.2), spongy_hu, SPINE, (14.0, 19.0)),
        Solid("canal", canal, 28.0),
    ]


def build_aorta(traits: Traits, rng: np.random.Generator) -> tuple[list[Solid], Line]:
    """The aorta down to its fork, with calcified plaques in some.

    Returns:
        The solids and the line along which the aorta runs.
    """
    radius, wave = rng.uniform(8.5, 12.0), (rng.uniform(0.5, 4.0), rng.uniform(110.0, 200.0), rng.uniform(0, 6))
    line = traits.spine
    offset_x, offset_y = rng.uniform(8.0, 15.0), -(20.0 + radius)
    course = Line(
        (line.x_mm[0] + offset_x, line.x_mm[1] + 2.0, line.x_mm[2] + 1.0),
        (line.y_mm[0] + offset_y, line.y_mm[1] + 2.0, line.y_mm[2] + 1.5),
        wave,
    )
    fork = -112.0 * traits.height
    tube = Column(course, (radius, radius), (fork, 420.0), taper=0.0012)
    solids = [Solid("aorta", tube, traits.hu["aorta"], AORTA)]
    for _ in range(int(rng.choice([0, 2, 6], p=[0.6, 0.2, 0.2]))):
        z, angle = rng.uniform(fork, 60.0), rng.uniform(0.0, 2.0 * np.pi)
        x, y = course.at(np.array([z]))
        at = (float(x[0]) + radius * np.cos(angle), float(y[0]) + radius * np.sin(angle), z)
        spot = Ellipsoid(at, (3.5, 3.5, 5.0))
        solids.append(Solid("plaque", Intersection((tube, spot)), 600.0, None))
    return solids, course


def build_falling_level(depth_mm: float) -> HalfSpace:
    """All points in front of a fluid level: gas rises to the front of a patient who lies on the back."""
    return HalfSpace((0.0, 1.0, 0.0), depth_mm)


def _beside(line: Line, x_mm: float, y_mm: float) -> Line:
    return Line(
        (line.x_mm[0] + x_mm, line.x_mm[1], line.x_mm[2]),
        (line.y_mm[0] + y_mm, line.y_mm[1], line.y_mm[2]),
        line.wave,
    )


def _point(values: Array) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
