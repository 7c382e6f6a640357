"""What is noted while the plugin is driven: gaps of the event loop, our calls in it, drawing, other threads, memory."""

from __future__ import annotations

import gc
import importlib
import inspect
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

import psutil

TICK_MS = 5
"""A timer of the window goes off so often; a gap is the time from one of its ticks to the next."""

LIMIT_MS = 50.0
"""The window must not be kept longer than this by us."""

MODULES = ("controller", "desk", "doubt_strip", "doubts_view", "looking", "marks", "measurements_view", "overlay",
           "pointing", "review_panel", "structures_view", "widget")  # fmt: skip
"""Of the plugin; every method of their classes counts as ours when the thread of the window is in it."""

MIB = 2**20
_MOST_SLOW = 200
_OUTER = """
import time
last = time.monotonic()
while True:
    time.sleep(0.005)
    now = time.monotonic()
    if now - last > 0.02:
        print(last, now, flush=True)
    last = now
"""


@dataclass
class Notes:
    """What was noted in one phase.

    Attributes:
        seconds: how long it was.
        gaps_ms: between two ticks of the window's timer.
        ours_ms: of each time that the window's thread was in our code, whatever that called.
        ours_cpu_ms: processor time of the same.
        napari_ms: the part of the same that was within calls of napari: making layers, refreshing them, moving.
        drawn_ms: of each drawing of the canvas.
        thread_ms: gaps of a thread that only sleeps, in the same process: long ones are locks of the interpreter.
        outer_ms: gaps of another process that only sleeps, those above 20 ms: what the machine itself is late.
        garbage_ms: of each search of Python for garbage that took a millisecond or more; nothing else runs meanwhile.
        peak_mib: of memory, all ticks long.
    """

    seconds: float = 0.0
    gaps_ms: list[float] = field(default_factory=list)
    ours_ms: list[float] = field(default_factory=list)
    ours_cpu_ms: list[float] = field(default_factory=list)
    napari_ms: list[float] = field(default_factory=list)
    drawn_ms: list[float] = field(default_factory=list)
    thread_ms: list[float] = field(default_factory=list)
    outer_ms: list[float] = field(default_factory=list)
    garbage_ms: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


@dataclass
class _Call:
    name: str
    began: float
    cpu: float
    napari: bool
    inner: float = 0.0


class Clock:
    """Notes by phase; between phases nothing is noted.

    Attributes:
        notes: by the name of the phase.
        slow: our calls and locks that took longer than they should, with where they were.
        frames: how many pictures the canvas has shown.
        frame_at: when it showed the last one, of ``time.perf_counter``.
    """

    def __init__(self) -> None:
        self.notes: dict[str, Notes] = {}
        self.slow: list[dict[str, Any]] = []
        self.frames, self.frame_at = 0, 0.0
        self._phase, self._began, self._last = "", 0.0, 0.0
        self._spans: list[tuple[str, float, float]] = []
        self._calls: list[_Call] = []
        self._shares: dict[str, float] = {}
        self._stack = ""
        self._main = threading.get_ident()
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._outer: Any = None
        self._timer: Any = None
        self._searching = 0.0

    def start(self) -> None:
        """Begin to listen; a window system must be there."""
        from qtpy.QtCore import Qt, QTimer

        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)
        gc.callbacks.append(self._search)
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        self._outer = subprocess.Popen([sys.executable, "-S", "-c", _OUTER], stdout=subprocess.PIPE, text=True)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Listen no more; gives all notes as plain values."""
        self._stop.set()
        self._timer.stop()
        gc.callbacks.remove(self._search)
        self._outer.terminate()
        for line in self._outer.communicate()[0].splitlines():
            since, until = map(float, line.split())
            for phase, start, stop in self._spans:
                if start < until and since < stop:
                    self.notes[phase].outer_ms.append(1000 * (until - since))
        return {name: asdict(notes) for name, notes in self.notes.items()}

    @contextmanager
    def phase(self, name: str) -> Iterator[Notes]:
        """Note what happens under a name; a phase may come more than once."""
        self.switch(name)
        try:
            yield self.notes[name]
        finally:
            self.switch("")

    def switch(self, name: str) -> None:
        """End the phase and begin another; an empty name begins none."""
        now = time.perf_counter()
        if self._phase:
            self.notes[self._phase].seconds += now - self._began
            self._spans.append((self._phase, self._began, now))
        if name:
            self.notes.setdefault(name, Notes())
        self._phase, self._began, self._last = name, now, now

    def memory_mib(self) -> float:
        """What the process holds now."""
        return float(self._process.memory_info().rss / MIB)

    def watch_plugin(self) -> None:
        """Time every method of the plugin in the thread of the window; call it before a panel is made."""
        for name in MODULES:
            module = importlib.import_module(f"napari_effvit_med.{name}")
            for kind in vars(module).values():
                if inspect.isclass(kind) and kind.__module__ == module.__name__:
                    self._watch_class(kind)
        from napari.components import Dims, ViewerModel
        from napari.layers.base import Layer

        self._wrap(Layer, "refresh", napari=True)
        self._wrap(Dims, "set_point", napari=True)
        for name in ("add_image", "add_labels", "add_points"):
            self._wrap(ViewerModel, name, napari=True)

    def watch_drawing(self) -> None:
        """Time the drawing of the canvas; call it before a viewer is made."""
        import qtpy
        from vispy.app import use_app

        use_app(qtpy.API_NAME.lower())
        self._wrap_drawing(sys.modules[f"vispy.app.backends._{qtpy.API_NAME.lower()}"].CanvasBackendDesktop)

    def watch_canvas(self) -> None:
        """Count the pictures of the canvas; call it after the viewer is shown."""
        from qtpy.QtWidgets import QApplication

        found = [child for window in QApplication.topLevelWidgets() for child in window.findChildren(object)]
        canvas = next((child for child in found if hasattr(child, "frameSwapped")), None)
        if canvas is None:
            raise RuntimeError("There is no canvas to watch; show the viewer first.")
        canvas.frameSwapped.connect(self._swapped)

    def _watch_class(self, kind: type) -> None:
        for name, value in list(vars(kind).items()):
            if inspect.isfunction(value) and not name.startswith("__") and not inspect.isgeneratorfunction(value):
                self._wrap(kind, name)

    def _wrap(self, kind: Any, name: str, *, napari: bool = False) -> None:
        inner: Callable[..., Any] = getattr(kind, name)
        called = f"{'napari ' if napari else ''}{kind.__name__}.{name}"

        @wraps(inner)
        def outer(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._main or (napari and not self._calls):
                return inner(*args, **kwargs)
            self._calls.append(_Call(called, time.perf_counter(), time.thread_time(), napari))
            try:
                return inner(*args, **kwargs)
            finally:
                self._leave()

        setattr(kind, name, outer)

    def _leave(self) -> None:
        call, now = self._calls.pop(), time.perf_counter()
        took = 1000 * (now - call.began)
        self._shares[call.name] = self._shares.get(call.name, 0.0) + took - call.inner
        if self._calls:
            self._calls[-1].inner += took
            return
        shares, self._shares = self._shares, {}
        stack, self._stack = self._stack, ""
        if not self._phase:
            return
        notes = self.notes[self._phase]
        notes.ours_ms.append(took)
        notes.ours_cpu_ms.append(1000 * (time.thread_time() - call.cpu))
        notes.napari_ms.append(sum(ms for name, ms in shares.items() if name.startswith("napari ")))
        if took > LIMIT_MS / 2 and sum(each["what"] == "call" for each in self.slow) < _MOST_SLOW:
            most = {name: round(ms, 1) for name, ms in sorted(shares.items(), key=lambda each: -each[1])[:6]}
            entry = {"what": "call", "phase": self._phase, "name": call.name, "ms": round(took, 1)}
            entry |= {"cpu_ms": round(notes.ours_cpu_ms[-1], 1), "within": most, "stack": stack}
            self.slow.append(entry)

    def _wrap_drawing(self, kind: Any) -> None:
        inner: Callable[..., Any] = kind.paintGL

        def outer(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                if self._phase:
                    self.notes[self._phase].drawn_ms.append(1000 * (time.perf_counter() - began))

        kind.paintGL = outer

    def _search(self, word: str, _: dict[str, int]) -> None:
        now = time.perf_counter()
        if word == "start":
            self._searching = now
        elif self._phase and now - self._searching > 0.001:
            self.notes[self._phase].garbage_ms.append(1000 * (now - self._searching))

    def _swapped(self) -> None:
        self.frames, self.frame_at = self.frames + 1, time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        if self._phase:
            notes = self.notes[self._phase]
            notes.gaps_ms.append(1000 * (now - self._last))
            notes.peak_mib = max(notes.peak_mib, self.memory_mib())
        self._last = now

    def _beat(self) -> None:
        last = time.perf_counter()
        while not self._stop.is_set():
            time.sleep(TICK_MS / 1000)
            now, phase = time.perf_counter(), self._phase
            gap_ms, last = 1000 * (now - last), now
            if not phase:
                continue
            self.notes[phase].thread_ms.append(gap_ms)
            if gap_ms > LIMIT_MS and sum(each["what"] == "lock" for each in self.slow) < _MOST_SLOW:
                self.slow.append({"what": "lock", "phase": phase, "ms": round(gap_ms, 1), "stack": self._others()})
            calls = self._calls
            if calls and not self._stack and now - calls[0].began > LIMIT_MS / 2000:
                frame = sys._current_frames().get(self._main)  # noqa: SLF001  there is no other way to look
                self._stack = _describe(frame)

    def _others(self) -> str:
        """Where the other threads are, just after the interpreter was locked."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        frames = sys._current_frames()  # noqa: SLF001
        mine = threading.get_ident()
        return " | ".join(f"{names.get(n, n)}: {_describe(frame)}" for n, frame in frames.items() if n != mine)


def _describe(frame: Any, depth: int = 7) -> str:
    stack = traceback.extract_stack(frame)[-depth:]
    return " > ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in stack)
