"""The picture of the labels of a photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import GeometryError
from effvit_med.io import read_photograph, write_photograph_overlay
from effvit_med.volume import Geometry
from tests.io.source_series import segment
from tests.photographs import save


def test_labels_are_coloured_where_they_lie(tmp_path: Path) -> None:
    """Left the photograph alone, right the same with colour on the labelled half; both upright."""
    pixels = np.full((100, 200), 90, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rows are columns of the upright picture, which is 200 tall
    photograph = read_photograph(save(pixels, tmp_path / "a.png", exif=exif))
    labels = np.zeros((1, 100, 200), np.uint8)
    labels[0, :, :100] = 1  # the stored left half is the upper half
    write_photograph_overlay(photograph, segment(photograph, labels), tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as image:
        shown = np.asarray(image).astype(int)
    assert shown.shape[1] == 1400
    tile = (1400 - 3 * 16) // 2
    left, right = shown[60 : 40 + 2 * tile, 16 : 16 + tile], shown[60 : 40 + 2 * tile, 32 + tile : 32 + 2 * tile]
    assert (left == 90).all()
    coloured = (np.ptp(right, axis=2) > 0).mean(axis=1)
    assert coloured[: tile - 30].min() == 1
    assert coloured[tile:].max() == 0


@pytest.mark.parametrize("shape", [(3, 2000), (2000, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_shape_and_type_of_values_is_drawn(tmp_path: Path, shape: tuple[int, int], dtype: type) -> None:
    """Also where all values are the same."""
    photograph = read_photograph(save(np.full(shape, 300).astype(dtype), tmp_path / "a.tif"))
    write_photograph_overlay(photograph, segment(photograph, np.zeros((1, *shape), np.uint8)), tmp_path / "o.png")
    with Image.open(tmp_path / "o.png") as image:
        assert image.width == 1400
        assert image.height < 3000


def test_labels_of_another_size_are_an_error(tmp_path: Path) -> None:
    """They would be drawn somewhere else."""
    photograph = read_photograph(save(np.zeros((20, 30), np.uint8), tmp_path / "a.png"))
    other = read_photograph(save(np.zeros((30, 20), np.uint8), tmp_path / "b.png"))
    assert isinstance(other.geometry, Geometry)
    with pytest.raises(GeometryError, match="shape"):
        write_photograph_overlay(photograph, segment(other, np.zeros((1, 30, 20), np.uint8)), tmp_path / "o.png")
