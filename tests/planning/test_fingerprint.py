"""Facts about `effvit_med.planning.fingerprint` and `effvit_med.planning.grid_choices`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effvit_med.io import write_volume
from effvit_med.planning.checks import Examination
from effvit_med.planning.choice import Chooser, read_overrides
from effvit_med.planning.fingerprint import choose_orientation, take_fingerprint
from effvit_med.planning.grid_choices import Grid, choose_grid, choose_modality
from effvit_med.volume import Geometry, Volume
from tests.planning.parts import examined, make_image, write_case, write_folders


def _grid(examination: Examination, modality: str = "MR", *overrides: str) -> tuple[Grid, Chooser]:
    chooser = Chooser(read_overrides(overrides))
    orientation, _ = choose_orientation(examination.facts)
    return choose_grid(
        chooser, take_fingerprint(examination.training_set, examination.facts, orientation, modality)
    ), chooser


def test_a_fingerprint_has_the_numbers_of_the_data(tmp_path: Path) -> None:
    """Sizes, spacing, shares and values are those that were written, on the grid's axes: slices first."""
    write_folders(tmp_path, 4, spacing_mm=(0.5, 0.5, 2.0), shape=(24, 20, 12))
    examination = examined(tmp_path)
    found = take_fingerprint(examination.training_set, examination.facts, "SPL", "MR")
    assert found.shape.median == (12, 20, 24)
    assert found.spacing_mm.median == (2.0, 0.5, 0.5)
    assert found.size_mm.highest == (24.0, 10.0, 12.0)
    assert found.anisotropy == 4
    marked = np.concatenate([image[labels > 0] for image, labels in (make_image(n, (24, 20, 12)) for n in range(4))])
    assert found.mean == pytest.approx(marked.mean(), abs=0.5)
    assert found.foreground_share == pytest.approx(len(marked) / (4 * 24 * 20 * 12))
    counts = [np.count_nonzero(make_image(n, (24, 20, 12))[1] == 2) for n in range(4)]
    assert found.structures[1].volume_ml[0] == pytest.approx(min(counts) * 0.5 / 1000)


@pytest.mark.parametrize(
    ("spacing", "orientation"), [((1, 1, 1), "SPL"), ((1, 1, 5), "SPL"), ((5, 1, 1), "LSP"), ((1, 5, 1), "PSL")]
)
def test_the_coarse_axis_comes_first(tmp_path: Path, spacing: tuple[float, float, float], orientation: str) -> None:
    """So that a network of slices sees those that were scanned."""
    write_folders(tmp_path, 3, spacing_mm=spacing)
    assert choose_orientation(examined(tmp_path).facts)[0] == orientation


def test_slices_that_lie_each_otherwise_stay_slices(tmp_path: Path) -> None:
    """Of two cases with thick slices along other axes of the patient, both come slices first."""
    write_case(tmp_path, "a", 1, (10, 24, 24), (8.0, 1.0, 1.0))
    write_case(tmp_path, "b", 2, (24, 24, 10), (1.0, 1.0, 8.0))
    examination = examined(tmp_path)
    orientation, _ = choose_orientation(examination.facts)
    assert orientation == "slices"
    found = take_fingerprint(examination.training_set, examination.facts, orientation, "MR")
    assert (found.shape.lowest, found.shape.highest) == ((10, 24, 24), (10, 24, 24))


def test_volumes_are_planned_in_3d_and_single_slices_in_2d(tmp_path: Path) -> None:
    """A few slices are no volume, but tell their neighbours something."""
    write_folders(tmp_path / "volumes", 3)
    write_folders(tmp_path / "slices", 3, shape=(24, 24, 4), spacing_mm=(1.0, 1.0, 6.0))
    write_folders(tmp_path / "pictures", 3, shape=(24, 24, 1), spacing_mm=(1.0, 1.0, 6.0))
    found = [_grid(examined(tmp_path / name))[0] for name in ("volumes", "slices", "pictures")]
    assert [(grid.spatial_dims, grid.neighbours) for grid in found] == [(3, 0), (2, 1), (2, 0)]


def test_thick_slices_are_not_resampled(tmp_path: Path) -> None:
    """The spacing of slices stays each scan's own, within them it is the median."""
    for number, step in enumerate((1.0, 1.2, 1.4)):
        write_case(tmp_path, f"c{number}", number, (24, 24, 12), (step, step, 6.0))
    grid, chooser = _grid(examined(tmp_path))
    assert grid.spacing_mm == (None, 1.2, 1.2)
    assert grid.is_thick
    assert "1 to 1.4" in next(choice.reason for choice in chooser.choices if choice.name == "spacing_mm")


def test_ct_gets_a_window_and_mr_percentiles(tmp_path: Path) -> None:
    """HU mean the same everywhere; the window is that of the marked voxels."""
    write_folders(tmp_path, 3)
    _, ct = _grid(examined(tmp_path), "CT")
    _, mr = _grid(examined(tmp_path), "MR")
    window = next(choice.value for choice in ct.choices if choice.name == "intensity")
    assert window["kind"] == "window"
    assert 130 < window["low"] < 160
    assert 210 < window["high"] < 260
    assert next(choice.value for choice in mr.choices if choice.name == "intensity")["kind"] == "percentile"


def test_ct_is_recognised_by_its_air() -> None:
    """And nothing is guessed from other values."""
    assert choose_modality(Chooser({}), "", -1000, photographs=False) == "CT"
    assert choose_modality(Chooser({}), "", 0, photographs=False) == ""
    assert choose_modality(Chooser({}), "MR", -1000, photographs=False) == "MR"


def test_oblique_thick_slices_stay_slices(tmp_path: Path) -> None:
    """Near 45 degrees the next scan may lie nearer to another direction, so the slices themselves come first."""
    affine = np.eye(4)
    turned, _ = np.linalg.qr(np.array([[0.71, -0.31, -0.63], [0.70, 0.27, 0.66], [-0.03, -0.91, 0.41]]))
    affine[:3, :3] = turned * (1, 1, 8)
    image, labels = make_image(1, (20, 18, 9))
    for kind, array in (("images", image), ("labels", labels)):
        (tmp_path / kind).mkdir()
        write_volume(Volume(array, Geometry(affine, (20, 18, 9), slice_axis=2)), tmp_path / kind / "a.nii.gz")
    examination = examined(tmp_path)
    orientation, _ = choose_orientation(examination.facts)
    found = take_fingerprint(examination.training_set, examination.facts, orientation, "MR")
    assert orientation == "slices"
    assert found.shape.highest == (9, 18, 20)
