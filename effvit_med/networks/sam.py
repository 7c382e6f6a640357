"""EfficientViT-SAM: an image is encoded once; each prompt then costs only the small decoder.

Prompts are (x, y) = (column, row) in pixels of SAM's square frame of 1024 pixels a side, whatever the size of the
encoder's input; NOT in array order. `effvit_med.networks.sam_frame` brings images, prompts and masks there and back.

Source:
    Zhang et al., EfficientViT-SAM: Accelerated Segment Anything Model Without Performance Loss, CVPR workshops 2024
    (arXiv 2402.05008). Kirillov et al., Segment Anything, ICCV 2023 (arXiv 2304.02643).
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Num
from torch import Tensor, nn

from effvit_med.networks.presets import refuse_unknown
from effvit_med.networks.presets.sam import SAMS, SamPreset
from effvit_med.networks.sam_decoder import MaskDecoder
from effvit_med.networks.sam_encoder import SamImageEncoder
from effvit_med.networks.sam_prompt import Points, PromptEncoder


class SamOutput(NamedTuple):
    """What the decoder says to a batch of prompts.

    Attributes:
        low_res_masks: logits, positive inside, (batch, 3 or 1, 256, 256); they cover the whole 1024 frame and can be
            given as the mask prompt of the next round.
        iou_predictions: for each mask the estimated intersection over union with the object, (batch, 3 or 1).
    """

    low_res_masks: Float[Tensor, "batch masks rows columns"]
    iou_predictions: Float[Tensor, "batch masks"]


class EfficientVitSam(nn.Module):
    """The promptable model: image encoder, prompt encoder and mask decoder.

    Args:
        preset: the numbers of the model.
        in_channels: channels of the image; the published models have 3.
        norm_eps: added to the variance in every normalisation; the published models have 1e-6.

    Attributes:
        preset: the numbers of the model.
        in_channels: channels of the image.
        image_encoder: image to embedding.
        prompt_encoder: prompts to embeddings.
        mask_decoder: embeddings to masks.

    Raises:
        SettingsError: if ``in_channels`` is below 1 or ``norm_eps`` is not above 0.

    Examples:
        >>> import torch
        >>> sam = build_sam("efficientvit_sam_l0").eval()
        >>> with torch.inference_mode():
        ...     embeddings = sam.encode(torch.zeros(1, 3, 64, 64))
        ...     output = sam.decode(embeddings, boxes=torch.tensor([[100.0, 120.0, 800.0, 900.0]]))
        >>> tuple(embeddings.shape), tuple(output.low_res_masks.shape), tuple(output.iou_predictions.shape)
        ((1, 256, 64, 64), (1, 3, 256, 256), (1, 3))
    """

    def __init__(self, preset: SamPreset, in_channels: int = 3, *, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.preset = preset
        self.in_channels = in_channels
        self.image_encoder = SamImageEncoder(preset, in_channels, norm_eps)
        self.prompt_encoder = PromptEncoder(preset.prompts, norm_eps)
        self.mask_decoder = MaskDecoder(preset.prompts.channels, preset.decoder, norm_eps)

    def encode(
        self, image: Float[Tensor, "batch in_channels rows columns"]
    ) -> Float[Tensor, "batch channels size size"]:
        """The image embedding, (batch, 256, 64, 64): needed once for any number of prompts.

        Args:
            image: as `effvit_med.networks.sam_frame.prepare_image` makes it; any size works.

        Raises:
            SettingsError: if the image has not the channels or the axes that the model was built for.
        """
        return self.image_encoder(image)

    def decode(
        self,
        embeddings: Float[Tensor, "images channels size size"],
        points: Points | None = None,
        boxes: Num[Tensor, "prompts *box"] | None = None,
        masks: Float[Tensor, "prompts 1 rows columns"] | None = None,
        multimask_output: bool = True,
    ) -> SamOutput:
        """The masks that a batch of prompts asks for.

        Args:
            embeddings: of the image; one for each prompt, or a single one for all, or many for a single prompt.
            points: (x, y) = (column, row), NOT array order, in pixels of the 1024 frame, (batch, points, 2); and
                their labels (batch, points): 1 on the object, 0 off it, -1 for a filled-up place.
            boxes: (x, y) of two opposite corners, top left first, NOT array order, in pixels of the 1024 frame,
                (batch, 4).
            masks: logits of an earlier round, (batch, 1, 256, 256).
            multimask_output: True for three masks, better for one click; False for one, better for clear prompts.

        Raises:
            SettingsError: if a prompt has the wrong shape or the batches differ.
        """
        sparse, dense = self.prompt_encoder(points=points, boxes=boxes, masks=masks)
        low_res_masks, iou_predictions = self.mask_decoder(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.encode_grid(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return SamOutput(low_res_masks, iou_predictions)

    def forward(
        self,
        image: Float[Tensor, "images in_channels height width"],
        points: Points | None = None,
        boxes: Num[Tensor, "prompts *box"] | None = None,
        masks: Float[Tensor, "prompts 1 rows columns"] | None = None,
        multimask_output: bool = True,
    ) -> SamOutput:
        """The masks of an image and its prompts; `decode` of `encode`, which see."""
        return self.decode(self.encode(image), points, boxes, masks, multimask_output)


def build_sam(preset: str, in_channels: int = 3, norm_eps: float | None = None) -> EfficientVitSam:
    """A new promptable model with random weights.

    Args:
        preset: ``efficientvit_sam_l0``, ``_l1``, ``_l2``, ``_xl0`` or ``_xl1``.
        in_channels: channels of the image; the published models have 3.
        norm_eps: added to the variance in every normalisation; the published value where left out.

    Raises:
        SettingsError: if there is no such preset, or a number is impossible.
    """
    if preset not in SAMS:
        raise refuse_unknown("preset", preset, SAMS)
    numbers = SAMS[preset]
    return EfficientVitSam(numbers, in_channels, norm_eps=numbers.norm_eps if norm_eps is None else norm_eps)
