"""Everything in the phantom that carries no label: wall, ribs, lungs, gut, muscles, vessels, table, arms."""

import numpy as np

from effvit_med.training.phantom_organs import build_abdomen, build_falling_level
from effvit_med.training.phantom_shapes import (
    REACH_MM,
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
from effvit_med.training.phantom_solids import Difference, Intersection, Offset, Ribs, Union
from effvit_med.training.phantom_traits import Solid, Traits

FAT_HU, GAS_HU, LUNG_HU = -104.0, -960.0, -840.0


def build_body(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    """Skin, fat, muscle wall, cavity, ribs and lungs: what the organs are painted onto."""
    skin, wall, cavity = traits.skin, traits.wall, traits.cavity
    middle = Column(STRAIGHT, _between(traits.cavity_mm, 0.45 * traits.wall_mm), roundness=0.77)
    ribs = Ribs(middle, (3.6, 6.0), 31.0 * traits.height, 0.7, (-16.0, 0.75), rng.uniform(0.0, 30.0))
    heart = Ellipsoid(traits.place(22, -34, 142), (62.0, 44.0, 46.0), (0.0, 25.0, -25.0))
    spine_y = traits.spine.y_mm[0]
    middle_chest = Column(Line((6.0, 0.0, 0.0), (0.0, 0.0, 0.0)), (19.0, spine_y + 10.0), (40.0, REACH_MM))
    above = HalfSpace((0.0, -0.4, -1.0), -34.0)
    upper = Column(STRAIGHT, _between(traits.cavity_mm, -2.0), (-12.0, REACH_MM), roundness=0.75)
    chest = Union((build_abdomen(traits), heart, middle_chest), blend_mm=8.0)
    lungs = Difference(Intersection((upper, above)), chest)
    muscle = traits.hu["muscle"]
    return [
        Solid("skin", skin, 24.0),
        Solid("fat", Offset(skin, -1.8), FAT_HU),
        Solid("wall", wall, muscle, texture=(8.0, 22.0)),
        Solid("cavity", cavity, FAT_HU, texture=(6.0, 17.0)),
        Solid("ribs", ribs, 2.0 * traits.bone_hu),
        Solid("rib marrow", Offset(ribs, -1.6), traits.bone_hu),
        Solid("diaphragm", lungs, muscle),
        Solid("lungs", Offset(lungs, -2.5), LUNG_HU, texture=(25.0, 14.0)),
        Solid("heart", heart, 0.5 * (traits.hu["cava"] + traits.hu["aorta"])),
    ]


def build_muscles(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    """Psoas, quadratus, back muscles, crura and the wings of the pelvis."""
    hu, line, bulk = traits.hu["muscle"], traits.spine, rng.uniform(0.85, 1.15)
    solids = []
    for side in (-1.0, 1.0):
        psoas = Column(_move(line, side * 36.0, 4.0, -side * 6.0), (13 * bulk, 15 * bulk), (-150.0, 14.0), -0.006)
        back = Intersection(
            (
                Column(_move(line, side * 33.0, 42.0), (29 * bulk, 19 * bulk), roundness=0.8),
                Offset(traits.skin, -5.0),
            )
        )
        quadratus = Column(_move(line, side * 68.0, 22.0, -side * 12.0), (19 * bulk, 8 * bulk), (-150.0, -8.0))
        crus = Column(_move(line, side * 13.0 + 4.0, -19.0), (7.0, 6.0), (-30.0, 90.0), 0.002)
        wing = Ellipsoid(
            (side * 0.82 * traits.cavity_mm[0], 38.0, -190.0 * traits.height),
            (16.0, 62.0, 62.0),
            (0, side * 24, side * 32),
        )
        solids += [Solid(n, s, hu, texture=(9.0, 15.0)) for n, s in (("back", back), ("psoas", psoas))]
        solids += [Solid("quadratus", quadratus, hu), Solid("crus", crus, hu)]
        solids += [Solid("pelvis", wing, 2.0 * traits.bone_hu), Solid("marrow", Offset(wing, -3.0), traits.bone_hu)]
    return solids


def build_vessels(traits: Traits, aorta: Line, hila: list[Point]) -> list[Solid]:
    """Vena cava, iliac, renal, splenic and mesenteric vessels, all background."""
    hu, place = traits.hu, traits.place
    fork = -112.0 * traits.height
    cava_line = Line((-24.0, 2.0, 0.0), (traits.spine.y_mm[0] - 28.0, -8.0, 3.0), (2.0, 190.0, 1.0))
    cava = Column(cava_line, (13.5, 10.5), (fork - 8.0, 118.0 * traits.height), taper=0.001)

    def on(line: Line, z: float) -> Point:
        x, y = line.at(np.array([z]))
        return float(x[0]), float(y[0]), z

    end, joint = on(aorta, fork + 3.0), on(cava_line, fork - 6.0)
    solids = [Solid("vena cava", cava, hu["cava"])]
    for side in (-1.0, 1.0):
        solids.append(Solid("iliac", Capsule(end, (side * 48.0, end[1] + 8.0, fork - 85.0), (6.5, 5.0)), hu["aorta"]))
        solids.append(
            Solid("iliac", Capsule(joint, (side * 52.0, joint[1] + 18.0, fork - 85.0), (8.0, 6.5)), hu["cava"])
        )
    for hilum in hila:
        high = hilum[2] + 6.0
        solids.append(Solid("renal vein", Capsule(on(cava_line, high), hilum, (5.0, 4.0)), hu["cava"]))
        solids.append(Solid("renal artery", Capsule(on(aorta, high + 6.0), hilum, (3.2, 2.4)), hu["aorta"]))
    root = on(aorta, 6.0)
    trunk = on(aorta, 22.0)
    front = (root[0], root[1] - 18.0, -16.0)
    tubes = [
        (Capsule(root, front, (4.0, 3.6)), "aorta"),
        (Capsule(front, (root[0] - 8.0, root[1] - 26.0, -85.0), (3.6, 2.4)), "aorta"),
        (Capsule(trunk, (trunk[0], trunk[1] - 22.0, 26.0), (4.0, 3.5)), "aorta"),
        (Capsule(place(-6, -16, 6), place(-6, -24, -80), (5.5, 4.0)), "portal_vein"),
        (Capsule(place(-6, -16, 6), place(74, 18, 40), (4.5, 3.5)), "portal_vein"),
        (Capsule(place(-6, -16, 6), place(-28, -8, 16), (7.0, 6.5)), "portal_vein"),
    ]
    return solids + [Solid("mesenteric vessel", tube, hu[kind]) for tube, kind in tubes]


def build_gut(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    """Stomach with a fluid level, pancreas, gall bladder, colon with gas, loops of small bowel."""
    place, hu = traits.place, traits.hu
    lumen = float(rng.choice([rng.uniform(5, 30), rng.uniform(10, 45), rng.uniform(160, 320)]))
    fill = rng.uniform(0.75, 1.05)
    fundus = Ellipsoid(place(56, -6, 62), (40 * fill, 44 * fill, 46 * fill), (0.0, 0.0, 25.0))
    antrum = Capsule(place(50, -44, 34), place(-8, -46, 10), (24 * fill, 14 * fill))
    inside = (Offset(traits.cavity, -4.0), Offset(build_abdomen(traits, "L"), -4.0))
    stomach = Intersection((Union((fundus, antrum), blend_mm=24.0), *inside))
    level = traits.place(0, rng.uniform(-50, -22), 0)[1]
    solids = _hollow("stomach", stomach, (hu["bowel_wall"], lumen, level), 4.0)
    pancreas = Union(
        (
            Capsule(place(-30, -14, -14), place(-4, -26, 8), (13.0, 9.5)),
            Capsule(place(-4, -26, 8), place(38, 2, 22), (9.5, 9.0)),
            Capsule(place(38, 2, 22), place(76, 18, 38), (9.0, 7.0)),
        ),
        blend_mm=6.0,
    )
    solids.append(Solid("pancreas", pancreas, hu["pancreas"], texture=(14.0, 9.0)))
    bladder = Ellipsoid(place(-46, -46, -12), (15.0, 18.0, rng.uniform(24, 36)), (20.0, 10.0, 0.0))
    solids.append(Solid("gall bladder", bladder, rng.uniform(4, 16)))
    return solids + _small_bowel(traits, rng, lumen) + _colon(traits, rng)


def _small_bowel(traits: Traits, rng: np.random.Generator, lumen_hu: float) -> list[Solid]:
    solids = []
    for _ in range(80):
        start = np.array(traits.place(rng.uniform(-72, 84), rng.uniform(-70, 6), rng.uniform(-190, -22)))
        turn = rng.uniform(0.0, 2.0 * np.pi)
        step = np.array([np.cos(turn), 0.5 * np.sin(turn), rng.uniform(-0.5, 0.5)]) * rng.uniform(18, 46)
        radius = rng.uniform(9.5, 15.0)
        tube = Capsule(
            _point(start - 0.5 * step), _point(start + 0.5 * step), (radius, radius * rng.uniform(0.85, 1.1))
        )
        loop = Intersection((tube, Offset(traits.cavity, -5.0)))
        content = lumen_hu if rng.uniform() < 0.5 else rng.uniform(0, 40)
        level = start[1] - radius * (0.3 if rng.uniform() < 0.25 else 3.0)
        solids += _hollow("small bowel", loop, (traits.hu["bowel_wall"], content, level), 2.5)
    return solids


def _colon(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    place, sag = traits.place, rng.uniform(-50.0, -20.0)
    right_end, left_end = place(-84, -22, -52), place(98, -6, 14)
    middle = place(6, -66, sag - 30)
    courses = [
        (place(-92, 14, -165), place(-94, 10, -76), rng.uniform(19, 26)),
        (place(-94, 10, -76), right_end, rng.uniform(18, 24)),
        (right_end, place(-48, -60, sag - 22), rng.uniform(16, 22)),
        (place(-48, -60, sag - 22), middle, rng.uniform(16, 22)),
        (middle, place(62, -58, sag), rng.uniform(15, 21)),
        (place(62, -58, sag), left_end, rng.uniform(15, 21)),
        (left_end, place(106, 26, -62), rng.uniform(12, 18)),
        (place(106, 26, -62), place(100, 26, -190), rng.uniform(11, 17)),
    ]
    solids = []
    for start, end, radius in courses:
        tube = Intersection((Capsule(start, end, (radius, radius)), Offset(traits.cavity, -4.0)))
        level = 0.5 * (start[1] + end[1]) + radius * rng.uniform(-1.1, 0.6)
        stool = Solid("stool", Offset(tube, -3.0), rng.uniform(-40, 60), texture=(70.0, 9.0))
        gas = Solid("colon gas", stool.shape, GAS_HU, clip=build_falling_level(level))
        solids += [Solid("colon", tube, traits.hu["bowel_wall"]), stool, gas]
    return solids


def build_room(traits: Traits, rng: np.random.Generator) -> list[Solid]:
    """The table with its mattress, and the arms where they lie beside the body."""
    back, reach = traits.back_mm, rng.uniform(300.0, 460.0)
    half = rng.uniform(190.0, 225.0)
    top = back + rng.uniform(3.0, 9.0)
    axis = Line((rng.uniform(-10.0, 10.0), 0.0, 0.0), (top - reach, 0.0, 0.0))
    below = HalfSpace((0.0, -1.0, 0.0), -(top - 0.09 * reach - 14.0))
    sides = (HalfSpace((1.0, 0.0, 0.0), half), HalfSpace((-1.0, 0.0, 0.0), half))

    def layer(inner: float, outer: float) -> Shape:
        ring = Difference(Column(axis, (reach + outer,) * 2), Column(axis, (reach + inner,) * 2))
        return Intersection((ring, below, *sides))

    plate = layer(0.0, 26.0)
    solids = [
        Solid("mattress", layer(-14.0, 0.0), -870.0, rigid=True),
        Solid("table", plate, rng.uniform(-180.0, -60.0), rigid=True),
        Solid("table core", Offset(plate, -3.0), -915.0, rigid=True),
    ]
    if traits.arms:
        for side in (-1.0, 1.0):
            x = side * (traits.skin.radii_mm[0] + 42.0)
            arm = Line((x, side * -6.0, 0.0), (20.0, -4.0, 0.0))
            solids += [
                Solid("arm", Column(arm, (38.0, 40.0)), FAT_HU),
                Solid("arm muscle", Column(arm, (31.0, 33.0)), traits.hu["muscle"], texture=(8.0, 20.0)),
                Solid("arm bone", Column(arm, (10.0, 10.0)), 900.0),
                Solid("arm marrow", Column(arm, (5.0, 5.0)), 20.0),
            ]
    return solids


def _hollow(name: str, shape: Shape, filling: tuple[float, float, float], wall_mm: float) -> list[Solid]:
    """A wall, its content and the gas above the fluid level; filling is wall HU, content HU, level in mm."""
    wall_hu, content_hu, level_mm = filling
    inner = Offset(shape, -wall_mm)
    return [
        Solid(name, shape, wall_hu),
        Solid(f"{name} content", inner, content_hu, texture=(6.0, 13.0)),
        Solid(f"{name} gas", inner, GAS_HU, clip=build_falling_level(level_mm)),
    ]


def _between(radii_mm: tuple[float, float], extra_mm: float) -> tuple[float, float]:
    return radii_mm[0] + extra_mm, radii_mm[1] + extra_mm


def _move(line: Line, x_mm: float, y_mm: float, lean_mm: float = 0.0) -> Line:
    return Line(
        (line.x_mm[0] + x_mm, line.x_mm[1] + lean_mm, line.x_mm[2]),
        (line.y_mm[0] + y_mm, line.y_mm[1], line.y_mm[2]),
        line.wave,
    )


def _point(values: Array) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
