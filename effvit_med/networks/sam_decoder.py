"""The mask decoder of SAM: prompt tokens and image embedding look at each other, then masks are drawn.

The names of modules and parameters are those of the published checkpoints, so that these load without a mapping.

Source:
    Kirillov et al., Segment Anything (arXiv 2304.02643), appendix A (lightweight mask decoder) and figure 14.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.layers import without_autocast
from effvit_med.networks.presets.sam import MaskDecoderPreset
from effvit_med.networks.sam_encoder import ChannelNorm


class Attention(nn.Module):
    """Attention of some tokens to others, in fewer channels where wanted; the softmax is in float32 at least.

    Args:
        channels: of every token.
        heads: attention heads.
        downsample: how many times the channels are narrowed inside.

    Raises:
        SettingsError: if the inner channels cannot be split into the heads.
    """

    def __init__(self, channels: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = channels // downsample
        if inner % heads:
            raise SettingsError(f"{inner} channels cannot be split into {heads} heads; give a divisor of {inner}.")
        self.num_heads = heads
        self.q_proj = nn.Linear(channels, inner)
        self.k_proj = nn.Linear(channels, inner)
        self.v_proj = nn.Linear(channels, inner)
        self.out_proj = nn.Linear(inner, channels)

    def forward(
        self,
        q: Float[Tensor, "batch asking channels"],
        k: Float[Tensor, "batch asked channels"],
        v: Float[Tensor, "batch asked channels"],
    ) -> Float[Tensor, "batch asking channels"]:
        """What each asking token gathers from the asked ones."""
        dtype = q.dtype
        wide = torch.promote_types(dtype, torch.float32)
        q, k, v = self._split(self.q_proj(q)), self._split(self.k_proj(k)), self._split(self.v_proj(v))
        with without_autocast(q):
            out = functional.scaled_dot_product_attention(q.to(wide), k.to(wide), v.to(wide))
        return self.out_proj(out.transpose(1, 2).flatten(2).to(dtype))

    def _split(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        return x.reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)


class TokenMlp(nn.Module):
    """A perceptron of two layers on every token.

    Args:
        channels: of every token.
        hidden: channels between the layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(channels, hidden)
        self.lin2 = nn.Linear(hidden, channels)

    def forward(self, x: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch tokens channels"]:
        """The tokens after both layers."""
        return self.lin2(functional.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the image; then the image looks at the tokens.

    Args:
        channels: of every token and of the image.
        preset: heads and inner channels.
        norm_eps: added to the variance.
        first: whether it is the first block, whose tokens are still their own position codes.
    """

    def __init__(self, channels: int, preset: MaskDecoderPreset, norm_eps: float, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(channels, preset.heads)
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.cross_attn_token_to_image = Attention(channels, preset.heads, preset.downsample)
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.mlp = TokenMlp(channels, preset.mlp_channels)
        self.norm3 = nn.LayerNorm(channels, eps=norm_eps)
        self.norm4 = nn.LayerNorm(channels, eps=norm_eps)
        self.cross_attn_image_to_token = Attention(channels, preset.heads, preset.downsample)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens channels"],
        image: Float[Tensor, "batch pixels channels"],
        token_code: Float[Tensor, "batch tokens channels"],
        image_code: Float[Tensor, "1 pixels channels"],
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch pixels channels"]]:
        """Tokens and image after the block; the codes say where each stands and are added to what asks and is asked."""
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            asking = tokens + token_code
            tokens = tokens + self.self_attn(asking, asking, tokens)
        tokens = self.norm1(tokens)
        placed = image + image_code
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_code, placed, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(placed, tokens + token_code, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Some two-way blocks, then a last look of the tokens at the image.

    Args:
        channels: of every token and of the image.
        preset: depth, heads and inner channels.
        norm_eps: added to the variance.
    """

    def __init__(self, channels: int, preset: MaskDecoderPreset, norm_eps: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(channels, preset, norm_eps, first=index == 0) for index in range(preset.depth)
        )
        self.final_attn_token_to_image = Attention(channels, preset.heads, preset.downsample)
        self.norm_final_attn = nn.LayerNorm(channels, eps=norm_eps)

    def forward(
        self,
        image: Float[Tensor, "batch channels rows columns"],
        image_pe: Float[Tensor, "1 channels rows columns"],
        tokens: Float[Tensor, "batch tokens channels"],
    ) -> tuple[Float[Tensor, "batch tokens channels"], Float[Tensor, "batch pixels channels"]]:
        """Tokens and image after all blocks.

        Args:
            image: the image embedding.
            image_pe: its position codes.
            tokens: the tokens, which are their own position codes.
        """
        pixels, image_code = image.flatten(2).mT, image_pe.flatten(2).mT
        token_code = tokens
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, token_code, image_code)
        last = self.final_attn_token_to_image(tokens + token_code, pixels + image_code, pixels)
        return self.norm_final_attn(tokens + last), pixels


class Perceptron(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        channels: of the input, of what lies between each two layers, and of the output.
    """

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(channels))

    def forward(self, x: Float[Tensor, "batch in_channels"]) -> Float[Tensor, "batch out_channels"]:
        """The output of the last layer."""
        *inner, last = self.layers
        for layer in inner:
            x = functional.relu(layer(x))
        return last(x)


class DoublingConv(nn.ConvTranspose2d):
    """A transposed convolution of kernel 2 and stride 2: each pixel becomes four, none of which overlap.

    So it is one matrix product over the pixels, and eager mode computes it so for a single prompt: the same up to
    rounding, and on a CPU a click costs a fifth less (52 ms against 66 ms). Batches, and traced and exported graphs,
    keep the plain operator, which needs less memory in between.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(
        self,
        input: Float[Tensor, "batch in_channels rows columns"],  # noqa: A002  the name torch gives it
        output_size: list[int] | None = None,
    ) -> Float[Tensor, "batch out_channels 2*rows 2*columns"]:
        """The map at twice the size, channels last.

        Args:
            input: the map.
            output_size: as torch has it; only with the plain operator.
        """
        tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined, no-untyped-call]
        if tracing or output_size is not None or input.shape[0] > 1:
            return super().forward(input, output_size)
        batch, _, rows, columns = input.shape
        bias = None if self.bias is None else self.bias.repeat(4)
        x = functional.linear(input.movedim(1, -1), self.weight.permute(2, 3, 1, 0).flatten(0, 2), bias)
        x = x.reshape(batch, rows, columns, 2, 2, self.out_channels).transpose(2, 3)
        return x.reshape(batch, 2 * rows, 2 * columns, self.out_channels).movedim(-1, 1)


class MaskDecoder(nn.Module):
    """From image embedding and prompt embeddings to masks, each with an estimate of how good it is.

    Args:
        channels: of the image embedding and of every token.
        preset: the other numbers.
        norm_eps: added to the variance in every normalisation.
    """

    def __init__(self, channels: int, preset: MaskDecoderPreset, norm_eps: float) -> None:
        super().__init__()
        quarter, eighth = channels // 4, channels // 8
        self.num_mask_tokens = preset.masks + 1
        self.transformer = TwoWayTransformer(channels, preset, norm_eps)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, channels)
        self.output_upscaling = nn.Sequential(
            DoublingConv(channels, quarter),
            ChannelNorm(quarter, norm_eps),
            nn.GELU(),
            DoublingConv(quarter, eighth),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron(channels, channels, channels, eighth) for _ in range(self.num_mask_tokens)
        )
        hidden = (preset.iou_channels,) * (preset.iou_depth - 1)
        self.iou_prediction_head = Perceptron(channels, *hidden, self.num_mask_tokens)

    def forward(
        self,
        image_embeddings: Float[Tensor, "images channels rows columns"],
        image_pe: Float[Tensor, "1 channels rows columns"],
        sparse_prompt_embeddings: Float[Tensor, "prompts tokens channels"],
        dense_prompt_embeddings: Float[Tensor, "prompts channels rows columns"],
        multimask_output: bool,
    ) -> tuple[Float[Tensor, "batch masks fine_rows fine_columns"], Float[Tensor, "batch masks"]]:
        """The logits of the masks, four times as fine as the embedding, and the estimated overlap of each.

        Args:
            image_embeddings: one for each prompt, or a single one for all; or many, and a single prompt for all.
            image_pe: the position codes of the embedding.
            sparse_prompt_embeddings: the tokens of the prompts.
            dense_prompt_embeddings: their map.
            multimask_output: True for the three masks of an ambiguous prompt, False for the one of a clear prompt.

        Returns:
            Masks (batch, 3 or 1, 256, 256), positive inside; and the estimated intersection over union (batch, 3 or 1).

        Raises:
            SettingsError: if there are neither as many embeddings as prompts, nor one of either.
        """
        images, prompts = image_embeddings.shape[0], sparse_prompt_embeddings.shape[0]
        if images not in (1, prompts) and prompts != 1:
            raise SettingsError(
                f"There are {images} image embeddings and {prompts} prompts; give one embedding for all prompts, or "
                "one for each."
            )
        batch = max(images, prompts)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(batch, -1, -1)
        tokens = torch.cat([own, sparse_prompt_embeddings.expand(batch, -1, -1)], dim=1)
        image = image_embeddings + dense_prompt_embeddings
        tokens, pixels = self.transformer(image, image_pe, tokens)
        weights = torch.stack(
            [draw(tokens[:, 1 + index]) for index, draw in enumerate(self.output_hypernetworks_mlps)], dim=1
        )
        fine = self.output_upscaling(pixels.mT.reshape(image.shape))
        masks = (weights @ fine.flatten(2)).reshape(batch, -1, *fine.shape[2:])
        wanted = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, wanted], self.iou_prediction_head(tokens[:, 0])[:, wanted]
