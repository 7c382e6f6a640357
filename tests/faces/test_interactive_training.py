"""Facts about the bundle's training of promptable networks, run as its users run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effvit_med.networks import load_weights
from effvit_med.networks.prompt import build_prompt_network
from tests.conftest import ROOT

pytest.importorskip("monai", reason="the bundle needs the extra [train]")

SHORT = {
    "preset": "prompt_tiny", "batch_size": 2, "steps_per_epoch": 3, "val_interval": 1, "validated": 4, "rounds": 2,
    "warmup_steps": 2,
}  # fmt: skip


def _train(folder: Path, **more: object) -> subprocess.CompletedProcess[str]:
    options = {**SHORT, "bundle_root": folder, **more}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file",
         str(ROOT / "configs" / "interactive_train.yaml"), *words],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """What is lost after the first epoch is learnt again, bit for bit."""
    whole = _train(tmp_path / "whole", patch="[32,32]", epochs=2)
    assert whole.returncode == 0, whole.stderr[-3000:]
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    last = Path("runs", "interactive", "checkpoints", "run_checkpoint_2.pt")
    (tmp_path / "half" / last).unlink()
    resumed = _train(tmp_path / "half", patch="[32,32]", epochs=2, resume="true")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    first, again = (torch.load(tmp_path / name / last, weights_only=True)["model"] for name in ("whole", "half"))
    for name, value in first.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_a_network_for_blocks_is_trained_alike(tmp_path: Path) -> None:
    """Three numbers on the command line make it a 3D network."""
    run = _train(tmp_path, patch="[16,24,16]", spatial_dims=3, norm="instance", epochs=1)
    assert run.returncode == 0, run.stderr[-3000:]
    network = build_prompt_network(3, preset="prompt_tiny", proposals=3)
    load_weights(network, tmp_path / "runs" / "interactive" / "model.safetensors")
