"""Our networks against numbers of the official implementations, with the same filled weights, by the public calls."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from effvit_med.networks import (
    create_backbone,
    create_classifier,
    create_sam,
    create_segmenter,
    load_published,
)
from tests.networks.parity import GATE, distances, fixture_names, image_of, manifest_of, published_weights


def _build(name: str, manifest: dict[str, Any]) -> nn.Module:
    plain = re.sub(r"_tame$", "", name)
    channels, eps = manifest["input_shape"][1], manifest["norm_eps"]
    if match := re.match(r"efficientvit_backbone_([a-z]+\d)", plain):
        return create_backbone(match[1], in_channels=channels, norm_eps=eps)
    if match := re.match(r"efficientvit_(seg_.*)", plain):
        return create_segmenter(f"efficientvit_{match[1]}", in_channels=channels)
    if match := re.match(r"efficientvit_cls_(.*)", plain):
        return create_classifier(match[1], in_channels=channels)
    if plain.startswith("efficientvit_sam_"):
        return create_sam(plain, in_channels=channels)
    if plain.endswith("_downstream"):
        return create_backbone(plain.removeprefix("msra_").removesuffix("_downstream"), in_channels=channels)
    return create_classifier(re.sub("^(timm|msra)_", "", plain), in_channels=channels)


def _outputs(model: Any, x: Tensor, names: list[str]) -> dict[str, Tensor]:
    if hasattr(model, "image_encoder"):
        return _sam_outputs(model, x)
    backbone = getattr(model, "backbone", model)
    maps = backbone.features(x)
    if "patch_embed" in names:
        rest = [name for name in names if name not in {"patch_embed", "logits"}]
        outputs = {"patch_embed": backbone.patch_embedding(x), **dict(zip(rest, maps[-len(rest) :], strict=True))}
    else:
        stages = [name for name in names if name.startswith("stage") or name == "stem"]
        outputs = dict(zip(stages, maps, strict=True))
    if "norm" in names:
        outputs["norm"] = model.head.normalise(maps)
    if "segout" in names:
        outputs["segout"] = model.logits(x)
    if "logits" in names:
        outputs["logits"] = model(x)
    return outputs


def _sam_outputs(model: Any, x: Tensor) -> dict[str, Tensor]:
    encoder = model.image_encoder
    maps = encoder.backbone.features(x)
    outputs = {f"stage{index}": each for index, each in enumerate(maps)}
    outputs["sam_encoder"] = encoder.neck(maps)
    outputs["image_embeddings"] = embeddings = encoder(x)
    prompts = {
        "box": {"boxes": torch.tensor([[100.0, 120.0, 800.0, 900.0]])},
        "points": {"points": (torch.tensor([[[500.0, 375.0], [620.0, 410.0]]]), torch.tensor([[1, 0]]))},
    }
    for kind, prompt in prompts.items():
        masks, iou = model.decode(embeddings, **prompt)
        outputs[f"low_res_masks_{kind}"], outputs[f"iou_{kind}"] = masks, iou
    return outputs


@pytest.mark.parametrize("name", fixture_names())
def test_published_weights_give_the_published_outputs(name: str) -> None:
    """Every output of the official code is ours to 2e-5 of its deviation, with weights loaded under published names."""
    manifest = manifest_of(name)
    model = _build(name, manifest).eval()
    report = load_published(model, published_weights(manifest))
    assert not report.missing
    assert set(report.unused.values()) <= {"it follows from the window and is computed"}
    with torch.inference_mode():
        outputs = _outputs(model, image_of(manifest), list(manifest["outputs"]))
    assert {each: tuple(out.shape) for each, out in outputs.items()} == {
        each: tuple(shape) for each, shape in manifest["outputs"].items()
    }
    found = distances(name, outputs)
    assert max(found.values()) <= GATE, found
