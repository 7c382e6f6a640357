"""Facts about `effvit_med.batch.options`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.batch import BatchOptions, Shard
from effvit_med.errors import SettingsError


@given(st.text(min_size=1), st.integers(1, 40))
def test_every_case_belongs_to_one_shard(name: str, count: int) -> None:
    """Shards are disjoint and make the whole."""
    assert [Shard(index, count).holds(name) for index in range(1, count + 1)].count(True) == 1


def test_shards_are_about_equally_large() -> None:
    """Of 4,000 names each of four shards holds a quarter, give or take a tenth of it."""
    sizes = [sum(Shard(index, 4).holds(f"CT_{number}") for number in range(4000)) for index in range(1, 5)]
    assert all(900 < size < 1100 for size in sizes)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "a/b", "-1/4", ""])
def test_a_shard_that_is_not_there_is_an_error(text: str) -> None:
    """The message says what was given."""
    with pytest.raises(SettingsError, match="shard"):
        Shard.from_text(text)


def test_numbers_that_make_no_sense_are_errors() -> None:
    """Retries cannot be negative, time limits must be above zero."""
    with pytest.raises(SettingsError, match="retry is -1"):
        BatchOptions(retry=-1)
    with pytest.raises(SettingsError, match="case_timeout_s is 0"):
        BatchOptions(case_timeout_s=0)
