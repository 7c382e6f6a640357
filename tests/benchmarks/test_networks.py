"""The table of the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.networks import OUT_CHANNELS, Measurement, count_parameters, cpu_seconds, to_markdown


def test_each_size_has_a_table_with_its_networks() -> None:
    """A network stands under its own size only."""
    rows = [Measurement("A", (96, 96, 96), 1_050_000, 0.4, 0.3, 0.5, 1.0), Measurement("B", (512, 512), 1, 1, 1, 1, 2)]
    first, second = to_markdown(rows, 7).split("## ")[1:]
    assert first.startswith("96 x 96 x 96\n")
    assert "| A | 1.05 M | 0.400 (0.300 to 0.500) | 1.0 |" in first
    assert "| B |" not in first
    assert second.startswith("512 x 512\n")
    assert "| B |" in second


def test_parameters_are_counted_with_biases() -> None:
    """3 x 4 weights and 4 biases are 16 parameters."""
    assert count_parameters(nn.Linear(3, 4)) == 16


def test_output_that_is_not_full_size_is_not_timed() -> None:
    """A network of another output size would be compared unfairly."""
    image = torch.zeros(1, 1, 8, 8)
    cpu_seconds(lambda x: x.expand(1, OUT_CHANNELS, 8, 8), image)  # full size raises nothing
    with pytest.raises(ValueError, match="not full size"):
        cpu_seconds(lambda x: x.new_zeros(1, OUT_CHANNELS, 4, 4), image)
