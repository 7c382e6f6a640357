"""Facts about loading published checkpoints."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from effvit_med.errors import SettingsError, WeightsError
from effvit_med.networks import (
    create_backbone,
    create_classifier,
    create_sam,
    create_segmenter,
    load_published,
)
from effvit_med.networks.attention import LiteMLA
from effvit_med.networks.published.fitting import adapt_stem, crop_kernel, inflate_kernel


def _same(a: nn.Module, b: nn.Module, image: Tensor) -> None:
    with torch.inference_mode():
        for left, right in zip(a.eval().features(image), b.eval().features(image), strict=True):
            torch.testing.assert_close(left, right)


def test_classification_file_fills_a_backbone() -> None:
    """The backbone is used whole, the head is unused, and the report says why."""
    published = create_classifier("efficientvit_b0")
    backbone = create_backbone("efficientvit_b0")
    report = load_published(backbone, published.state_dict())
    assert not report.missing
    assert {name.split(".")[0] for name in report.unused} == {"head"}
    assert set(report.unused.values()) == {"the network has no such part"}
    assert len(report.used) + len(report.unused) == len(published.state_dict())
    _same(backbone, published.backbone, torch.randn(1, 3, 64, 48))


def test_segmenter_keeps_its_own_head_where_classes_differ() -> None:
    """A last layer for other classes stays as it was made and is named among the missing."""
    published = create_segmenter("efficientvit_b0", head="cityscapes")
    network = create_segmenter("efficientvit_b0", head="cityscapes", out_channels=4)
    before = network.head.output_ops[0].op_list[1].conv.weight.clone()
    report = load_published(network, published.state_dict())
    assert list(report.missing) == ["head.output_ops.0.op_list.1.conv.weight", "head.output_ops.0.op_list.1.conv.bias"]
    assert "(19, 128, 1, 1) in the file, (4, 128, 1, 1) in the network" in next(iter(report.missing.values()))
    assert torch.equal(network.head.output_ops[0].op_list[1].conv.weight, before)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("efficientvit_b1", "efficientvit_b0"),
        ("efficientvit_l1", "efficientvit_l0"),
        ("shvit_s1", "efficientvit_m0"),
        ("efficientmod_xxs", "efficientvit_b0"),
        ("efficientvit_m1", "efficientvit_m2"),
        ("shvit_s3", "shvit_s4"),
    ],
)
def test_wrong_file_is_refused_by_name(held: str, wanted: str) -> None:
    """A file of another family or size is named in the error, and nothing changes."""
    with torch.device("meta"):
        file = {name: torch.empty_like(value) for name, value in create_backbone(held).state_dict().items()}
    network = create_backbone(wanted)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=f"holds {held} .* but the network is {wanted}"):
        load_published(network, file)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_incomplete_backbone_is_refused() -> None:
    """One absent weight of the backbone is enough, and it is named."""
    file = create_backbone("efficientvit_b0").state_dict()
    del file["stages.3.op_list.1.context_module.main.qkv.conv.weight"]
    with pytest.raises(WeightsError, match=r"1 weights of the backbone are missing, first 'stages\.3.*qkv"):
        load_published(create_backbone("efficientvit_b0"), file)


def test_stranger_is_refused() -> None:
    """A file of names that no layout has is refused with these names."""
    with pytest.raises(WeightsError, match=r"no layout that is known here: its first names are 'conv1\.weight'"):
        load_published(create_backbone("efficientvit_b0"), {"conv1.weight": torch.zeros(3)})


def test_wanted_layout_must_be_the_files() -> None:
    """Naming a layout that the file has not is an error that names both."""
    file = create_backbone("efficientvit_b0").state_dict()
    with pytest.raises(WeightsError, match="is in the layout mit, not timm"):
        load_published(create_backbone("efficientvit_b0"), file, layout="timm")
    with pytest.raises(SettingsError, match="no layout 'tim'"):
        load_published(create_backbone("efficientvit_b0"), file, layout="tim")


def test_foreign_model_is_refused() -> None:
    """A module that this package did not build cannot be filled."""
    with pytest.raises(SettingsError, match="A Linear is none of our networks"):
        load_published(nn.Linear(1, 1), create_backbone("efficientvit_b0").state_dict())


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_load_like_state_dicts(tmp_path: Path, suffix: str) -> None:
    """Both kinds of file fill the network, also where a training loop wrapped the weights."""
    published = create_backbone("shvit_s1")
    path = tmp_path / f"shvit_s1{suffix}"
    if suffix == ".pt":
        torch.save({"model": {f"module.{name}": value for name, value in published.state_dict().items()}}, path)
    else:
        save_file(published.state_dict(), path)
    backbone = create_backbone("shvit_s1")
    report = load_published(backbone, path)
    assert (report.source, report.layout, report.found) == (path.name, "shvit", "shvit_s1")
    _same(backbone, published, torch.randn(1, 3, 64, 64))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    """A pickle that would call something is refused before it does."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "sprung"),))  # type: ignore[return-value]

    path = tmp_path / "trap.pt"
    path.write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))
    with pytest.raises(WeightsError, match="is not a torch file of tensors only"):
        load_published(create_backbone("efficientvit_b0"), path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["efficientvit_b0", "shvit_s1", "efficientmod_xxs", "efficientvit_m0"])
def test_grey_image_gives_what_its_three_copies_gave(name: str) -> None:
    """With one channel the stem sums the published three, so a grey image is seen as before."""
    published = create_backbone(name).eval()
    network = create_backbone(name, in_channels=1).eval()
    report = load_published(network, published.state_dict())
    assert list(report.adapted.values()) == ["image channels 3 to 1"]
    grey = torch.randn(1, 1, 64, 48)
    with torch.inference_mode():
        for left, right in zip(network.features(grey), published.features(grey.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientvit_b0", "efficientvit_l0", "shvit_s1"])
def test_centre_inflation_sees_a_single_slice_as_before(name: str) -> None:
    """A volume of one slice gives the features that the image gave."""
    published = create_backbone(name).eval()
    volume = create_backbone(name, spatial_dims=3).eval()
    load_published(volume, published.state_dict(), inflation="centre")
    image = torch.randn(1, 3, 64, 40)
    with torch.inference_mode():
        for left, right in zip(volume.features(image.unsqueeze(2)), published.features(image), strict=True):
            torch.testing.assert_close(left.squeeze(2), right, rtol=1e-3, atol=1e-4)


@settings(max_examples=20)
@given(depth=st.sampled_from([1, 3, 5]), size=st.sampled_from([1, 3]))
def test_mean_inflation_keeps_what_does_not_change_across_slices(depth: int, size: int) -> None:
    """A constant stack, away from its ends, is filtered as its slice was."""
    kernel, image = torch.randn(2, 3, size, size), torch.randn(1, 3, 9, 9)
    stack = image.unsqueeze(2).expand(-1, -1, depth, -1, -1)
    out = nn.functional.conv3d(stack, inflate_kernel(kernel, depth, "mean"))
    torch.testing.assert_close(out.squeeze(2), nn.functional.conv2d(image, kernel), rtol=1e-4, atol=1e-5)


@given(old=st.integers(1, 4), new=st.integers(1, 8))
def test_stem_of_any_number_of_channels(old: int, new: int) -> None:
    """The response to a constant image keeps its size where the channels are alike."""
    weight = torch.ones(2, old, 3, 3)
    assert adapt_stem(weight, new).shape == (2, new, 3, 3)
    torch.testing.assert_close(adapt_stem(weight, new).sum(1), weight.sum(1))


@given(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7]))
def test_cropped_kernel_keeps_its_centre(old: int, new: int) -> None:
    """The middle tap stays the middle tap."""
    weight = torch.randn(1, 1, old, old)
    cropped = crop_kernel(weight, (new, new))
    assert cropped.shape == (1, 1, new, new)
    assert cropped[0, 0, new // 2, new // 2] == weight[0, 0, old // 2, old // 2]


def test_timm_layout_sets_the_eps_of_timm() -> None:
    """The attention's eps follows the layout: 1e-5 for timm, 1e-15 for the official files; the report says so."""
    model = create_classifier("efficientvit_b0")
    official = model.state_dict()
    assert load_published(model, official).settings == ()
    timm = {_timm_name(name): value for name, value in official.items()}
    report = load_published(model, timm)
    assert report.layout == "timm efficientvit_b"
    assert not report.missing
    assert not report.unused
    assert {each.kind.eps for each in model.modules() if isinstance(each, LiteMLA)} == {1e-5}
    assert report.settings == ("eps 1e-05 in 4 attention layers, as in this layout",)


def _timm_name(name: str) -> str:
    """Timm's name of an official weight of B0, written the other way round than in the package."""
    for old, new in (
        ("backbone.input_stem.op_list.0.", "stem.in_conv."),
        ("backbone.input_stem.op_list.1.", "stem.res0."),
        ("head.op_list.0.", "head.in_conv."),
        ("head.op_list.2.linear.", "head.classifier.0."),
        ("head.op_list.2.norm.", "head.classifier.1."),
        ("head.op_list.3.linear.", "head.classifier.4."),
    ):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name.replace("backbone.", "").replace(".op_list.", ".blocks.")


def test_report_reads_like_a_sentence() -> None:
    """The text of a report names file, size, layout and the number of weights of each kind."""
    file = create_classifier("efficientvit_b0").state_dict()
    text = str(load_published(create_backbone("efficientvit_b0", 3, 1), file))
    assert text.startswith("state dict: efficientvit_b0 in the layout mit; 186 weights used, 11 unused")
    assert "inflated to a volume (centre)" in text


def _eps(model: nn.Module) -> set[float]:
    return {module.eps for module in model.modules() if isinstance(getattr(module, "eps", None), float)}


@pytest.mark.parametrize("size", [2, 4])
def test_failed_load_changes_nothing(size: int) -> None:
    """A kernel that cannot be cut about its centre is refused before the first weight is written."""
    file = create_backbone("efficientvit_b0").state_dict()
    name = "stages.2.op_list.1.context_module.main.aggreg.0.0.weight"
    file[name] = torch.zeros(192, 1, size, size)
    network = create_backbone("efficientvit_b0")
    before = {each: value.clone() for each, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=r"1 weights of the backbone are missing, first 'stages\.2"):
        load_published(network, file)
    assert all(torch.equal(value, before[each]) for each, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.full((8,), torch.nan), "values in '.*input_stem.op_list.0.norm.weight' that are not finite"),
        (torch.ones(8, dtype=torch.int64), "int64 values"),
        (torch.ones(8, dtype=torch.complex64), "complex64"),
        (torch.ones(8, device="meta"), "of the kind meta"),
    ],
)
def test_values_that_are_no_weights_are_refused(value: Tensor, words: str) -> None:
    """Not a number, whole, complex or absent values are named and nothing is loaded."""
    file = {**create_backbone("efficientvit_b0").state_dict(), "input_stem.op_list.0.norm.weight": value}
    with pytest.raises(WeightsError, match=words):
        load_published(create_backbone("efficientvit_b0"), file)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_loaded_training_checkpoint_is_unwrapped(wrapper: str) -> None:
    """What torch.load gives can be handed on as it is."""
    file = {wrapper: create_backbone("shvit_s1").state_dict(), "epoch": torch.tensor(3)}
    assert load_published(create_backbone("shvit_s1"), file).found == "shvit_s1"


def test_words_of_training_loops_are_taken_off() -> None:
    """Compiled, averaged and distributed training put words before every name, in any order."""
    file = {f"_orig_mod.module.{name}": v for name, v in create_backbone("shvit_s1").state_dict().items()}
    file["n_averaged"] = torch.tensor(3)
    assert not load_published(create_backbone("shvit_s1"), file).missing


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # by torch.compile itself
def test_compiled_network_is_filled() -> None:
    """The network inside a compiled one is what is filled."""
    network = create_backbone("efficientvit_b0")
    report = load_published(torch.compile(network), create_backbone("efficientvit_b0").state_dict())  # type: ignore[arg-type]
    assert len(report.used) == len(network.state_dict())


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("official", "efficientvit_b0"),
        ("mit-han-lab", "efficientvit_b0"),
        ("MSRA", "efficientvit_m0"),
        ("SHViT", "shvit_s1"),
    ],
)
def test_layouts_have_other_words(layout: str, name: str) -> None:
    """The authors' names for their repositories are understood, in any case."""
    assert not load_published(create_backbone(name), create_backbone(name).state_dict(), layout=layout).missing


def test_encoder_of_sam_alone_fills_the_encoder() -> None:
    """A file of the image encoder alone is used whole; prompts and masks are missing, and the eps is SAM's."""
    sam, published = create_sam("l0"), create_sam("l0")
    file = published.image_encoder.state_dict()
    report = load_published(sam, file)
    assert len(report.used) == len(file)
    assert {name.split(".")[0] for name in report.missing} == {"prompt_encoder", "mask_decoder"}
    encoder = create_sam("l0").image_encoder
    assert not load_published(encoder, published.state_dict()).missing
    backbone = create_backbone("efficientvit_l0")
    load_published(backbone, file)
    assert _eps(backbone) == {1e-6}


def test_file_of_half_a_part_is_refused() -> None:
    """A SAM without one block of its mask decoder, and a classifier without its first layer, are damaged files."""
    file = create_sam("l0").state_dict()
    del file["mask_decoder.iou_token.weight"]
    with pytest.raises(WeightsError, match="has only a part of mask_decoder: 1 of its"):
        load_published(create_sam("l0"), file)
    file = create_classifier("efficientvit_b0").state_dict()
    del file["head.op_list.0.conv.weight"]
    with pytest.raises(WeightsError, match="only a part of head"):
        load_published(create_classifier("efficientvit_b0"), file)


def test_head_of_another_kind_is_left_out_whole() -> None:
    """Weights that happen to have the same shape are not mixed into another head."""
    file = create_segmenter("efficientvit_b1", head="ade20k").state_dict()
    network = create_segmenter("efficientvit_b1", head="cityscapes")
    report = load_published(network, file)
    assert not any(name.startswith("head.") for name in report.used)
    assert set(report.unused.values()) == {"the file has another head; train it"}


def test_eps_follows_what_the_file_tells() -> None:
    """A published L classifier has 1e-7, also in timm's layout without its head; our own L segmenter keeps its own."""
    classifier, backbone = create_classifier("efficientvit_l1"), create_backbone("efficientvit_l1")
    assert load_published(backbone, classifier.state_dict()).settings == (
        "eps 1e-07 in 31 normalisations, as published",
    )
    assert _eps(backbone) == {1e-7}
    assert load_published(backbone, classifier.backbone.state_dict()).settings == (
        "eps 1e-05 in 31 normalisations, as built",
    )
    own = create_segmenter("efficientvit_l1", out_channels=2)
    assert load_published(own, own.state_dict()).settings == ()
    assert _eps(own) == {1e-5}


def test_positions_of_images_hold_for_every_slice() -> None:
    """The table of TurboViT is repeated over the slices, and resized where another size is wanted."""
    published = create_backbone("turbovit_t")
    torch.nn.init.normal_(published.position)
    volume = create_backbone("turbovit_t", spatial_dims=3, in_channels=1)
    load_published(volume, published.state_dict(), layout="own")
    for index in range(volume.position.shape[2]):
        torch.testing.assert_close(volume.position[:, :, index], published.position)


def test_weights_of_instance_normalisation_need_no_statistics() -> None:
    """A network that normalises each image takes scale and shift and says that it leaves the statistics."""
    network = create_backbone("efficientvit_b0", norm="instance")
    report = load_published(network, create_backbone("efficientvit_b0").state_dict())
    assert set(report.unused.values()) == {"the network normalises without running statistics"}
