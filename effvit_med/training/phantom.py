"""A made-up abdomen under CT, with exact labels: training data that belongs to nobody.

The anatomy is a set of implicit shapes in world coordinates (LPS mm), so that any grid can be rendered and
the label of a voxel is the structure at its centre. World z = 0 lies near the first lumbar vertebra.

Examples:
    >>> case = make_case(7, shape=(8, 32, 32))
    >>> case.hu.shape, case.hu.dtype.name, case.labels.dtype.name
    ((8, 32, 32), 'int16', 'uint8')
    >>> STRUCTURES[1], STRUCTURES[6]
    ('liver', 'aorta')
"""

import numpy as np

from effvit_med.errors import SettingsError
from effvit_med.training.phantom_image import Phantom, place_patient, render
from effvit_med.training.phantom_organs import (
    KIDNEY_LEFT,
    KIDNEY_RIGHT,
    build_aorta,
    build_kidneys,
    build_liver,
    build_spine,
    build_spleen,
)
from effvit_med.training.phantom_shapes import Array
from effvit_med.training.phantom_surroundings import build_body, build_gut, build_muscles, build_room, build_vessels
from effvit_med.training.phantom_traits import PHASES, STRUCTURES, Anatomy, Phase, draw_traits

__all__ = ["PHASES", "STRUCTURES", "Anatomy", "Phantom", "Phase", "draw_anatomy", "make_case", "render"]


def draw_anatomy(seed: int, *, phase: Phase | None = None) -> Anatomy:
    """Draw one patient.

    Args:
        seed: 0 or more; the same seed gives the same patient on every machine.
        phase: contrast phase to use in place of the drawn one; the shapes stay the same.

    Returns:
        The anatomy, to be given to `render`.

    Raises:
        SettingsError: if the seed is negative or the phase unknown.
    """
    if seed < 0:
        raise SettingsError(f"seed must be 0 or more, not {seed}; choose another number.")
    if phase is not None and phase not in PHASES:
        raise SettingsError(f"phase must be one of {', '.join(PHASES)}, not {phase!r}.")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 1])))
    traits = draw_traits(rng, phase)
    waves, pose = _draw_waves(rng), place_patient(rng)
    kidneys, outlines, hila = build_kidneys(traits, rng)
    aorta, course = build_aorta(traits, rng)
    solids = (
        *build_body(traits, rng),
        *build_muscles(traits, rng),
        *build_gut(traits, rng),
        *build_liver(traits, rng, outlines[KIDNEY_RIGHT]),
        *build_spleen(traits, rng, outlines[KIDNEY_LEFT]),
        *build_spine(traits, rng),
        *build_vessels(traits, course, hila),
        *kidneys,
        *aorta,
        *build_room(traits, rng),
    )
    return Anatomy(seed, traits, solids, waves, pose)


def make_case(
    seed: int,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    shape: tuple[int, int, int] = (64, 128, 128),
    phase: Phase | None = None,
) -> Phantom:
    """Draw a patient and render an axial scan of the abdomen.

    Args:
        seed: 0 or more.
        spacing_mm: distance of slices, rows and columns; drawn to suit the body where not given.
        shape: slices, rows, columns. Axis 0 goes towards superior, axis 1 posterior, axis 2 left.
        phase: contrast phase to use in place of the drawn one.

    Returns:
        The case; organs at the ends of the scan may be cut.

    Raises:
        SettingsError: if the seed is negative or the phase unknown.
        GeometryError: if the shape is not three positive sizes.
    """
    anatomy = draw_anatomy(seed, phase=phase)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 3])))
    across = 2.0 * anatomy.traits.skin.radii_mm[0] * rng.uniform(1.1, 1.3)
    extent = rng.uniform(265.0, 340.0)
    if spacing_mm is None:
        spacing_mm = (extent / max(shape[0], 1), across / max(shape[2], 1), across / max(shape[2], 1))
    centre = np.array([rng.uniform(-8.0, 8.0), 12.0 + rng.uniform(-8.0, 8.0), rng.uniform(-32.0, 12.0)])
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    affine[:3, 3] = centre - affine[:3, :3] @ (0.5 * (np.array(shape, dtype=np.float64) - 1.0))
    return render(anatomy, affine, shape, seed=seed)


def _draw_waves(rng: np.random.Generator) -> Array:
    """Four smooth waves; each bends the body by up to some mm over a hundred mm or more."""
    waves = np.empty((4, 7))
    for wave, length in zip(waves, (300.0, 230.0, 170.0, 130.0), strict=True):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        wave[:3] = 2.0 * np.pi / (length * rng.uniform(0.9, 1.2)) * direction
        wave[3] = rng.uniform(0.0, 2.0 * np.pi)
        wave[4:] = rng.uniform(-1.0, 1.0, 3) * length / 45.0
    return waves
