"""Operations and traffic of a network."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks.engine_peak import best_seconds, count_traffic, median_seconds


class _Thin(nn.Module):
    """Adds one to an image: reads it and writes it; a view before that moves nothing."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) + 1


def test_traffic_is_what_operators_read_and_write_and_views_are_free() -> None:
    """An addition moves the image twice, the reshaping before it nothing."""
    image = torch.zeros(1, 1, 8, 8, 8)
    assert count_traffic(_Thin(), image) == 2 * image.nbytes  # type: ignore[arg-type]


def test_cpu_time_of_a_call_is_told() -> None:
    """Work of some milliseconds is counted as such by both clocks, and sleeping is not."""

    def work() -> None:
        start = time.process_time()
        while time.process_time() - start < 0.01:
            pass

    assert 0.009 < best_seconds(work, 2) < 0.05
    assert 0.009 < median_seconds(work, 2) < 0.05
    assert median_seconds(lambda: time.sleep(0.02), 1) < 0.01
