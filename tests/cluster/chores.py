"""What the workers of the tests do: cheap, and deadly on demand."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Chore:
    """A piece of work that leaves a line in a file each time it is begun and each time it is done.

    Attributes:
        name: of its file.
        folder: where the file is.
        deaths: how many attempts kill their worker.
        raises: whether it raises instead of returning.
        waits_for: a file that must appear before it goes on.
    """

    name: str
    folder: Path
    deaths: int = 0
    raises: bool = False
    waits_for: str = ""

    def lines(self) -> list[str]:
        """What has been written so far."""
        file = self.folder / self.name
        return file.read_text(encoding="utf-8").split() if file.exists() else []

    def note(self, word: str) -> None:
        """Add a line."""
        with (self.folder / self.name).open("a", encoding="utf-8") as file:
            file.write(f"{word}\n")


def do_chore(chore: Chore, attempt: int) -> str:
    """Do it; on a worker."""
    chore.note(f"begun-{attempt}-{os.getpid()}")
    if attempt < chore.deaths:
        time.sleep(1.5)  # a nanny gives up, and starts no other, if its worker dies before it has reported to it
        os.kill(os.getpid(), signal.SIGKILL)
    if chore.raises:
        raise ValueError(chore.name)
    while chore.waits_for and not (chore.folder / chore.waits_for).exists():
        time.sleep(0.02)
    chore.note("done")
    return chore.name


def was_begun(chore: Chore, attempt: int) -> bool:
    """Whether a worker began with this attempt."""
    return any(line.startswith(f"begun-{attempt}-") for line in chore.lines())


@dataclass(frozen=True)
class OnlyAt:
    """Fit for work is the worker at one address."""

    address: str

    def __call__(self) -> str:
        """What is wrong with the worker that asks itself."""
        from distributed import get_worker

        return "" if get_worker().address == self.address else "is another"
