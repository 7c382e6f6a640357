"""Every family of networks leaves the notebook: other runtimes, half precision, little memory, several processes."""

from __future__ import annotations

import copy
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks import SegmentationNetwork, fold_batchnorm
from effvit_med.networks.attention import linear_attention
from effvit_med.networks.blocks import BlockStyle
from effvit_med.networks.decoder import HighResolutionDecoder, SegHead
from effvit_med.networks.efficientmod import EfficientMod
from effvit_med.networks.efficientvit import Backbone, EfficientVit
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.export import export_onnx, export_program
from effvit_med.networks.layers import layers_for
from effvit_med.networks.presets import BACKBONES, HEADS, HIGH_RESOLUTION
from effvit_med.networks.presets.efficientmod import EFFICIENTMOD
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
from effvit_med.networks.presets.sam import SAMS
from effvit_med.networks.presets.shvit import SHVIT
from effvit_med.networks.presets.turbovit import TURBOVIT
from effvit_med.networks.sam_encoder import SamImageEncoder
from effvit_med.networks.shvit import Shvit
from effvit_med.networks.turbovit import TurboVit


def _mit(name: str, dims: int) -> Backbone:
    preset = BACKBONES[name]
    short = replace(preset, stages=tuple(replace(stage, blocks=min(1, stage.blocks)) for stage in preset.stages))
    return EfficientVit(short, BlockStyle(layers_for(dims), (3,) * dims, preset.activation), 1)


def _cascaded(dims: int) -> Backbone:
    return EfficientVitM(replace(EFFICIENTVIT_M["efficientvit_m0"], depths=(1, 1, 1)), dims, 1)


def _single_head(dims: int) -> Backbone:
    return Shvit(replace(SHVIT["shvit_s1"], depths=(1, 1, 1)), dims, 1)


def _modulation(dims: int) -> Backbone:
    preset = replace(EFFICIENTMOD["efficientmod_xxs"], depths=(2, 1, 1, 1), attention_depths=(0, 0, 1, 1))
    return EfficientMod(preset, dims, 1)


def _turbo(dims: int) -> Backbone:
    return TurboVit(replace(TURBOVIT["turbovit_t"], depths=(1, 1, 1, 1)), dims, 1)


#: The smallest backbone of each design, cut to one block a stage: as many kinds of blocks, in less time.
BACKBONE_OF: dict[str, Callable[[int], Backbone]] = {
    "efficientvit_b": lambda dims: _mit("efficientvit_b0", dims),
    "efficientvit_l": lambda dims: _mit("efficientvit_l0", dims),
    "efficientvit_m": _cascaded,
    "shvit": _single_head,
    "efficientmod": _modulation,
    "turbovit": _turbo,
}

every_family = pytest.mark.parametrize("family", BACKBONE_OF)
both_ranks = pytest.mark.parametrize("dims", [2, 3])


def _network(family: str, dims: int, decoder: str = "high_resolution") -> SegmentationNetwork:
    """A network whose normalisations have seen something, so that folding and eval mode are no identity."""
    torch.manual_seed(0)
    backbone = BACKBONE_OF[family](dims)
    style = BlockStyle(layers_for(dims), (3,) * dims)
    head: HighResolutionDecoder | SegHead
    if decoder == "seg_head":
        head = SegHead(style, backbone, 3, HEADS["seg_b0_cityscapes"])
    else:
        head = HighResolutionDecoder(style, backbone, 3, HIGH_RESOLUTION)
    network = SegmentationNetwork(backbone, head, dims, 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def _image(*space: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, *space)


def _error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == wanted.shape
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def _quietly(make: Callable[[], Any]) -> Any:
    """What ``make`` gives, without torch's warnings to its own developers and without the checks of annotations.

    Checks that are compiled or recorded with the network are no part of it, and know no symbol in place of a size.
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


_sizes = st.lists(st.integers(1, 90), min_size=3, max_size=3)


@lru_cache
def _program() -> tuple[SegmentationNetwork, Callable[[Tensor], Tensor]]:
    network = _network("efficientvit_b", 2)
    return network, _quietly(lambda: export_program(network, _image(16, 16))).module()


@settings(max_examples=6)
@given(size=_sizes, batch=st.integers(1, 2))
def test_exported_program_gives_the_same_at_any_size(size: list[int], batch: int) -> None:
    """One exported program gives the eager logits at every size, from a single pixel on."""
    network, program = _program()
    image = _image(*size[:2], batch=batch)
    with torch.inference_mode():
        assert _error(program(image), network(image)) < 1e-4


@lru_cache
def _onnx_session(family: str, dims: int, decoder: str, folder: Path) -> tuple[nn.Module, Any]:
    runtime = pytest.importorskip("onnxruntime")
    network = _network(family, dims, decoder or "high_resolution")
    exported = network if decoder else network.backbone
    assert isinstance(exported, nn.Module)
    path = folder / f"{family}{dims}{decoder}.onnx"
    _quietly(lambda: export_onnx(exported, path, _image(*(16,) * dims)))
    return exported, runtime.InferenceSession(str(path))


@pytest.fixture(name="onnx_folder", scope="module")
def _onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.mark.parametrize(
    ("family", "dims", "decoder"),
    [
        ("efficientvit_b", 2, "high_resolution"),
        ("efficientvit_b", 2, "seg_head"),
        ("efficientvit_b", 3, ""),
        ("efficientvit_l", 2, ""),
        ("efficientvit_m", 2, ""),
        ("shvit", 2, ""),
        ("efficientmod", 2, "high_resolution"),
        ("turbovit", 2, ""),
    ],
)
@settings(max_examples=6)
@given(size=_sizes, batch=st.integers(1, 2))
def test_onnx_gives_the_same_at_any_size(
    family: str, dims: int, decoder: str, onnx_folder: Path, size: list[int], batch: int
) -> None:
    """One ONNX file, of a network or of a backbone alone, serves every size and batch, whatever the example's were."""
    network, session = _onnx_session(family, dims, decoder, onnx_folder)
    image = _image(*size[:dims], batch=batch)
    with torch.inference_mode():
        wanted = network(image)
    found = [torch.from_numpy(each) for each in session.run(None, {"image": image.numpy()})]
    assert max(map(_error, found, [wanted] if decoder else wanted)) < 1e-4


def test_onnx_file_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    """Names and free axes are in the file, and the operator version is recorded; nothing else is left behind."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "maps.onnx"
    backbone = BACKBONE_OF["efficientvit_b"](2)
    assert isinstance(backbone, nn.Module)
    result = _quietly(lambda: export_onnx(backbone, path, _image(8, 8)))
    model = onnx.load(path)
    axes = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 1, "height", "width"]
    assert result.output_names == ("map_0", "map_1", "map_2", "map_3", "map_4")
    assert tuple(output.name for output in model.graph.output) == result.output_names
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == result.opset
    assert {entry.key: entry.value for entry in model.metadata_props}["input_names"] == '["image"]'
    assert list(tmp_path.iterdir()) == [path]


def test_sam_image_encoder_exports(tmp_path: Path) -> None:
    """The image encoder of SAM takes images of any size in ONNX and gives its embedding of fixed size."""
    runtime = pytest.importorskip("onnxruntime")
    preset = SAMS["efficientvit_sam_l0"]
    stages = tuple(replace(stage, blocks=min(1, stage.blocks)) for stage in preset.backbone.stages)
    neck = replace(preset.neck, depth=1, width=32)
    encoder = SamImageEncoder(replace(preset, backbone=replace(preset.backbone, stages=stages), neck=neck), 1, 1e-6)
    path = tmp_path / "encoder.onnx"
    _quietly(lambda: export_onnx(encoder.eval(), path, _image(64, 64)))
    session = runtime.InferenceSession(str(path))
    for size in ((64, 64), (75, 130)):
        image = _image(*size)
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        with torch.inference_mode():
            assert _error(found, encoder(image)) < 1e-4


def test_program_of_one_size_keeps_to_it() -> None:
    """Without free axes the program takes the example's size and refuses others."""
    network = _network("efficientvit_b", 2)
    run = _quietly(lambda: export_program(network, _image(33, 47), dynamic=False)).module()
    image = _image(33, 47)
    assert _error(run(image), network(image).detach()) < 1e-4
    with pytest.raises(Exception, match="33"):
        run(_image(40, 47))


class _Tied(nn.Module):
    """A network that knows one size only."""

    spatial_dims, in_channels = 2, 1

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


def test_what_ties_an_axis_is_refused_with_free_axes() -> None:
    """A network with a table of one size cannot be exported for all, and says so."""
    with pytest.raises(SettingsError, match="_Tied"):
        _quietly(lambda: export_program(_Tied(4030), _image(8, 8)))


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (1, 1, 16, 16, 16), (1, 1, 16), (0, 1, 16, 16)])
def test_example_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """An example with other channels or axes, or without a voxel, is refused by its shape."""
    with pytest.raises(SettingsError, match=r"The example has the shape .*; this network takes \(batch, 1 channels, 2"):
        export_program(_network("shvit", 2), torch.zeros(shape))


def test_module_that_is_no_network_is_refused() -> None:
    """A module that does not say what images it takes is refused by its type."""
    with pytest.raises(SettingsError, match="Linear has no spatial_dims and in_channels"):
        export_program(nn.Linear(1, 1), _image(4, 4))


def test_absent_onnx_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the packages for ONNX are missing, the error names them and the extra that brings them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(SettingsError, match=r"needs onnxscript, .*install effvit-med\[onnx\]"):
        export_onnx(_network("shvit", 2), tmp_path / "a.onnx", _image(8, 8))


def test_onnx_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is an error of ours with the path."""
    pytest.importorskip("onnxscript")
    with pytest.raises(OutputError, match=r"cannot be written to .*absent"):
        _quietly(lambda: export_onnx(_network("shvit", 2), tmp_path / "absent" / "a.onnx", _image(8, 8), dynamic=False))


@pytest.mark.parametrize(("family", "dims"), [*((family, 2) for family in BACKBONE_OF), ("efficientvit_b", 3)])
def test_compiled_network_gives_the_same_without_a_break(family: str, dims: int) -> None:
    """The whole network is one compiled graph, of the eager logits."""
    torch._dynamo.reset()
    network = _network(family, dims)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = _image(*(35, 41, 24)[:dims])
    with torch.inference_mode():
        assert _error(_quietly(lambda: compiled(image)), network(image)) < 1e-4


def test_compiled_network_trains() -> None:
    """The compiled graph has the gradients of the eager network."""
    torch._dynamo.reset()
    network = _network("efficientvit_b", 2).train()
    image = _image(40, 33, batch=2)
    network(image).square().mean().backward()
    wanted = _gradients(network)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    _quietly(lambda: compiled(image).square().mean().backward())
    torch.testing.assert_close(_gradients(network), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor makes C++ of the graph, and there is no compiler g++")
def test_inductor_makes_native_code() -> None:
    """The default compiler turns a stage with attention into native code that gives the same."""
    backbone = _network("efficientvit_b", 2).backbone
    assert isinstance(backbone, EfficientVit)
    stage = backbone.stages[-1]
    compiled = torch.compile(stage, fullgraph=True)
    x = torch.randn(1, 64, 12, 12)
    with torch.inference_mode():
        assert _error(_quietly(lambda: compiled(x)), stage(x)) < 1e-4


@every_family
@both_ranks
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(family: str, dims: int, dtype: torch.dtype) -> None:
    """Autocast of values ten times as large as they should be is finite, and differs on average by 5 % at most."""
    network = _network(family, dims)
    image = 10 * _image(*((160, 130) if dims == 2 else (33, 34, 35)))
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast("cpu", dtype):
            half = network(image)
    assert half.isfinite().all()
    assert (half.float() - exact).abs().mean() < 0.05 * exact.std()


def test_linear_attention_outlives_the_range_of_float16() -> None:
    """Sums over tokens that pass 65504 are right, as they are made in float32; in float16 none would be finite."""
    q, k, v = (torch.full((1, 1, 16, 4096), value, dtype=torch.float16) for value in (4.0, 8.0, 2.0))
    naive = ((v @ k.mT) @ q) / (k.sum(-1, keepdim=True).mT @ q)
    assert not naive.isfinite().any()
    torch.testing.assert_close(linear_attention(q, k, v, 1e-15), v)


@every_family
@both_ranks
def test_channels_last_weights_give_the_same(family: str, dims: int) -> None:
    """The layout of weights and maps does not matter to the maps that come out."""
    backbone = _network(family, dims).backbone
    assert isinstance(backbone, nn.Module)
    image = _image(*(37, 33, 20)[:dims], batch=2)
    with torch.inference_mode():
        innermost = backbone.to(memory_format=layers_for(dims).memory_format).features(image)  # type: ignore[call-overload]
        outermost = backbone.to(memory_format=torch.contiguous_format).features(image)  # type: ignore[call-overload]
    assert max(map(_error, innermost, outermost)) < 1e-5


@every_family
@both_ranks
def test_folded_network_gives_the_same(family: str, dims: int) -> None:
    """Every batch normalisation of every family is folded away, and the logits stay."""
    network = _network(family, dims)
    folded = fold_batchnorm(network)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    image = _image(*(37, 50, 21)[:dims])
    with torch.inference_mode():
        assert _error(folded(image), network(image)) < 1e-4


def _gradients(network: nn.Module) -> Tensor:
    """All gradients in a row, which are forgotten; a parameter without one is an error."""
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    row = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return row


@every_family
@pytest.mark.parametrize(("dims", "decoder"), [(2, "high_resolution"), (2, "seg_head"), (3, "high_resolution")])
def test_checkpointing_changes_only_memory(family: str, dims: int, decoder: str) -> None:
    """With and without kept maps, the gradients and the running statistics are the same."""
    kept = _network(family, dims, decoder).train()
    again = copy.deepcopy(kept)
    again.checkpoint_activations()
    image = _image(*(34, 33, 9)[:dims], batch=2)
    for network in (kept, again):
        network(image).square().mean().backward()
    torch.testing.assert_close(_gradients(again), _gradients(kept))
    for (name, found), wanted in zip(again.named_buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, msg=name)


def test_checkpointing_keeps_fewer_maps() -> None:
    """What the backward pass holds on to shrinks to less than half."""

    def held(*, checkpointing: bool) -> int:
        network = _network("efficientvit_b", 2).train()
        network.checkpoint_activations(checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            network(_image(64, 64, batch=2))
        return sum(sizes)

    assert held(checkpointing=True) < 0.5 * held(checkpointing=False)


def _train_in_one_of_two_processes(rank: int, meeting_point: str) -> None:
    """Two steps of every family, each process with images of its own; raises where the gradients differ."""
    torch.set_num_threads(1)
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    try:
        for family in BACKBONE_OF:
            network = _network(family, 2).train()
            network.checkpoint_activations(family in ("shvit", "efficientvit_m"))
            parallel = nn.parallel.DistributedDataParallel(network, find_unused_parameters=False)
            for step in range(2):
                torch.manual_seed(10 * step + rank)
                parallel(_image(33, 40, batch=2)).square().mean().backward()
                mine = _gradients(network)
                of_all = [torch.empty_like(mine) for _ in range(2)]
                distributed.all_gather(of_all, mine)
                torch.testing.assert_close(of_all[0], of_all[1], rtol=0, atol=0, msg=family)
    finally:
        distributed.destroy_process_group()


def test_two_processes_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In distributed training every parameter of every family takes part, and both processes get the same gradients."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(_train_in_one_of_two_processes, args=(str(tmp_path / "meeting"),), nprocs=2)
