"""The patches of a run depend on seed, epoch and index alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose, RandAffined, RandFlipd, RandGaussianNoised
from torch.utils.data import DataLoader

from effvit_med.errors import SettingsError
from effvit_med.training.cropping import MarkPlacesd, RandPatchd
from effvit_med.training.patches import SeededPatches

ROOT = Path(__file__).parents[2]


def _cases(count: int = 5) -> list[dict[str, object]]:
    generator = torch.Generator().manual_seed(0)
    mark = MarkPlacesd("label", classes=3)
    cases = []
    for number in range(count):
        image = torch.randn(1, 12, 13, 14, generator=generator)
        label = torch.randint(0, 3, (1, 12, 13, 14), generator=generator).float()
        cases.append({**mark({"image": image, "label": label}), "number": number})
    return cases


def _patches(count: int = 5, seed: int = 3, length: int = 8) -> SeededPatches:
    both = ["image", "label"]
    transform = Compose(
        [
            RandPatchd(both, patch=(8, 8, 8), margin=(2, 2, 2), foreground_share=0.5),
            RandAffined(both, prob=0.5, rotate_range=[0.3] * 3, spatial_size=(8, 8, 8), mode=["bilinear", "nearest"]),
            RandFlipd(both, prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=0.5),
        ]
    )
    return SeededPatches(_cases(count), transform, length, seed)


def test_a_patch_does_not_depend_on_what_was_asked_before() -> None:
    """The third patch of the fifth epoch is the same after four epochs and right away."""
    late, at_once = _patches(), _patches()
    for epoch in range(1, 5):
        late.start_epoch(epoch)
        [late[index] for index in range(len(late))]
    late.start_epoch(5)
    at_once.start_epoch(5)
    assert torch.equal(late[2]["image"], at_once[2]["image"])
    assert torch.equal(late[2]["label"], at_once[2]["label"])


@pytest.mark.parametrize("change", ["epoch", "index", "seed"])
def test_patches_differ_by_epoch_index_and_seed(change: str) -> None:
    """Each of the three numbers changes the patch, even of one and the same case."""
    one, other = _patches(count=1), _patches(count=1, seed=4 if change == "seed" else 3)
    one.start_epoch(1)
    other.start_epoch(2 if change == "epoch" else 1)
    assert not torch.equal(one[0]["image"], other[1 if change == "index" else 0]["image"])


def test_every_case_has_its_turn() -> None:
    """Over five epochs of eight patches each of five cases is taken eight times, in no fixed order."""
    patches = _patches()
    order = []
    for epoch in range(1, 6):
        patches.start_epoch(epoch)
        order += [patches[index]["number"] for index in range(len(patches))]
    assert set(Counter(order).values()) == {8}
    assert order[:5] != order[5:10]


def test_worker_processes_that_stay_make_the_same_patches() -> None:
    """Two workers that live for two epochs give what the process itself gives.

    In a process of its own: one that had run thousands of tests before was taken down by it, without a word.
    """
    command = [sys.executable, "-c", f"import {__name__} as here; here.compare_workers()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "patches", "alike"] * 2


def compare_workers() -> None:
    """Say how many patches of two epochs are alike, made here and by two workers."""
    patches = _patches()
    loader = DataLoader(patches, batch_size=2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in (1, 2):
        patches.start_epoch(epoch)
        loaded = torch.cat([batch["image"] for batch in loader])
        made = torch.stack([torch.as_tensor(patches[index]["image"]) for index in range(len(patches))])
        print(sum(torch.equal(*pair) for pair in zip(loaded, made, strict=True)), "patches alike")


def test_nothing_to_learn_from_is_refused() -> None:
    """Without a case there are no patches."""
    with pytest.raises(SettingsError, match="0 cases"):
        SeededPatches([], Compose([]), 4)
