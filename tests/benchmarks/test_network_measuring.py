"""Measuring one forward pass."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from benchmarks.network_list import OUT_CHANNELS, Entry
from benchmarks.network_measuring import (
    Conditions,
    Measurement,
    count_gflops,
    count_repeats,
    explain_skip,
    measure_fresh,
    measure_in_turns,
    peak_memory,
    take_time,
)

CONDITIONS = Conditions(allocator="default", budget_s=0.05)


class Pointwise(nn.Module):
    """A network of one product for each class and pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, OUT_CHANNELS, 1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of the image's size."""
        self.calls += 1
        return self.conv(x)


def point_entry(name: str = "A") -> Entry:
    return Entry(name, 2, lambda size: Pointwise(), is_ours=False)


def measured(edge: int, seconds: float, peak_mib: float, gflops: float) -> Measurement:
    return Measurement("A", 2, edge, 1, gflops, peak_mib, (seconds,))


def test_output_that_is_not_full_size_is_not_timed() -> None:
    """A network of another output size would be compared unfairly."""
    image = torch.zeros(1, 1, 8, 8)
    take_time(nn.Conv2d(1, OUT_CHANNELS, 1), image, CONDITIONS)  # full size raises nothing
    with pytest.raises(ValueError, match="not full size"):
        take_time(nn.Conv2d(1, OUT_CHANNELS, 2, 2), image, CONDITIONS)


def test_bfloat16_is_what_the_network_computes_in() -> None:
    """The precision of the conditions reaches the network, as autocast."""
    seen = []

    class Seeing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return x.expand(-1, OUT_CHANNELS, -1, -1)

    for precision in ("float32", "bfloat16"):
        take_time(Seeing(), torch.zeros(1, 1, 8, 8), Conditions(precision=precision))
    assert seen == [None, torch.bfloat16]


def test_operations_are_counted_without_computing() -> None:
    """A point convolution to 14 classes is 14 products a pixel; an image of 100 000 squared would not fit in memory."""
    assert count_gflops(Pointwise(), 2, 100_000) == pytest.approx(100_000**2 * OUT_CHANNELS * 2 / 1e9)
    assert count_gflops(Pointwise(), 2, 10, batch=3) == pytest.approx(3 * 100 * OUT_CHANNELS * 2 / 1e9)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
def test_peak_is_that_of_the_block_alone() -> None:
    """64 MiB that are written and freed within are seen; 128 MiB before are not, and none is where nothing is done."""
    torch.ones(128 * 2**18)
    with peak_memory("cpu") as nothing:
        pass
    with peak_memory("cpu") as something:
        torch.ones(64 * 2**18)
    assert nothing[0] < 8
    assert 60 < something[0] < 72


@given(st.floats(1e-6, 1e4), st.floats(0.1, 100))
def test_repeats_are_two_to_seven_and_fit_the_budget(estimate: float, budget: float) -> None:
    """More than two only as long as they fit."""
    count = count_repeats(estimate, budget)
    assert 2 <= count <= 7
    assert count == 2 or count * estimate <= budget * 1.000001


def test_a_call_that_would_take_too_long_is_left_out() -> None:
    """The estimate follows the products where these grow faster than the pixels: 20 s, 10 times the products, 240 s."""
    following = Measurement("A", 2, 1024, 1, 1000.0)
    assert explain_skip([measured(512, 20.0, 10, 100.0)], following, Conditions()) == "skipped: about 240 s"
    assert explain_skip([measured(512, 9.0, 10, 100.0)], following, Conditions()) == ""
    assert explain_skip([], following, Conditions()) == ""


def test_a_call_that_would_not_fit_into_memory_is_left_out() -> None:
    """Memory that grew tenfold with 4 times the pixels is taken to do so again."""
    done = [measured(512, 0.1, 200, 1.0), measured(1024, 0.4, 2000, 4.0)]
    following = Measurement("A", 2, 2048, 1, 16.0)
    assert explain_skip(done, following, Conditions()) == "skipped: about 20 GiB"
    assert explain_skip(done[1:], following, Conditions()) == ""


def test_a_skipped_size_says_so_and_has_no_figures() -> None:
    """What was left out cannot be mistaken for what was measured."""
    first, second = measure_fresh(point_entry(), [64, 128], Conditions(allocator="default", budget_s=0.01, limit_s=0))
    assert first.fresh_seconds
    assert first.peak_mib is not None
    assert second.skipped.startswith("skipped: about")
    assert (second.fresh_seconds, second.peak_mib, second.fresh_time) == ((), None, None)


def test_longer_networks_have_fewer_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is timed as often as its estimate allows, a short one right after an untimed call."""
    networks = {}

    def prepare(entry: Entry, edge: int) -> tuple[nn.Module, int]:
        networks[entry.name] = Pointwise()
        return networks[entry.name], 1

    monkeypatch.setattr("benchmarks.network_measuring.prepare", prepare)
    fresh = [
        Measurement("short", 2, 8, 1, 0.1, 1.0, (0.001,)),
        Measurement("long", 2, 8, 1, 0.1, 1.0, (6.0,)),
    ]
    short, long = measure_in_turns(
        [point_entry("short"), point_entry("long")], fresh, Conditions(allocator="default", budget_s=20)
    )
    assert (len(short.seconds), len(long.seconds)) == (7, 3)
    assert (networks["short"].calls, networks["long"].calls) == (15, 3)
    assert (short.network, short.fresh_seconds) == ("short", (0.001,))


def test_first_call_of_a_fresh_process_does_not_count() -> None:
    """It prepares kernels; only where it is alone it must do."""
    assert Measurement("A", 2, 8, 1, 0.1, 1.0, (9.0, 1.0, 2.0)).fresh_time == 1.5
    assert Measurement("A", 2, 8, 1, 0.1, 1.0, (9.0,)).fresh_time == 9.0


def test_measurements_come_back_from_json() -> None:
    """As they were, with tuples."""
    before = Measurement("A", 3, 64, 5, 0.5, 12.5, (1.0, 2.0), (3.0,))
    assert Measurement.from_values({**vars(before), "fresh_seconds": [1.0, 2.0], "seconds": [3.0]}) == before


def test_nothing_is_left_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring writes no file."""
    monkeypatch.chdir(tmp_path)
    list(measure_fresh(point_entry(), [16], CONDITIONS))
    assert not list(tmp_path.iterdir())
