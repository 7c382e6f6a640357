"""Between an image of any size and SAM's square frame."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import SettingsError
from effvit_med.networks.presets.sam import SAM_MEAN, SAM_STD
from effvit_med.networks.sam_frame import SamFrame, fit_inside, prepare_image

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@given(size=SIZES, part=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_point_goes_there_and_back(size: tuple[int, int], part: tuple[float, float]) -> None:
    """Frame and image are inverse to each other for points anywhere in the image."""
    frame = SamFrame(size)
    point = torch.tensor([part[0] * size[1], part[1] * size[0]], dtype=torch.float64)
    there = frame.to_frame(point)
    torch.testing.assert_close(frame.to_image(there), point)
    rows, columns = frame.inner_size
    assert 0 <= there[0] <= columns + 1e-6
    assert 0 <= there[1] <= rows + 1e-6


@given(size=SIZES)
def test_the_longest_side_fills_the_frame(size: tuple[int, int]) -> None:
    """The longest side becomes the frame's; the other keeps the proportion to half a pixel, and is at least 1."""
    rows, columns = SamFrame(size).inner_size
    assert max(rows, columns) == 1024
    assert abs(rows - max(1, size[0] * 1024 / max(size))) <= 0.5
    assert abs(columns - max(1, size[1] * 1024 / max(size))) <= 0.5


def test_points_are_x_then_y() -> None:
    """The first number runs along the columns: on a wide image it alone reaches the far end of the frame."""
    far = SamFrame((100, 200)).to_frame(torch.tensor([200.0, 100.0]))
    torch.testing.assert_close(far, torch.tensor([1024.0, 512.0]))


def test_a_box_is_two_points() -> None:
    """Both corners of a box go where points go, whole numbers as well."""
    frame = SamFrame((333, 77))
    box = torch.tensor([[3, 5, 60, 300]])
    corners = frame.to_frame(box.reshape(1, 2, 2))
    torch.testing.assert_close(frame.boxes_to_frame(box), corners.reshape(1, 4))


@given(size=st.tuples(st.integers(1, 150), st.integers(1, 150)), low=st.sampled_from([8, 32, 256]))
def test_restored_masks_have_the_size_of_the_image(size: tuple[int, int], low: int) -> None:
    """Whatever the image's size, its masks come back at that size, and a constant stays that constant."""
    masks = SamFrame(size, size=128).restore_masks(torch.full((2, 3, low, low), -1.5))
    assert tuple(masks.shape) == (2, 3, *size)
    torch.testing.assert_close(masks, torch.full_like(masks, -1.5))


def test_a_mask_comes_back_where_it_was() -> None:
    """The edge of a mask along the columns of a tall image is restored to the pixel."""
    frame = SamFrame((200, 100))
    low = torch.where(torch.arange(256) < 32, 1.0, -1.0).expand(1, 1, 256, 256)
    restored = frame.restore_masks(low) > 0
    assert restored[0, 0].sum(1).unique().tolist() == [25]  # 32 of 256 columns of the frame, 128 of which are image


def test_an_image_is_normalised_then_filled_up_with_zeros() -> None:
    """Three channels get SAM's mean and deviation; what is filled up at the bottom and the right is 0."""
    image = torch.tensor(SAM_MEAN).reshape(1, 3, 1, 1) + torch.tensor(SAM_STD).reshape(1, 3, 1, 1)
    pixels, frame = prepare_image(image.expand(1, 3, 60, 30), 40)
    wanted = torch.zeros(1, 3, 40, 40)
    wanted[..., :20] = 1.0
    torch.testing.assert_close(pixels, wanted, atol=1e-5, rtol=0)
    assert frame.image_size == (60, 30)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_get_the_average_mean(channels: int) -> None:
    """Where there are not three channels each has the average of SAM's means; bytes are taken as they are."""
    image = torch.full((2, channels, 8, 8), 100, dtype=torch.uint8)
    pixels, _ = prepare_image(image, 8)
    wanted = (100 - sum(SAM_MEAN) / 3) / (sum(SAM_STD) / 3)
    torch.testing.assert_close(pixels, torch.full((2, channels, 8, 8), wanted))


def test_an_image_is_averaged_where_it_shrinks() -> None:
    """A fine checkerboard becomes grey and not one of its colours."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    image = ((rows + columns) % 2 * 200.0)[None, None]
    pixels, _ = prepare_image(image, 16, mean=(100.0,), std=(1.0,))
    assert pixels[..., 2:-2, 2:-2].abs().max() < 1.0


def test_an_image_of_the_input_size_is_only_normalised() -> None:
    """No interpolation touches an image that fits."""
    image = torch.rand(1, 1, 32, 20) * 255
    pixels, _ = prepare_image(image, 32, mean=(0.0,), std=(1.0,))
    assert torch.equal(pixels[..., :20], image)


def test_a_thin_image_keeps_a_row() -> None:
    """An image of one row does not vanish."""
    assert fit_inside((1, 5000), 512) == (1, 512)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: SamFrame((0, 5)), r"An image of \(0, 5\) .* frame of 1024"),
        (lambda: SamFrame((5, 5), size=0), "frame of 0"),
        (lambda: prepare_image(torch.zeros(1, 1, 8, 8), 0), "input_size is 0"),
        (lambda: prepare_image(torch.zeros(1, 2, 8, 8), 8, mean=(1.0,)), r"mean is \(1.0,\) with 1 .* has 2 channels"),
        (lambda: prepare_image(torch.zeros(1, 2, 8, 8), 8, std=(1.0,) * 3), "std is .* with 3 .* has 2 channels"),
    ],
)
def test_impossible_numbers_are_refused(call: object, text: str) -> None:
    """The message names the value."""
    with pytest.raises(SettingsError, match=text):
        call()  # type: ignore[operator]
