"""Facts about the portable fallback of `effvit_med.engine.quantisation`: ONNX Runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from effvit_med.engine.quantisation import QuantisationOptions, quantise_network
from effvit_med.engine.quantisation.onnx_graph import OnnxCandidate
from effvit_med.engine.quantisation.packages import import_optional
from effvit_med.engine.quantisation.sensitivity import compare_logits
from tests.engine.quantised import draw_discs, make_judge, trained_network

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="needs effvit-med[onnx]",
)


def _tiles(count: int) -> list[torch.Tensor]:
    return list(draw_discs(count, seed=20_000)[0].split(1))


@pytest.fixture(name="candidate", scope="module")
def _candidate() -> OnnxCandidate:
    return OnnxCandidate(trained_network(), _tiles(4))


def test_the_file_that_is_written_loads_and_scores_as_reported(tmp_path: Path) -> None:
    """ONNX Runtime opens model.onnx, and the judge says of it what the report says."""
    options = QuantisationOptions("onnx", largest_dice_loss=0.02, only_faster=False, sensitivity_tiles=1)
    report = quantise_network(trained_network(), _tiles(4), make_judge(), options, tmp_path)
    session = import_optional("onnxruntime", "onnx").InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )

    def predict(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.from_numpy(session.run(None, {"image": each[None].numpy()})[0]) for each in images])

    assert make_judge()(predict) == report.dice_after
    assert report.backend == "onnx"
    assert report.keep_precision == "float32"
    assert all(each.int8 for each in report.choices[:-1])


def test_without_int8_the_graph_is_the_network(candidate: OnnxCandidate) -> None:
    """With every block given back no rounding is left, and the logits are those of torch."""
    images = draw_discs(2, seed=30_000)[0]
    with torch.inference_mode():
        exact = trained_network().logits(images)
    assert torch.allclose(candidate.predict(frozenset(), "float32")(images), exact, atol=1e-4)
    assert not [node for node in candidate.graph(frozenset()).graph.node if "Linear" in node.op_type]


def test_int8_agrees_with_float32(candidate: OnnxCandidate) -> None:
    """With every block in INT8, at most 1 % of the labels change."""
    images = draw_discs(4, seed=30_000)[0]
    names = frozenset(block.name for block in candidate.blocks if not block.fixed)
    with torch.inference_mode():
        exact = trained_network().logits(images)
    assert 0 < compare_logits(exact, candidate.predict(names, "float32")(images)).disagreement < 0.01


def test_attention_between_its_projections_is_never_rounded(candidate: OnnxCandidate) -> None:
    """No pair of rounding operators stands before a division, a sum or a product of activations, or on the way."""
    names = frozenset(block.name for block in candidate.blocks if not block.fixed)
    graph = candidate.graph(names).graph
    producer = {name: node for node in graph.node for name in node.output}
    waiting = [node for node in graph.node if node.op_type in ("Div", "MatMul", "ReduceSum")]
    assert sum(node.op_type == "Div" for node in waiting) == 2
    seen: list[str] = []
    while waiting:
        node = waiting.pop()
        if node.op_type != "Conv":
            seen.append(node.op_type)
            waiting += [producer[name] for name in node.input if name in producer]
    assert "DequantizeLinear" not in seen
    assert sum(node.op_type == "DequantizeLinear" for node in graph.node) > 50
