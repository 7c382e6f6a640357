"""The peers run our network, on the same grid and in the same range of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.engine_peers import ALL, NETWORK, RESIZE, TimedNetwork, make_plans, run_monai, run_ours
from benchmarks.engine_process import Stopwatch
from benchmarks.scans import make_large_scan
from effvit_med.engine import read_model
from effvit_med.io import read_nifti, write_volume
from effvit_med.networks import build_network
from effvit_med.transforms import scale_intensity


def test_timed_network_is_the_network_at_full_size() -> None:
    """What the peers get is what our network gives by itself, and its time is kept, with that of the interpolation."""
    torch.manual_seed(0)
    network = build_network(3, 1, 3, decoder_stride=4).eval()
    watch, image = Stopwatch(), torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        found, wanted = TimedNetwork(network, watch)(image), network(image)
    torch.testing.assert_close(found, wanted)
    assert 0 < watch.wall[RESIZE] < watch.wall[NETWORK]


def test_plans_scale_values_as_the_bundle_does() -> None:
    """nnU-Net's scheme for CT, with our numbers, gives the values that our preprocessing gives."""
    model = read_model()
    scheme = make_plans(model)["foreground_intensity_properties_per_channel"]["0"]
    values = np.array([-2000.0, -160, -3, 80, 319, 5000])
    clipped = values.clip(scheme["percentile_00_5"], scheme["percentile_99_5"])
    ours = scale_intensity(torch.from_numpy(values).float(), model.preprocess.intensity).numpy()
    assert (clipped - scheme["mean"]) / scheme["std"] == pytest.approx(ours, abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_monai_labels_as_we_do_and_its_steps_make_up_the_whole(tmp_path: Path) -> None:
    """The shipped network inside MONAI's inference marks the same structures, so the comparison is of the same work."""
    pytest.importorskip("monai")
    scan = make_large_scan((96, 120, 120), (2.5, 3.0, 3.0), seed=3)[0]
    image = tmp_path / "ct.nii.gz"
    write_volume(scan.reoriented("LPS"), image)
    bundle = str(Path(__file__).parents[2])
    ours = run_ours(bundle, str(image), str(tmp_path / "ours.nii.gz"))
    monai = run_monai(bundle, str(image), str(tmp_path / "monai.nii.gz"), str(tmp_path / "ours.nii.gz"))
    a, b = (read_nifti(tmp_path / f"{name}.nii.gz").reoriented("SPL").array > 0 for name in ("ours", "monai"))
    assert 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) > 0.9
    assert monai["agreement"] > 0.95
    for found in (ours, monai):
        parts = sum(value for name, value in found["wall"].items() if name not in (ALL, RESIZE))
        assert 0.4 * found["wall"][ALL] < parts < 1.01 * found["wall"][ALL]  # the first case loads kernels, too
