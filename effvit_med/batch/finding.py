"""The search of an input, in a process of its own: a decoder that dies there does not take the batch with it."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

from effvit_med.batch.messages import Answer, Ended, Note, Order, Ready, Step, Unfit
from effvit_med.batch.options import BatchOptions
from effvit_med.batch.process import Inbox, StageProcess
from effvit_med.errors import CancelledError, InputError, NoImagesError, SettingsError, TemporaryError
from effvit_med.io import Found

log = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]


@contextlib.contextmanager
def find_in_process(
    source: Path, options: BatchOptions, scratch: Path, on_step: Tell, cancelled: Callable[[], bool] | None = None
) -> Iterator[Found]:
    """What an input holds; an unpacked archive lies in ``scratch`` while the block runs.

    Args:
        source: a folder, a file or a zip archive.
        options: of the batch.
        scratch: folder for temporary files.
        on_step: called as on_step(phase, done, total).
        cancelled: asked often; True stops the search.

    Raises:
        InputError: if the input cannot be read, or the search died.
        NoImagesError: if there is no image in it.
        TemporaryError: if the disk for temporary files is full.
        CancelledError: if ``cancelled`` said so.
    """
    inbox: Inbox = queue.Queue()
    process = StageProcess("find", options.stages.find, options, scratch, inbox)
    process.start()
    try:
        found = _wait(process, inbox, Order((source,)), on_step, cancelled)
        if source.is_dir():  # else it may be an archive, whose files go with the process
            process.close()
        yield found
    finally:
        process.close()


def _wait(
    process: StageProcess, inbox: Inbox, order: Order, on_step: Tell, cancelled: Callable[[], bool] | None
) -> Found:
    while True:
        if cancelled and cancelled():
            raise CancelledError("Stopped by the user during the search; nothing was written.")
        try:
            _, message = inbox.get(timeout=0.5)
        except queue.Empty:
            on_step("find", 0, 0)
            continue
        if isinstance(message, Ready):
            process.welcome(message.about)
            process.give(order)
        elif isinstance(message, Unfit):
            raise SettingsError(message.message)
        elif isinstance(message, Note):
            log.log(message.level, "%s", message.text)
        elif isinstance(message, Step):
            on_step(message.phase, message.done, message.total)
        elif isinstance(message, Ended):
            how, _ = process.explain_end()
            raise InputError(f"The search of the input {how}. Search its folders one by one to find the cause.")
        elif isinstance(message, Answer):
            return _judge(message)


def _judge(answer: Answer) -> Found:
    if answer.verdict == "ok":
        return answer.value
    if answer.verdict == "stop":
        raise TemporaryError(answer.message)
    if answer.code == NoImagesError.__name__:
        raise NoImagesError(answer.message)
    raise InputError(answer.message)
