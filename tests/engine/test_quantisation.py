"""Facts about `effvit_med.engine.quantisation` with OpenVINO and NNCF, on a network that has learnt something."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
from pathlib import Path

import pytest
import torch

from effvit_med.engine.quantisation import Predict, QuantisationOptions, QuantisationReport, quantise_network
from effvit_med.engine.quantisation.openvino_graph import OpenVinoCandidate, attention_operators, compile_model
from effvit_med.engine.quantisation.packages import import_optional
from effvit_med.engine.quantisation.sensitivity import compare_logits, measure_blocks
from effvit_med.errors import OutputError, SettingsError
from tests.engine.quantised import draw_discs, make_judge, new_network, spoil_block, trained_network
from tests.networks.families import BACKBONE_OF, make_network

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("openvino", "nncf")), reason="needs effvit-med[openvino]"
)

PLAIN = QuantisationOptions(keep_precision="float32", only_faster=False, largest_dice_loss=0.02, sensitivity_tiles=2)


def _tiles(count: int) -> list[torch.Tensor]:
    return list(draw_discs(count, seed=20_000)[0].split(1))


@pytest.fixture(name="candidate", scope="module")
def _candidate() -> OpenVinoCandidate:
    return OpenVinoCandidate(trained_network(), _tiles(6))


@pytest.fixture(name="result", scope="module")
def _result(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QuantisationReport, list[Predict]]:
    folder = tmp_path_factory.mktemp("int8")
    seen: list[Predict] = []
    report = quantise_network(trained_network(), _tiles(6), make_judge(seen), PLAIN, folder)
    return folder, report, seen


def _everything(candidate: OpenVinoCandidate) -> frozenset[str]:
    return frozenset(block.name for block in candidate.blocks if not block.fixed)


def _above(node: object) -> list[object]:
    return [port.get_source_output().get_node() for port in node.inputs()]  # type: ignore[attr-defined]


def test_the_int8_network_agrees_with_the_float32_network(candidate: OpenVinoCandidate) -> None:
    """With every block in INT8, at most 1 % of the labels change, and the logits by at most a fifth."""
    images = draw_discs(8, seed=30_000)[0]
    with torch.inference_mode():
        exact = trained_network().logits(images)
    effect = compare_logits(exact, candidate.predict(_everything(candidate), "float32")(images))
    assert 0 < effect.disagreement < 0.01
    assert 0 < effect.error < 0.2


def test_without_int8_the_graph_is_the_network(candidate: OpenVinoCandidate) -> None:
    """With every block given back, the logits are those of torch to rounding."""
    images = draw_discs(2, seed=30_000)[0]
    with torch.inference_mode():
        exact = trained_network().logits(images)
    for int8 in (frozenset[str](), frozenset(["a block that is not there"])):
        assert torch.allclose(candidate.predict(int8, "float32")(images), exact, atol=1e-4)


def test_attention_between_its_projections_is_never_rounded(candidate: OpenVinoCandidate) -> None:
    """No FakeQuantize stands on the way from a projection to the division, and each attention has its division."""
    model = candidate.graph(_everything(candidate))
    kept = attention_operators(candidate.float_model, frozenset(candidate._weights))
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    kinds = [nodes[name].get_type_name() for name in kept]
    assert kinds.count("Divide") == 2
    assert kinds.count("ReduceSum") == 2
    assert kinds.count("MatMul") == 6
    assert not [name for name in kept for each in _above(nodes[name]) if each.get_type_name() == "FakeQuantize"]


def test_the_layer_of_the_logits_is_never_rounded(candidate: OpenVinoCandidate) -> None:
    """What gives the logits takes exact values, by exact weights; the block before it does not."""
    model = candidate.graph(_everything(candidate))
    layer = next(each for each in reversed(model.get_ordered_ops()) if each.get_type_name() == "Convolution")
    assert "FakeQuantize" not in [node.get_type_name() for node in _above(layer)]
    assert candidate.blocks[-1].fixed
    assert candidate.blocks[-1].name == "head.classify"
    assert sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops()) > 20


def test_one_block_alone_is_rounded_alone(candidate: OpenVinoCandidate) -> None:
    """The graph for one block rounds the inputs of that block's layers and of nothing else."""
    model = candidate.graph(frozenset(["head.level_0"]))
    rounded = [
        node.get_friendly_name()
        for node in model.get_ops()
        if any(each.get_type_name() == "FakeQuantize" for each in _above(node))
    ]
    assert rounded
    assert {candidate._block_of_operator[name] for name in rounded} == {"head.level_0"}


def test_a_spoilt_block_is_the_worst() -> None:
    """A block with an inner channel of a huge constant has the largest error alone, of all."""
    network = trained_network()
    name = spoil_block(network, "backbone.stages.1.op_list.0.main")
    effects = measure_blocks(OpenVinoCandidate(network, _tiles(2)), _tiles(2))
    assert max(effects, key=lambda each: effects[each].error) == name
    assert effects[name].error > 5 * sorted(each.error for each in effects.values())[-2]


def test_the_spoilt_block_is_the_one_that_is_kept(tmp_path: Path) -> None:
    """Where one block breaks INT8, it is given back and the others stay."""
    network = trained_network()
    name = spoil_block(network, "backbone.stages.1.op_list.0.main")
    report = quantise_network(network, _tiles(4), make_judge(), PLAIN, tmp_path)
    assert [each.name for each in report.choices if not each.int8] == [name, "head.classify"]
    assert "Dice fell" in next(each.reason for each in report.choices if each.name == name)
    assert report.loss <= PLAIN.largest_dice_loss


def test_the_gate_refuses_and_writes_nothing(tmp_path: Path) -> None:
    """A network that loses more Dice than allowed, with no block to give back, is refused with the figures."""
    network = trained_network()
    spoil_block(network, "backbone.stages.1.op_list.0.main")
    strict = QuantisationOptions(keep_precision="float32", only_faster=False, most_kept=0.0)
    with pytest.raises(OutputError, match=r"loses 0\.\d+ of Dice, more than the 0\.005 allowed, .* large 0\.9"):
        quantise_network(network, _tiles(2), make_judge(), strict, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_dice_of_the_report_are_those_of_the_judge(
    result: tuple[Path, QuantisationReport, list[Predict]],
) -> None:
    """Before is the judge's word on the torch network, after its word on the file that lies there."""
    folder, report, seen = result
    with torch.inference_mode():
        assert report.dice_before == make_judge()(trained_network().logits)
    model = import_optional("openvino", "openvino").Core().read_model(folder / "model.xml")
    assert report.dice_after == make_judge()(compile_model(model, "float32"))
    assert len(seen) == 2
    assert report.tiles == 6


def test_the_file_is_small_and_nothing_lies_beside_it(result: tuple[Path, QuantisationReport, list[Predict]]) -> None:
    """Weights are written as bytes: the file holds them in less than half of what float32 takes."""
    folder, _, _ = result
    assert {path.name for path in folder.iterdir()} == {"model.xml", "model.bin"}
    count = sum(parameter.numel() for parameter in trained_network().parameters())
    assert (folder / "model.bin").stat().st_size < 2 * count


def test_the_report_is_plain_and_whole(result: tuple[Path, QuantisationReport, list[Predict]]) -> None:
    """The report is JSON without NaN, has all layers of the network, and a table with a row a block."""
    _, report, _ = result
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    convolutions = [module for module in trained_network().modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(each["layers"] for each in plain["choices"]) == len(convolutions)
    assert plain["choices"][-1]["error_alone"] is None
    assert math.isclose(plain["dice_loss"], report.loss)
    table = report.to_markdown()
    assert all(f"| {each.name} | {each.layers} |" in table for each in report.choices)


def test_nothing_is_printed_and_nothing_is_left_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NNCF draws no bar and writes no log, and its logger, the console and the environment are as before."""
    import_optional("nncf", "openvino")
    console = import_optional("rich", "openvino").get_console()
    monkeypatch.delenv("CI", raising=False)
    network = trained_network()
    before = (logging.getLogger("nncf").level, console.quiet, dict(os.environ))
    capfd.readouterr()
    OpenVinoCandidate(network, _tiles(2))
    assert capfd.readouterr() == ("", "")
    assert (logging.getLogger("nncf").level, console.quiet, dict(os.environ)) == before


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("family", BACKBONE_OF)
def test_every_family_can_be_quantised(family: str, dims: int) -> None:
    """All layers of every design are found in its graph; without INT8 it is the network, with it nearly so."""
    network = make_network(family, dims)
    tiles = [torch.randn(1, 1, *(32,) * dims) for _ in range(2)]
    candidate = OpenVinoCandidate(network, tiles)
    layers = [
        each for each in network.modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.Linear)
    ]
    assert sum(block.layers for block in candidate.blocks) == len(layers)
    with torch.inference_mode():
        exact = network.logits(tiles[0])
    none = candidate.predict(frozenset(["no such block"]), "float32")(tiles[0])
    assert torch.allclose(none, exact, atol=1e-4)
    assert compare_logits(exact, candidate.predict(_everything(candidate), "float32")(tiles[0])).error < 0.2


def test_tiles_of_two_sizes_are_refused(tmp_path: Path) -> None:
    """One graph serves one size; none at all cannot be calibrated on."""
    for tiles in ([], [torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 32, 64)]):
        with pytest.raises(SettingsError, match=f"{len(tiles)} tiles were given"):
            quantise_network(new_network().eval(), tiles, make_judge(), PLAIN, tmp_path)


def test_a_package_that_is_not_there_is_named_with_its_extra() -> None:
    """Without the package the error says what to install."""
    with pytest.raises(SettingsError, match=r"no_such_package.*effvit-med\[openvino\]"):
        import_optional("no_such_package", "openvino")
