"""The promptable model as a whole."""

from __future__ import annotations

from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

from effvit_med.errors import SettingsError
from effvit_med.networks import fold_batchnorm
from effvit_med.networks.presets import BACKBONES
from effvit_med.networks.presets.sam import MaskDecoderPreset, NeckPreset, PromptPreset, SamPreset
from effvit_med.networks.sam import EfficientVitSam, SamOutput, build_sam
from effvit_med.networks.sam_frame import prepare_image

TINY = SamPreset(
    "tiny",
    BACKBONES["efficientvit_b0"],
    64,
    NeckPreset(depth=1, expand=1, width=32),
    PromptPreset(channels=32, embedding_size=8, frame_size=128, mask_channels=8),
    MaskDecoderPreset(mlp_channels=64, iou_channels=32),
)
POINTS = (torch.tensor([[[30.0, 40.0], [90.0, 8.0]]]), torch.tensor([[1, 0]]))
BOXES = torch.tensor([[10.0, 12.0, 80.0, 90.0]])
MASKS = torch.linspace(-3, 3, 1024).reshape(1, 1, 32, 32)
PROMPTS: dict[str, dict[str, Any]] = {
    "points": {"points": POINTS},
    "box": {"boxes": BOXES},
    "mask": {"masks": MASKS},
    "all": {"points": POINTS, "boxes": BOXES, "masks": MASKS},
    "none": {},
}


@pytest.fixture(name="sam")
def _sam() -> EfficientVitSam:
    return EfficientVitSam(TINY, 1).eval()


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("multimask_output", [True, False])
def test_any_prompts_give_masks(sam: EfficientVitSam, kind: str, multimask_output: bool) -> None:
    """Points, boxes, masks, all or none: masks four times as fine as the embedding, and a rating of each."""
    with torch.inference_mode():
        out = sam(torch.randn(1, 1, 50, 64), **PROMPTS[kind], multimask_output=multimask_output)
    number = 3 if multimask_output else 1
    assert isinstance(out, SamOutput)
    assert (tuple(out.low_res_masks.shape), tuple(out.iou_predictions.shape)) == ((1, number, 32, 32), (1, number))
    assert out.low_res_masks.isfinite().all()


def test_each_prompt_counts(sam: EfficientVitSam) -> None:
    """No two kinds of prompts give the same masks."""
    with torch.inference_mode():
        embeddings = sam.encode(torch.randn(1, 1, 64, 64))
        masks = [sam.decode(embeddings, **each).low_res_masks for each in PROMPTS.values()]
    distances = [(a - b).abs().max().item() for i, a in enumerate(masks) for b in masks[:i]]
    assert min(distances) > 1e-4


def test_forward_is_decode_of_encode(sam: EfficientVitSam) -> None:
    """An image encoded once serves any number of prompts."""
    image = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        whole, parts = sam(image, POINTS, BOXES), sam.decode(sam.encode(image), POINTS, BOXES)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_many_images_without_prompts(sam: EfficientVitSam) -> None:
    """With no prompt, or one for all, each image of a batch gets its own masks."""
    images = torch.randn(3, 1, 64, 64)
    with torch.inference_mode():
        assert tuple(sam(images).low_res_masks.shape) == (3, 3, 32, 32)
        together, alone = sam(images, boxes=BOXES), sam(images[1:2], boxes=BOXES)
    torch.testing.assert_close(together.low_res_masks[1:2], alone.low_res_masks, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("in_channels", [1, 4])
def test_from_an_image_of_any_size_and_back(in_channels: int) -> None:
    """Image, prompt and masks go through the frame; the masks have the image's size."""
    sam = EfficientVitSam(TINY, in_channels).eval()
    pixels, frame = prepare_image(torch.rand(1, in_channels, 70, 123) * 255, TINY.input_size)
    with torch.inference_mode():
        out = sam(pixels, boxes=frame.boxes_to_frame(torch.tensor([[3.0, 4.0, 100.0, 60.0]])))
    assert tuple(frame.restore_masks(out.low_res_masks).shape) == (1, 3, 70, 123)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite(sam: EfficientVitSam, dtype: torch.dtype) -> None:
    """Under autocast nothing overflows, and the masks are near those of float32."""
    image = torch.randn(1, 1, 64, 64) * 10
    with torch.inference_mode():
        wanted = sam(image, **PROMPTS["all"]).low_res_masks
        with torch.autocast("cpu", dtype=dtype):
            out = sam(image, **PROMPTS["all"])
    assert out.low_res_masks.isfinite().all()
    assert out.iou_predictions.isfinite().all()
    assert ((out.low_res_masks - wanted).square().mean().sqrt() / wanted.std()) < 0.1


def test_every_parameter_that_is_used_gets_a_gradient() -> None:
    """With all prompts only what stands for absent ones is left out."""
    sam = EfficientVitSam(TINY, 1)
    points = (torch.tensor([[[30.0, 40.0], [90.0, 8.0], [0.0, 0.0]]]).expand(2, -1, -1), torch.tensor([[1, 0, -1]] * 2))
    out = sam(torch.randn(2, 1, 64, 64), points, BOXES.expand(2, -1), MASKS.expand(2, -1, -1, -1))
    (out.low_res_masks.square().mean() + out.iou_predictions.square().mean()).backward()
    without = [name for name, p in sam.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == ["prompt_encoder.no_mask_embed.weight"]


def test_batchnorm_folds(sam: EfficientVitSam) -> None:
    """For inference the encoder's batch normalisations disappear into the convolutions; the masks stay."""
    image = torch.randn(1, 1, 64, 64)
    folded = fold_batchnorm(sam)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(image, POINTS), sam(image, POINTS), atol=1e-4, rtol=1e-3)


def test_encoder_exports_for_any_size(sam: EfficientVitSam) -> None:
    """One exported graph takes other batches and sizes than that of the example."""
    shapes = {"image": {0: Dim("batch", max=8), 2: Dim("rows", min=33, max=256), 3: Dim("columns", min=33, max=256)}}
    graph = export(sam.image_encoder, (torch.randn(2, 1, 64, 96),), dynamic_shapes=shapes).module()
    for size in ((1, 1, 64, 64), (3, 1, 50, 77)):
        image = torch.randn(size)
        with torch.inference_mode():
            torch.testing.assert_close(graph(image), sam.encode(image), atol=1e-4, rtol=1e-3)


class _PointDecoder(nn.Module):
    """What is exported for a tool that takes clicks."""

    def __init__(self, sam: EfficientVitSam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, embeddings: Tensor, pixels: Tensor, labels: Tensor) -> SamOutput:
        """The masks of some clicks."""
        return self.sam.decode(embeddings, (pixels, labels))


def test_decoder_exports_for_any_number_of_clicks(sam: EfficientVitSam) -> None:
    """One exported graph takes any number of prompts and of points in each, with labels of all kinds."""
    embeddings = torch.randn(1, 32, 8, 8)
    number = {0: Dim("prompts", min=2, max=64), 1: Dim("points", min=2, max=64)}
    example = (embeddings, torch.randn(3, 4, 2), torch.ones(3, 4, dtype=torch.int64))
    graph = export(_PointDecoder(sam), example, dynamic_shapes=({}, number, number)).module()
    pixels, labels = torch.rand(5, 7, 2) * 128, torch.randint(-1, 2, (5, 7))
    with torch.inference_mode():
        wanted = sam.decode(embeddings, (pixels, labels))
        torch.testing.assert_close(tuple(graph(embeddings, pixels, labels)), tuple(wanted), atol=1e-5, rtol=1e-4)


def test_compiles_in_one_piece(sam: EfficientVitSam, monkeypatch: pytest.MonkeyPatch) -> None:
    """No graph break, and the same masks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the checks of annotations cannot be compiled
    image = torch.randn(1, 1, 64, 64)
    compiled = torch.compile(sam, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(tuple(compiled(image, POINTS)), tuple(sam(image, POINTS)), atol=1e-4, rtol=1e-3)


def test_one_eps_is_everywhere(sam: EfficientVitSam) -> None:
    """Every normalisation has the eps that the published models have."""
    kinds = (nn.BatchNorm2d, nn.LayerNorm)
    assert {each.eps for each in sam.modules() if isinstance(each, kinds)} == {1e-6}


def test_unknown_presets_are_refused() -> None:
    """The message names the nearest."""
    with pytest.raises(SettingsError, match="no preset 'efficientvit_sam_l9'; the nearest are efficientvit_sam_l"):
        build_sam("efficientvit_sam_l9")
