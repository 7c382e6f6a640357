"""What the napari plugin costs a reviewer: how long the window is kept, what a click takes, memory.

    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.plugin          # some minutes
    xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks.plugin --quick  # a small scan, a minute or two

A generated CT of 300 x 512 x 512 is written as a DICOM series. A process that has not seen torch opens it through the
panel, segments it with the shipped model, corrects spoiled labels by clicks, paints, and saves
(`benchmarks.plugin_session`); a timer in its window and a watch on every method of the plugin say who kept the window
for how long (`benchmarks.plugin_clock`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engine_case import SPACING_MM, TEMPLATE
from benchmarks.plugin_report import summarise, to_markdown
from benchmarks.report import describe_circumstances, write_report
from benchmarks.scans import Shape, make_large_scan, write_series

SHAPE: Shape = (300, 512, 512)
QUICK: tuple[Shape, tuple[float, float, float]] = ((60, 128, 128), (5.0, 3.2, 3.2))
MOST_S = 1200
STARTS = 3

_START = """
import json, sys, time
began = time.perf_counter()
import napari
viewer = napari.Viewer(show=False)
napari_s = time.perf_counter() - began
from napari_effvit_med.widget import SegmentationPanel
imported_s = time.perf_counter() - began - napari_s
panel = SegmentationPanel(viewer)
viewer.window.add_dock_widget(panel, name="Segment and review", area="right")
panel_s = time.perf_counter() - began - napari_s - imported_s
print(json.dumps({"napari_s": napari_s, "import_s": imported_s, "panel_s": panel_s, "torch": "torch" in sys.modules}))
panel.close()
viewer.close()
"""


def measure_start(folder: Path, times: int = STARTS) -> list[dict[str, Any]]:
    """Start napari and the panel, each time in a fresh process.

    Args:
        folder: that serves as the user's home.
        times: how often.

    Returns:
        Of each start the seconds of napari, of importing the plugin and of making its panel, and whether torch came.
    """
    return [json.loads(_run(["-c", _START], folder).splitlines()[-1]) for _ in range(times)]


def measure_sitting(folder: Path, scan: Path, clicks: int) -> dict[str, Any]:
    """Go through a sitting in a process of its own.

    Args:
        folder: for reviews and what is saved.
        scan: folder of a DICOM series.
        clicks: how many corrections.

    Returns:
        What `benchmarks.plugin_session` noted.
    """
    result = folder / "noted.json"
    words = ["-m", "benchmarks.plugin_session", str(scan), str(folder), str(result), "--clicks", str(clicks)]
    _run(words, folder)
    noted: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return noted


def _run(words: Sequence[str], home: Path) -> str:
    """What a fresh Python says, with a home of its own so that no setting of the user plays a part.

    Raises:
        RuntimeError: if it fails.
    """
    root = Path(__file__).parents[1]
    paths = [str(root), str(root / "napari_plugin"), os.environ.get("PYTHONPATH", "")]
    places = {name: str(home) for name in ("HOME", "USERPROFILE", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    environment = os.environ | places | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, *words]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=MOST_S, check=False)
    if made.returncode:
        raise RuntimeError(f"The plugin could not be measured ({made.returncode}):\n{made.stderr[-3000:]}")
    return made.stdout


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=50)
    parser.add_argument(
        "--quick", action="store_true", help="a small scan and few clicks, into results of another name"
    )
    parser.add_argument("--name", help="stem of the results")
    parser.add_argument("--keep", type=Path, help="a file for all that was noted, with stacks of what took long")
    options = parser.parse_args(arguments)
    made = describe_circumstances("benchmarks.plugin", arguments)
    shape, spacing_mm = QUICK if options.quick else (SHAPE, SPACING_MM)
    clicks = min(options.clicks, 6) if options.quick else options.clicks
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_series(make_large_scan(shape, spacing_mm, 0)[0], TEMPLATE, folder / "ct")
        starts = measure_start(folder, 1 if options.quick else STARTS)
        noted = measure_sitting(folder, folder / "ct", clicks)
    if options.keep:
        options.keep.write_text(json.dumps(noted), encoding="utf-8")
    name = options.name or ("plugin_quick" if options.quick else "plugin")
    write_report(name, to_markdown(shape, starts, noted), {"starts": starts, **summarise(noted)}, made)


if __name__ == "__main__":
    main()
