"""What each kind of labels leaves of the truth, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("monai")

from benchmarks.partial_labels import ARMS, PARTS, Score, choose_cases, hide_parts, make_model, run, to_markdown


@pytest.mark.parametrize("arm", ["merged", "as background"])
def test_each_part_is_drawn_in_half_of_the_cases(arm: str) -> None:
    """As many structures as the arm with half of the cases has, on the same images as all."""
    cases = [{"image": str(i), "label": str(i)} for i in range(10)]
    chosen = choose_cases(cases, arm)
    assert [case["image"] for case in chosen] == [case["image"] for case in cases]
    drawn = [name for case in chosen for name in case["annotated"]]
    assert [drawn.count(name) for name in PARTS] == [5, 5]
    assert len(choose_cases(cases, "half the cases")) * len(PARTS) == len(drawn)
    assert choose_cases(cases, "all") == cases


def test_what_was_not_drawn_is_background() -> None:
    """And everything stays where nothing is said."""
    label = torch.tensor([0, 1, 2])
    assert hide_parts(label, ["anterior"]).tolist() == [0, 1, 0]
    assert hide_parts(label, None).tolist() == [0, 1, 2]


def test_the_network_has_an_output_for_each_part() -> None:
    """And one for background."""
    model = make_model()
    assert model.head.names(model.labels) == ("background", *PARTS)


def test_the_table_has_a_row_for_each_kind() -> None:
    """With its mean and interval."""
    text = to_markdown([Score(arm, (0.5, 0.7, 0.6), (0.4, 0.8), 3.0) for arm in ARMS], 80, 400, 1)
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:] == list(ARMS)
    assert "0.600" in text


def test_too_few_cases_are_an_error(tmp_path: Path) -> None:
    """The error counts them."""
    with pytest.raises(ValueError, match="has 0 cases with images and labels; 3 are asked for"):
        run(tmp_path, 2, 1, 1, [0])
