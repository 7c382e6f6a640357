"""The pictures of the networks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.network_measuring import Conditions, Measurement

pytest.importorskip("matplotlib")


def test_a_picture_is_drawn_also_where_sizes_were_left_out(tmp_path: Path) -> None:
    """A network without any figure does not stop the picture."""
    from benchmarks.network_plots import draw

    rows = [
        Measurement(name, 2, edge, 1, 1.0, edge / 8, (1.0,), (scale * edge**2,))
        for name, scale in (("ours", 1e-6), ("theirs", 1e-5))
        for edge in (512, 1024, 2048)
    ]
    rows.append(Measurement("left out", 2, 512, 1, 1.0, skipped="skipped: about 300 s"))
    draw(rows, ["ours"], Conditions(), tmp_path / "folder" / "networks_2d.png")
    with Image.open(tmp_path / "folder" / "networks_2d.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=2**20) or []
        assert picture.width > 1000
    assert (8, 48, 107) in {colour for _, colour in colours}  # the curve of ours
    assert (217, 72, 1) in {colour for _, colour in colours}  # the curve of theirs
