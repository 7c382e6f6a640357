"""The networks that are compared, ours and our peers', each built with full-size output: add a row and it is measured.

Every network takes 1 channel and gives 14 classes at the size of the image. Ours have their batch normalisation folded
and keep their maps channels-last, as the product runs them; peers run as shipped (their instance normalisation cannot
be folded). Weights are random and never fetched. MONAI and transformers are imported when a network of theirs is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from effvit_med.networks import build_network, fold_batchnorm
from effvit_med.networks.cost import count_parameters

OUT_CHANNELS = 14

Builder = Callable[[tuple[int, ...]], nn.Module]
"""Builds a network for a size of image; most take any size."""


@dataclass(frozen=True)
class Entry:
    """One network to measure.

    Attributes:
        name: as in the tables; unique among those of its number of axes.
        spatial_dims: 2 or 3.
        build: gives it with random weights, in training mode.
        is_ours: whether it is folded before it is measured, and drawn as ours.
    """

    name: str
    spatial_dims: int
    build: Builder
    is_ours: bool = True


class FullSize(nn.Module):
    """A network of coarse logits, interpolated to the size of its image.

    Args:
        network: gives an object with ``logits``, as those of transformers do.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the image's size."""
        return functional.interpolate(self.network(x).logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def _ours(size: tuple[int, ...], preset: str, decoder: str = "high_resolution", stride: int | None = None) -> nn.Module:
    return build_network(len(size), 1, OUT_CHANNELS, preset, decoder, stride)


def _unet(size: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import UNet

    return UNet(len(size), 1, OUT_CHANNELS, (32, 64, 128, 256, 320), (2, 2, 2, 2), num_res_units=2)


def _dynunet(size: tuple[int, ...]) -> nn.Module:
    """With the widths and depths that nnU-Net plans for images of 512 x 512 and for windows of about 128^3."""
    from monai.networks.nets import DynUNet

    filters = [32, 64, 128, 256, 320, 320] if len(size) == 3 else [32, 64, 128, 256, 512, 512, 512, 512]
    steps = [1] + [2] * (len(filters) - 1)
    kernels = [3] * len(filters)
    return DynUNet(len(size), 1, OUT_CHANNELS, kernels, steps, steps[1:], filters=filters, norm_name="instance")


def _segresnet(size: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(spatial_dims=len(size), init_filters=32, in_channels=1, out_channels=OUT_CHANNELS)


def _swin_unetr(size: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(in_channels=1, out_channels=OUT_CHANNELS, feature_size=48, spatial_dims=len(size))


def _unetr(size: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets import UNETR

    return UNETR(in_channels=1, out_channels=OUT_CHANNELS, img_size=size, spatial_dims=len(size))


def _segformer(size: tuple[int, ...], depths: Sequence[int], widths: Sequence[int], decoder: int) -> nn.Module:
    """By the table of the paper (arXiv 2105.15203); the logits, of stride 4, are interpolated to full size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    del size
    config = SegformerConfig(
        num_channels=1,
        id2label={number: str(number) for number in range(OUT_CHANNELS)},
        depths=list(depths),
        hidden_sizes=list(widths),
        decoder_hidden_size=decoder,
    )
    return FullSize(SegformerForSemanticSegmentation(config))


_SEGFORMER_B0 = partial(_segformer, depths=(2, 2, 2, 2), widths=(32, 64, 160, 256), decoder=256)
_SEGFORMER_B2 = partial(_segformer, depths=(3, 4, 6, 3), widths=(64, 128, 320, 512), decoder=768)

#: The reference of the ratios, by the number of axes.
REFERENCE = {2: "EfficientViT-B1", 3: "EfficientViT-B0, stride 1 (3D preset)"}

#: What is measured, in the order of the tables.
NETWORKS = (
    Entry("EfficientViT-B0", 2, partial(_ours, preset="efficientvit_b0", decoder="seg_head")),
    Entry("EfficientViT-B1", 2, partial(_ours, preset="efficientvit_b1", decoder="seg_head")),
    Entry("EfficientViT-B2", 2, partial(_ours, preset="efficientvit_b2", decoder="seg_head")),
    Entry("EfficientViT-L1", 2, partial(_ours, preset="efficientvit_l1", decoder="seg_head")),
    Entry("EfficientViT-B0, stride 1", 2, partial(_ours, preset="efficientvit_b0", stride=1)),
    Entry("EfficientViT-B0, stride 2", 2, partial(_ours, preset="efficientvit_b0", stride=2)),
    Entry("EfficientViT-B1, stride 1", 2, partial(_ours, preset="efficientvit_b1", stride=1)),
    Entry("EfficientViT-B1, stride 2", 2, partial(_ours, preset="efficientvit_b1", stride=2)),
    Entry("EfficientViT-M0, stride 1", 2, partial(_ours, preset="efficientvit_m0", stride=1)),
    Entry("SHViT-S1, stride 1", 2, partial(_ours, preset="shvit_s1", stride=1)),
    Entry("EfficientMod-xxs, stride 1", 2, partial(_ours, preset="efficientmod_xxs", stride=1)),
    Entry("TurboViT-t (ours), stride 1", 2, partial(_ours, preset="turbovit_t", stride=1)),
    Entry("MONAI UNet", 2, _unet, is_ours=False),
    Entry("MONAI DynUNet (nnU-Net)", 2, _dynunet, is_ours=False),
    Entry("MONAI SegResNet-32", 2, _segresnet, is_ours=False),
    Entry("MONAI SwinUNETR-48", 2, _swin_unetr, is_ours=False),
    Entry("MONAI UNETR", 2, _unetr, is_ours=False),
    Entry("SegFormer-B0", 2, _SEGFORMER_B0, is_ours=False),
    Entry("SegFormer-B2", 2, _SEGFORMER_B2, is_ours=False),
    Entry("EfficientViT-B0, stride 1 (3D preset)", 3, partial(_ours, preset="efficientvit_b0", stride=1)),
    Entry("EfficientViT-B0, stride 2", 3, partial(_ours, preset="efficientvit_b0", stride=2)),
    Entry("EfficientViT-B0, stride 4", 3, partial(_ours, preset="efficientvit_b0", stride=4)),
    Entry("EfficientViT-B1, stride 1", 3, partial(_ours, preset="efficientvit_b1", stride=1)),
    Entry("EfficientViT-B1, stride 2", 3, partial(_ours, preset="efficientvit_b1", stride=2)),
    Entry("EfficientViT-B1, stride 4", 3, partial(_ours, preset="efficientvit_b1", stride=4)),
    Entry("EfficientViT-M0, stride 1", 3, partial(_ours, preset="efficientvit_m0", stride=1)),
    Entry("SHViT-S1, stride 1", 3, partial(_ours, preset="shvit_s1", stride=1)),
    Entry("EfficientMod-xxs, stride 1", 3, partial(_ours, preset="efficientmod_xxs", stride=1)),
    Entry("TurboViT-t (ours), stride 1", 3, partial(_ours, preset="turbovit_t", stride=1)),
    Entry("MONAI UNet", 3, _unet, is_ours=False),
    Entry("MONAI DynUNet (nnU-Net)", 3, _dynunet, is_ours=False),
    Entry("MONAI SegResNet-32", 3, _segresnet, is_ours=False),
    Entry("MONAI SwinUNETR-48", 3, _swin_unetr, is_ours=False),
    Entry("MONAI UNETR", 3, _unetr, is_ours=False),
)


def prepare(entry: Entry, edge: int) -> tuple[nn.Module, int]:
    """A network ready to be measured, and how many parameters it had before folding.

    Args:
        entry: the network.
        edge: how many pixels or voxels the image has along each axis.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own deprecations
        network = entry.build((edge,) * entry.spatial_dims)
    parameters = count_parameters(network)
    return (fold_batchnorm(network) if entry.is_ours else network.eval()), parameters
