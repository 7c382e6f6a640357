"""Facts about the comparison with published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.published import PUBLISHED, Published, agrees, compare, to_markdown


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda each: f"{each.kind} {each.name}".replace(" ", "-"))
def test_every_preset_has_its_published_parameters_and_products(published: Published) -> None:
    """Our counts are the published ones, to their last digit, at the smallest published image size."""
    size = min(published.gmac)
    assert compare(replace(published, gmac={size: published.gmac[size]})).equal != "no"


def test_another_figure_is_told_apart() -> None:
    """A parameter count or a product that is one unit off in its last digit is no agreement, and the table says so."""
    right = Published("classifier", "shvit_s1", "6.331", {224: "0.241"})
    wrong = [replace(right, parameters_m="6.332"), replace(right, gmac={224: "0.242"})]
    assert [compare(each).equal for each in (right, *wrong)] == ["yes", "no", "no"]
    assert "0 of 1 models agree" in to_markdown([compare(wrong[0])])


def test_agreement_is_rounding_to_the_published_digits() -> None:
    """Half a unit of the last digit agrees, more does not."""
    assert agrees(1.2349, "1.23")
    assert not agrees(1.2352, "1.23")
