"""The image encoder of EfficientViT-SAM: a backbone, a neck that joins its three deepest maps, a normalisation.

The names of modules and parameters are those of the published checkpoints, so that these load without a mapping.

Source:
    Zhang et al., EfficientViT-SAM (arXiv 2402.05008), section 3.1: the last three stages are brought to the size of
    SAM's embedding by interpolation and added; fused MBConv blocks follow.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.blocks import (
    BlockStyle,
    ConvKind,
    ConvNorm,
    FusedMBConv,
    OpSequence,
    Residual,
    Widening,
    add,
)
from effvit_med.networks.checkpointing import run_stage
from effvit_med.networks.efficientvit import EfficientVit
from effvit_med.networks.layers import layers_for, without_autocast
from effvit_med.networks.presets.sam import NeckPreset, SamPreset

_IMAGE = layers_for(2)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel, computed in float32 at least.

    Args:
        channels: the number of channels.
        eps: added to the variance.

    Examples:
        >>> norm = ChannelNorm(2, eps=1e-6)
        >>> norm(torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1)).flatten().tolist()
        [-0.9999995..., 0.9999995...]
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)

    def forward(
        self,
        input: Float[Tensor, "batch channels rows columns"],  # noqa: A002  the name torch gives it
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The normalised map, of the input's size."""
        wide = torch.promote_types(input.dtype, torch.float32)
        with without_autocast(input):
            x = input.movedim(1, -1).to(wide)
            x = functional.layer_norm(x, self.normalized_shape, self.weight.to(wide), self.bias.to(wide), self.eps)
        return x.movedim(-1, 1).to(input.dtype)


class SamNeck(nn.Module):
    """Joins the three deepest maps of a backbone into one of a fixed size.

    Args:
        style: what all blocks share.
        channels: of each of the backbone's maps, finest first.
        out_channels: channels of the result.
        size: rows and columns of the result.
        preset: width, depth and expansion.
    """

    def __init__(
        self, style: BlockStyle, channels: tuple[int, ...], out_channels: int, size: int, preset: NeckPreset
    ) -> None:
        super().__init__()
        width = preset.width
        point = ConvKind(style.point, style.point, activation=False)
        self.size = size
        self.input_ops = nn.ModuleList(OpSequence([ConvNorm(style, each, width, point)]) for each in channels[:-4:-1])
        self.middle = OpSequence(
            [
                Residual(FusedMBConv(style, width, width, style.point, Widening(preset.expand)))
                for _ in range(preset.depth)
            ]
        )
        last = ConvKind(style.point, style.point, bias=True, norm=False, activation=False)
        self.output_ops = nn.ModuleList([OpSequence([ConvNorm(style, width, out_channels, last)])])

    def forward(self, maps: list[Tensor], *, checkpointing: bool = False) -> Float[Tensor, "batch channels size size"]:
        """The joined map.

        Args:
            maps: the backbone's maps, finest first, each (batch, channels, rows, columns).
            checkpointing: whether inner maps are computed again in the backward pass and not kept.
        """
        deepest, *finer = (
            self._resized(narrow(each)) for narrow, each in zip(self.input_ops, maps[:-4:-1], strict=True)
        )
        x = deepest
        for each in finer:
            x = add(x, each)
        x = run_stage(self.middle, x, checkpointing=checkpointing)
        return self.output_ops[0](x)

    def _resized(self, x: Tensor) -> Tensor:
        size = (self.size, self.size)
        tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        if not tracing and x.shape[2:] == size:  # a graph is to take every size, so there it stays
            return x
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return functional.interpolate(wide, size=size, mode="bicubic", align_corners=False).to(x.dtype)


class SamImageEncoder(nn.Module):
    """From an image of any size to the embedding that the mask decoder reads.

    Args:
        preset: the numbers of the model.
        in_channels: channels of the image.
        norm_eps: added to the variance in every normalisation.

    Attributes:
        backbone: the EfficientViT; its ``checkpointing`` counts for the neck as well.
        neck: joins its three deepest maps.
        norm: the normalisation at the end.

    Raises:
        SettingsError: if ``in_channels`` is below 1 or ``norm_eps`` is not above 0.
    """

    def __init__(self, preset: SamPreset, in_channels: int, norm_eps: float) -> None:
        super().__init__()
        if in_channels < 1:
            raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
        style = BlockStyle(_IMAGE, (3, 3), preset.backbone.activation, norm_eps=norm_eps)
        channels, size = preset.prompts.channels, preset.prompts.embedding_size
        self.in_channels = in_channels
        self.backbone = EfficientVit(preset.backbone, style, in_channels)
        self.neck = SamNeck(style, self.backbone.channels, channels, size, preset.neck)
        self.norm = ChannelNorm(channels, norm_eps)
        self.to(memory_format=_IMAGE.memory_format)  # type: ignore[call-overload]  # modules take it, the stub does not

    def forward(
        self, image: Float[Tensor, "batch in_channels rows columns"]
    ) -> Float[Tensor, "batch channels size size"]:
        """The image embedding, (batch, 256, 64, 64) in every published model.

        Args:
            image: of any size; the models were trained on square images of ``preset.input_size`` pixels a side.

        Raises:
            SettingsError: if the image has not the channels or the axes that the encoder was built for.
        """
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise SettingsError(
                f"The image has the shape {tuple(image.shape)}; this encoder takes (batch, {self.in_channels} "
                "channels, rows, columns)."
            )
        maps = self.backbone.features(image.contiguous(memory_format=_IMAGE.memory_format))
        return self.norm(self.neck(maps, checkpointing=self.backbone.checkpointing))
