"""A training that goes on where it was stopped, and the average of weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.versus_models import find_contender
from benchmarks.versus_recipe import Sampler, make_loss
from benchmarks.versus_runs import Run
from benchmarks.versus_timing import agree, best_runtime, time_adapter
from benchmarks.versus_training import Training, update_average
from tests.benchmarks.test_versus_recipe import make_case


def begin() -> tuple[Training, Sampler]:
    """A small network and its crops."""
    run = Run("hippocampus", "UNet 8", 1)
    return Training.begin(run), Sampler(run.labelled, [make_case((42, 58, 44))], seed=0)


def test_an_interrupted_training_goes_on_with_the_same_weights(tmp_path: Path) -> None:
    """Two steps, a checkpoint and one step are three steps: weights, average, time and curve are all there."""
    training, sampler = begin()
    loss = make_loss()
    for _ in range(2):
        training.learn(sampler, loss, 1.0)
    training.look([make_case((42, 58, 44))])
    training.save(tmp_path / "checkpoint.pt")
    resumed, again = begin()
    resumed.load(tmp_path / "checkpoint.pt")
    assert (resumed.step, resumed.spent_s, resumed.curve) == (2, training.spent_s, training.curve)
    for one, crops in ((training, sampler), (resumed, again)):
        crops.restart(2)
        one.learn(crops, loss, 1.0)
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    for name, value in training.average.state_dict().items():
        assert torch.equal(value, resumed.average.state_dict()[name]), name


def test_the_seed_decides_the_weights() -> None:
    """Two trainings of a run begin alike."""
    first, second = begin()[0], begin()[0]
    pairs = zip(first.network.parameters(), second.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_average_follows_weights_and_buffers() -> None:
    """After many equal steps it is there; whole numbers are taken as they are."""
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = copy.deepcopy(network)
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[1].running_mean.fill_(5.0)
        network[1].num_batches_tracked.fill_(7)
    for step in range(1, 40):
        update_average(average, network, step)
    assert float(average[0].weight.detach().min()) == pytest.approx(3.0, abs=0.01)
    assert float(average[1].running_mean.min()) == pytest.approx(5.0, abs=0.01)
    assert int(average[1].num_batches_tracked) == 7


def test_agreement_is_over_structures_not_background() -> None:
    """Half of the voxels of a structure found by both is a Dice of a half, however much background there is."""
    ours, theirs = torch.zeros(10, 10).numpy(), torch.zeros(10, 10).numpy()
    ours[0, :4] = 1
    theirs[0, 2:6] = 1
    assert agree(ours, theirs) == 0.5
    assert agree(0 * ours, 0 * theirs) == 1.0


def test_every_runtime_has_a_row_and_eager_is_its_own_measure() -> None:
    """A runtime that is not here says why; the others have times and agree."""
    training, _ = begin()
    assert find_contender("UNet 8") == training.contender
    threads = torch.get_num_threads()
    rows = time_adapter(training.run.labelled, training.average, make_case((16, 16, 16)))
    torch.set_num_threads(threads)
    assert rows["eager float32"]["agreement"] == 1.0
    assert all("cpu_s" in row or row["skipped"] for row in rows.values())
    assert best_runtime(rows) in rows
    assert best_runtime({"openvino float32": {"skipped": "absent"}}) is None
