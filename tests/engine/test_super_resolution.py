"""Facts about `effvit_med.engine.super_resolution`."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.engine.super_resolution import (
    ESTIMATED,
    SuperResolution,
    grid_scale,
    refine_geometry,
    super_resolve,
    value_range,
)
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.io.dicom_seg import why_no_dicom_seg
from effvit_med.networks.super_resolution import SuperResolutionNetwork, build_super_resolution
from effvit_med.transforms import Intensity
from effvit_med.volume import Finding, Geometry, Source, SourceFile, Volume
from tests.geometries import geometries

regular = geometries(irregular=False)
scales = st.tuples(*[st.integers(1, 4)] * 3)
PLAIN = Geometry(np.diag([5.0, 2.0, 2.0, 1.0]), (6, 10, 12))


@pytest.fixture(name="through_plane", scope="module")
def _through_plane() -> SuperResolutionNetwork:
    torch.manual_seed(0)
    return build_super_resolution(3, 1, [3, 1, 1]).eval()


@pytest.fixture(name="learnt", scope="module")
def _learnt() -> SuperResolutionNetwork:
    """A network that changes every voxel."""
    torch.manual_seed(0)
    network = build_super_resolution(3, 1, [3, 1, 1]).eval()
    torch.nn.init.normal_(network.head.classify.conv.weight, std=0.2)
    return network


@given(regular, scales)
def test_the_outer_corners_stay(geometry: Geometry, scale: tuple[int, int, int]) -> None:
    """The field of view is the same to a millionth of a mm, on oblique and tilted grids too."""
    fine = refine_geometry(geometry, scale)
    np.testing.assert_allclose(fine.corners_world(), geometry.corners_world(), atol=1e-6)
    np.testing.assert_allclose(np.multiply(fine.spacing_mm, scale), geometry.spacing_mm)
    assert fine.frame_of_reference_uid == geometry.frame_of_reference_uid


@given(regular, scales, st.data())
def test_the_parts_of_a_voxel_lie_around_its_centre(
    geometry: Geometry, scale: tuple[int, int, int], data: st.DataObject
) -> None:
    """The mean world point of the voxels that a voxel was cut into is its own."""
    index = [data.draw(st.integers(0, n - 1)) for n in geometry.shape]
    parts = list(itertools.product(*(range(i * s, (i + 1) * s) for i, s in zip(index, scale, strict=True))))
    middle = refine_geometry(geometry, scale).index_to_world(parts).mean(axis=0)
    np.testing.assert_allclose(middle, geometry.index_to_world(index), atol=1e-6)


@settings(max_examples=12)
@given(
    regular.filter(lambda geometry: min(geometry.shape) >= 3),
    st.sampled_from([(3, (3, 1, 1)), (3, (1, 2, 2)), (2, (2, 2)), (2, (1, 3))]),
    st.integers(0, 2),
    st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_a_ramp_stays_the_ramp_in_the_patient(
    geometry: Geometry, kind: tuple[int, tuple[int, ...]], plane_axis: int, slope: tuple[float, ...]
) -> None:
    """An image that is linear in world mm is the same linear function after an untrained network, but at the border."""
    network = build_super_resolution(kind[0], 1, list(kind[1]))
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    middle = geometry.index_to_world((np.array(geometry.shape) - 1) / 2)
    scan = Volume((geometry.index_to_world(index) - middle) @ slope, geometry)
    chosen = SuperResolution(Tiling((4, 5, 6), 0.5), plane_axis=plane_axis)
    fine = super_resolve(scan, network, chosen)
    index = np.stack(np.meshgrid(*map(np.arange, fine.geometry.shape), indexing="ij"), axis=-1)
    wanted = (fine.geometry.index_to_world(index) - middle) @ slope
    inner = tuple(slice(s // 2, n - s // 2) for s, n in zip(grid_scale(network, plane_axis), wanted.shape, strict=True))
    np.testing.assert_allclose(fine.array[inner], wanted[inner], atol=2e-3)


@settings(max_examples=8)
@given(st.tuples(*[st.integers(1, 16)] * 3), st.floats(0.35, 0.55))
def test_windows_do_not_change_an_untrained_network(size: tuple[int, int, int], overlap: float) -> None:
    """Cut up and blended, the interpolation is that of the whole scan: no seam at the edges of windows."""
    scan = Volume(np.random.default_rng(0).normal(0, 300, size), replace(PLAIN, shape=size))
    network = build_super_resolution(3, 1, [2, 1, 2]).eval()
    cut = super_resolve(scan, network, SuperResolution(Tiling((7, 9, 8), overlap)))
    whole = super_resolve(scan, network, SuperResolution(Tiling((99, 99, 99))))
    np.testing.assert_allclose(cut.array, whole.array, atol=2e-3)


def test_a_scan_larger_than_a_window_is_seen_in_windows_only(learnt: SuperResolutionNetwork) -> None:
    """No tensor larger than a window goes into the network, and progress counts the windows to the end."""
    seen: list[tuple[int, ...]] = []
    calls: list[tuple[int, int]] = []
    scan = Volume(np.zeros((9, 40, 24), np.int16), replace(PLAIN, shape=(9, 40, 24)))
    hook = learnt.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    fine = super_resolve(scan, learnt, SuperResolution(Tiling((16, 16, 16))), progress=lambda *call: calls.append(call))
    hook.remove()
    assert set(seen) == {(1, 1, 9, 16, 16)}
    assert calls == [(n + 1, len(seen)) for n in range(len(seen))]
    assert len(seen) == 8
    assert fine.array.shape == (27, 40, 24)


def test_one_window_is_what_the_network_says(learnt: SuperResolutionNetwork) -> None:
    """In one window the result is the network's own answer, brought back to HU."""
    array = np.random.default_rng(0).normal(40, 100, PLAIN.shape).astype(np.float32)
    fine = super_resolve(Volume(array, PLAIN), learnt, SuperResolution(intensity=Intensity("window", -200, 300)))
    with torch.inference_mode():
        answer = learnt((torch.from_numpy(array)[None, None] - 50) / 250)[0, 0] * 250 + 50
    np.testing.assert_allclose(fine.array, answer.numpy(), rtol=1e-4, atol=0.05)
    assert np.abs(fine.array - array.repeat(3, axis=0)).max() > 1


@pytest.mark.parametrize("intensity", [Intensity("window", -160, 240), Intensity("percentile", 1, 99)])
def test_values_outside_the_window_come_back(through_plane: SuperResolutionNetwork, intensity: Intensity) -> None:
    """Metal of 30 000 is not clipped, and the result is float32 and not rounded."""
    array = np.zeros(PLAIN.shape, np.int16)
    array[:, 5:, :] = 30000
    array[3] = 1
    fine = super_resolve(Volume(array, PLAIN), through_plane, SuperResolution(intensity=intensity))
    assert fine.array.dtype == np.float32
    assert fine.array.max() == pytest.approx(30000, abs=0.01)
    assert fine.array[9, 0, 0] == pytest.approx(2 / 3, abs=0.01)


def test_a_constant_volume_stays(through_plane: SuperResolutionNetwork) -> None:
    """Percentiles that are all the same divide by nothing."""
    scan = Volume(np.full(PLAIN.shape, 7.0), PLAIN)
    fine = super_resolve(scan, through_plane, SuperResolution(intensity=Intensity("percentile", 1, 99)))
    assert (fine.array == 7).all()
    assert value_range(torch.full((1, 1, 1), 7.0), Intensity("percentile", 1, 99)) == (7.0, 1.0)


def test_the_turned_scan_gives_the_turned_result() -> None:
    """A 2D network across axis 2 of a transposed scan does what it does across axis 0 of the scan."""
    torch.manual_seed(0)
    network = build_super_resolution(2, 3, 2, out_channels=1).eval()
    torch.nn.init.normal_(network.head.classify.conv.weight, std=0.2)
    scan = Volume(np.random.default_rng(0).normal(0, 300, PLAIN.shape), PLAIN)
    turned = replace(scan, array=scan.array.transpose(1, 2, 0), geometry=PLAIN.permuted((1, 2, 0)))
    plain = super_resolve(scan, network, SuperResolution(Tiling((2, 8, 8), 0.5)))
    other = super_resolve(turned, network, SuperResolution(Tiling((8, 8, 2), 0.5), plane_axis=2))
    np.testing.assert_allclose(other.array, plain.array.transpose(1, 2, 0), atol=1e-2)
    assert other.geometry == plain.geometry.permuted((1, 2, 0))


def test_slices_at_a_time_do_not_change_a_network_that_sees_neighbours() -> None:
    """A slice gets the same neighbours whether it goes through alone or with others."""
    torch.manual_seed(0)
    network = build_super_resolution(2, 5, 2, out_channels=1).eval()
    torch.nn.init.normal_(network.head.classify.conv.weight, std=0.2)
    scan = Volume(np.random.default_rng(0).normal(0, 300, PLAIN.shape), PLAIN)
    alone = super_resolve(scan, network, SuperResolution(Tiling((1, 16, 16))))
    together = super_resolve(scan, network, SuperResolution(Tiling((4, 16, 16))))
    np.testing.assert_allclose(alone.array, together.array, atol=1e-2)


def test_the_record_says_that_voxels_are_estimated(through_plane: SuperResolutionNetwork) -> None:
    """The finding names scale and model, what is not measured and what it is not for; earlier findings stay."""
    source = Source("case", "DICOM", (SourceFile(Path("a"), "00", "1.2"),), "1", "2", (Finding("SHEARED", "tilted"),))
    scan = Volume(np.zeros(PLAIN.shape), PLAIN, "CT", source)
    fine = super_resolve(scan, through_plane, SuperResolution(model="sr.safetensors 0123"))
    assert fine.source is not None
    assert [finding.code for finding in fine.source.findings] == ["SHEARED", ESTIMATED]
    message = fine.source.findings[1].message
    assert "3 x 1 x 1" in message
    assert "sr.safetensors 0123" in message
    assert "estimated, not measured; 67 %" in message
    assert message.endswith("Not for clinical use.")
    assert (fine.modality, fine.source.files) == ("CT", source.files)


def test_no_dicom_segmentation_can_refer_to_made_up_slices(through_plane: SuperResolutionNetwork) -> None:
    """A result made from DICOM no longer passes for DICOM: its slices are not those of the files."""
    source = Source("case", "DICOM", (SourceFile(Path("a"), "00", "1.2"),), "1", "2")
    scan = Volume(np.zeros(PLAIN.shape), PLAIN, "CT", source)
    assert why_no_dicom_seg(scan) is None
    finding = why_no_dicom_seg(super_resolve(scan, through_plane))
    assert finding is not None
    assert finding.code == "NO_DICOM_SOURCE"


def test_a_volume_made_in_memory_is_marked_too(through_plane: SuperResolutionNetwork) -> None:
    """Without a source there is one afterwards, with the finding."""
    fine = super_resolve(Volume(np.zeros(PLAIN.shape), PLAIN), through_plane)
    assert fine.source is not None
    assert fine.source.findings[0].code == ESTIMATED


def test_the_network_comes_back_as_it_was(learnt: SuperResolutionNetwork) -> None:
    """A network in training is used as for inference, its statistics untouched, and goes on training."""
    scan = Volume(np.random.default_rng(0).normal(0, 300, PLAIN.shape), PLAIN)
    wanted = super_resolve(scan, learnt).array
    before = {name: value.clone() for name, value in learnt.state_dict().items()}
    learnt.train()
    found = super_resolve(scan, learnt).array
    assert learnt.training
    assert all(torch.equal(value, before[name]) for name, value in learnt.state_dict().items())
    learnt.eval()
    assert np.array_equal(found, wanted)


def test_missing_slices_are_refused(through_plane: SuperResolutionNetwork) -> None:
    """A gap is named with its place and the distances in mm."""
    gap = replace(PLAIN, slice_offsets=(0, 1, 2, 4, 5, 6))
    with pytest.raises(GeometryError, match="axis 0 are at unequal distances from 5 to 10 mm, widest after slice 2"):
        super_resolve(Volume(np.zeros(gap.shape), gap), through_plane)


@given(geometries(), scales)
def test_only_regular_grids_are_refined(geometry: Geometry, scale: tuple[int, int, int]) -> None:
    """Whatever the grid, slices at their own places are refused and a regular grid is not."""
    if geometry.is_regular:
        assert refine_geometry(geometry, scale).is_regular
    else:
        with pytest.raises(GeometryError, match="unequal distances"):
            refine_geometry(geometry, scale)


def test_a_value_that_is_no_number_is_refused(through_plane: SuperResolutionNetwork) -> None:
    """The first NaN is named by its index."""
    array = np.zeros(PLAIN.shape)
    array[2, 3, 4] = np.nan
    with pytest.raises(InputError, match=r"1 values.*\(2, 3, 4\)"):
        super_resolve(Volume(array, PLAIN), through_plane)


def test_a_network_of_two_contrasts_is_refused() -> None:
    """A volume has one value per voxel."""
    with pytest.raises(SettingsError, match="takes 2 channels and gives 2"):
        super_resolve(Volume(np.zeros(PLAIN.shape), PLAIN), build_super_resolution(3, 2, 2))


def test_too_little_overlap_is_refused(through_plane: SuperResolutionNetwork) -> None:
    """Windows that share less than two voxels would leave seams; a scan of one window has none."""
    scan = Volume(np.zeros(PLAIN.shape), PLAIN)
    with pytest.raises(SettingsError, match="shares 1 voxels with its neighbour along axis 1"):
        super_resolve(scan, through_plane, SuperResolution(Tiling((6, 4, 12), 0.25)))
    super_resolve(scan, through_plane, SuperResolution(Tiling((6, 10, 12), 0.0)))


@pytest.mark.parametrize("scale", [(2, 2), (0, 1, 1), (1.5, 1, 1)])
def test_a_scale_that_is_no_three_whole_numbers_is_refused(scale: tuple[float, ...]) -> None:
    """The scale is named."""
    with pytest.raises(SettingsError, match="three whole numbers"):
        refine_geometry(PLAIN, scale)  # type: ignore[arg-type]


def test_a_plane_axis_that_is_not_there_is_refused() -> None:
    """The axis is named."""
    with pytest.raises(SettingsError, match="plane_axis is 3"):
        SuperResolution(plane_axis=3)
