"""Which layout gives most Dice for its time: short equal runs on real scans, scored beside measured latency.

Run from the repository's root: ``python -m benchmarks.search --data ../shared/data`` (``--set hippocampus vessels``,
``--steps 600``, ``--seeds 0 1 2``, ``--only NAME``). MONAI's U-Net of the accuracy benchmark is trained alike, as a
yardstick. Every run is kept in ``results/search.json`` as soon as it ends; a later call makes only those that are
missing, and draws the front anew. Two calls at once may share the work if they differ in sets, seeds or names.
``--time`` trains nothing and times every layout of the kept runs anew, all on this machine: do it once runs of another
machine are among them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from benchmarks import versus_sets
from benchmarks.report import RESULTS, adding, describe_circumstances, keep_runs, kept_runs, make_table
from benchmarks.search_data import SETS, SearchSet, load_set
from benchmarks.search_space import Candidate, Peer, list_candidates
from benchmarks.search_training import ShortRun, mean_dice, show_whole, train_shortly
from benchmarks.versus_models import CONTENDERS
from effvit_med.evaluation import mean_interval
from effvit_med.networks.export import export_onnx

_NOISE = 0.005
"""Differences of mean Dice below this are noise between seeds, as far as was seen."""


def measure_latency(network: nn.Module, data: SearchSet, repeats: int = 5) -> dict[str, float]:
    """Milliseconds for the validation case of middle size: processor time, one thread, the least of several.

    Args:
        network: any weights.
        data: whose cases are meant.
        repeats: of each runtime.

    Returns:
        By runtime: ``eager`` and, where it is installed, ``openvino``.
    """
    middle = sorted((case[0] for case in data.validation), key=torch.Tensor.numel)[len(data.validation) // 2]
    image = show_whole(middle, data.patch)[None]
    network.eval()

    def least(call: Any) -> float:
        times = []
        for _ in range(repeats + 1):
            before = time.process_time()
            call()
            times.append(time.process_time() - before)
        return 1000 * min(times)

    with torch.inference_mode():
        found = {"eager": least(lambda: network(image))}
    try:
        import openvino
    except ImportError:
        return found
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        export_onnx(network, Path(folder) / "network.onnx", image, dynamic=False)
        compiled = core.compile_model(str(Path(folder) / "network.onnx"), "CPU")
    request, values = compiled.create_infer_request(), image.numpy()
    found["openvino"] = least(lambda: request.infer([values]))
    return found


def run_candidate(candidate: Candidate | Peer, data: SearchSet, run: ShortRun) -> dict[str, Any]:
    """Train, score and time one candidate.

    Args:
        candidate: the network.
        data: what it is trained and scored on.
        run: how it is trained.
    """
    torch.manual_seed(run.seed)
    network = candidate.build(data.spatial_dims, data.classes)
    seconds = train_shortly(network, data, run)
    dice = mean_dice(network, data.validation, data)
    return {
        "set": data.name,
        "candidate": candidate.to_dict(),
        "steps": run.steps,
        "seed": run.seed,
        "parameters": sum(each.numel() for each in network.parameters()),
        "dice": [round(each, 5) for each in dice],
        "training_s": round(seconds, 1),
        "latency_ms": {name: round(value, 1) for name, value in measure_latency(network, data).items()},
    }


def time_anew(runs: Sequence[Mapping[str, Any]], everything: Sequence[Candidate | Peer], data: SearchSet) -> list[Any]:
    """The runs of a set with times of this machine; those of other sets as they are.

    Args:
        runs: kept ones.
        everything: the candidates, to build their networks anew.
        data: the set.

    Returns:
        Runs of a candidate share its one measurement; those of a layout that is no candidate any more are left out.
    """
    times: dict[str, dict[str, float]] = {}
    mine = {json.dumps(run["candidate"], sort_keys=True) for run in runs if run["set"] == data.name}
    for candidate in tqdm(everything, desc=f"time, {data.name}", disable=None):
        key = json.dumps(candidate.to_dict(), sort_keys=True)
        if key in mine:
            network = candidate.build(data.spatial_dims, data.classes)
            times[key] = {name: round(value, 1) for name, value in measure_latency(network, data).items()}
    found = []
    for run in runs:
        key = json.dumps(run["candidate"], sort_keys=True)
        if run["set"] != data.name:
            found.append(run)
        elif key in times:
            found.append({**run, "latency_ms": times[key]})
    return found


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other beats in both: less time and more Dice.

    Args:
        points: time and Dice of each.

    Examples:
        >>> front([(1.0, 0.8), (2.0, 0.7), (3.0, 0.9)])
        [0, 2]
    """
    return [
        index
        for index, (time_ms, dice) in enumerate(points)
        if not any(t <= time_ms and d >= dice and (t, d) != (time_ms, dice) for t, d in points)
    ]


def to_markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """A table for each set, fastest first, with what lies on the front in bold; seeds of a candidate are one row."""
    parts = [
        "# Search: Dice against time of full-resolution layouts",
        "",
        (
            "Short equal runs; the cases scored are never trained on and are no test cases of the accuracy benchmark. "
            "Dice: over the cases and seeds; the interval is that over cases. Time: one case of middle size, whole, on "
            f"one thread, the least of the seeds. Differences of Dice below {_NOISE} are noise."
        ),
    ]
    for name in dict.fromkeys(run["set"] for run in runs):
        mine = merge_seeds([run for run in runs if run["set"] == name])
        best = set(front([(_latency(run), statistics.fmean(run["dice"])) for run in mine]))
        rows = []
        for index, run in enumerate(mine):
            interval = mean_interval(run["dice"])
            label = run["candidate"]["name"]
            times = run["latency_ms"]
            rows.append(
                [
                    f"**{label}**" if index in best else label,
                    " ".join(map(str, run["candidate"]["layout"]["widths"])),
                    f"{run['parameters'] / 1e6:.2f}",
                    f"{statistics.fmean(run['dice']):.4f}",
                    f"{interval.low:.4f} to {interval.high:.4f}",
                    f"{times['eager']:.0f}",
                    f"{times['openvino']:.0f}" if "openvino" in times else "",
                    f"{run['training_s'] / 60:.1f}",
                    str(run["steps"]),
                    str(run["seeds"]),
                ]
            )
        head = [
            "layout",
            "widths",
            "M",
            "Dice",
            "95 % interval",
            "eager ms",
            "OpenVINO ms",
            "training min",
            "steps",
            "seeds",
        ]
        parts += ["", f"## {name}", "", make_table(head, rows, texts=2)]
    return "\n".join(parts)


def merge_seeds(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry for each candidate and length of training, fastest first.

    Args:
        runs: of one set.

    Returns:
        Entries as of a run, with each case's mean Dice over the seeds, the least times, and ``seeds``, their number.
    """
    alike: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        alike.setdefault((json.dumps(run["candidate"], sort_keys=True), run["steps"]), []).append(run)
    merged = []
    for group in alike.values():
        times = [run["latency_ms"] for run in group]
        merged.append(
            {
                **group[0],
                "dice": [statistics.fmean(each) for each in zip(*(run["dice"] for run in group), strict=True)],
                "latency_ms": {name: min(each[name] for each in times) for name in times[0]},
                "training_s": min(run["training_s"] for run in group),
                "seeds": len(group),
            }
        )
    return sorted(merged, key=_latency)


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The front of each set as a picture.

    Args:
        runs: all of them.
        path: the PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(run["set"] for run in runs))
    figure, axes = plt.subplots(1, len(names), figsize=(8 * len(names), 6), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        mine = merge_seeds([run for run in runs if run["set"] == name])
        points = [(_latency(run), statistics.fmean(run["dice"])) for run in mine]
        axis.scatter(*zip(*points, strict=True), color="#2171b5", zorder=2)
        axis.plot(*zip(*(points[index] for index in front(points)), strict=True), color="#d94801", zorder=1)
        for run, point in zip(mine, points, strict=True):
            axis.annotate(run["candidate"]["name"], point, fontsize=7, xytext=(4, 3), textcoords="offset points")
        axis.set(xscale="log", xlabel="ms for one case, one thread, best runtime", ylabel="mean Dice", title=name)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(runs: Sequence[Mapping[str, Any]]) -> str:
    """The table, with the picture beside it.

    Args:
        runs: all of them.
    """
    draw(runs, RESULTS / "search.png")
    return to_markdown(runs)


def _latency(run: Mapping[str, Any]) -> float:
    return min(run["latency_ms"].values())


def _key(run: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return run["set"], json.dumps(run["candidate"], sort_keys=True), run["steps"], run["seed"]


def main() -> None:
    """Makes the runs that are missing, and writes table and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("--set", nargs="+", default=list(SETS), choices=list(SETS), help="what to train on")
    parser.add_argument("--steps", type=int, help="of a run; those of the set if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of weights and samples")
    parser.add_argument("--only", nargs="+", help="names of candidates; all if not given")
    parser.add_argument("--time", action="store_true", help="train nothing, time all layouts anew")
    options = parser.parse_args()
    made = describe_circumstances("benchmarks.search")
    torch.set_num_threads(1)
    for name in options.set:
        data = load_set(name, options.data)
        peers = [Peer(each, versus_sets.SETS[name]) for each in CONTENDERS if each.family == "MONAI UNet"]
        everything: list[Candidate | Peer] = [*list_candidates(data.spatial_dims), *peers]
        if options.time:
            keep_runs("search", partial(time_anew, everything=everything, data=data), report, made)
            continue
        wanted = [each for each in everything if not options.only or each.name in options.only]
        for seed, candidate in tqdm(list(itertools.product(options.seeds, wanted)), desc=name, disable=None):
            plan = ShortRun(steps=options.steps or SETS[name].steps, seed=seed)
            key = _key({"set": name, "candidate": candidate.to_dict(), "steps": plan.steps, "seed": plan.seed})
            if key in map(_key, kept_runs("search")):
                continue
            keep_runs("search", adding(run_candidate(candidate, data, plan)), report, made)


if __name__ == "__main__":
    main()
