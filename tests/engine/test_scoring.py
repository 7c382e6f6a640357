"""Facts about `effvit_med.engine.scoring`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from effvit_med.engine.scoring import HeldRows, Scoring, grid_stride, score_volume, stream_scores
from effvit_med.engine.tiling import Tiling
from effvit_med.transforms import Preprocess

SPACING = (1.0, 1.0, 1.0)
sizes = st.tuples(*[st.integers(1, 21)] * 3)


def _pointwise(tiles: torch.Tensor) -> torch.Tensor:
    """A network that looks at one voxel at a time: its answer cannot depend on tiling."""
    return torch.stack([tiles[:, 0], 2 * tiles[:, 0] + 1, -tiles[:, 0]], dim=1)


@given(sizes, st.floats(0, 0.8), st.integers(1, 3))
def test_tiling_does_not_change_a_pointwise_network(size, overlap: float, batch_size: int) -> None:
    """Cut up, scored and blended is the same as scored whole, but for the rounding of up to 125 summands."""
    values = torch.randn(1, *size)
    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), overlap), (1, 1, 1), batch_size)
    whole = _pointwise(values[None])[0]
    rounding = 125 * torch.finfo(torch.float32).eps * (1 + whole.abs())
    assert ((score_volume(values, _pointwise, scoring) - whole).abs() <= rounding).all()


@given(sizes, st.integers(0, 2))
def test_the_middle_slice_of_a_stack_is_what_is_labelled(size, neighbours: int) -> None:
    """A 2.5D network that passes its middle channel on gives back the volume."""
    values = torch.randn(1, *size)
    scoring = Scoring(
        Preprocess(SPACING, spatial_dims=2, neighbours=neighbours), Tiling((4, 8, 8), 0.5), (1, 1, 1), batch_size=2
    )
    scores = score_volume(values, lambda tiles: tiles[:, neighbours : neighbours + 1], scoring)
    assert torch.allclose(scores, values, atol=1e-5)


@given(st.integers(1, 12), st.integers(0, 2), st.integers(1, 9))
def test_slices_at_a_time_do_not_change_a_25d_network(slices: int, neighbours: int, at_a_time: int) -> None:
    """A network that averages its stack gives the same for one slice at a time and for many, also at the ends."""
    values = torch.randn(1, slices, 8, 8)
    preprocess = Preprocess(SPACING, spatial_dims=2, neighbours=neighbours)

    def score(count: int) -> torch.Tensor:
        scoring = Scoring(preprocess, Tiling((count, 8, 8), 0.5), (1, 1, 1))
        return score_volume(values, lambda tiles: tiles.mean(dim=1, keepdim=True), scoring)

    assert torch.allclose(score(at_a_time), score(1), atol=1e-5)


@given(st.tuples(*[st.integers(2, 21)] * 3))
def test_a_coarse_output_has_one_value_per_block(size) -> None:
    """At output stride 2 there are ceil(n / 2) scores along each axis, each the mean of its block."""
    values = torch.randn(1, *size)
    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), 0.5), (2, 2, 2))
    scores = score_volume(values, lambda tiles: torch.nn.functional.avg_pool3d(tiles, 2), scoring)
    whole = torch.nn.functional.avg_pool3d(values[None], 2)[0]
    assert scores.shape[1:] == tuple(-(-n // 2) for n in size)
    inside = tuple(slice(0, n) for n in whole.shape)
    assert torch.allclose(scores[inside], whole, atol=1e-5)


def test_progress_counts_to_the_end() -> None:
    """The last call says that all windows are done."""
    calls: list[tuple[int, int]] = []
    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), 0.5), (1, 1, 1), batch_size=3)
    score_volume(torch.zeros(1, 8, 12, 12), _pointwise, scoring, lambda done, total: calls.append((done, total)))
    assert calls == [(3, 4), (4, 4)]


def test_stopping_stops_between_windows() -> None:
    """What progress raises ends the run at once."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8)), (1, 1, 1))
    with pytest.raises(KeyboardInterrupt):
        score_volume(torch.zeros(1, 8, 8, 80), _pointwise, scoring, stop)


@pytest.mark.parametrize(("output", "grid"), [((2, 2, 2), (2, 2, 2)), ((4, 4), (1, 4, 4))])
def test_a_2d_network_leaves_the_slices_alone(output, grid) -> None:
    """The grid's stride along the slices of a 2D network is 1."""
    assert grid_stride(output) == grid


class _Counting(HeldRows):
    """Rows that remember how often each was read."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__(values)
        object.__setattr__(self, "reads", torch.zeros(values.shape[1], dtype=torch.int64))

    def read(self, start: int, stop: int) -> torch.Tensor:
        self.reads[start:stop] += 1
        return super().read(start, stop)


@given(sizes, st.floats(0, 0.8))
def test_each_row_is_prepared_once(size, overlap: float) -> None:
    """Windows overlap, but what they share is not read again."""
    rows = _Counting(torch.randn(1, *size))
    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), overlap), (1, 1, 1))
    list(stream_scores(rows, _pointwise, scoring))
    assert rows.reads.tolist() == [1] * size[0]


@given(st.tuples(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9)), st.floats(0, 0.8))
def test_rows_come_in_order_as_soon_as_no_window_touches_them(size, overlap: float) -> None:
    """The stream has every row once, never more of them at a time than a window is long."""
    values = torch.randn(1, *size)
    scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), overlap), (1, 1, 1))
    parts = [part.clone() for part in stream_scores(HeldRows(values), _pointwise, scoring)]
    assert max(map(len, parts)) <= 8
    assert torch.cat(parts).shape[:3] == size
    assert torch.allclose(torch.cat(parts)[..., 0], values[0], atol=1e-4)


def test_scores_are_held_for_one_window_only() -> None:
    """Ten times the rows take no more memory: the largest tensor that the stream makes stays the same."""

    def largest(rows: int) -> int:
        values = torch.zeros(1, 1, 8, 8).expand(1, rows, 8, 8)
        scoring = Scoring(Preprocess(SPACING), Tiling((8, 8, 8), 0.5), (1, 1, 1))
        sizes: list[int] = []

        class Watch(TorchFunctionMode):
            def __torch_function__(self, func, types, args=(), kwargs=None):
                result = func(*args, **(kwargs or {}))
                if isinstance(result, torch.Tensor) and result._base is None:
                    sizes.append(result.untyped_storage().nbytes())
                return result

        with Watch():
            for _ in stream_scores(HeldRows(values), _pointwise, scoring):
                pass
        return max(sizes)

    assert largest(400) == largest(40)
