"""Facts about `effvit_med.training.losses`: what is not known gives no gradient, what is known the usual loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceLoss
from torch.nn import functional

from effvit_med.engine import read_model
from effvit_med.engine.head import Head, Region
from effvit_med.engine.model import IGNORED, Model
from effvit_med.errors import SettingsError
from effvit_med.training.label_codes import codes_of
from effvit_med.training.losses import HeadLoss
from effvit_med.volume import LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE, Label

SPACE = (3, 4, 5)
seeds = st.integers(0, 10_000)
batches = st.booleans()


def _model(head: Head, values: tuple[int, ...] = (1, 2, 3)) -> Model:
    labels = LabelTable(tuple(Label(value, f"s{value}", ANATOMICAL_STRUCTURE) for value in values))
    head.check(labels)
    return replace(read_model(), labels=labels, head=head)


SOFTMAX = _model(Head())
REGIONS = _model(Head("regions", (Region("all", (1, 2, 3)), Region("in", (2, 3)), Region("core", (3,))), (1, 2, 3)))
OVERLAPPING = _model(Head("overlapping"), (1, 2, 4))


def _case(model: Model, seed: int, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that take a gradient, and class numbers (or a channel for each structure)."""
    torch.manual_seed(seed)
    outputs = len(model.head.names(model.labels))
    logits = torch.randn(2, outputs, *SPACE, requires_grad=True)
    if model.head.kind == "overlapping":
        return logits, torch.randint(0, 2, (2, outputs, *SPACE)).float()
    return logits, torch.randint(0, classes, (2, 1, *SPACE)).float()


def _gradient(loss: Any, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss(logits, target), logits)[0]


def _truth(target: torch.Tensor) -> torch.Tensor:
    """What the regions are at each class number."""
    return torch.cat([target >= 1, target >= 2, target >= 3], dim=1).float()


@given(seeds, batches)
def test_where_all_is_known_classes_have_the_usual_loss(seed: int, batch: bool) -> None:
    """MONAI's Dice and cross entropy, to the last bits, and its gradient."""
    logits, target = _case(SOFTMAX, seed)
    plain = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=batch)
    torch.testing.assert_close(HeadLoss(SOFTMAX, batch=batch)(logits, target), plain(logits, target))
    torch.testing.assert_close(
        _gradient(HeadLoss(SOFTMAX, batch=batch), logits, target), _gradient(plain, logits, target)
    )


@given(seeds, batches, st.sampled_from([REGIONS, OVERLAPPING]))
def test_where_all_is_known_marks_have_the_usual_loss(seed: int, batch: bool, model: Model) -> None:
    """MONAI's Dice of sigmoids and torch's binary cross entropy."""
    logits, target = _case(model, seed)
    truth = _truth(target) if model is REGIONS else target
    plain = DiceLoss(sigmoid=True, batch=batch)(logits, truth) + functional.binary_cross_entropy_with_logits(
        logits, truth
    )
    torch.testing.assert_close(HeadLoss(model, batch=batch)(logits, target), plain)


@given(seeds, batches, st.sampled_from([SOFTMAX, REGIONS, OVERLAPPING]))
def test_ignored_voxels_give_no_gradient(seed: int, batch: bool, model: Model) -> None:
    """Exactly 0 there and not elsewhere; and the loss does not depend on what the network says there."""
    logits, target = _case(model, seed)
    ignored = torch.rand(2, 1, *SPACE) < 0.3
    target = target.masked_fill(ignored, IGNORED)
    loss = HeadLoss(model, batch=batch)
    gradient = _gradient(loss, logits, target)
    assert not gradient[ignored.expand_as(gradient)].any()
    assert gradient[~ignored.expand_as(gradient)].ne(0).float().mean() > 0.99
    changed = torch.where(ignored, torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(changed, target), loss(logits, target))


@given(seeds, st.sampled_from([SOFTMAX, REGIONS, OVERLAPPING]))
def test_the_loss_of_the_rest_is_that_of_the_rest_alone(seed: int, model: Model) -> None:
    """Ignoring the last row of voxels is the same as not having it."""
    logits, target = _case(model, seed)
    loss = HeadLoss(model)
    alone = loss(logits[..., :-1], target[..., :-1])
    target[..., -1] = IGNORED
    torch.testing.assert_close(loss(logits, target), alone)


@pytest.mark.parametrize("model", [SOFTMAX, REGIONS, OVERLAPPING])
def test_a_patch_that_is_ignored_whole_teaches_nothing(model: Model) -> None:
    """No gradient, and a loss that is a number."""
    logits, target = _case(model, 0)
    target[:] = IGNORED
    assert torch.isfinite(HeadLoss(model)(logits, target))
    assert not _gradient(HeadLoss(model), logits, target).any()


ANNOTATIONS = [["s1"], ["s1", "s3"]]


def _encode(model: Model, target: torch.Tensor, annotated: list[str] | None) -> torch.Tensor:
    codes = codes_of(model, ANNOTATIONS if model is SOFTMAX else [["all"], ["all", "core"]])
    return torch.from_numpy(codes.encode(target.byte().numpy(), annotated)).float()


@given(seeds, batches)
def test_what_was_not_annotated_is_merged_with_background(seed: int, batch: bool) -> None:
    """The loss of a case without s2 is the plain loss of a network that has no s2 and gives its share to background.

    Only the empty Dice of s2 itself, which is 0, stays in the mean over the structures.
    """
    logits, target = _case(SOFTMAX, seed)
    target[target == 2] = 0
    found = HeadLoss(SOFTMAX, ANNOTATIONS, batch=batch, entropy_weight=0)
    encoded = _encode(SOFTMAX, target, ["s1", "s3"])
    unknown = target == 0
    shares = logits.softmax(dim=1)
    background = shares[:, :1] + torch.where(unknown, shares[:, 2:3], torch.zeros(1))
    second = torch.where(unknown, torch.zeros(1), shares[:, 2:3])
    merged = torch.cat([background, shares[:, 1:2], second, shares[:, 3:]], dim=1)
    plain = DiceLoss(to_onehot_y=True, include_background=False, batch=batch)(merged, target)
    torch.testing.assert_close(found(logits, encoded), plain)
    entropy = HeadLoss(SOFTMAX, ANNOTATIONS, dice_weight=0)(logits, encoded)
    torch.testing.assert_close(entropy, functional.nll_loss(merged.log(), target[:, 0].long()))


@given(seeds)
def test_nothing_is_learnt_about_which_of_the_merged_it_is(seed: int) -> None:
    """At a voxel without a label, shares can move between background and what was not annotated at no cost."""
    logits, _ = _case(SOFTMAX, seed)
    encoded = _encode(SOFTMAX, torch.zeros(2, 1, *SPACE), ["s1"])
    loss = HeadLoss(SOFTMAX, ANNOTATIONS)
    before = logits.detach().softmax(dim=1)
    moved = before.clone()
    moved[:, 0], moved[:, 2] = before[:, 0] * 0.3, before[:, 2] + before[:, 0] * 0.7
    torch.testing.assert_close(loss(moved.log(), encoded), loss(before.log(), encoded))
    gradient = _gradient(loss, logits, encoded)
    share = before[:, [0, 2, 3]] / before[:, [0, 2, 3]].sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient[:, [0, 2, 3]], gradient[:, [0, 2, 3]].sum(dim=1, keepdim=True) * share)


@given(seeds)
def test_an_annotated_structure_still_pushes_what_was_not(seed: int) -> None:
    """Where s1 was drawn, it is not s2, annotated or not: the gradient of the plain cross entropy."""
    logits, target = _case(SOFTMAX, seed)
    encoded = _encode(SOFTMAX, target, ["s1"])
    drawn = (target == 1).expand_as(logits)
    plain = HeadLoss(SOFTMAX, dice_weight=0)
    partial = HeadLoss(SOFTMAX, ANNOTATIONS, dice_weight=0)
    torch.testing.assert_close(_gradient(partial, logits, encoded)[drawn], _gradient(plain, logits, target)[drawn])


@given(seeds)
def test_a_region_that_was_not_annotated_learns_nothing(seed: int) -> None:
    """Its output has no gradient anywhere in the case; the others have that of the plain loss of them alone."""
    logits, target = _case(REGIONS, seed)
    target[target > 0] = 1
    encoded = _encode(REGIONS, target, ["all"])
    loss = HeadLoss(REGIONS, [["all"], ["all", "core"]], dice_weight=0)
    gradient = _gradient(loss, logits, encoded)
    assert not gradient[:, 1:].any()
    plain = functional.binary_cross_entropy_with_logits(logits[:, :1], (target > 0).float())
    torch.testing.assert_close(gradient[:, :1], torch.autograd.grad(plain, logits)[0][:, :1])


def test_cases_of_different_annotation_learn_in_one_batch() -> None:
    """Collated as they come; the case with all structures has the gradient that it has alone, but for the mean."""
    logits, target = _case(SOFTMAX, 3)
    first, second = _encode(SOFTMAX, target[:1], None), _encode(SOFTMAX, target[1:], ["s1"])
    batch = next(iter(DataLoader([{"label": first[0]}, {"label": second[0]}], batch_size=2)))["label"]
    loss = HeadLoss(SOFTMAX, ANNOTATIONS, dice_weight=0)
    alone = _gradient(loss, logits, torch.cat([target[:1], torch.full_like(target[1:], IGNORED)]))
    torch.testing.assert_close(_gradient(loss, logits, batch)[:1], alone[:1] / 2)


@pytest.mark.parametrize("model", [SOFTMAX, REGIONS, OVERLAPPING])
def test_deep_supervision_keeps_what_is_not_known(model: Model) -> None:
    """Targets scaled down by MONAI still say what is ignored: coarse outputs over ignored voxels get no gradient."""
    torch.manual_seed(0)
    outputs = len(model.head.names(model.labels))
    levels = [torch.randn(1, outputs, 16 // step, 16 // step, requires_grad=True) for step in (1, 2, 4)]
    channels = outputs if model is OVERLAPPING else 1
    target = torch.ones(1, channels, 16, 16)
    target[..., :8] = IGNORED
    loss = DeepSupervisionLoss(HeadLoss(model))
    for gradient in torch.autograd.grad(loss(levels, target), levels):
        middle = gradient.shape[-1] // 2
        assert not gradient[..., :middle].any()
        assert gradient[..., middle:].any()


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_gives_numbers(precision: torch.dtype) -> None:
    """Merging in half precision stays finite, forwards and backwards."""
    logits, target = _case(SOFTMAX, 0)
    encoded = _encode(SOFTMAX, target, ["s1"])
    half = logits.detach().to(precision).requires_grad_()
    loss = HeadLoss(SOFTMAX, ANNOTATIONS)
    assert torch.isfinite(_gradient(loss, half, encoded)).all()


def test_channels_that_do_not_fit_are_refused() -> None:
    """The error says what the head takes."""
    with pytest.raises(SettingsError, match="takes 3 outputs and label maps of 3 channels; it was given 3 and 1"):
        HeadLoss(OVERLAPPING)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))
