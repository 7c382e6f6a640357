"""Facts about `effvit_med.engine.export`: models leave only if they label as they did at home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from effvit_med.engine import export as export_module
from effvit_med.engine.contract import CONTRACT_FILE, ExportFormat, ExportPrecision, read_contract
from effvit_med.engine.export import ExportOptions, export_model, open_exported
from effvit_med.engine.model import Model, read_model
from effvit_med.engine.runtimes import available_runtimes
from effvit_med.engine.scoring import label_volume
from effvit_med.errors import InputError, OutputError, SettingsError, WeightsError
from effvit_med.networks import save_weights
from effvit_med.training.phantom import make_case
from effvit_med.volume import Geometry, Volume
from tests.networks.families import relative_error

pytestmark = pytest.mark.usefixtures("own_cache")

CPU = torch.device("cpu")
CASE = make_case(3, spacing_mm=(8.0, 6.0, 6.0), shape=(20, 60, 60))
READ_SAMPLE = export_module._read_sample
SCAN = Volume(CASE.hu, Geometry(CASE.affine_lps, (20, 60, 60)), "CT")


@pytest.fixture(name="model", scope="module")
def _model(tiny_bundle: Path) -> Model:
    return read_model(tiny_bundle)


@pytest.fixture(name="sample", autouse=True, scope="module")
def _sample() -> Iterator[None]:
    """A small scan as the sample case of the gate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_module, "_read_sample", lambda _: ("phantom", SCAN))
        yield


@pytest.fixture(name="exported", scope="module")
def _exported(model: Model, sample: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One export that was really made, for the tests that only look at it."""
    _need("onnx")
    return export_model(model, tmp_path_factory.mktemp("exports") / "tiny").folder


@pytest.fixture(name="made")
def _made(exported: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The ONNX file of the tiny model; recording it again, which takes long, is spared."""
    content = (exported / "model.onnx").read_bytes()
    monkeypatch.setattr(export_module, "write_graph", lambda _, path: path.write_bytes(content))
    return content


def _need(name: str) -> None:
    why = {str(each): why for each, why in available_runtimes(CPU).items()}.get(name)
    if why:
        pytest.skip(why)


def _model_2d(folder: Path) -> Model:
    """A 2.5D twin of the tiny bundle."""
    content = yaml.safe_load((Path(__file__).parents[2] / "configs" / "model.yaml").read_text(encoding="utf-8"))
    content["preprocess"] |= {"spacing_mm": [8.0, 8.0, 8.0], "spatial_dims": 2, "neighbours": 1}
    content["network"] |= {"spatial_dims": 2, "in_channels": 3, "decoder_stride": 2}
    content["tiling"]["window"] = [4, 32, 32]
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    (folder / "configs" / "model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    model = read_model(folder)
    save_weights(model.build_network(), model.weights, {})
    return model


@pytest.mark.parametrize("format_", ["onnx", "openvino", pytest.param("program", marks=pytest.mark.slow)])
def test_an_export_gives_the_logits_of_the_model(
    model: Model, tmp_path: Path, made: bytes, format_: ExportFormat
) -> None:
    """What is read back from the folder gives the eager logits, for one tile and for several."""
    _need(format_)
    folder = export_model(model, tmp_path / "out", ExportOptions(format_)).folder
    runtime = open_exported(folder, CPU, 1, batch_size=2)
    network = model.load_network()
    for count in (1, 3):
        tiles = torch.randn(count, 1, 32, 32, 32)
        with torch.inference_mode():
            assert relative_error(runtime.predict(tiles), network.logits(tiles)) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    for path in folder.iterdir():
        assert b"effvit_med/networks" not in path.read_bytes(), f"{path.name} names a folder of this machine"


def test_a_2d_model_is_exported(tmp_path: Path) -> None:
    """A network that sees slices with their neighbours has two spatial axes and three channels in its contract."""
    _need("openvino")
    (tmp_path / "bundle").mkdir()
    model = _model_2d(tmp_path / "bundle")
    result = export_model(model, tmp_path / "out", ExportOptions("openvino"))
    assert result.contract.window == (32, 32)
    assert result.contract.input.axes == ("batch", "channel", "height", "width")
    assert result.contract.input.shape == (None, 3, None, None)
    tiles = torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        wanted = model.load_network().logits(tiles)
    assert relative_error(open_exported(result.folder, CPU).predict(tiles), wanted) < 1e-4


def test_bfloat16_is_smaller_and_says_what_it_costs(model: Model, tmp_path: Path, made: bytes) -> None:
    """Weights take half the bytes, and the contract holds the share of labels that stay."""
    _need("openvino")
    sizes = {}
    precisions: tuple[ExportPrecision, ...] = ("float32", "bfloat16")
    for precision in precisions:
        options = ExportOptions("openvino", precision, least_agreement=0.8)
        result = export_model(model, tmp_path / precision, options)
        sizes[precision] = (result.folder / "model.bin").stat().st_size
    assert sizes["bfloat16"] < 0.6 * sizes["float32"]
    assert 0.8 <= result.contract.parity.agreement <= 1
    assert result.contract.precision == "bfloat16"


def test_the_contract_says_how_the_gate_went(exported: Path) -> None:
    """The share of equal voxels and the Dice of each structure on the sample case stand in the contract."""
    contract = read_contract(exported)
    assert contract.parity.case == "phantom"
    assert contract.parity.voxels == SCAN.array.size
    assert contract.parity.agreement > 0.9999
    assert set(contract.parity.dice) == {row["name"] for row in contract.model.labels}
    assert all(dice is None or dice > 0.999 for dice in contract.parity.dice.values())
    assert any(dice is not None for dice in contract.parity.dice.values())
    assert contract.versions["torch"]


def test_the_gate_refuses_a_network_that_labels_otherwise(
    model: Model, tmp_path: Path, made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose network was changed on the way is not written, and nothing is left behind."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_model_from_string(made)
    changed = [part for part in graph.graph.initializer if "classify" in part.name]
    for part in changed:
        part.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(part), part.name))
    assert changed
    monkeypatch.setattr(export_module, "write_graph", lambda _, path: onnx.save(graph, path))
    with pytest.raises(OutputError, match=r"gives \d+\.\d+% of the voxels of phantom .*99\.9000% are due.*Nothing was"):
        export_model(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_gate_refuses_what_is_not_reached(model: Model, exported: Path, made: bytes) -> None:
    """A share above one cannot be reached; an earlier export in the folder stays as it was."""
    before = (exported / CONTRACT_FILE).read_bytes()
    with pytest.raises(OutputError, match=r"110\.0000% are due"):
        export_model(model, exported, ExportOptions(least_agreement=1.1))
    assert (exported / CONTRACT_FILE).read_bytes() == before
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_an_earlier_export_is_replaced(model: Model, exported: Path, made: bytes) -> None:
    """The folder of an earlier export takes the new one."""
    before = (exported / CONTRACT_FILE).stat().st_ino
    export_model(model, exported)
    assert {path.name for path in exported.iterdir()} == {"model.onnx", CONTRACT_FILE}
    assert (exported / CONTRACT_FILE).stat().st_ino != before


def test_what_the_user_put_beside_an_export_is_never_lost(model: Model, exported: Path, made: bytes) -> None:
    """A file that is not of the export keeps the folder from being replaced; it is named."""
    notes = exported / "NOTES.md"
    notes.write_text("mine", encoding="utf-8")
    try:
        with pytest.raises(OutputError, match=r"an earlier export and also NOTES\.md"):
            export_model(model, exported)
        assert notes.read_text(encoding="utf-8") == "mine"
    finally:
        notes.unlink()


def test_a_folder_of_something_else_is_left_alone(model: Model, tmp_path: Path) -> None:
    """A folder with files that are no export is refused before anything is made."""
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="holds something that is no exported model"):
        export_model(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_export_is_refused(exported: Path, tmp_path: Path) -> None:
    """A changed byte is found before the file is opened."""
    (tmp_path / CONTRACT_FILE).write_bytes((exported / CONTRACT_FILE).read_bytes())
    content = bytearray((exported / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.onnx is damaged"):
        open_exported(tmp_path, CPU)


def test_a_folder_that_is_no_export_is_not_opened(tmp_path: Path) -> None:
    """Opening a folder without a contract is an error of ours."""
    with pytest.raises(InputError, match="is no exported model"):
        open_exported(tmp_path, CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format is 'tflite'; use onnx, openvino, program"),
        ({"format": "onnx", "precision": "bfloat16"}, "precision is 'bfloat16'; the format onnx has float32, int8"),
        ({"format": "program", "precision": "int8"}, "the format program has float32"),
        ({"format": "openvino", "precision": "int8"}, "int8 needs something that quantises"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, str], message: str) -> None:
    """What no format can do is refused before any work."""
    with pytest.raises(SettingsError, match=message):
        ExportOptions(**options)  # type: ignore[arg-type]


def test_int8_is_made_by_what_quantises(model: Model, made: bytes, tmp_path: Path) -> None:
    """The function that quantises writes the file; the gate, the contract and the folder are as for any other."""

    def write_known(_: Model, format_: ExportFormat, folder: Path) -> tuple[str, ...]:
        assert format_ == "onnx"
        (folder / "small.onnx").write_bytes(made)
        return ("small.onnx",)

    options = ExportOptions("onnx", "int8", quantise=write_known)
    result = export_model(model, tmp_path / "out", options)
    assert result.contract.precision == "int8"
    assert [file.name for file in result.contract.files] == ["small.onnx"]
    assert open_exported(result.folder, CPU).precision == "int8"


def test_labels_come_on_the_scans_own_grid(model: Model) -> None:
    """Labelling with a network that always finds class 3 gives class 3 at every voxel of the scan."""

    def predict(tiles: Tensor) -> Tensor:
        logits = torch.zeros(len(tiles), 7, *(size // 2 for size in tiles.shape[2:]))
        logits[:, 3] = 1
        return logits

    labels = label_volume(predict, SCAN, model)
    assert labels.shape == SCAN.array.shape
    assert np.unique(labels).tolist() == [3]


def test_the_gate_takes_the_phantom_or_a_case_of_the_user(sample_data: Path, tmp_path: Path) -> None:
    """Without a case the phantom that comes along is read; a folder without one is refused."""
    name, volume = READ_SAMPLE(None)
    assert name.startswith("CT_")
    assert volume.array.ndim == 3
    assert READ_SAMPLE(sample_data / "ct_axial")[1].geometry == volume.geometry
    with pytest.raises(InputError):
        READ_SAMPLE(tmp_path)


def test_progress_goes_through_the_phases(model: Model, made: bytes, tmp_path: Path) -> None:
    """Converting and both runs of the gate are told, each up to its end."""
    calls: list[tuple[str, int, int]] = []
    export_model(model, tmp_path / "out", progress=lambda *call: calls.append(call))
    assert {phase: done == total for phase, done, total in calls} == {"convert": True, "eager": True, "exported": True}
