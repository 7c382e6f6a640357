"""How far a batch is: one line that renews itself on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

if TYPE_CHECKING:
    from effvit_med.batch import BatchEvent

_LINE_INTERVAL_S = 10.0


class BatchProgress:
    """Shows events on stderr.

    Args:
        hidden: whether nothing is shown.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._is_terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._begun_s = self._said_s = 0.0
        self._before = 0
        self._stages: dict[str, str] = {}

    def __enter__(self) -> Self:
        if not self._hidden and self._is_terminal:
            from tqdm import tqdm

            layout = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {postfix}"
            self._bar = tqdm(total=1, file=sys.stderr, leave=False, bar_format=layout)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: BatchEvent) -> None:
        """Show an event."""
        if self._hidden:
            return
        if event.kind == "found":
            self._begun_s, self._before = time.monotonic(), event.done
        if event.kind == "stage":
            self._stages[event.case_id] = event.stage
        if event.kind == "finished":
            self._stages.pop(event.case_id, None)
        if self._bar is not None:
            self._draw(event)
        else:
            self._say(event)

    def _draw(self, event: BatchEvent) -> None:
        if event.kind in {"found", "finished"}:
            self._bar.total, self._bar.n = max(1, event.total), event.done
            self._bar.set_postfix_str(self.pace(event.done, event.total), refresh=False)
        words = {"finding": "searching", "waiting": event.message, "found": "starting"}.get(event.kind)
        if event.kind == "step":
            words = f"{event.case_id} {event.stage}: {event.message} {event.done}/{event.total}"
        elif event.kind == "stage":
            words = f"{event.case_id} {event.stage}"
        self._bar.set_description_str(words or event.case_id, refresh=True)

    def _say(self, event: BatchEvent) -> None:
        now = time.monotonic()
        is_news = event.kind in {"found", "restarted"} or (event.kind == "finished" and event.done == event.total)
        if not is_news and now - self._said_s < _LINE_INTERVAL_S:
            return
        self._said_s = now
        if event.kind == "finding":
            click.echo("searching", err=True)
        elif event.kind == "waiting":
            click.echo(event.message, err=True)
        elif event.kind == "restarted":
            click.echo(f"the {event.stage} process was started again", err=True)
        elif event.kind in {"found", "finished"}:
            click.echo(f"{event.done}/{event.total} cases {self.pace(event.done, event.total)}".rstrip(), err=True)
        elif event.kind == "step":
            click.echo(f"{event.case_id} {event.stage}: {event.message} {event.done}/{event.total}", err=True)

    def pace(self, done: int, total: int) -> str:
        """Cases per minute and the time left; empty before the first case is done.

        Args:
            done: cases that are finished, with those of earlier runs.
            total: all of them.
        """
        taken, fresh = time.monotonic() - self._begun_s, done - self._before
        if fresh < 1 or taken <= 0:
            return ""
        left = int(taken / fresh * (total - done))
        hours, rest = divmod(left, 3600)
        return f"{60 * fresh / taken:.1f}/min, {hours}:{rest // 60:02d}:{rest % 60:02d} left"
