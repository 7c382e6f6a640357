"""Facts about how `effvit_med.engine.quantisation` chooses blocks, with a made-up network that cannot err."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from effvit_med.engine.quantisation import QuantisationOptions, dice_loss
from effvit_med.engine.quantisation.blocks import (
    Block,
    LayerNames,
    Operator,
    ancestors,
    assign_blocks,
    block_of,
    list_blocks,
)
from effvit_med.engine.quantisation.options import Precision, Predict
from effvit_med.engine.quantisation.sensitivity import Effect, find_slower, measure_blocks, select_blocks
from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks import build_network

NAMES = ("a", "b", "c", "d")
BEFORE = {"liver": 0.95}


class _Clock:
    """Time as the made-up networks take it: that of a real processor is never the same twice."""

    now_s = 0.0


@pytest.fixture(name="_clock")
def _use_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: _Clock.now_s)


@dataclass(frozen=True)
class _MadeUp:
    """A network whose first logit grows by what each block in INT8 costs, and takes milliseconds of made-up time."""

    costs: Mapping[str, float]
    work: Mapping[str, int]
    blocks: tuple[Block, ...] = (*(Block(name, 1) for name in NAMES), Block("last", 1, fixed=True))

    def predict(self, int8: frozenset[str], precision: Precision) -> Predict:
        def predict(tiles: Tensor) -> Tensor:
            _Clock.now_s += sum(self.work.get(name, 0) for name in int8) / 1000
            logits = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1).repeat(len(tiles), 1, 4, 4)
            logits[:, 0, 0, 0] += sum(self.costs[name] for name in int8)
            return logits

        return predict

    def write(self, int8: frozenset[str], folder: Path) -> tuple[Path, ...]:
        return ()


def _judge(predict: Predict) -> dict[str, float]:
    return {"liver": 0.95 - 0.01 * (float(predict(torch.zeros(1))[0, 0, 0, 0]) - 1)}


def _effects(candidate: _MadeUp) -> dict[str, Effect]:
    return measure_blocks(candidate, [torch.zeros(1)])


def test_blocks_are_given_back_from_the_worst_until_the_judge_is_content() -> None:
    """Of costs 4, 2, 1 and 3 hundredths, a loss of 4 is reached without the two worst and not before."""
    candidate = _MadeUp({"a": 4, "b": 2, "c": 1, "d": 3}, {})
    options = QuantisationOptions(largest_dice_loss=0.04, most_kept=0.75)
    selection = select_blocks(candidate, _effects(candidate), frozenset(), (_judge, BEFORE), options)
    assert selection.int8 == {"b", "c"}
    assert list(selection.kept) == ["a", "d"]
    assert math.isclose(selection.kept["a"], 0.10, abs_tol=1e-6)
    assert math.isclose(selection.dice["liver"], 0.92, abs_tol=1e-6)


def test_no_more_blocks_are_kept_than_may_be() -> None:
    """Where half of the blocks may be kept and that is not enough, the gate refuses and names them."""
    candidate = _MadeUp(dict.fromkeys(NAMES, 1.0), {})
    options = QuantisationOptions(largest_dice_loss=0.005)
    with pytest.raises(OutputError, match=r"loses 0\.0200 of Dice.*with d, c kept in bfloat16: liver 0\.9500 to"):
        select_blocks(candidate, _effects(candidate), frozenset(), (_judge, BEFORE), options)


def test_the_judge_is_asked_once_where_nothing_hurts() -> None:
    """A network that loses nothing is judged once and keeps no block."""
    asked: list[Predict] = []

    def judge(predict: Predict) -> dict[str, float]:
        asked.append(predict)
        return BEFORE

    candidate = _MadeUp(dict.fromkeys(NAMES, 1.0), {})
    selection = select_blocks(candidate, _effects(candidate), frozenset("a"), (judge, BEFORE), QuantisationOptions())
    assert len(asked) == 1
    assert selection.int8 == {"b", "c", "d"}


@given(st.lists(st.floats(0.01, 10), min_size=4, max_size=4))
def test_a_block_that_costs_more_has_the_larger_error_alone(costs: list[float]) -> None:
    """The ranking of the errors alone is that of the costs."""
    candidate = _MadeUp(dict(zip(NAMES, costs, strict=True)), {})
    effects = _effects(candidate)
    ranked = sorted(NAMES, key=lambda name: effects[name].error)
    assert [candidate.costs[name] for name in ranked] == pytest.approx(sorted(costs), rel=1e-3)
    assert "last" not in effects


@pytest.mark.usefixtures("_clock")
def test_a_block_that_is_slower_in_int8_is_found_and_a_faster_one_is_not() -> None:
    """Only the block that is said to cost time, and does, is given back."""
    candidate = _MadeUp(dict.fromkeys(NAMES, 1.0), {"a": 60, "b": 20, "c": 20, "d": 20})
    saved = {"a": -100.0, "b": 1.0, "c": 0.0, "d": 5.0}
    assert find_slower(candidate, saved, torch.zeros(1), "float32") == {"a"}


@pytest.mark.usefixtures("_clock")
def test_a_block_that_was_slow_only_once_stays() -> None:
    """What looks slower in the first timing and is faster in the second is not given back."""
    candidate = _MadeUp(dict.fromkeys(NAMES, 1.0), {"a": -40, "b": 30, "c": 30, "d": 30})
    saved = {"a": -100.0, "b": 1.0, "c": 1.0, "d": 1.0}
    assert find_slower(candidate, saved, torch.zeros(1), "float32") == frozenset()


@pytest.mark.usefixtures("_clock")
def test_not_all_blocks_are_given_back_for_time() -> None:
    """Where every block was measured slower, all stay: a network without INT8 is not what was asked for."""
    candidate = _MadeUp(dict.fromkeys(NAMES, 1.0), dict.fromkeys(NAMES, 5))
    assert find_slower(candidate, dict.fromkeys(NAMES, -100.0), torch.zeros(1), "float32") == frozenset()


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [
        ({"a": 0.9, "b": 0.8}, {"a": 0.95, "b": 0.75}, 0.05),
        ({"a": 0.9}, {"a": 0.95}, 0.0),
        ({"a": 0.9}, {}, 0.9),
        ({"a": math.nan}, {"a": math.nan}, 0.0),
        ({"a": math.nan}, {"a": 0.0}, 1.0),
        ({}, {}, 0.0),
    ],
)
def test_the_loss_is_that_of_the_structure_that_loses_most(
    before: dict[str, float], after: dict[str, float], loss: float
) -> None:
    """A gain elsewhere makes up for nothing; a structure that is lost or made up loses all."""
    assert dice_loss(before, after) == pytest.approx(loss)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        ("backbone.input_stem.op_list.1.main.depth_conv.conv", "backbone.input_stem"),
        ("backbone.stages.3.op_list.0.main.point_conv.conv", "backbone.stages.3.op_list.0"),
        (
            "backbone.stages.2.op_list.1.context_module.main.aggreg.0.1",
            "backbone.stages.2.op_list.1.context_module",
        ),
        ("head.narrow.2.conv", "head.level_2"),
        ("head.refine.2.op_list.1.main.depth_conv.conv", "head.level_2"),
        ("head.classify.conv", "head.classify"),
        ("head.output_ops.0.op_list.1.conv", "head.output_ops.0.op_list.1"),
        ("backbone.blocks2.4.mixer.m.attn.qkvs.2.c", "backbone.blocks2.4"),
        ("backbone.patch_embed.4.c", "backbone.patch_embed"),
    ],
)
def test_a_layer_belongs_to_the_block_that_its_path_names(layer: str, block: str) -> None:
    """Stems, residual blocks, halves of attention blocks and levels of decoders are the blocks of every family."""
    assert block_of(layer) == block


def test_a_sum_belongs_to_the_block_with_more_layers_behind_it() -> None:
    """A residual sum is of the block whose output it adds, whichever input comes first."""
    chain = [Operator("a", (), "s.0.conv"), Operator("b", ("a",), "s.1.conv")]
    for inputs in (("a", "b"), ("b", "a")):
        assert assign_blocks([*chain, Operator("+", inputs)])["+"] == "s.1"


def test_the_search_for_what_leads_to_an_operator_ends_at_layers() -> None:
    """Neither a layer nor what lies before it is found."""
    inputs = {"divide": ("sum", "product"), "sum": ("layer",), "product": ("sum", "layer"), "layer": ("image",)}
    assert ancestors(["divide"], inputs, frozenset(["layer"])) == {"divide", "sum", "product"}


def test_a_layer_is_found_by_its_weights() -> None:
    """Weights name their layer; equal weights are given out in order; unknown ones name none."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1))
    nn.init.ones_(network[0].weight)
    nn.init.ones_(network[1].weight)
    names = LayerNames(network)
    same = network[0].weight.detach().numpy()
    assert [names.of(same), names.of(same), names.of(network[2].weight.detach().numpy())] == ["0", "1", "2"]
    assert names.of(same + 1) is None


def test_a_network_without_a_layer_for_the_logits_is_refused() -> None:
    """Where the graph does not show which layer gives the logits, nothing is guessed."""
    with pytest.raises(SettingsError, match="1 layers were found, in 1 blocks of which 0 give the logits"):
        list_blocks(build_network(2, 1, 3), ["head.classify.conv"], [])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"backend": "tensorrt"}, "backend is 'tensorrt'; it must be one of openvino, onnx"),
        ({"keep_precision": "int8"}, "keep_precision is 'int8'"),
        ({"most_kept": 1.0}, r"most_kept 1\.0"),
        ({"largest_dice_loss": -0.1}, r"largest_dice_loss is -0\.1"),
        ({"tiles": 0}, "tiles is 0"),
    ],
)
def test_a_wrong_option_is_refused_with_its_value(values: dict[str, object], words: str) -> None:
    """The error names the option, the value and what is allowed."""
    with pytest.raises(SettingsError, match=words):
        QuantisationOptions(**values)
