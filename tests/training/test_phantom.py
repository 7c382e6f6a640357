"""The phantom case as a whole: sides, sizes, densities, repeatability."""

import hashlib

import numpy as np
import pytest

from effvit_med.errors import GeometryError, SettingsError
from effvit_med.training.phantom import PHASES, STRUCTURES, Phantom, draw_anatomy, make_case, render

NUMBER = {name: number for number, name in STRUCTURES.items()}


def axial(spacing_mm: tuple[float, float, float], start_mm: tuple[float, float, float]) -> np.ndarray:
    """An axial affine with axes slice, row, column."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    affine[:3, 3] = start_mm
    return affine


def whole(seed: int) -> Phantom:
    """A coarse scan that holds all labelled organs uncut."""
    affine = axial((6.0, 4.0, 4.0), (-170.0, -110.0, -160.0))
    return render(draw_anatomy(seed), affine, (54, 58, 86), seed=seed)


@pytest.fixture(scope="module")
def cases() -> list[Phantom]:
    """Ten patients, whole organs."""
    return [whole(seed) for seed in range(10)]


def centre_of(case: Phantom, name: str) -> np.ndarray:
    """World LPS mm of the middle of a structure."""
    index = np.argwhere(case.labels == NUMBER[name]).mean(axis=0)
    return case.affine_lps[:3, :3] @ index + case.affine_lps[:3, 3]


def volume_ml(case: Phantom, name: str) -> float:
    """Volume of a structure in mL."""
    voxel = abs(np.linalg.det(case.affine_lps[:3, :3])) / 1000.0
    return float((case.labels == NUMBER[name]).sum() * voxel)


def test_sides(cases: list[Phantom]) -> None:
    """Liver and right kidney lie on the patient's right (negative x), spleen and left kidney on the left."""
    for case in cases:
        assert centre_of(case, "liver")[0] < -25.0
        assert centre_of(case, "kidney_right")[0] < -25.0
        assert centre_of(case, "spleen")[0] > 25.0
        assert centre_of(case, "kidney_left")[0] > 25.0


def test_depth_and_height(cases: list[Phantom]) -> None:
    """The spine lies behind the aorta, the spleen behind the liver's middle, the kidneys below the spleen."""
    for case in cases:
        assert centre_of(case, "spine")[1] > centre_of(case, "aorta")[1] + 10.0
        assert centre_of(case, "spleen")[1] > centre_of(case, "liver")[1]
        assert centre_of(case, "spleen")[2] > centre_of(case, "kidney_left")[2]


@pytest.mark.parametrize(
    ("name", "low_ml", "high_ml"),
    [
        ("liver", 800.0, 2200.0),
        ("spleen", 80.0, 600.0),
        ("kidney_left", 70.0, 300.0),
        ("kidney_right", 70.0, 300.0),
    ],
)
def test_volumes_are_human(cases: list[Phantom], name: str, low_ml: float, high_ml: float) -> None:
    """Every organ, whole, has a volume that people have."""
    for case in cases:
        assert not (case.labels[[0, -1]] == NUMBER[name]).any(), "the organ is cut"
        assert low_ml < volume_ml(case, name) < high_ml


def test_patients_differ_in_size(cases: list[Phantom]) -> None:
    """Bodies are 25 to 42 cm wide and 18 to 32 cm deep, and not all alike."""
    sizes = np.array([[2.0 * mm for mm in case.anatomy.traits.skin.radii_mm] for case in cases])
    assert sizes[:, 0].min() > 250.0
    assert sizes[:, 0].max() < 420.0
    assert sizes[:, 1].min() > 180.0
    assert sizes[:, 1].max() < 320.0
    assert np.ptp(sizes[:, 0]) > 20.0


@pytest.mark.parametrize(
    ("phase", "ranges"),
    [
        ("native", {"liver": (35, 68), "spleen": (35, 60), "aorta": (25, 70), "kidney_left": (15, 50)}),
        ("arterial", {"liver": (50, 85), "spleen": (90, 150), "aorta": (240, 380), "kidney_left": (90, 190)}),
        ("portal", {"liver": (95, 130), "spleen": (105, 140), "aorta": (115, 200), "kidney_left": (130, 220)}),
        ("late", {"liver": (70, 105), "spleen": (75, 108), "aorta": (85, 135), "kidney_left": (105, 160)}),
    ],
)
def test_densities_follow_the_phase(phase: str, ranges: dict[str, tuple[int, int]]) -> None:
    """The median HU of each organ is what the contrast phase makes of it."""
    case = make_case(11, shape=(20, 64, 64), phase=next(name for name in PHASES if name == phase))
    for name, (low_hu, high_hu) in ranges.items():
        assert low_hu < np.median(case.hu[case.labels == NUMBER[name]]) < high_hu, name
    assert np.median(case.hu[case.labels == NUMBER["spine"]]) > 100.0
    assert np.median(case.hu[:, :6]) < -950.0


def test_noise_is_that_of_ct(cases: list[Phantom]) -> None:
    """Within the liver the HU scatter by 5 to 40."""
    for case in cases:
        hu = case.hu[case.labels == NUMBER["liver"]]
        low_hu, high_hu = np.percentile(hu, [25.0, 75.0])
        assert 5.0 < (high_hu - low_hu) / 1.349 < 40.0


def test_axes_of_a_made_case() -> None:
    """Axis 0 goes towards superior, axis 1 towards posterior, axis 2 towards left; types are as promised."""
    case = make_case(4, shape=(6, 24, 24), spacing_mm=(40.0, 12.0, 14.0))
    np.testing.assert_array_equal(case.affine_lps[:3, :3], [[0, 0, 14.0], [0, 12.0, 0], [40.0, 0, 0]])
    assert (case.hu.dtype, case.labels.dtype, case.affine_lps.dtype) == (np.int16, np.uint8, np.float64)
    assert case.hu.shape == case.labels.shape == (6, 24, 24)
    assert case.hu.min() >= -1024
    assert case.hu.max() <= 3071


def test_made_cases_hold_every_structure() -> None:
    """A default scan, here coarse, shows all six structures."""
    for seed in (21, 22, 23):
        assert np.unique(make_case(seed, shape=(24, 48, 48)).labels).tolist() == list(STRUCTURES)


def test_same_seed_same_bytes() -> None:
    """The same seed gives the same bytes, another seed other ones."""
    first, again, other = (make_case(seed, shape=(6, 32, 32)) for seed in (5, 5, 6))
    assert first.hu.tobytes() == again.hu.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.hu.tobytes() != other.hu.tobytes()
    assert first.labels.tobytes() != other.labels.tobytes()


def test_case_is_pinned() -> None:
    """A case made earlier comes out bit for bit, on any machine."""
    case = make_case(1234, shape=(8, 40, 40))
    digest = hashlib.sha256(case.hu.astype("<i2").tobytes() + case.labels.tobytes()).hexdigest()
    assert digest == "6cf4d02296a99b24d59562efc2818491d8abf419e69f55633bcba3f6ecbbab27"


def test_phase_leaves_shapes_alone() -> None:
    """Another contrast phase of the same patient has the same labels."""
    native, late = (make_case(9, shape=(8, 32, 32), phase=phase) for phase in ("native", "late"))
    np.testing.assert_array_equal(native.labels, late.labels)
    assert (native.hu != late.hu).any()


def test_negative_seed_is_refused() -> None:
    """A negative seed is refused with its value."""
    with pytest.raises(SettingsError, match="seed must be 0 or more, not -3"):
        draw_anatomy(-3)


def test_unknown_phase_is_refused() -> None:
    """A phase that does not exist is refused with the ones that do."""
    with pytest.raises(SettingsError, match="native, arterial, portal, late, not 'venous'"):
        draw_anatomy(1, phase="venous")  # type: ignore[arg-type]


def test_empty_shape_is_refused() -> None:
    """A grid without voxels is refused."""
    with pytest.raises(GeometryError, match=r"positive sizes, not \(4, 0, 4\)"):
        make_case(1, shape=(4, 0, 4))
