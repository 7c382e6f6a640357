"""One sitting with the plugin in a process of its own, that has not seen torch: opened, segmented, corrected, saved.

    python -m benchmarks.plugin_session SCAN FOLDER RESULT.json --clicks 50

`benchmarks.plugin` starts it. SCAN is a folder with a DICOM series, FOLDER is for reviews and what is saved.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plugin_clock import Clock
from benchmarks.plugin_spoils import Spoil, draw_spoils

WINDOW = (1440, 900)
MOST_S = 300.0
REST_S = 3.0
STEPS = 40
"""So many slices are scrolled."""
AT_REST = 0.3
"""The part of the clicks before which everything has come to rest; the others come while doubts are looked for."""
STROKES, DABS = 10, 25


class Sitting:
    """A viewer with the panel, and what a reviewer does with it.

    Args:
        reviews: the folder of reviews.

    Attributes:
        clock: what is noted.
        seconds: of what happened once.
        memory_mib: what the process held, by moment.
        clicks: of each click how long it took, and what it changed.
    """

    def __init__(self, reviews: Path) -> None:
        import napari

        from napari_effvit_med.controller import Controller
        from napari_effvit_med.settings import PluginSettings
        from napari_effvit_med.widget import SegmentationPanel

        self.clock = Clock()
        self.clock.watch_plugin()
        self.clock.watch_drawing()
        self.viewer: Any = napari.Viewer(show=True)
        self.viewer.window.resize(*WINDOW)
        self.control = Controller(self.viewer, settings=PluginSettings(reviews_folder=reviews))
        self.panel = SegmentationPanel(self.viewer, self.control)
        self.viewer.window.add_dock_widget(self.panel, name="Segment and review", area="right")
        self.viewer.window.resize(*WINDOW)
        self.desk = self.control.desk
        self.seconds: dict[str, float] = {}
        self.memory_mib: dict[str, float] = {}
        self.clicks: list[dict[str, Any]] = []
        self.clock.start()
        self.clock.watch_canvas()

    def wait(self, holds: Callable[[], Any], most_s: float = MOST_S, every_ms: int = 5) -> None:
        """Let the window live until something holds.

        Raises:
            TimeoutError: if it does not in time.
        """
        from qtpy.QtCore import QEventLoop, QTimer

        loop, timer, until = QEventLoop(), QTimer(), time.perf_counter() + most_s

        def look() -> None:
            if holds() or time.perf_counter() > until:
                loop.quit()

        timer.timeout.connect(look)
        timer.start(every_ms)
        loop.exec_() if hasattr(loop, "exec_") else loop.exec()
        timer.stop()
        if time.perf_counter() > until and not holds():
            raise TimeoutError(f"It did not come to rest in {most_s:g} s; the panel says: {self.control.message}")

    def rest(self, seconds: float) -> None:
        """Let the window live for a while."""
        until = time.perf_counter() + seconds
        self.wait(lambda: time.perf_counter() >= until)

    def settle(self) -> None:
        """Wait until nothing is under way."""
        self.wait(lambda: not self.control.running and not self.desk.settling)
        self.rest(0.2)

    def painted(self, frames: int, most_s: float = 2.0) -> None:
        """Wait until the canvas has shown more pictures than so many."""
        with suppress(TimeoutError):  # there may be nothing to draw
            self.wait(lambda: self.clock.frames > frames, most_s)

    def open(self, scan: Path) -> None:
        """Open a scan through the panel."""
        self.rest(1.0)
        with self.clock.phase("idle, nothing open"):
            self.rest(REST_S)
        self.note_memory("before opening")
        with self.clock.phase("opening"):
            began = time.perf_counter()
            self.control.look(scan)
            self.wait(lambda: not self.control.running)
            self.seconds["look for scans"] = time.perf_counter() - began
            chosen, frames = time.perf_counter(), self.clock.frames
            self.control.open_scan(self.control.rows[0])
            self.wait(lambda: not self.control.running)
            self.seconds["read the scan"] = time.perf_counter() - chosen
            self.check(len(self.viewer.layers) == 1)
            self.painted(frames)
            self.seconds["from the choice to the first picture"] = self.clock.frame_at - chosen
        self.rest(1.0)
        self.note_memory("scan open")
        with self.clock.phase("idle, scan open"):
            self.rest(REST_S)
        self.scroll("scrolling the scan")

    def scroll(self, phase: str) -> None:
        """Go through slices, one after the other has been drawn."""
        middle = self.viewer.dims.nsteps[0] // 2
        with self.clock.phase(phase):
            for number in range(middle - STEPS // 2, middle + STEPS // 2):
                frames = self.clock.frames
                self.viewer.dims.set_current_step(0, max(0, number))
                self.painted(frames, 1.0)

    def segment(self) -> None:
        """Segment the scan with the shipped model; that opens the review."""
        from napari_effvit_med.running import PHASES

        with self.clock.phase("segmenting"):
            began, frames = time.perf_counter(), self.clock.frames
            self.control.segment(self.viewer.layers[0])
            self.wait(lambda: not self.control.running or self.control.message.startswith(PHASES["review"]))
            self.seconds["segment"] = time.perf_counter() - began
            self.note_memory("segmented")
            self.clock.switch("opening the review")
            began = time.perf_counter()
            self.wait(lambda: not self.control.running)
            self.check(self.desk.opened is not None)
            self.painted(frames)
            self.seconds["open the review"] = time.perf_counter() - began
            self.rest(0.5)
        self.settle()
        self.note_memory("in review")
        with self.clock.phase("idle, in review"):
            self.rest(REST_S)
        self.scroll("scrolling in review")

    def walk(self) -> None:
        """Go from doubt to doubt, and from structure to structure."""
        with self.clock.phase("walking through doubts and structures"):
            for step in range(16):
                self.desk.step_doubt(1) if step % 2 else self.desk.choose_next(1)
                self.rest(0.4)
        self.settle()

    def correct(self, clicks: int) -> None:
        """Spoil labels, and mend them by clicks: first with everything at rest before each, then one after another."""
        opened = self.desk.opened
        assert opened is not None
        session = opened.session
        spoils = list(draw_spoils(session.automatic, session.geometry.spacing_mm, clicks))
        for spoil in spoils:
            session.apply(spoil.flat, 0 if spoil.missing else spoil.value, kind="script", value=spoil.value)
        self.desk.layer.refresh()
        self.desk.set_state(spoils[0].value, "edited")  # through the desk, so that doubts are looked for again
        self.settle()
        for number, spoil in enumerate(spoils):
            at_rest = number < AT_REST * clicks
            self.look_at(spoil)
            if at_rest:
                self.settle()
            with self.clock.phase("clicks at rest" if at_rest else "clicks, one after another"):
                self.click(spoil, at_rest)
        with self.clock.phase("looking for doubts"):
            began = time.perf_counter()
            self.wait(lambda: not self.desk.settling)
            self.seconds["doubts again, after the last click"] = time.perf_counter() - began
        self.note_memory("corrected")

    def look_at(self, spoil: Spoil) -> None:
        """Show the slice of a place and choose its structure, before the time is taken."""
        grid, frames = self.desk.opened.grid, self.clock.frames  # type: ignore[union-attr]
        if self.desk.current != spoil.value:
            self.desk.choose(spoil.value, jump=False)
        self.desk.go_to_slice(int(grid.from_index(spoil.index)[0]))
        self.painted(frames, 0.5)
        self.wait(lambda: not self.desk.busy)

    def click(self, spoil: Spoil, at_rest: bool) -> None:
        """One click, until the canvas shows what it changed."""
        from effvit_med.volume.prompts import Prompt

        before, session = self.desk.waited_s, self.desk.opened.session  # type: ignore[union-attr]
        steps, began = len(session.steps), time.perf_counter()
        self.desk.prompt(Prompt("point", spoil.value, spoil.missing, (spoil.index,)))
        returned = time.perf_counter()
        frames: list[int] = []

        def shown() -> bool:
            if not frames and self.desk.waited_s is not before:
                frames.append(self.clock.frames)
            return bool(frames) and self.clock.frames > frames[0]

        try:
            self.wait(shown, 2.0, every_ms=1)
        except TimeoutError:
            self.check(bool(frames))
        changed = len(session.steps[-1].voxels() or ()) if len(session.steps) > steps else 0
        total, computed = self.desk.waited_s
        self.clicks.append(
            {
                "at_rest": at_rest,
                "changed": changed,
                "overlay_ms": 1000 * total,
                "computed_ms": 1000 * computed,
                "call_ms": 1000 * (returned - began),
                "painted_ms": 1000 * (self.clock.frame_at - began) if self.clock.frames > frames[0] else None,
            }
        )
        self.rest(0.15)

    def undo(self, times: int) -> None:
        """Take steps back, and make them again."""
        with self.clock.phase("undo and redo"):
            for act in [self.desk.undo] * times + [self.desk.redo] * times:
                act()
                self.wait(lambda: not self.desk.busy)
        self.settle()

    def paint(self) -> None:
        """Strokes with napari's own brush, through its public ``paint``; each of them is taken over."""
        layer, value = self.desk.layer, self.desk.current
        layer.mode, layer.brush_size, layer.selected_label = "paint", 15, value
        middle = np.array(layer.data.shape) // 2
        taken = []
        with self.clock.phase("brush strokes"):
            for stroke in range(STROKES):
                with layer.block_history():
                    for dab in range(DABS):
                        layer.paint((middle[0], middle[1] - 40 + 8 * stroke, middle[2] - 60 + 4 * dab), value)
                        self.rest(0.015)
                began = time.perf_counter()
                self.wait(lambda: not self.desk.busy)
                taken.append(time.perf_counter() - began)
        self.seconds["a brush stroke, from its end to the disk"] = float(np.median(taken))
        layer.mode = "pan_zoom"
        self.settle()

    def save(self, output: Path) -> None:
        """Accept, measure and save."""
        with self.clock.phase("accepting and measuring"):
            for value in [row.value for row in self.desk.structure_rows()][:2]:
                self.desk.accept(value)
                self.rest(0.3)
            self.desk.measure()
            self.wait(lambda: bool(self.desk.measured))
        self.settle()
        with self.clock.phase("saving"):
            began = time.perf_counter()
            self.desk.save(output, ["dicom-seg", "nifti"])
            self.wait(lambda: not self.desk.saving)
            self.seconds["save"] = time.perf_counter() - began
        self.check((output / "review.json").is_file())
        self.note_memory("saved")

    def close(self) -> None:
        """Close panel and viewer."""
        with self.clock.phase("closing"):
            self.panel.close()
        self.viewer.close()

    def note_memory(self, moment: str) -> None:
        """Note what the process holds."""
        self.memory_mib[moment] = self.clock.memory_mib()

    def check(self, held: bool) -> None:
        """Stop where the plugin did not do what was asked.

        Raises:
            RuntimeError: with what the panel says.
        """
        if not held:
            raise RuntimeError(f"The plugin did not do what was asked; it says: {self.control.message}")


def main() -> None:
    """Go through all of it; what was noted becomes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--clicks", type=int, default=50)
    options = parser.parse_args()
    sitting = Sitting(options.folder / "reviews")
    sitting.open(options.scan)
    sitting.segment()
    sitting.walk()
    sitting.correct(options.clicks)
    sitting.undo(5)
    sitting.paint()
    sitting.save(options.folder / "saved")
    sitting.close()
    found = {"phases": sitting.clock.finish(), "seconds": sitting.seconds, "memory_mib": sitting.memory_mib}
    found |= {"clicks": sitting.clicks, "slow": sitting.clock.slow}
    options.result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
