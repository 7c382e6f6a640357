"""Facts about `effvit_med.networks.prompt`."""

from __future__ import annotations

import pytest
import torch

from effvit_med.errors import SettingsError
from effvit_med.networks.presets.prompt import PROMPT_NAMES
from effvit_med.networks.prompt import PROMPT_CHANNELS, build_prompt_network, compare, describe_proposals


@pytest.mark.parametrize("preset", PROMPT_NAMES)
@pytest.mark.parametrize("space", [(40, 33), (17, 1), (20, 24, 19)])
def test_logits_have_the_images_size(preset: str, space: tuple[int, ...]) -> None:
    """Odd or even, in 2D and 3D, whatever the channels of the image."""
    network = build_prompt_network(len(space), 3, preset).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, 3, *space), torch.zeros(2, len(PROMPT_CHANNELS), *space))
    assert logits.shape == (2, 1, *space)
    assert torch.isfinite(logits).all()


def test_features_serve_any_number_of_prompts() -> None:
    """Decoding leaves them as they were, so a second prompt is answered as if the image had been encoded anew."""
    network = build_prompt_network(2, preset="prompt_tiny").eval()
    image, other, wish = torch.randn(1, 1, 40, 48), torch.rand(1, 4, 40, 48), torch.rand(1, 4, 40, 48)
    with torch.inference_mode():
        features = network.encode(image)
        network.decode(features, other)
        torch.testing.assert_close(network.decode(features, wish), network(image, wish))


def test_every_parameter_learns_from_image_and_prompts() -> None:
    """No weight is left without a gradient."""
    network = build_prompt_network(2, preset="prompt_tiny")
    network(torch.randn(2, 1, 64, 64), torch.rand(2, 4, 64, 64)).square().mean().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []


def test_a_prompt_far_away_matters_everywhere() -> None:
    """Attention carries what was pointed at in one corner to the opposite one."""
    torch.manual_seed(0)
    network = build_prompt_network(2, norm="batch").eval()  # no statistics of the whole map
    prompts = torch.zeros(1, 4, 256, 256)
    pointed = prompts.clone()
    pointed[0, 0, :6, :6] = 1
    with torch.inference_mode():
        features = network.encode(torch.randn(1, 1, 256, 256))
        difference = network.decode(features, pointed) - network.decode(features, prompts)
    assert difference[0, 0, -6:, -6:].abs().max() > 0


def test_what_looks_like_what_was_pointed_at_is_told() -> None:
    """In a volume of two kinds of place: 1 where it is the kind of the point, less elsewhere, whatever the contrast."""
    torch.manual_seed(0)
    kinds = torch.randn(2, 8)
    which = torch.randint(0, 2, (4, 5, 6))
    features = 7 * kinds[which].permute(3, 0, 1, 2)[None]
    prompts = torch.zeros(1, 4, 8, 10, 12)
    prompts[0, 0, 2:4, 4:6, 6:8] = 1  # one place of the features
    alike = compare(features, prompts)[0]
    same = which == which[1, 2, 3]
    torch.testing.assert_close(alike[0][same], torch.ones(int(same.sum())), atol=1e-3, rtol=0)
    assert (alike[0][~same] < 0.99).all()
    assert not alike[1:].any()


def test_wrong_numbers_are_refused() -> None:
    """The name, and what there is."""
    with pytest.raises(SettingsError, match="prompt_small"):
        build_prompt_network(2, preset="prompt_huge")
    with pytest.raises(SettingsError, match="in_channels is 0"):
        build_prompt_network(2, 0)
    with pytest.raises(SettingsError, match="channels"):
        build_prompt_network(2, preset="prompt_tiny")(torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8))


def test_the_proposal_judged_best_is_the_answer() -> None:
    """Sample by sample."""
    torch.manual_seed(0)
    network = build_prompt_network(2, preset="prompt_tiny", proposals=3).eval()
    image, prompts = torch.randn(4, 1, 32, 32), torch.zeros(4, 4, 32, 32)
    for sample in range(4):
        prompts[sample, 0, 4 + 6 * sample, 10] = 1
    with torch.inference_mode():
        features = network.encode(image)
        logits, scores = network.propose(features, prompts)
        answer = network.decode(features, prompts)
    assert logits.shape == (4, 3, 32, 32)
    for sample in range(4):
        assert torch.equal(answer[sample, 0], logits[sample, int(scores[sample].argmax())])


@pytest.mark.parametrize("space", [(24, 20), (8, 16, 12)])
def test_a_proposal_is_judged_by_what_lies_in_it(space: tuple[int, ...]) -> None:
    """Its size, what was said within it, and the features there."""
    logits = torch.full((1, 2, *space), -20.0)
    logits[:, 0, : space[0] // 2] = 20
    deepest = torch.zeros(1, 3, *(size // 4 for size in space))
    deepest[:, 1, : space[0] // 8] = 1
    prompts = torch.zeros(1, 4, *space)
    prompts[:, 0, 1], prompts[:, 1, -1] = 1, 1
    finest = torch.zeros(1, 1, *(size // 2 for size in space))
    finest[:, :, : space[0] // 4] = 2
    found = describe_proposals(logits, finest / 2, finest, deepest, prompts)
    assert found.shape == (1, 2, 2 * 3 + 4 * 1 + 7 + 2)
    within, fine, numbers = found[0, 0, :3], found[0, 0, 6:10], found[0, 0, 10:17]
    area, sure, contrast, rim, noise, added, removed = numbers
    assert (contrast > 8, rim > 8, noise < 0.12) == (True, True, True)
    torch.testing.assert_close(within, torch.tensor([0.0, 1.0, 0.0]), atol=1e-2, rtol=0)
    torch.testing.assert_close(fine, torch.tensor([2.0, 0.0, 2.0, 0.0]), atol=0.05, rtol=0)
    assert area**2 == pytest.approx(0.5)
    assert (sure > 0.98, added > 0.98, removed < 0.02) == (True, True, True)
    assert found[0, 1, 10] == 0
