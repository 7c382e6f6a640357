"""What the measurements of the networks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.network_list import REFERENCE
from benchmarks.network_measuring import Conditions, Measurement
from benchmarks.network_report import (
    TARGETS,
    exponent_of,
    fit_exponent,
    list_headlines,
    ratio_of,
    to_markdown,
)

B1 = REFERENCE[2]


def timed(network: str, edge: int, seconds: float, dims: int = 2, fresh: float = 1.0) -> Measurement:
    return Measurement(network, dims, edge, 4_800_000, 6.2, 40.0, (fresh,), (seconds,))


@given(st.floats(0.5, 3), st.floats(1e-3, 1e3))
def test_exponent_is_that_of_a_power_law(exponent: float, factor: float) -> None:
    """Times that are a power of the voxels give this power, whatever the unit."""
    points = [(edge**2, factor * float(edge**2) ** exponent) for edge in (512, 1024, 2048)]
    assert fit_exponent(points) == pytest.approx(exponent, rel=1e-6)


def test_exponent_needs_all_sizes() -> None:
    """A fit over fewer sizes would not be comparable; one over one size is none."""
    two = [timed("A", edge, edge**2 * 1e-6) for edge in (512, 1024)]
    assert exponent_of(two, "A", 2) is None
    assert exponent_of([*two, timed("A", 2048, 2048**2 * 1e-6)], "A", 2) == pytest.approx(1.0)
    assert fit_exponent([(4, 1.0)]) is None


def test_exponent_of_the_fresh_process_is_another() -> None:
    """That of the default allocator is told beside that of the run."""
    rows = [timed("A", edge, edge**2 * 1e-6, fresh=(edge**2) ** 1.3) for edge in (512, 1024, 2048)]
    assert exponent_of(rows, "A", 2, fresh=True) == pytest.approx(1.3)


def test_other_networks_and_axes_are_left_out_of_a_fit() -> None:
    """Only a network's own times of its own number of axes count."""
    mine = [timed("A", edge, edge**2 * 1e-6) for edge in (512, 1024, 2048)]
    others = [timed("B", 512, 9.0), timed("A", 512, 9.0, dims=3)]
    assert exponent_of([*mine, *others], "A", 2) == pytest.approx(1.0)


def test_ratios_are_over_our_reference_at_the_same_size() -> None:
    """5 s over 0.5 s is 10 times; other sizes do not count."""
    rows = [timed(B1, 1024, 0.5), timed(B1, 512, 0.1), timed(TARGETS[0].peer, 1024, 5.0)]
    assert ratio_of(rows, TARGETS[0]) == pytest.approx(10)
    assert ratio_of(rows, TARGETS[1]) is None


@pytest.mark.parametrize(("seconds", "verdict"), [(5.0, "reached"), (4.9, "missed")])
def test_headlines_say_whether_the_target_is_reached(seconds: float, verdict: str) -> None:
    """10 times is enough, 9.8 is not, and what was not measured is said to be so."""
    rows = [timed(B1, 1024, 0.5), timed(TARGETS[0].peer, 1024, seconds)]
    headlines = list_headlines(rows, [B1])
    assert headlines[0][1:] == [f"{seconds / 0.5:.1f}x", "at least 10x", verdict]
    assert [row[3] for row in headlines[1:]] == ["not measured"] * 6


def test_headlines_show_the_largest_growth_of_ours() -> None:
    """The worst of our networks is named, not the best."""
    rows = [timed(B1, edge, (edge**2) ** 1.05) for edge in (512, 1024, 2048)]
    rows += [timed("Other", edge, (edge**2) ** 1.2) for edge in (512, 1024, 2048)]
    _, mine, _, worst = list_headlines(rows, [B1, "Other"])[4:]
    assert mine[1:] == ["1.050", "at most 1.10", "reached"]
    assert "Other, the largest of ours" in worst[0]
    assert worst[1:] == ["1.200", "none", "-"]


def test_growth_beyond_the_target_is_missed() -> None:
    """An exponent of 1.2 is told as such."""
    rows = [timed(B1, edge, (edge**2) ** 1.2) for edge in (512, 1024, 2048)]
    assert list_headlines(rows, [B1])[5][1:] == ["1.200", "at most 1.10", "missed"]


def test_each_number_of_axes_has_its_tables() -> None:
    """A network stands with its own figures, under its own number of axes only, and a skipped size says why."""
    rows = [
        timed(B1, 512, 0.1234),
        timed("A", 512, 0.4936),
        Measurement("A", 2, 1024, 4_800_000, 24.8, skipped="skipped: about 300 s"),
        timed("V", 64, 2.0, dims=3),
    ]
    text = to_markdown(rows, Conditions(), [B1])
    flat, deep = text.split("## 3D: CPU seconds")
    assert "| A | 0.494 | skipped: about 300 s | - | - |" in flat
    assert "| A | 4.00 | skipped: about 300 s |" in flat
    assert "| A | 6.2 | 24.8 | 4.80 M |" in flat
    assert "| V |" not in flat
    assert "| V | 2.00 | - | - |" in deep


def test_conditions_are_told() -> None:
    """GPU seconds are not called CPU seconds, and the allocator is named."""
    rows = [timed(B1, 512, 0.1)]
    assert "freed memory kept" in to_markdown(rows, Conditions(), [B1])
    gpu = to_markdown(rows, Conditions(device="cuda", precision="bfloat16", batch=8, allocator="default"), [B1])
    assert "GPU seconds, one GPU, bfloat16, eager" in gpu
    assert "batch 8" in gpu
    assert "CPU seconds" not in gpu
