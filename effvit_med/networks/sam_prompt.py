"""The prompt encoder of SAM: points, boxes and masks become embeddings.

Points and boxes are (x, y) = (column, row) in pixels of SAM's square frame of 1024 pixels a side, as everywhere in SAM.
This is the one place of the package, with `effvit_med.networks.sam_frame`, that does not use array order.

The names of modules and parameters are those of the published checkpoints, so that these load without a mapping.

Source:
    Kirillov et al., Segment Anything (arXiv 2304.02643), appendix A (prompt encoder). Random frequencies: Tancik et
    al., Fourier Features Let Networks Learn High Frequency Functions (arXiv 2006.10739), equation 5 ff.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from effvit_med.errors import SettingsError
from effvit_med.networks.layers import without_autocast
from effvit_med.networks.presets.sam import PromptPreset
from effvit_med.networks.sam_encoder import ChannelNorm

#: A point as SAM takes it: (x, y) of each, and its label: 1 on the object, 0 off it, -1 no point at all.
Points = tuple[Num[Tensor, "batch points 2"], Num[Tensor, "batch points"]]

_OFF, _ON, _FIRST_CORNER, _SECOND_CORNER = range(4)
_NO_POINT = -1


class RandomPositionEncoding(nn.Module):
    """Sine and cosine of fixed random projections of a position.

    Args:
        channels: of the code; half of them are sines.

    Raises:
        SettingsError: if the channels are odd.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise SettingsError(f"A position code has {channels} channels; half are sines, so give an even number.")
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, positions: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch channels"]:
        """The codes, computed in float32 at least: half precision cannot tell neighbouring pixels apart.

        Args:
            positions: (x, y) as parts of the frame's side, 0 to 1.
        """
        matrix = self.positional_encoding_gaussian_matrix
        wide = torch.promote_types(matrix.dtype, torch.float32)
        with without_autocast(positions):
            angles = 2 * math.pi * ((2 * positions.to(wide) - 1) @ matrix.to(wide))
            return torch.cat([angles.sin(), angles.cos()], dim=-1).to(matrix.dtype)


class PromptEncoder(nn.Module):
    """Points, boxes and masks as embeddings.

    Args:
        preset: channels and sizes.
        norm_eps: added to the variance in its normalisations.

    Attributes:
        embed_dim: channels of every embedding.
        image_embedding_size: (rows, columns) of the image embedding.
        input_image_size: (rows, columns) of the frame that points and boxes are in.
        mask_input_size: (rows, columns) of a mask prompt.

    Examples:
        >>> encoder = PromptEncoder(PromptPreset(), norm_eps=1e-6)
        >>> sparse, dense = encoder(boxes=torch.tensor([[100.0, 120.0, 800.0, 900.0]]))
        >>> tuple(sparse.shape), tuple(dense.shape)
        ((1, 2, 256), (1, 256, 64, 64))
    """

    def __init__(self, preset: PromptPreset, norm_eps: float) -> None:
        super().__init__()
        channels, hidden, size = preset.channels, preset.mask_channels, preset.embedding_size
        self.embed_dim = channels
        self.image_embedding_size = (size, size)
        self.input_image_size = (preset.frame_size, preset.frame_size)
        self.mask_input_size = (4 * size, 4 * size)
        self.pe_layer = RandomPositionEncoding(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden // 4, kernel_size=2, stride=2),
            ChannelNorm(hidden // 4, norm_eps),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, kernel_size=2, stride=2),
            ChannelNorm(hidden, norm_eps),
            nn.GELU(),
            nn.Conv2d(hidden, channels, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def forward(
        self,
        points: Points | None = None,
        boxes: Num[Tensor, "prompts *box"] | None = None,
        masks: Float[Tensor, "prompts 1 rows columns"] | None = None,
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch channels size size"]]:
        """The sparse and the dense embedding of a batch of prompts; all that are given belong together.

        Args:
            points: (x, y) = (column, row), NOT array order, in pixels of the 1024 frame, of shape (batch, points, 2);
                and their labels, of shape (batch, points): 1 on the object, 0 off it, -1 for a filled-up place.
            boxes: (x, y) of the first and of the second corner, NOT array order, in pixels of the 1024 frame, of
                shape (batch, 4) or (batch, 1, 4).
            masks: logits of masks of an earlier round, (batch, 1, 256, 256).

        Returns:
            The sparse embedding, one token for each point (and one for no point, where there is no box) and two for
            each box; and the dense embedding, of the size of the image embedding. With no prompts at all the batch
            is 1 and there is no token.

        Raises:
            SettingsError: if a prompt has the wrong shape or the batches differ.
        """
        _check_shapes(points, boxes, masks, self.mask_input_size)
        batch = next((each.shape[0] for each in (points and points[0], boxes, masks) if each is not None), 1)
        tokens = [self.no_mask_embed.weight.new_zeros(batch, 0, self.embed_dim)]
        if points is not None:
            tokens.append(self._embed_points(*points, pad=boxes is None))
        if boxes is not None:
            tokens.append(self._embed_boxes(boxes))
        if masks is not None:
            dense = self.mask_downscaling(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, *self.image_embedding_size)
        return torch.cat(tokens, dim=1), dense

    def get_dense_pe(self) -> Float[Tensor, "1 channels size size"]:
        """The same as `encode_grid`, under the name that tools written for SAM call."""
        return self.encode_grid()

    def encode_grid(self) -> Float[Tensor, "1 channels size size"]:
        """The position codes of the image embedding's pixel centres."""
        rows, columns = self.image_embedding_size
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        wide = torch.promote_types(matrix.dtype, torch.float32)
        y = (torch.arange(rows, device=matrix.device, dtype=wide) + 0.5) / rows
        x = (torch.arange(columns, device=matrix.device, dtype=wide) + 0.5) / columns
        grid = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1)
        return self.pe_layer(grid).permute(2, 0, 1)[None]

    def _encode(self, pixels: Tensor) -> Tensor:
        rows, columns = self.input_image_size
        wide = torch.promote_types(self.pe_layer.positional_encoding_gaussian_matrix.dtype, torch.float32)
        sides = torch.tensor([columns, rows], dtype=wide, device=pixels.device)
        return self.pe_layer((pixels.to(wide) + 0.5) / sides)

    def _embed_points(self, pixels: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        code = self._encode(pixels)
        kinds = labels[..., None]
        code = torch.where(kinds == _NO_POINT, self.not_a_point_embed.weight, code)
        for label in (_OFF, _ON):
            code = torch.where(kinds == label, code + self._kind(label), code)
        if not pad:
            return code
        filled = self.not_a_point_embed.weight.expand(code.shape[0], 1, -1)
        return torch.cat([code, filled], dim=1)

    def _embed_boxes(self, boxes: Tensor) -> Tensor:
        corners = torch.cat([self._kind(_FIRST_CORNER), self._kind(_SECOND_CORNER)])
        return self._encode(boxes.reshape(-1, 2, 2)) + corners

    def _kind(self, label: int) -> Tensor:
        return cast("nn.Embedding", self.point_embeddings[label]).weight


def _check_shapes(
    points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None, mask_size: tuple[int, int]
) -> None:
    if points is not None:
        pixels, labels = points
        if pixels.dim() != 3 or pixels.shape[2] != 2 or labels.shape != pixels.shape[:2]:
            raise SettingsError(
                f"The points have the shape {tuple(pixels.shape)} and their labels {tuple(labels.shape)}; give "
                "(batch, points, 2) and (batch, points)."
            )
    if boxes is not None and boxes.shape[1:] not in ((4,), (1, 4)):
        raise SettingsError(f"The boxes have the shape {tuple(boxes.shape)}; give (batch, 4).")
    if masks is not None and masks.shape[1:] != (1, *mask_size):
        raise SettingsError(
            f"The masks have the shape {tuple(masks.shape)}; give (batch, 1, {mask_size[0]}, {mask_size[1]})."
        )
    given = {"points": None if points is None else points[0], "boxes": boxes, "masks": masks}
    numbers = {name: each.shape[0] for name, each in given.items() if each is not None}
    if any(number != first for first in list(numbers.values())[:1] for number in numbers.values()):
        raise SettingsError(f"The prompts belong together but differ in number: {numbers}. Give as many of each.")
