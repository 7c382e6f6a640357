"""Parameters and products of every 2D preset beside the published figures.

Run from the repository's root: ``python -m benchmarks.published``. Nothing is run and no weights are made: the networks
are built without memory and their operations counted. Published figures: the papers and README files of each family, or
counts of the official code where these give none; products (GMAC) are half of the operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.networks import (
    SegmentationNetwork,
    create_backbone,
    create_classifier,
    create_sam,
    create_segmenter,
)
from effvit_med.networks.attention import LiteMLA
from effvit_med.networks.cost import build_empty, count_flops, count_parameters

#: Half a unit of the last digit that is published.
ROUNDING = 0.51


@dataclass(frozen=True)
class Published:
    """One model's published figures.

    Attributes:
        kind: ``backbone``, ``classifier``, ``segmenter`` or ``sam encoder``.
        name: the model.
        parameters_m: its parameters in millions, as text with the digits that are published.
        gmac: for image sizes, its products in 10^9, as text likewise.
    """

    kind: str
    name: str
    parameters_m: str
    gmac: dict[int, str]


def _rows(kind: str, sizes: tuple[int, ...], table: str) -> list[Published]:
    rows = []
    for line in table.strip().splitlines():
        name, parameters, *gmac = line.split()
        rows.append(Published(kind, name, parameters, dict(zip(sizes, gmac, strict=True))))
    return rows


PUBLISHED = [
    *_rows(
        "backbone",
        (224, 512, 1024),
        """
        efficientvit_b0 0.683 0.091 0.477 1.906
        efficientvit_b1 4.644 0.496 2.591 10.36
        efficientvit_b2 14.977 1.533 8.010 32.04
        efficientvit_b3 38.997 3.888 20.31 81.24
        efficientvit_l0 27.805 4.505 23.53 94.14
        efficientvit_l1 38.037 5.168 27.00 108.0
        efficientvit_l2 49.090 6.860 35.84 143.4
        efficientvit_l3 193.998 27.23 142.3 569.1
        efficientvit_xl0 96.623 5.973 29.91 119.6
        efficientvit_xl1 167.267 9.650 48.07 192.3
        """,
    ),
    *_rows(
        "classifier",
        (224,),
        """
        efficientvit_b0 3.410 0.100
        efficientvit_b1 9.102 0.519
        efficientvit_b2 24.331 1.585
        efficientvit_b3 48.646 3.954
        efficientvit_l1 52.654 5.258
        efficientvit_l2 63.707 6.950
        efficientvit_l3 246.037 27.59
        efficientvit_m0 2.349 0.079
        efficientvit_m1 2.981 0.167
        efficientvit_m2 4.188 0.201
        efficientvit_m3 6.901 0.263
        efficientvit_m4 8.804 0.299
        efficientvit_m5 12.474 0.522
        """,
    ),
    *_rows(
        "classifier",
        (224, 512, 1024),
        """
        shvit_s1 6.331 0.241 1.207 5.05
        shvit_s2 11.483 0.365 1.795 7.46
        shvit_s3 14.245 0.601 3.028 12.5
        shvit_s4 16.588 0.783 3.972 16.4
        efficientmod_xxs 4.736 0.579 3.51 21.3
        efficientmod_xs 6.628 0.773 5.43 42.4
        efficientmod_s 12.897 1.402 9.19 64.5
        efficientmod_s_conv 12.872 1.471 7.68 30.7
        """,
    ),
    *_rows(
        "segmenter",
        (512, 1024),
        """
        efficientvit_seg_b0_cityscapes 0.707 0.549 2.196
        efficientvit_seg_b1_cityscapes 4.803 3.138 12.55
        efficientvit_seg_b2_cityscapes 15.324 9.205 36.82
        efficientvit_seg_b3_cityscapes 39.603 22.40 89.61
        efficientvit_seg_l1_cityscapes 40.242 35.31 141.2
        efficientvit_seg_l1_ade20k 40.410 36.34 145.4
        efficientvit_seg_l2_cityscapes 52.608 49.52 198.1
        efficientvit_seg_l2_ade20k 51.462 45.18 180.7
        """,
    ),
    *_rows("segmenter", (512,), "efficientvit_seg_b1_ade20k 4.791 3.09\nefficientvit_seg_b2_ade20k 15.293 9.08\n"
           "efficientvit_seg_b3_ade20k 39.546 22.2"),
    *_rows("sam encoder", (512,), "efficientvit_sam_l0 30.728 34.8\nefficientvit_sam_l1 43.586 49.0\n"
           "efficientvit_sam_l2 57.264 68.6"),
    *_rows("sam encoder", (1024,), "efficientvit_sam_xl0 112.893 184.8\nefficientvit_sam_xl1 199.282 321.9"),
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Our counts of one model beside the published ones.

    Attributes:
        published: the published figures.
        parameters: our count.
        products: our count for each image size.
        official: the same with the attention counted as the official code computes it.
        equal: whether parameters and products agree to the digits that are published: ``yes``; ``yes, counted alike``
            where only the count of the attention differs; or ``no``.
    """

    published: Published
    parameters: int
    products: dict[int, int]
    official: dict[int, int]
    equal: str


def compare(published: Published) -> Comparison:
    """Our counts of a model, built without memory.

    Args:
        published: its name and published figures.
    """
    network = build_empty(_builder(published))
    counted: nn.Module = network.get_submodule("image_encoder") if published.kind == "sam encoder" else network
    call = _Logits(network) if isinstance(network, SegmentationNetwork) else counted
    products, official = {}, {}
    for size in published.gmac:
        with _attention_differences(network) as differences:
            products[size] = count_flops(call, (1, 3, size, size)) // 2
        official[size] = products[size] + sum(differences)
    parameters = count_parameters(counted)
    same = agrees(parameters / 1e6, published.parameters_m)
    plainly, alike = (
        same and all(agrees(count[size] / 1e9, text) for size, text in published.gmac.items())
        for count in (products, official)
    )
    equal = "yes" if plainly else "yes, counted alike" if alike else "no"
    return Comparison(published, parameters, products, official, equal)


@contextmanager
def _attention_differences(network: nn.Module) -> Iterator[list[int]]:
    """Collects, for each call of linear attention, the products that the official code takes beyond ours.

    It appends a row of ones to the values, where we sum the keys and multiply once: dim x tokens fewer for each head.
    On maps of at most dim tokens it takes the quadratic order, 2 dim tokens^2, where we keep to the linear one.
    """
    differences: list[int] = []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(module, LiteMLA)
        dim, tokens = module.kind.head_dim, math.prod(inputs[0].shape[2:])
        heads = module.proj.conv.in_channels // dim
        ours = 2 * dim * dim * tokens + dim * tokens
        theirs = 2 * dim * tokens**2 if tokens <= dim else 2 * (dim + 1) * dim * tokens
        differences.append(heads * (theirs - ours))

    hooks = [each.register_forward_pre_hook(note) for each in network.modules() if isinstance(each, LiteMLA)]
    try:
        yield differences
    finally:
        for hook in hooks:
            hook.remove()


def agrees(value: float, text: str) -> bool:
    """Whether a value rounds to the digits that are published.

    Args:
        value: ours.
        text: the published figure.

    Examples:
        >>> agrees(0.68232, "0.682"), agrees(0.68232, "0.69")
        (True, False)
    """
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= ROUNDING * 10.0**-digits


class _Logits(nn.Module):
    """A segmentation network at its head's own resolution, as published."""

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.logits(x)


def _builder(published: Published) -> Any:
    builders: dict[str, Callable[..., Any]] = {
        "backbone": create_backbone,
        "classifier": create_classifier,
        "segmenter": create_segmenter,
        "sam encoder": create_sam,
    }
    return partial(builders[published.kind], published.name)


def to_markdown(comparisons: list[Comparison]) -> str:
    """All comparisons as one table."""
    equal = sum(each.equal != "no" for each in comparisons)
    alike = sum(each.equal == "yes, counted alike" for each in comparisons)
    summary = (
        f"{equal} of {len(comparisons)} models agree in every digit that is published, {alike} of them once linear "
        "attention is counted as the official code computes it: that appends a row of ones to the values, where ours "
        "sums the keys and multiplies once, and takes the quadratic order on maps of few tokens. The outputs are the "
        "same. Classifiers with 1000 classes, segmentation at the head's own resolution, SAM without prompt encoder "
        "and mask decoder, 3 channels in."
    )
    lines = ["# Parameters and products of every 2D preset, beside the published figures", "", summary, ""]
    rows = []
    for each in comparisons:
        sizes = [f"{size}: {each.products[size] / 1e9:.3f} ({text})" for size, text in each.published.gmac.items()]
        rows.append(
            [
                each.published.kind,
                each.published.name,
                f"{each.parameters / 1e6:.3f} ({each.published.parameters_m})",
                ", ".join(sizes),
                each.equal,
            ]
        )
    heading = ["kind", "model", "parameters, M (published)", "GMAC by image size (published)", "equal"]
    return "\n".join([*lines, make_table(heading, rows, texts=5)])


def main() -> None:
    """Counts every preset, prints the table and writes it into results/."""
    made = describe_circumstances("benchmarks.published")
    comparisons = [compare(each) for each in PUBLISHED]
    write_report("published", to_markdown(comparisons), {"models": [asdict(each) for each in comparisons]}, made)


if __name__ == "__main__":
    main()
