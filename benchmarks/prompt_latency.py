"""How long a click takes with a promptable network, and what a session holds: pictures, blocks, a long CT.

Run from the repository's root: ``python -m benchmarks.prompt_latency`` (``--bundle FOLDER``, ``--clicks 20``,
``--device cuda``). Made-up scans with a bright ball; a time is from `PromptSession.add` to the changed labels. The
first click encodes the image, later ones do not; loading the weights is not in it. On a GPU another session has clicked
before, since a program's first use of one takes seconds. ``--bundle ""`` times untrained networks, which take as long
for a view but may look at more of them and answer everywhere; so are scans timed whose kind a bundle has no network
for. ``--scans 2`` times the first two alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.engine_process import peak_mib, reset_peak, run_alone
from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.engine.allocation import keep_freed_memory
from effvit_med.engine.prompting import PromptSession, read_prompt_model
from effvit_med.networks import save_weights
from effvit_med.networks.prompt import build_prompt_network
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt

NAME = "prompt_latency"

#: Shape, and the axes of the network; a picture has one slice.
SCANS: dict[str, tuple[tuple[int, int, int], int]] = {
    "512 x 512": ((1, 512, 512), 2),
    "1024 x 1024": ((1, 1024, 1024), 2),
    "96 x 96 x 96": ((96, 96, 96), 3),
    "128 x 128 x 128": ((128, 128, 128), 3),
}
LONG = (600, 512, 512)

#: Milliseconds of the first and of a later click that were aimed at on two cores, and of a later one on a GPU.
AIMS = {2: (1000, 100), 3: (1500, 300)}
AIMS_GPU = {2: 20, 3: 50}


def make_scan(shape: tuple[int, int, int]) -> Volume:
    """A bright ball in noise.

    Args:
        shape: of the scan.
    """
    rng = np.random.default_rng(0)
    array = rng.normal(0, 20, shape).astype(np.float32)
    places = [(np.arange(size, dtype=np.float32) - size / 2) / (0.25 * size + 1) for size in shape]
    away = sum(
        np.square(each).reshape([-1 if axis == other else 1 for other in range(3)])
        for axis, each in enumerate(places)
        if shape[axis] > 1
    )
    array[np.asarray(away) < 1] += 100
    return Volume(array, Geometry(np.eye(4), shape), "MR")


def write_untrained(folder: Path) -> Path:
    """A bundle of networks with random weights, always the same: what they answer decides how much memory it takes.

    Args:
        folder: to be made.
    """
    (folder / "configs").mkdir(parents=True)
    content: dict[str, Any] = {"name": "untrained prompt_small", "version": "0"}
    torch.manual_seed(0)
    for key, dims, norm in (("slices", 2, "batch"), ("blocks", 3, "instance")):
        save_weights(build_prompt_network(dims, 1, "prompt_small", norm), folder / f"{key}.safetensors")
        content[key] = {"weights": f"{key}.safetensors", "preset": "prompt_small", "norm": norm}
    (folder / "configs" / "prompt.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def time_clicks(request: Mapping[str, Any]) -> dict[str, Any]:
    """Milliseconds of each of some clicks about the middle of a scan, and the memory that the session took.

    Args:
        request: ``shape``, ``spatial_dims``, ``bundle``, ``device``, ``clicks``, ``threads``.
    """
    torch.set_num_threads(request["threads"])
    keep_freed_memory()
    shape = tuple(request["shape"])
    scan = make_scan(shape)
    if request["device"] != "cpu":
        other = PromptSession(scan, request["bundle"], spatial_dims=request["spatial_dims"], device=request["device"])
        for adds in (True, False):
            other.add(Prompt("point", 1, adds, (tuple(size // 2 for size in shape),)))
            other.answer()
    reset_peak()
    before = peak_mib()
    session = PromptSession(scan, request["bundle"], spatial_dims=request["spatial_dims"], device=request["device"])
    rng = np.random.default_rng(1)
    times = []
    for number in range(request["clicks"]):
        middle = [size / 2 + (0 if size == 1 else rng.uniform(-0.1, 0.1) * min(size, 96)) for size in shape]
        index = tuple(min(size - 1.0, max(0.0, at)) for at, size in zip(middle, shape, strict=True))
        if request["spatial_dims"] == 2:
            index = (float(shape[0] // 2), *index[1:])
        began = time.perf_counter()
        session.add(Prompt("point", 1, number % 3 != 2, (index,)))
        session.answer()
        times.append(1000 * (time.perf_counter() - began))
    encoded = [step.detail["encoded"] for step in session.predict().provenance.steps]
    return {"ms": times, "encoded": encoded, "session_mib": peak_mib() - before}


def to_markdown(rows: Sequence[Mapping[str, Any]], bundle: str, threads: int, device: str = "cpu") -> str:
    """The table.

    Args:
        rows: one for each scan.
        bundle: what was timed.
        threads: of the processor.
        device: of the networks.
    """
    head = ["scan", "axes", "first, ms", "aim", "next: median, ms", "95 %", "aim", "memory of the session, MiB"]
    cells = []
    for row in rows:
        later = [ms for ms, encoded in zip(row["ms"][1:], row["encoded"][1:], strict=True) if not encoded]
        dims = row["spatial_dims"]
        first_aim, next_aim = map(str, AIMS[dims]) if device == "cpu" else ("", str(AIMS_GPU[dims]))
        middle, most = np.percentile(later, [50, 95]) if later else (float("nan"),) * 2
        figures = [f"{row['ms'][0]:.0f}", first_aim, f"{middle:.0f}", f"{most:.0f}", next_aim]
        cells.append([row["name"], str(row["spatial_dims"]), *figures, f"{row['session_mib']:.0f}"])
    return "\n".join(
        [
            "# Clicks: time and memory",
            "",
            (
                f"`{bundle}`, {device}, {threads} thread(s). The first click encodes what it looks at, the next ones "
                "do not; memory is what a session adds to the scan, its labels included."
            ),
            "",
            make_table(head, cells),
        ]
    )


def main() -> None:
    """Times every scan in a process of its own, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="prompt", help="name or folder; empty for untrained networks")
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scans", type=int, default=6, help="how many of the scans, from the first")
    options = parser.parse_args()
    made = describe_circumstances(f"benchmarks.{NAME}")
    scans = {**SCANS, "600 x 512 x 512, slices": (LONG, 2), "600 x 512 x 512, blocks": (LONG, 3)}
    with tempfile.TemporaryDirectory() as folder:
        untrained = str(write_untrained(Path(folder) / "untrained prompt_small"))
        bundle = options.bundle or untrained
        model = read_prompt_model(bundle)
        rows = []
        for name, (shape, dims) in list(scans.items())[: options.scans]:
            knows = (model.slices if dims == 2 else model.blocks) is not None
            request = {"shape": shape, "spatial_dims": dims, "device": options.device}
            request["bundle"] = bundle if knows else untrained
            told = name if knows else f"{name} (untrained)"
            request |= {"clicks": options.clicks, "threads": options.threads}
            found = run_alone(f"benchmarks.{NAME}:time_clicks", {"request": request}, threads=options.threads)
            rows.append({"name": told, "spatial_dims": dims, **found})
    text = to_markdown(rows, Path(bundle).name, options.threads, options.device)
    write_report(NAME if options.device == "cpu" else f"{NAME}_gpu", text, {"rows": rows}, made)


if __name__ == "__main__":
    main()
