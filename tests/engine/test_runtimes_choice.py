"""Facts about `effvit_med.engine.runtimes.choice`: the fastest runtime, measured once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from effvit_med.engine.runtimes import RuntimeRequest, available_runtimes, choose_runtime, open_runtime
from effvit_med.engine.runtimes import choice as choice_module
from effvit_med.engine.runtimes.choice import random_tile
from effvit_med.errors import WeightsError
from effvit_med.networks import fold_batchnorm
from tests.networks.families import make_network

pytestmark = pytest.mark.usefixtures("own_cache")

CPU = torch.device("cpu")
LISTED = {"eager": "", "compile": "", "onnx": "", "openvino": "", "tensorrt": "not here"}


@pytest.fixture(name="request_2d")
def _request_2d() -> RuntimeRequest:
    network = fold_batchnorm(make_network("efficientvit_b", 2))
    return RuntimeRequest(network, CPU, "float32", (64, 64), 2, key="choice")


class _Recorded:
    """A runtime that gives logits made of the eager ones, and counts its calls."""

    calls = 0

    def __init__(self, name: str, request: RuntimeRequest, factor: float) -> None:
        self.name, self.precision = name, request.precision
        self._eager, self._factor = open_runtime("eager", request), factor

    def predict(self, tiles: Tensor) -> Tensor:
        type(self).calls += 1
        return self._factor * self._eager.predict(tiles)

    def describe(self) -> dict[str, str]:
        return {}


@pytest.fixture(name="fakes")
def _fakes(monkeypatch: pytest.MonkeyPatch) -> type[_Recorded]:
    """Runtimes of known speed: onnx is right and fastest, openvino is fast and wrong, a tick of time passes in each."""
    seconds = {"eager": 2.0, "onnx": 1.0, "openvino": 0.5}

    def open_fake(name: Any, request: RuntimeRequest) -> _Recorded:
        return _Recorded(name, request, -1.0 if name == "openvino" else 1.0)

    monkeypatch.setattr(choice_module, "available_runtimes", lambda _: dict(LISTED))
    monkeypatch.setattr(choice_module, "open_runtime", open_fake)
    monkeypatch.setattr(choice_module, "_median_seconds", lambda runtime, *_: seconds[runtime.name])
    monkeypatch.setattr(_Recorded, "calls", 0)
    return _Recorded


def test_the_fastest_that_labels_alike_is_chosen(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path
) -> None:
    """The fastest runtime loses if it labels otherwise; the reasons say so for each that was not taken."""
    choice = choose_runtime(request_2d, cache=tmp_path)
    assert choice.name == "onnx"
    assert choice.seconds == {"eager": 2.0, "onnx": 1.0, "openvino": 0.5}
    assert choice.agreement["onnx"] == 1.0
    assert choice.agreement["openvino"] < 0.999
    assert "of voxels as eager float32; 99.9% are due" in choice.reasons["openvino"]
    assert "ask for it by name" in choice.reasons["compile"]
    assert choice.reasons["tensorrt"] == "not here"
    assert "2 s a tile; onnx takes 1 s" in choice.reasons["eager"]
    assert "onnx" not in choice.reasons


def test_a_choice_is_measured_once(fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path) -> None:
    """The second time nothing runs, and the answer is the same."""
    first = choose_runtime(request_2d, cache=tmp_path)
    calls = fakes.calls
    second = choose_runtime(request_2d, cache=tmp_path)
    assert calls > 0
    assert fakes.calls == calls
    assert (first.cached, second.cached) == (False, True)
    assert replace(second, cached=False) == first


@pytest.mark.parametrize(
    "change", [{"key": "other"}, {"window": (32, 64)}, {"batch_size": 1}, {"precision": "bfloat16"}]
)
def test_another_request_is_measured_anew(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Other weights, another window, batch or precision do not take over an answer."""
    choose_runtime(request_2d, cache=tmp_path)
    assert not choose_runtime(replace(request_2d, **change), cache=tmp_path).cached


def test_another_number_of_threads_is_measured_anew(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer for one thread is not the answer for seven."""
    choose_runtime(request_2d, cache=tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert not choose_runtime(request_2d, cache=tmp_path).cached


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "eager"}', '{"name": "x", "seconds": {}, "reasons": {}}'])
def test_a_damaged_answer_is_measured_anew(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path, content: str
) -> None:
    """A file in the cache that is no answer is written again, not an error."""
    choose_runtime(request_2d, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(content, encoding="utf-8")
    assert not choose_runtime(request_2d, cache=tmp_path).cached
    assert json.loads(file.read_text(encoding="utf-8"))["name"] == "onnx"


def test_a_cache_that_takes_no_file_costs_only_time(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path
) -> None:
    """Where the answer cannot be kept it is given all the same."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert choose_runtime(request_2d, cache=tmp_path / "file").name == "onnx"


def test_eager_is_left_when_all_others_fail(
    fakes: type[_Recorded], request_2d: RuntimeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that cannot be opened is left out with its own words as the reason."""

    def open_fake(name: Any, request: RuntimeRequest) -> _Recorded:
        if name != "eager":
            raise WeightsError(f"{name} is broken")
        return _Recorded(name, request, 1.0)

    monkeypatch.setattr(choice_module, "open_runtime", open_fake)
    choice = choose_runtime(request_2d, cache=tmp_path)
    assert choice.name == "eager"
    assert choice.reasons["onnx"] == "onnx is broken"


def test_real_runtimes_are_measured(request_2d: RuntimeRequest, tmp_path: Path) -> None:
    """Every installed runtime but compile has a time, and progress goes up to its end."""
    calls: list[tuple[str, int, int]] = []
    choice = choose_runtime(request_2d, cache=tmp_path, progress=lambda *call: calls.append(call))
    installed = {name for name, why in available_runtimes(CPU).items() if not why} - {"compile", "tensorrt"}
    assert set(choice.seconds) == installed
    assert all(seconds > 0 for seconds in choice.seconds.values())
    assert all(agreement == 1.0 for agreement in choice.agreement.values())
    assert calls[-1] == ("runtime", 5, 5)
    assert choice.name in installed


def test_the_random_tile_is_the_same_in_every_run(request_2d: RuntimeRequest) -> None:
    """It has the request's shape and a scan's range, and does not touch torch's own random numbers."""
    state = torch.get_rng_state()
    tile = random_tile(request_2d)
    assert torch.equal(tile, random_tile(request_2d))
    assert torch.equal(torch.get_rng_state(), state)
    assert tile.shape == (1, 1, 64, 64)
    assert tile.abs().max() <= 1
    assert tile.std() > 0.3
