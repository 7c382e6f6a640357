"""Which runtime is fastest for a network on this machine, measured once and kept."""

from __future__ import annotations

import hashlib
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import effvit_med
from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.opening import RUNTIMES, available_runtimes, open_runtime
from effvit_med.engine.runtimes.package import package_versions
from effvit_med.engine.runtimes.request import Runtime, RuntimeName, RuntimeRequest
from effvit_med.engine.runtimes.tensorrt_runtime import engine_path
from effvit_med.errors import EffvitError, OutputError
from effvit_med.io.atomic import write_json

LEAST_AGREEMENT = 0.999
"""Share of voxels on which a runtime must give the class that eager float32 gives."""

_TIMED_CALLS = 3


@dataclass(frozen=True)
class Choice:
    """The runtime to use.

    Attributes:
        name: of the fastest runtime that labels as eager float32 does.
        seconds: median wall time of one tile, by runtime that was measured.
        cached: whether this was measured in an earlier run.
        reasons: why each of the others was not measured or not taken.
        agreement: share of voxels that are labelled as by eager float32, by runtime that was measured.
    """

    name: RuntimeName
    seconds: Mapping[str, float]
    cached: bool
    reasons: Mapping[str, str]
    agreement: Mapping[str, float] = field(default_factory=dict)


def choose_runtime(
    request: RuntimeRequest,
    *,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Choice:
    """The fastest runtime for a network on this machine.

    Every runtime that can be used runs one random tile: once to warm up, then three times, of which the median
    counts. One whose labels agree less than `LEAST_AGREEMENT` with eager float32 is refused; eager itself, in the
    precision that the user asked for, is what is left if all others are. ``compile`` is never measured and an engine of
    ``tensorrt`` only where it was built before, since making either takes minutes. The answer is kept, for this
    network, window, batch, precision, processor, thread count and these versions; where it cannot be kept it is given
    all the same.

    Args:
        request: the network and how it is to be run.
        cache: the folder for the answer; None for the user's cache folder.
        progress: called as progress("runtime", done, total).

    Returns:
        The choice with what was measured.

    Raises:
        OutputError: if the user's cache folder cannot be made.
    """
    identity = _identity(request)
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:40]
    path = (cache_folder("choices") if cache is None else cache) / f"{name}.json"
    known = _read_choice(path)
    if known:
        return known
    choice = _measure(request, progress or (lambda *_: None))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"identity": identity, **asdict(choice)})
    except (OSError, OutputError):
        return choice  # a folder that takes no file costs a measurement, not the run
    return choice


def _measure(request: RuntimeRequest, progress: Callable[[str, int, int], None]) -> Choice:
    tile = random_tile(request)
    exact = request.decide(open_runtime("eager", replace(request, precision="float32")).predict(tile))
    seconds: dict[str, float] = {}
    agreement: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for done, (name, why_not) in enumerate(_candidates(request).items()):
        progress("runtime", done, len(RUNTIMES))
        if why_not:
            reasons[name] = why_not
            continue
        try:
            runtime = open_runtime(name, request)
            labels = request.decide(runtime.predict(tile))
            seconds[name] = _median_seconds(runtime, tile, request.device)
        except EffvitError as error:
            reasons[name] = str(error)
            continue
        agreement[name] = float((labels == exact).float().mean())
        if agreement[name] < LEAST_AGREEMENT and name != "eager":
            reasons[name] = (
                f"It labels {agreement[name]:.2%} of voxels as eager float32; {LEAST_AGREEMENT:.1%} are due."
            )
    progress("runtime", len(RUNTIMES), len(RUNTIMES))
    best = min((name for name in RUNTIMES if name in seconds and name not in reasons), key=seconds.__getitem__)
    for slower in set(seconds) - {best} - set(reasons):
        reasons[slower] = f"It takes {seconds[slower]:.3g} s a tile; {best} takes {seconds[best]:.3g} s."
    return Choice(best, seconds, cached=False, reasons=reasons, agreement=agreement)


def _candidates(request: RuntimeRequest) -> dict[RuntimeName, str]:
    """What speaks against measuring each runtime; empty where nothing does."""
    found = available_runtimes(request.device)
    found["compile"] = found["compile"] or "It compiles for minutes; ask for it by name."
    if not found["tensorrt"] and not engine_path(request).is_file():
        found["tensorrt"] = "Its engine takes minutes to build; ask for it by name once."
    return found


def _median_seconds(runtime: Runtime, tile: Tensor, device: torch.device) -> float:
    """The median wall time of some calls; the call before them was the one to warm up."""
    taken = []
    for _ in range(_TIMED_CALLS):
        start = time.perf_counter()
        runtime.predict(tile)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def random_tile(request: RuntimeRequest) -> Float[Tensor, "1 channels *window"]:
    """A tile of soft random shapes with some noise, the same in every run.

    Args:
        request: whose window and channels it has.

    Returns:
        Values of -1 to 1, the range of a prepared scan.
    """
    generator = torch.Generator().manual_seed(0)
    channels, dims = request.network.in_channels, request.network.spatial_dims
    coarse = torch.randn(1, channels, *(max(2, size // 8) for size in request.window), generator=generator)
    mode = "bilinear" if dims == 2 else "trilinear"
    soft = torch.nn.functional.interpolate(coarse, size=request.window, mode=mode, align_corners=False)
    return (soft + 0.05 * torch.randn(soft.shape, generator=generator)).clamp(-1, 1)


def _identity(request: RuntimeRequest) -> dict[str, Any]:
    """All that decides which runtime is fastest, as plain values."""
    device = request.device
    return {
        "machine": describe_processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "effvit-med": effvit_med.__version__,
            **package_versions("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt"),
        },
        "key": request.key,
        "window": list(request.window),
        "batch_size": request.batch_size,
        "precision": request.precision,
    }


def describe_processor() -> str:
    """The model of the processor, as the system names it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return name
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    told = [about[key] for key in ("model name", "model", "stepping") if about.get(key)]
    return " ".join(told) or name


def _read_choice(path: Path) -> Choice | None:
    """The answer of an earlier run, or None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        name = found["name"]
        parts = {each: dict(found[each]) for each in ("seconds", "reasons", "agreement")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Choice(name, cached=True, **parts) if name in RUNTIMES else None
