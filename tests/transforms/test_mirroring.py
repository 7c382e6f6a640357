"""What lies beyond the edge of an image."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.transforms import cut_mirrored


@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 3),
    before=st.tuples(*[st.integers(0, 12)] * 3),
    after=st.tuples(*[st.integers(0, 12)] * 3),
)
def test_a_block_around_an_image_is_numpys_symmetric_padding(
    sizes: tuple[int, int, int], before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    """However small the image and however far beyond."""
    values = torch.arange(2 * int(np.prod(sizes))).reshape(2, *sizes)
    stops = [size + more for size, more in zip(sizes, after, strict=True)]
    found = cut_mirrored(values, [-more for more in before], stops)
    wanted = np.pad(values.numpy(), [(0, 0), *zip(before, after, strict=True)], mode="symmetric")
    assert np.array_equal(found.numpy(), wanted)


@given(size=st.integers(1, 6), start=st.integers(-20, 20), length=st.integers(1, 20), shift=st.integers(-3, 3))
def test_any_block_is_cut_out_of_the_endless_image(size: int, start: int, length: int, shift: int) -> None:
    """A block that does not touch the image is part of the same pattern, which repeats after two images."""
    values = torch.arange(size)[None]
    moved = start + 2 * size * shift
    assert torch.equal(cut_mirrored(values, [start], [start + length]), cut_mirrored(values, [moved], [moved + length]))


def test_a_block_within_is_a_view() -> None:
    """Nothing is copied where nothing is mirrored."""
    values = torch.rand(1, 6, 6, 6)
    block = cut_mirrored(values, (1, 2, 3), (4, 6, 6))
    assert torch.equal(block, values[:, 1:4, 2:6, 3:6])
    assert block.data_ptr() == values[:, 1:4, 2:6, 3:6].data_ptr()
