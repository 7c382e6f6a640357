"""Deep supervision: while a network learns, its decoder's coarser maps must know the labels as well."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks import HighResolutionDecoder, SegmentationNetwork, layers_for
from effvit_med.networks.decoder import resize
from effvit_med.networks.layers import lay_out


class DeepSupervision(nn.Module):
    """A segmentation network with a head on each coarser map of its decoder, for training only.

    In training mode it gives a list of logits, finest first, as MONAI's `DeepSupervisionLoss` takes them; in evaluation
    mode the network's own. The heads are point convolutions; only `network` is worth keeping.

    Args:
        network: what is trained; shared, not copied.
        levels: how many logits there are; 1 adds no head.

    Attributes:
        network: what was given.

    Raises:
        SettingsError: if levels is below 1, or the decoder has not so many maps.

    Examples:
        >>> import torch
        >>> from effvit_med.networks import build_network
        >>> module = DeepSupervision(build_network(2, in_channels=1, out_channels=3), levels=3)
        >>> [tuple(logits.shape) for logits in module(torch.zeros(1, 1, 32, 48))]
        [(1, 3, 32, 48), (1, 3, 16, 24), (1, 3, 8, 12)]
        >>> tuple(module.eval()(torch.zeros(1, 1, 32, 48)).shape)
        (1, 3, 32, 48)
    """

    def __init__(self, network: SegmentationNetwork, levels: int = 3) -> None:
        super().__init__()
        if levels < 1:
            raise SettingsError(f"deep_supervision is {levels}; give the number of levels, 1 for none but the output.")
        channels: tuple[int, ...] = ()
        if levels > 1:
            if not isinstance(network.head, HighResolutionDecoder):
                raise SettingsError(
                    f"deep_supervision is {levels}, but a {type(network.head).__name__} has no coarser maps; give 1."
                )
            channels = network.head.map_channels
            if levels > len(channels):
                raise SettingsError(f"deep_supervision is {levels}; the decoder has {len(channels)} maps at most.")
        layers = layers_for(network.spatial_dims)
        self.network = network
        self.heads = nn.ModuleList(
            layers.point_conv(width, network.out_channels, 1, bias=True) for width in channels[1:levels]
        )
        self.to(memory_format=layers.memory_format)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Tensor | list[Tensor]:
        """Logits of every level, finest first and at the image's full size; in evaluation mode these alone.

        Args:
            x: the image, of any size.
        """
        network = self.network
        decoder = network.head
        if not self.training or not len(self.heads) or not isinstance(decoder, HighResolutionDecoder):
            return network(x)
        image = lay_out(x, network.spatial_dims, network.in_channels)
        finest, *coarser = decoder.maps(image, network.backbone.features(image))
        full = resize(decoder.logits_of(finest, image), x.shape[2:], network.mode)
        return [full, *(head(values) for head, values in zip(self.heads, coarser, strict=False))]


def halving_weights(levels: int) -> list[float]:
    """How much each level counts in the loss: each half as much as the one before, all together 1.

    Args:
        levels: how many there are.

    Examples:
        >>> [round(weight, 3) for weight in halving_weights(3)]
        [0.571, 0.286, 0.143]
    """
    total = sum(0.5**level for level in range(levels))
    return [0.5**level / total for level in range(levels)]
