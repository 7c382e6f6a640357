"""Facts about `effvit_med.planning.choice`."""

from __future__ import annotations

import pytest

from effvit_med.errors import SettingsError
from effvit_med.planning.choice import KINDS, Chooser, read_overrides


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    """A slip of the finger is told what was meant."""
    with pytest.raises(SettingsError, match=r"no choice 'bach_size'\. Did you mean 'batch_size'"):
        read_overrides(["bach_size=4"])


@pytest.mark.parametrize(
    "entry", ["patch=[1, 2]", "batch_size=0", "spatial_dims=4", "overlap=1.5", "norm=layer", "mirror_axes=[3]",
              "spacing_mm=[.inf, 1, 1]", "epochs=[", "learning_rate=-1", "epochs"],
)  # fmt: skip
def test_an_impossible_value_is_refused(entry: str) -> None:
    """Before any scan is read."""
    with pytest.raises(SettingsError, match="--set"):
        read_overrides([entry])


def test_a_decision_of_the_user_is_marked_and_keeps_the_reason_against_it() -> None:
    """plan.md shows what would have been decided, and why."""
    chooser = Chooser(read_overrides(["spacing_mm=[null, 1, 1]"]))
    assert chooser.choose("spacing_mm", (2.0, 1.0, 1.0), "The medians.") == (None, 1.0, 1.0)
    (choice,) = chooser.choices
    assert choice.overridden
    assert choice.reason == "Set by hand. Otherwise it would be 2 x 1 x 1: The medians."


def test_choices_stand_in_the_order_of_kinds() -> None:
    """Whatever the order in which they were taken."""
    chooser = Chooser({})
    for name in reversed(KINDS):
        chooser.choose(name, None, "")
    assert [choice.name for choice in chooser.choices] == list(KINDS)
