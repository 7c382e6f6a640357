"""One case in flight on each dask worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effvit_med.cluster.window import Outcome, Questions, Window, WindowRules, list_workers
from effvit_med.errors import CancelledError, TemporaryError
from tests.cluster.chores import Chore, OnlyAt, do_chore, was_begun

RULES = WindowRules(poll_s=0.1, no_worker_timeout_s=30)
ASK: Questions[Chore, str] = Questions(begun=was_begun)


def _run(client: Any, chores: list[Chore]) -> dict[str, Outcome[Chore, str]]:
    outcomes = list(Window(client, do_chore, RULES, ASK).run(chores))
    assert len({outcome.payload.name for outcome in outcomes}) == len(outcomes)
    return {outcome.payload.name: outcome for outcome in outcomes}


def _begun(chore: Chore) -> list[str]:
    return [line for line in chore.lines() if line.startswith("begun")]


def test_a_killer_costs_no_healthy_case(dask_client: Any, tmp_path: Path) -> None:
    """Healthy cases beside one that kills every worker are never cut off: each that is begun is done.

    A result that nobody had fetched yet goes down with its worker, and then dask does the case once more.
    """
    healthy = [Chore(f"healthy-{number}", tmp_path) for number in range(8)]
    killer = Chore("killer", tmp_path, deaths=99)
    outcomes = _run(dask_client, [*healthy[:2], killer, *healthy[2:]])
    assert [outcomes[chore.name].result for chore in healthy] == [chore.name for chore in healthy]
    assert all(chore.lines()[1::2] == ["done"] * len(_begun(chore)) for chore in healthy)
    assert max(len(_begun(chore)) for chore in healthy) <= 2


def test_a_killer_is_given_up_after_two_workers(dask_client: Any, tmp_path: Path) -> None:
    """A case that kills its worker is tried once more on another one, and then failed."""
    killer = Chore("killer", tmp_path, deaths=99)
    outcome = _run(dask_client, [killer])["killer"]
    assert outcome.lost_workers == 2
    assert outcome.result is None
    assert len({line.split("-")[2] for line in _begun(killer)}) == 2 == len(_begun(killer))


def test_a_case_that_lost_its_worker_once_is_done_by_another(dask_client: Any, tmp_path: Path) -> None:
    """A worker killed from outside costs one attempt of its case, which then succeeds."""
    chore = Chore("unlucky", tmp_path, deaths=1)
    outcome = _run(dask_client, [chore])["unlucky"]
    assert (outcome.result, outcome.lost_workers) == ("unlucky", 1)


def test_what_a_case_raises_is_its_outcome(dask_client: Any, tmp_path: Path) -> None:
    """An exception is handed over with its case, and nothing is tried again."""
    chore = Chore("raiser", tmp_path, raises=True)
    outcome = _run(dask_client, [chore])["raiser"]
    assert isinstance(outcome.error, ValueError)
    assert len(_begun(chore)) == 1


def test_no_worker_holds_two_cases(dask_client: Any, tmp_path: Path) -> None:
    """Payloads are taken from the source only as workers become free."""
    taken = []

    def source() -> Iterator[Chore]:
        for number in range(6):
            taken.append(number)
            yield Chore(f"chore-{number}", tmp_path, waits_for="go")

    seen: list[int] = []
    polls = iter(range(10**6))

    def open_gate() -> bool:
        if next(polls) == 5:
            seen.append(len(taken))
            (tmp_path / "go").touch()
        return False

    window = Window(dask_client, do_chore, WindowRules(poll_s=0.1), Questions(cancelled=open_gate))
    assert len(list(window.run(source()))) == 6
    assert seen == [2]


def test_a_finished_case_whose_result_was_lost_is_not_done_again(dask_client: Any, tmp_path: Path) -> None:
    """If the journal knows the result of a case whose worker died, that is taken."""
    chore = Chore("killer", tmp_path, deaths=99)
    ask: Questions[Chore, str] = Questions(begun=was_begun, recover=lambda _: "from the journal")
    (outcome,) = Window(dask_client, do_chore, RULES, ask).run([chore])
    assert outcome.result == "from the journal"
    assert len(_begun(chore)) == 1


def test_an_unfit_worker_gets_nothing(dask_client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that finds a fault with itself is left out and named, and the other one does it all."""
    first = min(list_workers(dask_client))
    window = Window(dask_client, do_chore, RULES, Questions(check=OnlyAt(first)))
    outcomes = list(window.run(Chore(f"chore-{number}", tmp_path) for number in range(4)))
    assert {outcome.worker for outcome in outcomes} == {first}
    assert "is left out: it is another" in caplog.text


def test_workers_that_join_are_used(dask_cluster: Any, dask_client: Any, tmp_path: Path) -> None:
    """A worker that is started in the middle of a run gets the next case."""
    waiting = [Chore(f"waiting-{number}", tmp_path, waits_for="joined") for number in range(2)]
    joiner = Chore("joined", tmp_path)  # writes the file that the others wait for
    threading.Thread(target=dask_cluster.scale, args=(3,)).start()
    try:
        outcomes = _run(dask_client, [*waiting, joiner])
        assert len({outcome.worker for outcome in outcomes.values()}) == 3
    finally:
        dask_cluster.scale(2)


def test_a_stop_cancels_what_is_in_flight(dask_client: Any, tmp_path: Path) -> None:
    """When the owner wants to stop, the run ends though its cases never would, and the workers are free."""
    chores = [Chore(f"endless-{number}", tmp_path, waits_for="never") for number in range(3)]
    ask: Questions[Chore, str] = Questions(cancelled=lambda: all(chore.lines() for chore in chores[:2]))
    with pytest.raises(CancelledError, match="finished cases stay"):
        list(Window(dask_client, do_chore, RULES, ask).run(chores))
    (tmp_path / "never").touch()
    assert not chores[2].lines()


def test_no_workers_at_all_is_temporary(dask_client: Any, tmp_path: Path) -> None:
    """Where no worker is fit for work, the run says so in bounded time and can be tried again."""
    window = Window(
        dask_client, do_chore, WindowRules(poll_s=0.05, no_worker_timeout_s=0.2), Questions(check=OnlyAt("nowhere"))
    )
    with pytest.raises(TemporaryError, match="no worker fit for work"):
        list(window.run([Chore("chore", tmp_path)]))


def test_a_worker_killed_from_outside_costs_its_case_one_attempt(dask_client: Any, tmp_path: Path) -> None:
    """SIGKILL to a busy worker: its case goes to another worker, and the cases of that one are done once."""
    victim = Chore("victim", tmp_path, waits_for="killed")
    others = [Chore(f"other-{number}", tmp_path) for number in range(3)]

    def kill_once() -> bool:
        begun = _begun(victim)
        if begun and not (tmp_path / "killed").exists():
            os.kill(int(begun[0].split("-")[2]), signal.SIGKILL)
            (tmp_path / "killed").touch()
        return False

    ask = Questions(begun=was_begun, cancelled=kill_once)
    outcomes = {
        outcome.payload.name: outcome for outcome in Window(dask_client, do_chore, RULES, ask).run([victim, *others])
    }
    assert (outcomes["victim"].result, outcomes["victim"].lost_workers) == ("victim", 1)
    assert [len(_begun(chore)) for chore in others] == [1, 1, 1]
