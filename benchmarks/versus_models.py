"""The networks that are compared on real sets, each with a small adapter: add a row and it is trained and scored.

All are built for the set's number of axes and classes, get one channel and give logits at the image's size. Peers are
MONAI's own classes with the depth that the set calls for and the widths swept, small ones too: a peer is not to lose
because it is large.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.versus_sets import LabelledSet
from effvit_med.networks import build_network, fold_batchnorm

LARGEST_WIDTH = {2: 512, 3: 320}
"""Channels beyond which U-shaped peers do not double any more, as in nnU-Net's plans."""


@dataclass(frozen=True)
class Contender:
    """One network to train, score and time.

    Attributes:
        name: as in the tables; unique.
        family: its curve in the plots.
        build: gives it for a set with random weights.
        multiple: of what each side of its input must be, which it pads to within its time; 0 for what a U-shape of the
            set's levels needs.
        learning_rate: the largest of AdamW.
        usual: how long its authors train, for the table.
    """

    name: str
    family: str
    build: Callable[[LabelledSet], nn.Module]
    multiple: int = 1
    learning_rate: float = 5e-3
    usual: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is drawn as ours."""
        return self.family == "ours"


class Adapter(nn.Module):
    """A network that takes images of any size.

    Args:
        network: gives logits of its input's size.
        spatial_dims: 2 or 3.
        multiple: the input goes on as its mirror at the far ends up to a multiple of it, and the logits are cut.
    """

    def __init__(self, network: nn.Module, spatial_dims: int, multiple: int = 1) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = spatial_dims
        self.in_channels = 1
        self.multiple = multiple

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the image's size."""
        size = [int(edge) for edge in x.shape[2:]]
        missing = [-edge % self.multiple for edge in size]
        for axis, (edge, more) in enumerate(zip(size, missing, strict=True), 2):
            if more:  # as `effvit_med.transforms.cut_mirrored`, in plain numbers, so that it can be exported
                places = [place if place < edge else 2 * edge - 1 - place for place in range(edge + more)]
                x = x.index_select(axis, torch.tensor(places, device=x.device))
        y: Tensor = self.network(x)
        for axis, edge in enumerate(size, 2):
            y = y.narrow(axis, 0, edge) if any(missing) else y
        return y


def _ours(labelled: LabelledSet, preset: str) -> nn.Module:
    return build_network(labelled.spatial_dims, 1, len(labelled.structures) + 1, preset, norm="instance")


def _widths(labelled: LabelledSet, first: int) -> list[int]:
    """Doubled at each level.

    Examples:
        >>> from benchmarks.versus_sets import SETS
        >>> _widths(SETS["hippocampus"], 8)
        [8, 16, 32, 64]
    """
    return [min(first * 2**level, LARGEST_WIDTH[labelled.spatial_dims]) for level in range(labelled.levels)]


def _unet(labelled: LabelledSet, width: int) -> nn.Module:
    from monai.networks.nets import UNet

    widths = _widths(labelled, width)
    strides = [2] * (len(widths) - 1)
    return UNet(labelled.spatial_dims, 1, len(labelled.structures) + 1, widths, strides, num_res_units=2)


def _dynunet(labelled: LabelledSet, width: int) -> nn.Module:
    from monai.networks.nets import DynUNet

    widths = _widths(labelled, width)
    strides = [1] + [2] * (len(widths) - 1)
    return DynUNet(
        labelled.spatial_dims,
        1,
        len(labelled.structures) + 1,
        [3] * len(widths),
        strides,
        strides[1:],
        filters=widths,
        norm_name="instance",
    )


def _segresnet(labelled: LabelledSet, width: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(labelled.spatial_dims, width, in_channels=1, out_channels=len(labelled.structures) + 1)


def _swin_unetr(labelled: LabelledSet, width: int) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    classes = len(labelled.structures) + 1
    return SwinUNETR(in_channels=1, out_channels=classes, feature_size=width, spatial_dims=labelled.spatial_dims)


OURS = ("fullres_tiny", "fullres_small", "fullres_base")

CONTENDERS = (
    *(Contender(name, "ours", partial(_ours, preset=name)) for name in OURS),
    *(
        Contender(f"UNet {width}", "MONAI UNet", partial(_unet, width=width), 0, usual="no recipe of its own")
        for width in (8, 16, 32, 64)
    ),
    *(
        Contender(
            f"DynUNet {width}",
            "MONAI DynUNet",
            partial(_dynunet, width=width),
            0,
            usual="250 000 steps (as nnU-Net)",
        )
        for width in (8, 16, 32)
    ),
    *(
        Contender(
            f"SegResNet {width}",
            "MONAI SegResNet",
            partial(_segresnet, width=width),
            2**3,
            usual="300 epochs on a GPU of 32 GB",
        )
        for width in (8, 16, 32)
    ),
    *(
        Contender(
            f"SwinUNETR {width}",
            "MONAI SwinUNETR",
            partial(_swin_unetr, width=width),
            2**5,
            5e-4,
            "800 epochs on 8 GPUs, after training on 5050 scans without labels",
        )
        for width in (12, 24)
    ),
)
"""Everything but nnU-Net, which has its own recipe (`benchmarks.versus_nnunet`)."""

NNUNET = "nnU-Net"
NNUNET_USUAL = "1000 epochs of 250 steps on a GPU, 5 folds"


def find_contender(name: str) -> Contender:
    """The row of a name.

    Raises:
        KeyError: if there is none.
    """
    return {each.name: each for each in CONTENDERS}[name]


def build_adapter(contender: Contender, labelled: LabelledSet) -> Adapter:
    """A new network for a set; random weights come from torch's generator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own deprecations
        network = contender.build(labelled)
    return Adapter(network, labelled.spatial_dims, contender.multiple or 2 ** (labelled.levels - 1))


def fold_adapter(contender: Contender, adapter: Adapter) -> Adapter:
    """The network as it runs in use: ours with their batch normalisations folded, peers as they come."""
    if contender.is_ours:
        return Adapter(fold_batchnorm(adapter.network.eval()), adapter.spatial_dims, adapter.multiple).eval()
    return adapter.eval()
