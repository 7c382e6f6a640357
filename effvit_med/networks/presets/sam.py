"""EfficientViT-SAM L0, L1, L2, XL0 and XL1: every number, as data.

Source:
    Zhang et al., EfficientViT-SAM: Accelerated Segment Anything Model Without Performance Loss, CVPR workshops 2024
    (arXiv 2402.05008). Prompt encoder and mask decoder: Kirillov et al., Segment Anything, ICCV 2023
    (arXiv 2304.02643), appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from effvit_med.networks.presets.efficientvit import BACKBONES, BackbonePreset

#: What SAM subtracts from an image of red, green and blue from 0 to 255, and what it divides by.
SAM_MEAN = (123.675, 116.28, 103.53)
SAM_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class NeckPreset:
    """The numbers of the neck, which makes one map of a backbone's three deepest.

    Attributes:
        depth: how many residual fused blocks it has.
        expand: how many times a block widens inside.
        width: its channels.
    """

    depth: int
    expand: int
    width: int = 256


@dataclass(frozen=True)
class PromptPreset:
    """The numbers that image encoder, prompt encoder and mask decoder share, and those of the prompts.

    Attributes:
        channels: of the image embedding and of every token.
        embedding_size: rows and columns of the image embedding.
        frame_size: rows and columns of the frame in which prompts are given, in pixels.
        mask_channels: of the hidden layers that encode a mask.
    """

    channels: int = 256
    embedding_size: int = 64
    frame_size: int = 1024
    mask_channels: int = 16


@dataclass(frozen=True)
class MaskDecoderPreset:
    """The numbers of the mask decoder.

    Attributes:
        depth: how many two-way blocks its transformer has.
        heads: attention heads.
        mlp_channels: hidden channels of the transformer's perceptron.
        downsample: how many times the attention between tokens and image narrows its channels.
        masks: how many masks it offers for an ambiguous prompt, beside the one for a clear prompt.
        iou_depth: layers of the perceptron that rates the masks.
        iou_channels: its hidden channels.
    """

    depth: int = 2
    heads: int = 8
    mlp_channels: int = 2048
    downsample: int = 2
    masks: int = 3
    iou_depth: int = 3
    iou_channels: int = 256


@dataclass(frozen=True)
class SamPreset:
    """The numbers of one promptable model.

    Attributes:
        name: the name it is built by.
        backbone: the numbers of its backbone.
        input_size: rows and columns of the image it was trained on, in pixels.
        neck: the numbers of the neck.
        prompts: the numbers of the prompt encoder.
        decoder: the numbers of the mask decoder.
        norm_eps: added to the variance in every normalisation of the published model.
    """

    name: str
    backbone: BackbonePreset
    input_size: int
    neck: NeckPreset
    prompts: PromptPreset = field(default_factory=PromptPreset)
    decoder: MaskDecoderPreset = field(default_factory=MaskDecoderPreset)
    norm_eps: float = 1e-6


def _sam(size: str, input_size: int, depth: int, expand: int) -> SamPreset:
    backbone = BACKBONES[f"efficientvit_{size}"]
    return SamPreset(f"efficientvit_sam_{size}", backbone, input_size, NeckPreset(depth, expand))


SAMS = {
    preset.name: preset
    for preset in (
        _sam("l0", 512, 4, 1),
        _sam("l1", 512, 8, 1),
        _sam("l2", 512, 12, 1),
        _sam("xl0", 1024, 6, 4),
        _sam("xl1", 1024, 12, 4),
    )
}
