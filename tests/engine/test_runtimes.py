"""Facts about `effvit_med.engine.runtimes`: every runtime gives the logits of torch.

TensorRT cannot be run where these tests run: it needs a CUDA device. What is tested of it is that it is refused in
words elsewhere; its engine was written against the public interface of TensorRT 10 and has not been run.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from effvit_med.engine.runtimes import RUNTIMES, RuntimeName, RuntimeRequest, available_runtimes, open_runtime
from effvit_med.engine.runtimes import cache as cache_module
from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.graph import cached_graph
from effvit_med.engine.runtimes.onnx_runtime import OnnxRuntime
from effvit_med.engine.runtimes.openvino_runtime import OpenVinoRuntime
from effvit_med.engine.runtimes.package import load_package
from effvit_med.engine.runtimes.request import split_batch
from effvit_med.errors import OutputError, SettingsError, WeightsError
from effvit_med.networks import SegmentationNetwork, build_network, fold_batchnorm
from tests.networks.families import make_network, relative_error

pytestmark = pytest.mark.usefixtures("own_cache")

CPU = torch.device("cpu")
WINDOWS = {2: (64, 64), 3: (32, 32, 32)}


@lru_cache
def _network(dims: int) -> SegmentationNetwork:
    return fold_batchnorm(make_network("efficientvit_b", dims))


def _request(dims: int, precision: str = "float32", batch_size: int = 2) -> RuntimeRequest:
    return RuntimeRequest(_network(dims), CPU, precision, WINDOWS[dims], batch_size, key=f"tests {dims}")


def _need(name: RuntimeName) -> None:
    why = available_runtimes(CPU)[name]
    if why:
        pytest.skip(why)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["eager", "onnx", "openvino", pytest.param("compile", marks=pytest.mark.slow)])
def test_runtime_gives_the_logits_of_torch(name: RuntimeName, dims: int) -> None:
    """One, two and five tiles, where a batch holds two, have the logits of the network itself."""
    _need(name)
    runtime = open_runtime(name, _request(dims))
    for count in (1, 2, 5):
        tiles = torch.randn(count, 1, *WINDOWS[dims])
        found = runtime.predict(tiles)
        with torch.inference_mode():
            assert relative_error(found, _network(dims).logits(tiles)) < 1e-4
        assert found.dtype == torch.float32


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_logits_come_at_the_output_stride(name: RuntimeName) -> None:
    """A network whose decoder stops at stride 4 gives its own coarse logits, not interpolated ones."""
    _need(name)
    network = fold_batchnorm(build_network(3, 1, 5, decoder_stride=4).eval())
    runtime = open_runtime(name, RuntimeRequest(network, CPU, "float32", (32, 40, 32), 1, key="stride 4"))
    tile = torch.randn(1, 1, 32, 40, 32)
    with torch.inference_mode():
        assert relative_error(runtime.predict(tile), network.logits(tile)) < 1e-4
    assert runtime.predict(tile).shape == (1, 5, 8, 10, 8)


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_bfloat16_stays_near_float32(name: RuntimeName) -> None:
    """Half the bits change the logits, by less than 5 % of their deviation on average."""
    _need(name)
    try:
        runtime = open_runtime(name, _request(3, "bfloat16"))
    except SettingsError as error:
        pytest.skip(str(error))
    tiles = torch.randn(1, 1, *WINDOWS[3])
    with torch.inference_mode():
        exact = _network(3).logits(tiles)
    off = (runtime.predict(tiles) - exact).abs().mean() / exact.std()
    assert 1e-5 < off < 0.05
    assert runtime.describe()["precision"] == "bfloat16"


def test_onnx_refuses_half_precision() -> None:
    """ONNX Runtime does not silently compute in another precision than the one asked for."""
    _need("onnx")
    with pytest.raises(SettingsError, match="computes in float32, not in bfloat16"):
        open_runtime("onnx", _request(2, "bfloat16"))


@pytest.mark.parametrize("name", ["onnx", "openvino"])
@pytest.mark.parametrize("shape", [(1, 1, 64, 32), (1, 2, 64, 64), (0, 1, 64, 64)])
def test_tiles_of_another_size_are_refused(name: RuntimeName, shape: tuple[int, ...]) -> None:
    """Tiles of another window or with other channels, or none, are refused by their shape."""
    _need(name)
    with pytest.raises(SettingsError, match=r"The tiles have the shape .* opened for \(1, 1, 64, 64\)"):
        open_runtime(name, _request(2)).predict(torch.zeros(shape))


def test_graph_is_written_once() -> None:
    """The ONNX file of a network is made at first and found afterwards; another key has another file."""
    _need("onnx")
    path = cached_graph(_request(2)).path
    written = path.stat().st_mtime_ns
    again = cached_graph(replace(_request(2), window=(32, 32), batch_size=1)).path
    assert again == path
    assert again.stat().st_mtime_ns == written
    assert cached_graph(replace(_request(2), key="other weights")).path != path


def test_graph_names_no_folder_of_this_machine() -> None:
    """The ONNX file does not say where the Python files lay that it was recorded from."""
    _need("onnx")
    content = cached_graph(_request(2)).path.read_bytes()
    assert b"graph.py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


@pytest.mark.parametrize("opener", [OnnxRuntime, OpenVinoRuntime])
def test_damaged_graph_is_refused(opener: type[OnnxRuntime | OpenVinoRuntime], tmp_path: Path) -> None:
    """A file that is cut short is named, with what to do about it."""
    _need("onnx" if opener is OnnxRuntime else "openvino")
    graph = cached_graph(_request(2))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graph.path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"cannot read .*cut\.onnx"):
        opener(replace(graph, path=cut))


def test_every_runtime_is_listed_with_what_speaks_against_it() -> None:
    """Eager can always be used; TensorRT is refused on a processor, in the list and when it is asked for."""
    found = available_runtimes(CPU)
    assert tuple(found) == RUNTIMES
    assert not found["eager"]
    assert found["tensorrt"] == "The runtime tensorrt needs a CUDA device; the device is cpu."
    with pytest.raises(SettingsError, match="needs a CUDA device"):
        open_runtime("tensorrt", _request(2))


def test_unknown_runtime_is_refused() -> None:
    """The error names the word and what there is."""
    with pytest.raises(SettingsError, match="'tvm' is unknown; use eager, compile, onnx, openvino, tensorrt"):
        open_runtime("tvm", _request(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_absent_package_is_named(monkeypatch: pytest.MonkeyPatch, name: RuntimeName) -> None:
    """Where a package is missing, the error names it and the extra that brings it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=rf"{name}.* cannot be found; install effvit-med\[{name}\]"):
        open_runtime(name, _request(2))
    with pytest.raises(SettingsError, match="needs openvino, which cannot be found"):
        load_package("openvino", "openvino")


def test_compile_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without a C++ compiler the error says that one is needed."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler on a processor \(g\+\+"):
        open_runtime("compile", _request(2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float8"}, "precision is 'float8'; use float32, bfloat16, float16"),
        ({"window": (64, 64, 64)}, r"window is \(64, 64, 64\); this network takes 2 sizes"),
        ({"window": (64, 0)}, r"window is \(64, 0\)"),
        ({"batch_size": 0}, "batch size is 0"),
    ],
)
def test_impossible_request_is_refused(change: dict[str, object], message: str) -> None:
    """A value that no runtime could use is named where the request is made."""
    with pytest.raises(SettingsError, match=message):
        replace(_request(2), **change)  # type: ignore[arg-type]


def test_eager_does_not_change_the_network_it_is_given() -> None:
    """The network of the request stays on the processor and in float32."""
    request = _request(2, "bfloat16")
    open_runtime("eager", request).predict(torch.zeros(1, 1, 64, 64))
    assert {(p.device.type, p.dtype) for p in request.network.parameters()} == {("cpu", torch.float32)}


def test_batches_are_split_into_two_sizes_only() -> None:
    """Every tile is in one part, in order, and parts have the whole batch size or a single tile."""
    for count in range(1, 9):
        tiles = torch.arange(count).reshape(count, 1, 1, 1)
        parts = list(split_batch(tiles, 3))
        assert torch.equal(torch.cat([part for _, part in parts]), tiles)
        assert all(torch.equal(tiles[place], part) for place, part in parts)
        assert {len(part) for _, part in parts} <= {1, 3}


def test_cache_folder_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file in the place of the cache folder is an error of ours that names the variable."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv(cache_module.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OutputError, match="EFFVIT_MED_CACHE"):
        cache_folder("graphs")
