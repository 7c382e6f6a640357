"""The prompt encoder of SAM."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch

from effvit_med.errors import SettingsError
from effvit_med.networks.presets.sam import PromptPreset
from effvit_med.networks.sam_prompt import PromptEncoder, RandomPositionEncoding


@pytest.fixture(name="encoder")
def _encoder() -> PromptEncoder:
    return PromptEncoder(PromptPreset(channels=32, embedding_size=8, frame_size=128, mask_channels=8), norm_eps=1e-6)


def _kind(encoder: PromptEncoder, label: int) -> torch.Tensor:
    return encoder.point_embeddings[label].weight[0]


def _points(*points: tuple[float, float, int]) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.tensor([[list(point) for point in points]])
    return rows[..., :2], rows[..., 2].int()


def test_a_point_is_its_position_and_its_kind(encoder: PromptEncoder) -> None:
    """A token is the code of the pixel's centre plus what was learnt for its label."""
    sparse, _ = encoder(points=_points((20.0, 50.0, 1), (20.0, 50.0, 0)))
    code = encoder.pe_layer(torch.tensor([20.5, 50.5]) / 128)
    torch.testing.assert_close(sparse[0, 0], code + _kind(encoder, 1))
    torch.testing.assert_close(sparse[0, 1], code + _kind(encoder, 0))


def test_points_without_a_box_are_followed_by_no_point(encoder: PromptEncoder) -> None:
    """Where there is no box a last token says that there is no further point; with a box it is left out."""
    alone, _ = encoder(points=_points((20.0, 50.0, 1)))
    beside, _ = encoder(points=_points((20.0, 50.0, 1)), boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    assert torch.equal(alone[0, 1], encoder.not_a_point_embed.weight[0])
    assert (alone.shape[1], beside.shape[1]) == (2, 3)
    assert torch.equal(alone[:, 0], beside[:, 0])


def test_a_place_filled_up_forgets_its_position(encoder: PromptEncoder) -> None:
    """A point of label -1 is the same token wherever it is."""
    sparse, _ = encoder(points=_points((20.0, 50.0, -1), (90.0, 3.0, -1)))
    assert torch.equal(sparse[0], encoder.not_a_point_embed.weight.expand(3, -1))


def test_a_box_is_two_points_of_its_own_kinds(encoder: PromptEncoder) -> None:
    """The corners have the codes that points there have, plus what was learnt for first and second corners."""
    box, _ = encoder(boxes=torch.tensor([[10.0, 12.0, 80.0, 90.0]]))
    corners, _ = encoder(points=_points((10.0, 12.0, 1), (80.0, 90.0, 1)))
    for index in (0, 1):
        moved = corners[0, index] - _kind(encoder, 1) + _kind(encoder, 2 + index)
        torch.testing.assert_close(box[0, index], moved)


def test_a_box_may_have_an_axis_of_one(encoder: PromptEncoder) -> None:
    """Tools that give (batch, 1, 4) are understood."""
    boxes = torch.tensor([[10.0, 12.0, 80.0, 90.0], [1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(encoder(boxes=boxes)[0], encoder(boxes=boxes[:, None])[0])


def test_x_comes_first(encoder: PromptEncoder) -> None:
    """The grid's code at row r and column c is that of the point (x, y) = (c, r) there."""
    grid = encoder.get_dense_pe()
    code = encoder.pe_layer(torch.tensor([(5 + 0.5) / 8, (2 + 0.5) / 8]))
    torch.testing.assert_close(grid[0, :, 2, 5], code)
    assert torch.equal(grid, encoder.encode_grid())


def test_no_mask_is_one_vector_everywhere(encoder: PromptEncoder) -> None:
    """Without a mask the dense embedding is what was learnt for no mask."""
    _, dense = encoder(boxes=torch.rand(3, 4))
    assert torch.equal(dense, encoder.no_mask_embed.weight.reshape(1, 32, 1, 1).expand(3, 32, 8, 8))


def test_a_mask_is_seen_where_it_is(encoder: PromptEncoder) -> None:
    """A change of 4 x 4 pixels of a mask changes one pixel of the dense embedding."""
    mask = torch.zeros(1, 1, 32, 32)
    changed = mask.clone()
    changed[..., 8:12, 20:24] = torch.randn(4, 4)
    difference = (encoder(masks=mask)[1] - encoder(masks=changed)[1]).abs().amax((0, 1))
    assert difference.nonzero().tolist() == [[2, 5]]


def test_no_prompt_is_no_token(encoder: PromptEncoder) -> None:
    """Without any prompt the batch is 1 and there is no sparse token."""
    sparse, dense = encoder()
    assert tuple(sparse.shape) == (1, 0, 32)
    assert tuple(dense.shape) == (1, 32, 8, 8)


def test_half_precision_keeps_the_position(encoder: PromptEncoder) -> None:
    """Under autocast the codes are those of float32: neighbouring pixels stay apart."""
    points = _points((100.0, 100.0, 1), (101.0, 100.0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = encoder(points=points)[0]
    torch.testing.assert_close(reduced.float(), encoder(points=points)[0], atol=1e-6, rtol=0)


def test_odd_codes_are_refused() -> None:
    """Half of a code are sines."""
    with pytest.raises(SettingsError, match="has 5 channels"):
        RandomPositionEncoding(5)


@pytest.mark.parametrize(
    ("prompts", "text"),
    [
        ({"points": (torch.zeros(1, 2, 2), torch.zeros(1, 3))}, r"labels \(1, 3\); give"),
        ({"boxes": torch.zeros(1, 2, 4)}, r"boxes have the shape \(1, 2, 4\)"),
        ({"masks": torch.zeros(1, 1, 16, 32)}, r"masks have the shape \(1, 1, 16, 32\); give \(batch, 1, 32, 32\)"),
        ({"boxes": torch.zeros(2, 4), "masks": torch.zeros(3, 1, 32, 32)}, "differ in number: {'boxes': 2, 'masks': 3"),
    ],
)
def test_wrong_shapes_are_refused(
    encoder: PromptEncoder, prompts: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the shape and what is wanted."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the check in question is ours
    with pytest.raises(SettingsError, match=text):
        encoder(**prompts)
