"""Every family of networks as a torch program and as an ONNX file, for images of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks import SegmentationNetwork
from effvit_med.networks.export import export_onnx, export_program
from effvit_med.networks.presets.sam import SAMS
from effvit_med.networks.sam_encoder import SamImageEncoder
from tests.networks.families import (
    BACKBONE_OF,
    make_image,
    make_network,
    quietly,
    relative_error,
)

_sizes = st.lists(st.integers(1, 90), min_size=3, max_size=3)


@lru_cache
def _program() -> tuple[SegmentationNetwork, Callable[[Tensor], Tensor]]:
    network = make_network("efficientvit_b", 2)
    return network, quietly(lambda: export_program(network, make_image(16, 16))).module()


@settings(max_examples=6)
@given(size=_sizes, batch=st.integers(1, 2))
def test_exported_program_gives_the_same_at_any_size(size: list[int], batch: int) -> None:
    """One exported program gives the eager logits at every size, from a single pixel on."""
    network, program = _program()
    image = make_image(*size[:2], batch=batch)
    with torch.inference_mode():
        assert relative_error(program(image), network(image)) < 1e-4


@lru_cache
def _onnx_session(family: str, dims: int, decoder: str, folder: Path) -> tuple[nn.Module, Any]:
    runtime = pytest.importorskip("onnxruntime")
    network = make_network(family, dims, decoder or "high_resolution")
    exported = network if decoder else network.backbone
    assert isinstance(exported, nn.Module)
    path = folder / f"{family}{dims}{decoder}.onnx"
    quietly(lambda: export_onnx(exported, path, make_image(*(16,) * dims)))
    return exported, runtime.InferenceSession(str(path))


@pytest.fixture(name="onnx_folder", scope="module")
def _onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.mark.parametrize(
    ("family", "dims", "decoder"),
    [
        ("efficientvit_b", 2, "high_resolution"),
        pytest.param("efficientvit_b", 2, "seg_head", marks=pytest.mark.slow),
        ("efficientvit_b", 3, ""),
        pytest.param("efficientvit_l", 2, "", marks=pytest.mark.slow),
        pytest.param("efficientvit_m", 2, "", marks=pytest.mark.slow),
        ("shvit", 2, ""),
        pytest.param("efficientmod", 2, "high_resolution", marks=pytest.mark.slow),
        pytest.param("turbovit", 2, "", marks=pytest.mark.slow),
    ],
)
@settings(max_examples=6)
@given(size=_sizes, batch=st.integers(1, 2))
def test_onnx_gives_the_same_at_any_size(
    family: str, dims: int, decoder: str, onnx_folder: Path, size: list[int], batch: int
) -> None:
    """One ONNX file, of a network or of a backbone alone, serves every size and batch, whatever the example's were."""
    network, session = _onnx_session(family, dims, decoder, onnx_folder)
    image = make_image(*size[:dims], batch=batch)
    with torch.inference_mode():
        wanted = network(image)
    found = [torch.from_numpy(each) for each in session.run(None, {"image": image.numpy()})]
    assert max(map(relative_error, found, [wanted] if decoder else wanted)) < 1e-4


def test_onnx_file_says_what_it_takes_and_gives(tmp_path: Path) -> None:
    """Names and free axes are in the file, and the operator version is recorded; nothing else is left behind."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "maps.onnx"
    backbone = BACKBONE_OF["efficientvit_b"](2)
    assert isinstance(backbone, nn.Module)
    result = quietly(lambda: export_onnx(backbone, path, make_image(8, 8)))
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
    quietly(lambda: export_onnx(encoder.eval(), path, make_image(64, 64)))
    session = runtime.InferenceSession(str(path))
    for size in ((64, 64), (75, 130)):
        image = make_image(*size)
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        with torch.inference_mode():
            assert relative_error(found, encoder(image)) < 1e-4


def test_program_of_one_size_keeps_to_it() -> None:
    """Without free axes the program takes the example's size and refuses others."""
    network = make_network("efficientvit_b", 2)
    run = quietly(lambda: export_program(network, make_image(33, 47), dynamic=False)).module()
    image = make_image(33, 47)
    assert relative_error(run(image), network(image).detach()) < 1e-4
    with pytest.raises(Exception, match="33"):
        run(make_image(40, 47))


class _Tied(nn.Module):
    """A network that treats one size, or all up to a limit, in another way."""

    spatial_dims, in_channels = 2, 1

    def __init__(self, choose: Callable[[Any], bool]) -> None:
        super().__init__()
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.choose(x.shape) else x + 1


@pytest.mark.parametrize(
    ("choose", "axes"), [(lambda s: s[2] == 4030, "2"), (lambda s: s[3] < 5000, "3"), (lambda s: s[0] == 2, "0")]
)
def test_what_limits_an_axis_is_refused_with_free_axes(choose: Callable[[Any], bool], axes: str) -> None:
    """A network that was recorded for some sizes only is not passed off as one for all."""
    with pytest.raises(SettingsError, match=f"_Tied limits the sizes of the image along axes {axes}; "):
        quietly(lambda: export_program(_Tied(choose), make_image(8, 8)))


@pytest.mark.parametrize("shape", [(1, 2, 16, 16), (1, 1, 16, 16, 16), (1, 1, 16), (0, 1, 16, 16)])
def test_example_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """An example with other channels or axes, or without a voxel, is refused by its shape."""
    with pytest.raises(SettingsError, match=r"The example has the shape .*; this network takes \(batch, 1 channels, 2"):
        export_program(make_network("shvit", 2), torch.zeros(shape))


def test_module_that_is_no_network_is_refused() -> None:
    """A module that does not say what images it takes is refused by its type."""
    with pytest.raises(SettingsError, match="Linear has no spatial_dims and in_channels"):
        export_program(nn.Linear(1, 1), make_image(4, 4))


def test_absent_onnx_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the packages for ONNX are missing, the error names them and the extra that brings them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(SettingsError, match=r"needs onnxscript, .*install effvit-med\[onnx\]"):
        export_onnx(make_network("shvit", 2), tmp_path / "a.onnx", make_image(8, 8))


def test_onnx_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is an error of ours with the path."""
    pytest.importorskip("onnxscript")
    with pytest.raises(OutputError, match=r"cannot be written to .*absent"):
        quietly(
            lambda: export_onnx(
                make_network("shvit", 2), tmp_path / "absent" / "a.onnx", make_image(8, 8), dynamic=False
            )
        )
