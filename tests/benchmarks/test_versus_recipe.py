"""Learning rates, the end of a training, and crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.versus_recipe import PATIENCE, Plateau, Sampler, fit_learning_rate, pad_to
from benchmarks.versus_sets import SETS, PreparedCase, as_labels
from effvit_med.volume import Geometry

HIPPOCAMPUS, VESSELS = SETS["hippocampus"], SETS["vessels"]


def make_case(shape: tuple[int, int, int], value: int = 1) -> PreparedCase:
    """A case with a cube of a structure whose image is bright there."""
    labels = np.zeros(shape, np.uint8)
    labels[tuple(slice(size // 2, size // 2 + 4) for size in shape)] = value
    grid = Geometry(np.eye(4), shape)
    labelled = HIPPOCAMPUS if shape[0] > 1 else VESSELS
    return PreparedCase(
        "case", (labels * 5.0).astype(np.float32)[None], labels, grid, as_labels(labelled, labels, grid)
    )


def test_rate_rises_then_falls_to_nothing() -> None:
    """The end of the budget is the end of learning."""
    rates = [fit_learning_rate(done) for done in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert 0 < rates[0] < rates[top]
    assert top <= 3
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == 0
    assert fit_learning_rate(1.2) == 0


def test_plateau_ends_training_after_its_patience_and_a_fall() -> None:
    """The rate is held while Dice gains, falls linearly after, and is nothing a quarter of the time later."""
    plateau = Plateau(limit_s=10_000)
    for look in range(5):
        plateau.look(0.5 + look / 10, 100.0 * look)
    assert plateau.learning_rate(500) == 1
    for look in range(PATIENCE):
        plateau.look(0.9, 600.0 + look)
    assert plateau.falls_from_s == 607
    assert plateau.learning_rate(607 * 1.125) == pytest.approx(0.5)
    assert plateau.learning_rate(607 * 1.25) == pytest.approx(0)
    assert not plateau.hit_limit


def test_a_network_that_finds_nothing_yet_has_no_plateau() -> None:
    """Dice of 0 at the beginning does not end training."""
    plateau = Plateau(limit_s=10_000)
    for look in range(3 * PATIENCE):
        plateau.look(0.0, 10.0 * look)
    assert plateau.falls_from_s is None


def test_limit_ends_training_in_time_and_is_told() -> None:
    """The fall begins early enough to be over at the limit."""
    plateau = Plateau(limit_s=1000)
    assert plateau.learning_rate(799) == 1
    assert plateau.learning_rate(800) == 1
    assert plateau.hit_limit
    assert plateau.learning_rate(1000) == 0


def test_a_small_case_goes_on_as_its_mirror_image() -> None:
    """Image and labels alike, so that what is bright is still the structure."""
    case = make_case((31, 40, 24))
    values, labels = pad_to(case, HIPPOCAMPUS.patch)
    assert labels.shape == (40, 56, 40)
    assert values.shape == (1, 40, 56, 40)
    assert np.array_equal(values[0, 31:], values[0, 22:31][::-1])
    assert np.array_equal(labels[31:], labels[22:31][::-1])


@pytest.mark.parametrize(("labelled", "shape"), [(HIPPOCAMPUS, (42, 58, 44)), (VESSELS, (1, 300, 280))])
def test_crops_keep_image_and_labels_together(labelled: object, shape: tuple[int, int, int]) -> None:
    """Bright voxels are the structure after every augmentation, and crops have the size of the recipe."""
    sampler = Sampler(labelled, [make_case(shape)], seed=3)  # type: ignore[arg-type]
    shown = 0
    for _ in range(6):
        image, label = sampler.draw()
        assert image.shape == label.shape == (2, 1, *[edge for edge in sampler.labelled.patch if edge > 1])
        assert set(label.unique().tolist()) <= {0, 1}
        for one, mask in zip(image, label, strict=True):
            if mask.any():
                shown += 1
                assert one[mask > 0].mean() > one[mask == 0].mean() + 1
    assert shown > 3


def test_the_same_seed_draws_the_same_crops_and_a_restart_is_at_its_step() -> None:
    """Every network sees the same crops; going on at a step does not draw the first ones again."""
    first, second = (Sampler(HIPPOCAMPUS, [make_case((42, 58, 44))], seed=1) for _ in range(2))
    assert torch.equal(first.draw()[0], second.draw()[0])
    first.restart(7)
    second.restart(7)
    assert torch.equal(first.draw()[0], second.draw()[0])
    second.restart(8)
    first.restart(7)
    assert not torch.equal(first.draw()[0], second.draw()[0])
