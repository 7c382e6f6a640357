"""From feature maps to one score per class: the published classification head, and backbone and head as one network."""

from __future__ import annotations

from collections import OrderedDict

from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.networks.blocks import BlockStyle, ConvNorm
from effvit_med.networks.efficientvit import NamedBackbone
from effvit_med.networks.presets.classifiers import ClassifierPreset


class GlobalPool(nn.Module):
    """The mean over all pixels or voxels."""

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels"]:
        """One number per channel."""
        return x.flatten(2).mean(2)


class LinearNorm(nn.Module):
    """A linear layer without bias, a layer normalisation and the activation.

    Args:
        style: gives the activation and the eps.
        in_features: how many features come in.
        out_features: how many go out.
    """

    def __init__(self, style: BlockStyle, in_features: int, out_features: int) -> None:
        super().__init__()
        self.style = style
        self.linear = nn.Linear(in_features, out_features, bias=False)
        self.norm = nn.LayerNorm(out_features, eps=style.norm_eps)

    def forward(self, x: Float[Tensor, "batch in_features"]) -> Float[Tensor, "batch out_features"]:
        """The new features."""
        return self.style.activate(self.norm(self.linear(x)))


class LinearLast(nn.Module):
    """The last linear layer, with bias.

    Args:
        in_features: how many features come in.
        classes: the number of classes.
    """

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, classes)

    def forward(self, x: Float[Tensor, "batch in_features"]) -> Float[Tensor, "batch classes"]:
        """One logit per class."""
        return self.linear(x)


class ClsHead(nn.Module):
    """The published classification head of EfficientViT, on the deepest map.

    Args:
        style: what all blocks share; its activation must be the preset's.
        channels: channels of the deepest map.
        classes: the number of classes.
        preset: the widths.
    """

    def __init__(self, style: BlockStyle, channels: int, classes: int, preset: ClassifierPreset) -> None:
        super().__init__()
        self.op_list = nn.Sequential(
            OrderedDict(
                [
                    ("0", ConvNorm(style, channels, preset.conv_width)),
                    ("1", GlobalPool()),
                    ("2", LinearNorm(style, preset.conv_width, preset.linear_width)),
                    ("3", LinearLast(preset.linear_width, classes)),
                ]
            )
        )

    def forward(self, features: list[Tensor]) -> Float[Tensor, "batch classes"]:
        """One logit per class.

        Args:
            features: the backbone's maps, finest first.
        """
        return self.op_list(features[-1])


class Classifier(nn.Module):
    """A backbone and a classification head.

    Args:
        backbone: gives the feature maps.
        head: turns them into one logit per class.
        classes: the number of classes.

    Attributes:
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: the number of classes.
    """

    def __init__(self, backbone: NamedBackbone, head: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.spatial_dims = backbone.spatial_dims
        self.in_channels = backbone.in_channels
        self.out_channels = classes

    def features(self, x: Float[Tensor, "batch channels *space"]) -> list[Tensor]:
        """The backbone's maps, finest first.

        Args:
            x: the image, of any size.
        """
        return self.backbone.features(x)

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch classes"]:
        """One logit per class.

        Args:
            x: the image, of any size.
        """
        return self.head(self.backbone.features(x))
