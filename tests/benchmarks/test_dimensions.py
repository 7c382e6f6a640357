"""What 2D, 2.5D and 3D are compared by."""

from __future__ import annotations

from benchmarks.dimensions import DIMENSIONS, to_markdown
from effvit_med.planning.choice import read_overrides


def test_patients_count_alike_and_missing_structures_not_at_all() -> None:
    """A patient's Dice is the mean over its frames in which the structure is marked."""
    run = {"dimension": "2D", "steps": 7, "batch_size": 2, "patch": [1, 64, 64], "training_s": 60.0}
    runs = [
        {**run, "fold": 1, "dice": {"p2/ED": [0.5, 0.3], "p2/ES": [0.7, None]}},
        {**run, "fold": 0, "dice": {"p1/ED": [0.8, 0.9]}},
    ]
    row = next(line for line in to_markdown(runs).splitlines() if line.startswith("| 2D"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["2D", "1 x 64 x 64", "2", "7", "1.0", "0.700", "0.800, 0.600", "0.600", "0.900, 0.300"]


def test_every_dimension_can_be_planned() -> None:
    """What is set are choices of the plan."""
    assert all(read_overrides(f"{name}={value}" for name, value in each.items()) for each in DIMENSIONS.values())
