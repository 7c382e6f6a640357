"""Facts about `effvit_med.training.scan_samples`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader
from monai.transforms import Compose
from PIL import Image

from effvit_med.errors import SettingsError
from effvit_med.training.patches import SeededPatches
from effvit_med.training.prompt_samples import DrawScened, PickObjectd
from effvit_med.training.scan_samples import ReadScened, cut_part, list_scenes


def _write_list(folder: Path, shift: int = 0) -> Path:
    """A picture with a bright square, its labels, and the list of both."""
    labels = np.zeros((60, 50), np.uint8)
    labels[20:40, 15:35] = 3
    Image.fromarray((40 + 60 * labels).astype(np.uint8)).save(folder / "image.png")
    Image.fromarray(labels[shift:]).save(folder / "label.png")
    path = folder / "list.json"
    path.write_text(json.dumps({"training": [{"image": "image.png", "label": "label.png"}]}), encoding="utf-8")
    return path


@given(st.integers(0, 10_000), st.sampled_from([(40, 32), (20, 24, 16)]))
@settings(max_examples=25, deadline=None)
def test_labels_stay_where_they_are_in_the_image(seed: int, shape: tuple[int, ...]) -> None:
    """An image that is its own label map is still so after it was turned and zoomed, but for blurred borders."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    labels[tuple(slice(size // 4, 3 * size // 4) for size in shape)] = 1
    patch = (24,) * len(shape)
    image, cut = cut_part(labels.astype(np.float32), labels, patch, rng)
    assert image.shape == cut.shape == patch
    clear = (image < 0.02) | (image > 0.98)
    assert ((image > 0.5) == (cut == 1))[clear].all()


def test_a_part_shows_something_labelled(tmp_path: Path) -> None:
    """The object that is picked is one of the scan's own, and never what has no label."""
    chain = Compose([ReadScened((24, 24)), DrawScened((24, 24)), PickObjectd("label", spoiled_share=0)])
    samples = SeededPatches(list_scenes(str(_write_list(tmp_path)), 0), chain, 8)
    for index in range(8):
        sample = samples[index]
        assert sample["image"].shape == sample["truth"].shape == (1, 24, 24)
        inside = sample["truth"] > 0
        assert inside.any()
        other = sample["image"][~inside]
        assert not other.numel() or sample["image"][inside].mean() != other.mean()


def test_scans_and_random_shapes_make_one_batch(tmp_path: Path) -> None:
    """MONAI puts samples together by their keys, so both kinds have the same."""
    chain = Compose([ReadScened((24, 24)), DrawScened((24, 24)), PickObjectd("label")])
    samples = SeededPatches(list_scenes(str(_write_list(tmp_path)), 0.5), chain, 8)
    batch = next(iter(DataLoader(samples, batch_size=8)))
    assert set(batch) == {"image", "truth", "before"}
    assert batch["image"].shape == (8, 1, 24, 24)


def test_a_case_without_files_is_drawn() -> None:
    """It passes unread, and random shapes are made of it."""
    case = ReadScened((16, 16))({})
    assert case == {}
    assert isinstance(DrawScened((16, 16))(case)["image"], torch.Tensor)


@pytest.mark.parametrize(("share", "made"), [(0.0, 0), (0.5, 1), (0.75, 3)])
def test_random_shapes_keep_their_share(tmp_path: Path, share: float, made: int) -> None:
    """So many of them stand beside one scan."""
    scenes = list_scenes(str(_write_list(tmp_path)), share)
    assert sum(scene == {} for scene in scenes) == made
    assert sum("image_file" in scene for scene in scenes) == 1


@pytest.mark.parametrize(
    ("content", "share", "message"),
    [("{}", 0.5, "no list of cases"), ('{"training": []}', 0.5, "lists no case"), ("{}", 1.5, "drawn_share is 1.5")],
)
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: str, share: float, message: str) -> None:
    """It says what is wrong with which file."""
    path = tmp_path / "list.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        list_scenes(str(path), share)


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    """Both sizes are said."""
    scene = list_scenes(str(_write_list(tmp_path, shift=4)), 0)[0]
    with pytest.raises(SettingsError, match="own grid"):
        ReadScened((16, 16))(scene)
