"""Facts about planning for photographs, and `effvit_med.planning.colours`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.engine import read_model
from effvit_med.io.photographs import LUMA
from effvit_med.planning.bundle_writing import write_bundle
from effvit_med.planning.checks import examine
from effvit_med.planning.choice import read_overrides
from effvit_med.planning.layouts import find_training_set
from effvit_med.planning.plan import Plan, make_plan
from tests.planning.parts import SMALL


def _write_pictures(folder: Path, channels: tuple[int, ...], dpi: int | None = None) -> None:
    """Five noisy pictures with dark stripes, seen in some of their channels only, and masks of one bit."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(5):
        rng = np.random.default_rng(number)
        mask = np.zeros((48, 64), bool)
        mask[10 + number : 14 + number] = True
        pixels = rng.normal(120, 12, (48, 64, 3))
        pixels[..., channels] -= 40 * mask[..., None]
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / "images" / f"p{number}.png", **({"dpi": (dpi, dpi)} if dpi else {}))
        Image.fromarray(mask).save(folder / "labels" / f"p{number}.png")


def _plan(folder: Path) -> Plan:
    return make_plan(examine(find_training_set(folder)), SMALL, None, read_overrides(["preset=fullres_tiny"]))


@pytest.mark.parametrize(("channels", "weights"), [((1,), (0, 1, 0)), ((2,), (0, 0, 1)), ((0, 1, 2), LUMA)])
def test_the_colour_that_shows_the_structure_is_taken(
    tmp_path: Path, channels: tuple[int, ...], weights: tuple[float, float, float]
) -> None:
    """A single channel where only it has contrast, brightness where all have."""
    _write_pictures(tmp_path / "data", channels)
    assert _plan(tmp_path / "data").values["colour_weights"] == weights


def test_pictures_are_seen_whole_and_in_pixels(tmp_path: Path) -> None:
    """2D, own spacing, any way round; the bundle is one for photographs, even where files tell a size of pixels."""
    _write_pictures(tmp_path / "data", (1,), dpi=300)
    plan = _plan(tmp_path / "data")
    write_bundle(plan, tmp_path / "stripes")
    model = read_model(tmp_path / "stripes")
    assert model.colour_weights == (0, 1, 0)
    assert model.preprocess.spatial_dims == 2
    assert model.preprocess.spacing_mm == (None, None, None)
    assert model.tiling.window == (1, 48, 64)
    assert plan.values["mirror_axes"] == (1, 2)
    assert plan.values["rotate_degrees"] == (180, 0, 0)


def test_training_reads_pictures_as_they_were_planned(tmp_path: Path) -> None:
    """The bundle's colour, and the mask's numbers on the picture's pixels, though only one file tells their size."""
    pytest.importorskip("monai", reason="training needs the extra [train]")
    from effvit_med.bundle import LoadVolumed, PrepareVolumed

    _write_pictures(tmp_path / "data", (1,), dpi=300)
    write_bundle(_plan(tmp_path / "data"), tmp_path / "stripes")
    model = read_model(tmp_path / "stripes")
    places = {key: str(tmp_path / "data" / kind / "p0.png") for key, kind in (("image", "images"), ("label", "labels"))}
    loaded = LoadVolumed(["image", "label"], model)(places)
    green = np.asarray(Image.open(places["image"]))[..., 1]
    assert np.array_equal(loaded["image"][0, 0], green)
    prepared = PrepareVolumed("image", model, label_key="label")(loaded)
    assert np.array_equal(prepared["label"][0, 0], np.asarray(Image.open(places["label"])))
