"""Facts about `effvit_med.bundle.marking`: MONAI's mean Dice of what is known, whatever the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import DiceMetric

from effvit_med.bundle import MarkLabelsd, MarkOutputsd, MarkTruthd
from effvit_med.bundle.metatensor import to_metatensor
from effvit_med.engine.model import IGNORED, Model
from effvit_med.training.label_codes import codes_of
from effvit_med.volume import Geometry, Volume
from tests.training.test_losses import OVERLAPPING, REGIONS, SOFTMAX

SPACE = (6, 7, 8)
seeds = st.integers(0, 1000)


def _dice(model: Model, logits: torch.Tensor, label: torch.Tensor, **options: Any) -> torch.Tensor:
    """Dice of each structure or region of a case, NaN where there is none."""
    marked = MarkOutputsd(model, **options)({"pred": logits, "label": label})
    assert marked["pred"].shape == marked["label"].shape
    metric = DiceMetric(include_background=False, reduction="none")
    return metric(y_pred=marked["pred"][None], y=marked["label"][None])[0]


def _overlap(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


@given(seeds)
def test_dice_of_classes_is_that_of_the_labels(seed: int) -> None:
    """Structure by structure, the highest class against the truth."""
    torch.manual_seed(seed)
    logits, label = torch.randn(4, *SPACE), torch.randint(0, 4, (1, *SPACE)).float()
    best = logits.argmax(dim=0)
    expected = [_overlap(best == number, label[0] == number) for number in (1, 2, 3)]
    torch.testing.assert_close(_dice(SOFTMAX, logits, label), torch.tensor(expected))


@given(seeds)
def test_dice_of_regions_is_that_of_their_unions(seed: int) -> None:
    """Each output above 0 against all values of its region."""
    torch.manual_seed(seed)
    logits, label = torch.randn(3, *SPACE), torch.randint(0, 4, (1, *SPACE)).float()
    expected = [_overlap(logits[number] > 0, label[0] > number) for number in range(3)]
    torch.testing.assert_close(_dice(REGIONS, logits, label), torch.tensor(expected))


@given(seeds)
def test_dice_of_overlapping_structures_is_that_of_each(seed: int) -> None:
    """Channel against channel."""
    torch.manual_seed(seed)
    logits, label = torch.randn(3, *SPACE), torch.randint(0, 2, (3, *SPACE)).float()
    expected = [_overlap(logits[number] > 0, label[number] > 0) for number in range(3)]
    torch.testing.assert_close(_dice(OVERLAPPING, logits, label), torch.tensor(expected))


@given(seeds, st.sampled_from([SOFTMAX, REGIONS, OVERLAPPING]))
def test_ignored_voxels_do_not_count(seed: int, model: Model) -> None:
    """Dice is that of the rest alone."""
    torch.manual_seed(seed)
    channels = 3 if model is OVERLAPPING else 1
    logits = torch.randn(len(model.head.names(model.labels)), *SPACE)
    label = torch.randint(0, 2 if model is OVERLAPPING else 4, (channels, *SPACE)).float()
    alone = _dice(model, logits[..., 2:], label[..., 2:])
    label[..., :2] = IGNORED
    torch.testing.assert_close(_dice(model, logits, label), alone)


@given(seeds)
def test_what_a_case_does_not_annotate_is_left_out(seed: int) -> None:
    """It has no Dice; the others lose nothing by voxels that the network gives to it."""
    torch.manual_seed(seed)
    logits, label = torch.randn(4, *SPACE), torch.randint(0, 4, (1, *SPACE)).float()
    label[label == 2] = 0
    codes = codes_of(SOFTMAX, [["s1", "s3"]])
    encoded = torch.from_numpy(codes.encode(label.byte().numpy(), ["s1", "s3"])).float()
    dice = _dice(SOFTMAX, logits, encoded, annotations=[["s1", "s3"]])
    best = logits.argmax(dim=0)
    expected = [_overlap(best == number, label[0] == number) for number in (1, 3)]
    torch.testing.assert_close(dice[[0, 2]], torch.tensor(expected))
    assert dice[1].isnan()


@pytest.mark.parametrize("model", [REGIONS, OVERLAPPING])
def test_heads_without_background_have_an_empty_channel_for_it(model: Model) -> None:
    """So that leaving out the background leaves out no structure."""
    label = torch.ones(3 if model is OVERLAPPING else 1, *SPACE)
    marked = MarkOutputsd(model)({"pred": torch.ones(3, *SPACE), "label": label})
    assert marked["pred"].shape == (4, *SPACE)
    assert not marked["pred"][0].any()
    assert not marked["label"][0].any()


def _tensor(values: torch.Tensor) -> torch.Tensor:
    """Of one channel, as a file gives it."""
    grid = Geometry(np.eye(4), SPACE)
    return to_metatensor(values.float()[None], grid, Volume(values.numpy(), grid))


def _score(model: Model, truth: Any, found: torch.Tensor, annotated: list[str] | None = None) -> list[float]:
    """Dice of each structure on the scan's own grid, NaN where there is none."""
    case: dict[str, Any] = {"image": _tensor(torch.zeros(SPACE)), "label": truth}
    case |= {} if annotated is None else {"annotated": annotated}
    marked = MarkLabelsd(model)({**MarkTruthd("label", model, ignore=9)(case), "pred": _tensor(found)})
    dice: torch.Tensor = DiceMetric(include_background=False, reduction="none")(
        y_pred=marked["pred"][None], y=marked["label"][None]
    )[0]
    return dice.tolist()


@given(seeds)
def test_dice_of_sums_is_that_of_each_structure(seed: int) -> None:
    """Whether the truth is one map of sums or a map a structure."""
    torch.manual_seed(seed)
    truth, found = torch.randint(0, 8, SPACE), torch.randint(0, 8, SPACE)
    expected = [_overlap(found & bit > 0, truth & bit > 0) for bit in (1, 2, 4)]
    assert _score(OVERLAPPING, _tensor(truth), found) == pytest.approx(expected)
    maps = {f"s{bit}": _tensor(truth & bit) for bit in (1, 2, 4)}
    assert _score(OVERLAPPING, maps, found) == pytest.approx(expected)


@given(seeds)
def test_dice_of_a_label_map_leaves_out_what_is_not_known(seed: int) -> None:
    """Of classes the ignored voxels, and a structure that was not annotated."""
    torch.manual_seed(seed)
    truth, found = torch.randint(0, 4, SPACE), torch.randint(0, 4, SPACE)
    truth[0] = 9
    dice = _score(SOFTMAX, _tensor(truth), found, ["s1", "s3"])
    assert [dice[0], dice[2]] == pytest.approx([_overlap(found[1:] == each, truth[1:] == each) for each in (1, 3)])
    assert np.isnan(dice[1])


def test_of_regions_nothing_is_scored_where_one_is_missing() -> None:
    """A value lies in several regions, so it is known only where all are."""
    truth = torch.randint(1, 4, SPACE)
    assert np.isnan(_score(REGIONS, _tensor(truth), truth, ["all"])).all()
    assert _score(REGIONS, _tensor(truth), truth) == [1, 1, 1]
