"""Hypothesis strategies that draw geometries."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from effvit_med.volume import Geometry

ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(("LR", "AP", "IS")) for letters in itertools.product(*axes)
]


@st.composite
def geometries(draw, *, oblique: bool = True, irregular: bool = True, tilt_degrees: float = 25.0) -> Geometry:
    """A grid of 1 to 9 voxels an axis, any spacing, rotation, tilt and slice distances."""
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 7.0)] * 3))
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3)) if oblique else (0.0, 0.0, 0.0)
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix = matrix[:, draw(st.permutations(range(3)))] * spacing
    if tilt_degrees:
        shift = np.tan(np.radians(draw(st.floats(-tilt_degrees, tilt_degrees))))
        matrix[:, 0] += matrix[:, 1] / np.linalg.norm(matrix[:, 1]) * shift * np.linalg.norm(matrix[:, 0])
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    offsets = None
    if irregular and draw(st.booleans()):
        steps = draw(st.lists(st.floats(0.2, 4.0), min_size=shape[0], max_size=shape[0]))
        offsets = tuple(float(step) for step in np.cumsum(steps) - steps[0])
    return Geometry(affine, shape, "1.2.3", offsets)
