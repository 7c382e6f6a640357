"""Facts about `effvit_med.training.prompt_samples` and `prompt_rounds`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from effvit_med.errors import SettingsError
from effvit_med.networks.prompt import build_prompt_network
from effvit_med.training.patches import SeededPatches
from effvit_med.training.prompt_rounds import PromptRounds, Proposed, RoundsLoss, find_overlap, prepare_rounds
from effvit_med.training.prompt_samples import (
    DrawScened,
    PickObjectd,
    pick_object,
    spoil,
)
from effvit_med.training.synthetic_shapes import draw_scene


def _batch(patch: tuple[int, ...], count: int = 2) -> dict[str, torch.Tensor]:
    samples = SeededPatches([{}], Compose([DrawScened(patch), PickObjectd("label")]), count)
    rows = [samples[index] for index in range(count)]
    return {name: torch.stack([row[name] for row in rows]) for name in ("image", "truth", "before")}


@pytest.mark.parametrize("patch", [(48, 40), (16, 24, 20)])
def test_a_sample_is_made_of_nothing(patch: tuple[int, ...]) -> None:
    """Image, object and mask so far share a size; the object is neither empty nor everything."""
    batch = _batch(patch, 6)
    for each in batch.values():
        assert each.shape == (6, 1, *patch)
        assert each.dtype == torch.float32
    share = batch["truth"].flatten(1).mean(1)
    assert ((share > 0) & (share < 1)).all()


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30, deadline=None)
def test_an_object_is_made_of_whole_labels_or_their_pieces(seed: int, background: bool) -> None:
    """Where a voxel of a piece is in, all voxels of its label that hang together with it are."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    labels = draw_scene((48, 48), rng)
    mask = pick_object(labels, rng, background=background)
    for value in np.unique(labels[mask]):
        parts, count = ndimage.label(labels == value)
        inside = [bool(mask[parts == number].all()) for number in range(1, count + 1)]
        touched = [bool(mask[parts == number].any()) for number in range(1, count + 1)]
        assert inside == touched
        assert value > 0 or background


def test_most_objects_hang_together() -> None:
    """So that a point says which is meant; and they are small and large."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    masks = [pick_object(draw_scene((64, 64), rng), rng) for _ in range(120)]
    assert np.mean([ndimage.label(mask)[1] == 1 for mask in masks]) > 0.8
    shares = [mask.mean() for mask in masks]
    assert np.mean(np.less(shares, 0.02)) > 0.15
    assert np.mean(np.greater(shares, 0.1)) > 0.15


def test_what_is_learnt_from_is_seen() -> None:
    """Where some labels look like the rest, those that do not are chosen more often; of a scan all alike."""
    labels = np.kron(np.arange(1, 17, dtype=np.uint8).reshape(4, 4), np.pad(np.ones((8, 8), np.uint8), 4))
    rng = np.random.default_rng(0)
    image = (np.isin(labels, (6, 11)) + rng.normal(0, 0.1, labels.shape)).astype(np.float32)
    case = {"image": torch.from_numpy(image)[None], "label": torch.from_numpy(labels)[None]}

    def share_seen(**more: str) -> float:
        pick = PickObjectd("label")
        pick.set_random_state(0)
        truths = [pick({**case, **more})["truth"][0].numpy() > 0 for _ in range(100)]
        return float(np.mean([image[truth].mean() > 0.4 for truth in truths]))

    assert share_seen() > 2 * share_seen(image_file="scan", label_file="labels") > 0


def test_an_object_may_have_what_lies_inside_of_it() -> None:
    """Of a ring about a core the whole disc is meant at times; of a scan never, as its labels say what is meant."""
    away = np.hypot(*(np.indices((48, 48)) - 24.0))
    labels = ((away < 18).astype(np.uint8) + (away < 8)).astype(np.uint8)
    rng = np.random.default_rng(0)
    sizes = [{int(pick_object(labels, rng, background=made).sum()) for _ in range(60)} for made in (True, False)]
    ring, core, disc = int((labels == 1).sum()), int((labels == 2).sum()), int((labels > 0).sum())
    assert sizes[0] >= {ring, core, disc}
    masks = [pick_object(np.where(labels == 2, 0, labels), rng, background=False) for _ in range(30)]
    assert {int(mask.sum()) for mask in masks} == {ring}


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_a_spoiled_mask_is_still_about_the_object(seed: int) -> None:
    """It has no voxel far from the object."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    labels = draw_scene((64, 64), rng)
    truth = np.zeros((64, 64), bool)
    truth[20:44, 18:40] = True
    away = ndimage.distance_transform_edt(~truth)
    assert away[spoil(truth, labels, rng)].max(initial=0) <= 12


@pytest.mark.parametrize("proposals", [1, 3])
def test_each_round_is_answered(proposals: int) -> None:
    """One map of logits a round, all of them learnt from."""
    batch, aim = prepare_rounds(_batch((32, 32)))
    rounds = PromptRounds(build_prompt_network(2, preset="prompt_tiny", proposals=proposals), rounds=3)
    answers = rounds(batch)
    assert answers.logits.shape == (2, 3, proposals, 32, 32)
    assert rounds.eval()(batch).shape == (2, 3, 32, 32)
    RoundsLoss()(answers, aim).backward()
    assert all(each.grad is not None for each in rounds.parameters())


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    """And a wrong one much more."""
    truth = (torch.rand(2, 1, 24, 24) > 0.5).float()
    right = (truth * 40 - 20)[:, None].expand(-1, 3, -1, -1, -1)
    loss, scores = RoundsLoss(), torch.zeros(2, 3, 1)
    assert loss(Proposed(right, scores), truth) < 0.01
    assert loss(Proposed(-right, scores), truth) > 1


def _propose(*masks: torch.Tensor, judged: Sequence[float] = ()) -> Proposed:
    """Proposals of one round that are sure of themselves, and what the judge says of them."""
    logits = torch.stack([mask * 40 - 20 for mask in masks], dim=1)[:, None, :, 0]
    scores = torch.tensor(judged or [0.5] * len(masks)).logit().expand(len(logits), 1, -1)
    return Proposed(logits, scores)


def test_of_several_proposals_the_best_counts() -> None:
    """Whatever it is beside, so that one may be of the small and one of the large thing."""
    small, large = torch.zeros(2, 1, 1, 24, 24)
    small[..., 8:14, 8:14], large[..., 4:22, 4:22] = 1, 1
    loss = RoundsLoss(others=0.0)
    for truth, judged in ((small, (0.999, 0.2)), (large, (0.2, 0.999))):
        assert loss(_propose(small, large, judged=judged), truth) < 0.01
        assert loss(_propose(1 - small, 1 - large, judged=(0.5, 0.5)), truth) > 0.5


def test_the_judge_learns_which_dice_a_proposal_has() -> None:
    """Its loss is least where it says just that."""
    truth = torch.zeros(1, 1, 24, 24)
    truth[..., 4:16, 4:16] = 1
    half = truth.clone()
    half[..., 10:, :] = 0
    torch.testing.assert_close(find_overlap(_propose(truth, half).logits, truth)[0, 0], torch.tensor([1.0, 2 / 3]))
    right, wrong = (RoundsLoss()(_propose(truth, half, judged=each), truth) for each in ((0.999, 0.667), (0.4, 0.999)))
    assert right < wrong


def test_a_run_started_anew_hears_the_same_reader() -> None:
    """The reader of an epoch depends on the seed and the epoch, not on what was before."""
    batch, _ = prepare_rounds(_batch((32, 32)))
    rounds = PromptRounds(build_prompt_network(2, preset="prompt_tiny", norm="batch"), rounds=2)
    rounds.network.eval()  # statistics stay; the reader's mood is that of training
    rounds.training = True
    rounds.start_epoch(4)
    first = rounds(batch)
    rounds(batch)
    rounds.start_epoch(4)
    torch.testing.assert_close(rounds(batch).logits, first.logits)


def test_the_mask_so_far_is_kept_from_some_samples_in_training_alone() -> None:
    """So that the network can think anew from all prompts; which samples depends on the seed and the round alone."""
    rounds = PromptRounds(build_prompt_network(2, preset="prompt_tiny"), forget=0.3)
    now = torch.ones(400, 4, 4)
    kept = rounds._remembered([0, 1], now)
    assert kept.shape == (400, 1, 1, 1)
    assert 0.6 < kept.mean() < 0.8
    assert torch.equal(kept, rounds._remembered([0, 1], now))
    assert rounds.eval()._remembered([0, 1], now).all()


def test_no_rounds_are_refused() -> None:
    """At least one."""
    with pytest.raises(SettingsError, match="rounds is 0"):
        PromptRounds(build_prompt_network(2, preset="prompt_tiny"), rounds=0)


def test_readers_side_by_side_point_where_one_would() -> None:
    """The answers are the same with two processes of readers as with none."""
    batch, _ = prepare_rounds(_batch((32, 32), 3))
    network = build_prompt_network(2, preset="prompt_tiny").eval()
    alone, together = (PromptRounds(network, rounds=2, processes=count).train() for count in (0, 2))
    network.eval()
    torch.testing.assert_close(together(batch).logits, alone(batch).logits)


def test_a_negative_number_of_readers_is_refused() -> None:
    """It says the number."""
    with pytest.raises(SettingsError, match="processes is -1"):
        PromptRounds(build_prompt_network(2, preset="prompt_tiny"), processes=-1)
