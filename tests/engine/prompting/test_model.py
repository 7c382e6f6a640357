"""Facts about `effvit_med.engine.prompting.model` and `speaking`: bundles and published files, and how to ask them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effvit_med.engine import read_model, shelf
from effvit_med.engine.prompting import MapSpeaker, PromptSession, SamSpeaker, read_prompt_model
from effvit_med.engine.prompting.speaking import say_points
from effvit_med.engine.shelf import list_bundles, read_card
from effvit_med.errors import InputError, SettingsError, WeightsError
from effvit_med.networks import create_sam, save_weights
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt
from tests.engine.prompting.parts import click, write_bundle

CPU = torch.device("cpu")


def test_a_bundle_names_its_networks(tmp_path: Path) -> None:
    """One that sees slabs of three slices, and none for blocks."""
    model = read_prompt_model(write_bundle(tmp_path / "made", slices=3))
    speaker = model.load(2, CPU)
    assert isinstance(speaker, MapSpeaker)
    assert (speaker.spatial_dims, speaker.neighbours) == (2, 1)
    with pytest.raises(SettingsError, match="no network for blocks"):
        model.load(3, CPU)


def test_wrong_bundles_are_refused(tmp_path: Path) -> None:
    """Each with the file and what is wrong in it."""
    folder = write_bundle(tmp_path / "made")
    (folder / "models" / "slices.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"slices\.safetensors"):
        read_prompt_model(folder).load(2, CPU)
    file = folder / "configs" / "prompt.yaml"
    for content, message in (
        ("name: x\nversion: '1'\n", "names no network"),
        ("name: x\nversion: '1'\nslice: {}\n", "slice"),
        ("[1, 2]", "holds no settings"),
        ("{", "no YAML"),
    ):
        file.write_text(content)
        with pytest.raises((SettingsError, InputError), match=message):
            read_prompt_model(folder)


def test_a_prompted_bundle_stands_on_the_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed and has a card, and a command that segments by itself says what it is for."""
    folder = write_bundle(tmp_path / "bundles" / "pointed")
    monkeypatch.setattr(shelf, "shipped_bundle", lambda: tmp_path)
    found = {each.name: each for each in list_bundles()}["pointed"]
    assert (found.prompts, found.version, found.problem) == (True, "0.0.1", "")
    assert read_card(folder).shipped.prompts
    assert read_prompt_model("pointed").folder == folder
    with pytest.raises(InputError, match="effvit-med prompt"):
        read_model("pointed")


def test_what_comes_along_follows_the_image() -> None:
    """Two points on a bright shape in noise: far better than discs about the points."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:160, :160]
    shape = ((y - 84) / 44) ** 2 + ((x - 70) / 18) ** 2 < 1
    shape |= (np.abs(y - 60) < 9) & (np.abs(x - 95) < 30)
    image = (100.0 * shape + rng.normal(0, 8, shape.shape)).astype(np.float32)[None]
    session = PromptSession(Volume(image, Geometry(np.eye(4), image.shape), "MR"), device="cpu")
    for place in ((0, 84, 70), (0, 60, 100)):
        session.add(Prompt("point", 1, True, (place,)))
    found = session.predict().labels[0] == 1
    assert 2 * (found & shape).sum() / (found.sum() + shape.sum()) > 0.85


@pytest.fixture(name="sam", scope="module")
def _sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the authors publish theirs, with random weights."""
    path = tmp_path_factory.mktemp("sam") / "efficientvit_sam_l0.pt"
    torch.manual_seed(0)
    torch.save({"state_dict": create_sam("l0").state_dict()}, path)
    return path


def test_a_published_file_is_a_model_for_slices(sam: Path, tmp_path: Path) -> None:
    """Its name says which; where it does not, somebody must."""
    speaker = read_prompt_model(sam).load(2, CPU)
    assert isinstance(speaker, SamSpeaker)
    values = np.random.default_rng(0).normal(size=(1, 60, 90)).astype(np.float32)
    encoded = speaker.encode(values)
    box = Prompt("box", 1, True, ((0, 10, 20), (0, 50, 70)), 0)
    for prompts in ([click(30, 40, number=0)], [box], [box, click(12, 22, number=0, adds=False)]):
        logits, score = speaker.answer(encoded, prompts, np.zeros_like(values), values.shape)
        assert score is None
        assert logits.shape == values.shape
        assert np.isfinite(logits).all()
    other = tmp_path / "my_tuned_weights.pt"
    other.write_bytes(sam.read_bytes())
    with pytest.raises(SettingsError, match="does not say which"):
        read_prompt_model(other)
    assert read_prompt_model(other, "l0").sam == "l0"
    with pytest.raises(InputError, match="no file"):
        read_prompt_model(tmp_path / "efficientvit_sam_l1.pt")


def test_sam_sees_what_its_own_code_would(sam: Path) -> None:
    """Through the session's path the mask is that of the network called by hand with the prepared image."""
    from effvit_med.networks import prepare_image

    speaker = read_prompt_model(sam).load(2, CPU)
    assert isinstance(speaker, SamSpeaker)
    values = np.random.default_rng(1).uniform(-2, 3, (1, 64, 80)).astype(np.float32)
    grey = (values - values.min()) / (values.max() - values.min()) * 255
    pixels, frame = prepare_image(torch.from_numpy(grey)[None].expand(1, 3, -1, -1), 512)
    with torch.inference_mode():
        points = (frame.to_frame(torch.tensor([[[50.0, 20.0]]])), torch.tensor([[1]]))
        output = speaker.network.decode(speaker.network.encode(pixels), points)
        best = int(output.iou_predictions[0].argmax())
        expected = frame.restore_masks(output.low_res_masks[:, best : best + 1])[0, 0].numpy()
    logits = speaker.answer(speaker.encode(values), [click(20, 50, number=0)], values * 0, values.shape).logits
    np.testing.assert_allclose(logits[0], expected, atol=1e-4)


def test_sam_is_told_columns_before_rows() -> None:
    """Points of both kinds, a scribble as points along it, and the newest box."""
    scribble = Prompt("scribble", 1, False, ((0, 0, 0), (0, 0, 8)))
    boxes = [Prompt("box", 1, True, ((0, low, 2), (0, 9, 5)), 0) for low in (1, 3)]
    places, says, box = say_points([click(7, 3, number=0), *boxes, scribble])
    assert places[0].tolist() == [3, 7]
    assert (places[1:, 1] == 0).all()
    assert says.tolist() == [1, 0, 0, 0, 0, 0]
    assert box is not None
    assert box.tolist() == [2, 3, 5, 9]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    """They have other names."""
    folder = write_bundle(tmp_path / "made")
    save_weights(create_sam("l0").prompt_encoder, folder / "models" / "slices.safetensors")
    with pytest.raises(WeightsError):
        read_prompt_model(folder).load(2, CPU)
