"""How long our networks take beside MONAI's: CPU seconds for one full-resolution output, on one thread.

Run from the repository's root: ``python -m benchmarks.networks`` (``--quick`` for fewer repeats). All networks get the
same image in one process and take turns, so that a busy machine slows them alike; the median of the process's CPU time
is kept, not wall time. The weights are random: this says nothing of accuracy. Needs the ``train`` extra, for MONAI.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.networks import build_network, fold_batchnorm

OUT_CHANNELS = 7
SIZES = {3: (96, 96, 96), 2: (512, 512)}
REFERENCE = "EfficientViT-B0, stride 1"


@dataclass(frozen=True)
class Measurement:
    """One network at one size.

    Attributes:
        network: its name.
        size: of the image.
        parameters: how many it has, before folding.
        cpu_seconds: the median over the repeats.
        fastest_seconds: the smallest.
        slowest_seconds: the largest.
        ratio: its median over that of our B0 of stride 1.
    """

    network: str
    size: tuple[int, ...]
    parameters: int
    cpu_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    ratio: float


def make_ours(spatial_dims: int) -> Iterator[tuple[str, nn.Module]]:
    """Our networks of full-size output, B0 and B1, with decoders of stride 1 and 2."""
    for preset in ("b0", "b1"):
        for stride in (1, 2):
            name = f"EfficientViT-{preset.upper()}, stride {stride}"
            yield name, build_network(spatial_dims, 1, OUT_CHANNELS, f"efficientvit_{preset}", decoder_stride=stride)


def make_peers(spatial_dims: int) -> Iterator[tuple[str, nn.Module]]:
    """MONAI's networks in their usual configurations; DynUNet as nnU-Net plans it for these sizes."""
    from monai.networks.nets import DynUNet, SwinUNETR, UNet

    widths, strides = (32, 64, 128, 256, 320), (2, 2, 2, 2)
    yield "MONAI UNet", UNet(spatial_dims, 1, OUT_CHANNELS, widths, strides, num_res_units=2)
    filters = [32, 64, 128, 256, 320, 320] if spatial_dims == 3 else [32, 64, 128, 256, 512, 512, 512, 512]
    steps = [1] + [2] * (len(filters) - 1)
    kernels = [3] * len(filters)
    yield (
        "MONAI DynUNet (nnU-Net)",
        DynUNet(spatial_dims, 1, OUT_CHANNELS, kernels, steps, steps[1:], filters=filters, norm_name="instance"),
    )
    yield (
        "MONAI SwinUNETR-48",
        SwinUNETR(in_channels=1, out_channels=OUT_CHANNELS, feature_size=48, spatial_dims=spatial_dims),
    )


def count_parameters(network: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in network.parameters())


def cpu_seconds(call: Callable[[Tensor], Tensor], image: Tensor) -> float:
    """The process's CPU time for one call."""
    start = time.process_time()
    output = call(image)
    seconds = time.process_time() - start
    if output.shape != (1, OUT_CHANNELS, *image.shape[2:]):
        raise ValueError(f"the output has the shape {tuple(output.shape)}, not full size")
    return seconds


def measure(spatial_dims: int, repeats: int) -> list[Measurement]:
    """All networks on one random image, taking turns.

    Args:
        spatial_dims: 2 or 3.
        repeats: how often each is timed, after one call that is not.
    """
    torch.manual_seed(0)
    size = SIZES[spatial_dims]
    image = torch.randn(1, 1, *size)
    networks: dict[str, nn.Module] = {}
    parameters: dict[str, int] = {}
    for name, network in make_ours(spatial_dims):
        parameters[name] = count_parameters(network)
        networks[name] = fold_batchnorm(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's own deprecations
        for name, network in make_peers(spatial_dims):
            parameters[name] = count_parameters(network)
            networks[name] = network.eval()
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name, network in networks.items():
                taken = cpu_seconds(network, image)
                if turn > 0:
                    seconds[name].append(taken)
    reference = statistics.median(seconds[REFERENCE])
    return [
        Measurement(
            network=name,
            size=size,
            parameters=parameters[name],
            cpu_seconds=statistics.median(taken),
            fastest_seconds=min(taken),
            slowest_seconds=max(taken),
            ratio=statistics.median(taken) / reference,
        )
        for name, taken in seconds.items()
    ]


def to_markdown(measurements: list[Measurement], repeats: int) -> str:
    """The measurements as one table for each size."""
    lines = [
        "# Networks: CPU seconds for one full-resolution output",
        "",
        (
            f"One thread, float32, 1 channel in, {OUT_CHANNELS} classes out, batch 1; median process CPU time of "
            f"{repeats} interleaved repeats (smallest to largest). Ours with batch normalisation "
            "folded. Random weights: cost only, no accuracy."
        ),
    ]
    for size in dict.fromkeys(each.size for each in measurements):
        rows = [
            [
                each.network,
                f"{each.parameters / 1e6:.2f} M",
                f"{each.cpu_seconds:.3f} ({each.fastest_seconds:.3f} to {each.slowest_seconds:.3f})",
                f"{each.ratio:.1f}",
            ]
            for each in measurements
            if each.size == size
        ]
        lines += ["", f"## {' x '.join(map(str, size))}", ""]
        lines += [make_table(["network", "parameters", "CPU s", "times ours"], rows)]
    return "\n".join(lines)


def main() -> None:
    """Measures at both sizes, prints the tables and writes them into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 repeats instead of 7")
    repeats = 2 if parser.parse_args().quick else 7
    torch.set_num_threads(1)
    made = describe_circumstances("benchmarks.networks")
    measurements = [each for spatial_dims in SIZES for each in measure(spatial_dims, repeats)]
    figures = {"repeats": repeats, "measurements": [asdict(each) for each in measurements]}
    write_report("networks", to_markdown(measurements, repeats), figures, made)


if __name__ == "__main__":
    main()
