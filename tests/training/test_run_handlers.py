"""What watches over a training run: averaged weights, clipped gradients, half precision, an end in time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from effvit_med.errors import SettingsError
from effvit_med.training import data_wait
from effvit_med.training.averaging import WeightAverage
from effvit_med.training.data_wait import DataWait
from effvit_med.training.gradients import GradientClip
from effvit_med.training.precision import MixedPrecision
from effvit_med.training.stopping import StopEarly

CPU = torch.device("cpu")


def _trainer(network: nn.Module, step_size: float = 1.0) -> Engine:
    """A trainer whose steps add a number to every weight."""

    def step(_: Engine, __: object) -> None:
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(step_size)

    return Engine(step)


def _set_epoch(engine: Engine, epoch: int) -> None:
    engine.state.epoch, engine.state.iteration = epoch, 2 * epoch


def test_the_average_follows_its_formula() -> None:
    """After each step the average keeps min(decay, (1 + t) / (10 + t)) of itself."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, 0.25)
    trainer = _trainer(network)
    average.attach(trainer)
    trainer.run([0] * 4)
    expected = 0.0
    for step in range(1, 5):
        kept = min(0.25, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * step
    assert float(average.network.weight) == pytest.approx(expected)


def test_an_average_goes_on_from_its_state() -> None:
    """Stopped after two of four steps and loaded into a new one, the average ends the same."""
    ends = []
    for stops in ((2,), (1, 2)):  # epochs of two steps
        network, done, state = nn.Linear(2, 2), 0, None
        nn.init.zeros_(network.weight)
        nn.init.zeros_(network.bias)
        for stop in stops:
            average = WeightAverage(network, 0.999)
            average.load_state_dict(state or average.state_dict())
            trainer = _trainer(network)
            average.attach(trainer)
            trainer.add_event_handler(Events.STARTED, _set_epoch, done)
            trainer.run([0] * 2, max_epochs=stop)
            done, state = stop, {name: value.clone() for name, value in average.state_dict().items()}
        ends.append(state)
    assert torch.equal(ends[0]["weight"], ends[1]["weight"])


def test_without_decay_the_network_is_its_own_average() -> None:
    """No average is held, kept or loaded."""
    network = nn.Linear(1, 1)
    average = WeightAverage(network, 0)
    assert average.network is network
    assert average.state_dict() == {}


class _Scaler:
    """Holds gradients that are 8 times too large until they are unscaled."""

    def __init__(self) -> None:
        self.unscaled = 0

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        self.unscaled += 1
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad /= 8


def _clip_once(clip: GradientClip, gradient: list[float], scaler: Any = None) -> tuple[torch.Tensor, dict[str, Any]]:
    weight = nn.Parameter(torch.zeros(2))

    def step(engine: Any, _: object) -> None:
        weight.grad = torch.tensor(gradient) * (8 if scaler else 1)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)

    engine: Any = Engine(step)
    engine.register_events(*IterationEvents)
    engine.optimizer, engine.scaler = torch.optim.SGD([weight], lr=1.0), scaler
    clip.attach(engine)
    engine.run([0])
    return weight.grad, engine.state.metrics


@pytest.mark.parametrize("scaler", [None, _Scaler()], ids=["float32", "scaled"])
def test_a_long_gradient_is_cut_to_the_bound(scaler: Any) -> None:
    """A gradient of norm 5 keeps its direction and gets norm 2; its own norm stands in the metrics."""
    gradient, metrics = _clip_once(GradientClip(2.0), [3.0, 4.0], scaler)
    assert torch.allclose(gradient, torch.tensor([1.2, 1.6]), atol=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(5.0)


@pytest.mark.parametrize("bound", [0.0, 6.0])
def test_a_short_gradient_stays(bound: float) -> None:
    """Below the bound, or without one, nothing changes."""
    assert _clip_once(GradientClip(bound), [3.0, 4.0])[0].tolist() == [3.0, 4.0]


def _run_with_scores(patience: int, scores: list[float], state: dict[str, Any] | None = None) -> tuple[int, StopEarly]:
    """How many epochs a run lasts whose validations give these scores."""
    evaluator = Engine(lambda _, __: None)
    evaluator.state.key_metric_name = "dice"  # type: ignore[attr-defined]
    trainer = Engine(lambda _, __: None)
    stopping = StopEarly(evaluator, patience)
    stopping.attach(trainer)
    if state is not None:
        stopping.load_state_dict(state)

    def validate(engine: Engine) -> None:
        evaluator.state.metrics["dice"] = scores[engine.state.epoch - 1]
        evaluator.fire_event(Events.COMPLETED)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    trainer.run([0], max_epochs=len(scores))
    return trainer.state.epoch, stopping


def test_a_run_ends_when_nothing_gets_better() -> None:
    """With a patience of 2 it ends after the second validation that is no better."""
    assert _run_with_scores(2, [0.1, 0.5, 0.4, 0.6, 0.6, 0.5, 0.9])[0] == 6


def test_without_patience_a_run_goes_to_its_end() -> None:
    """A patience of 0 never ends it."""
    assert _run_with_scores(0, [0.5, 0.4, 0.3])[0] == 3


def test_patience_is_counted_on_after_a_stop() -> None:
    """One bad validation before the stop and one after it make two."""
    _, first = _run_with_scores(2, [0.5, 0.4])
    assert _run_with_scores(2, [0.3, 0.3], dict(first.state_dict()))[0] == 1


def test_waiting_for_data_is_told_as_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that take 1 s before steps of 3 s are a wait of a quarter."""
    clock = [0.0]
    monkeypatch.setattr(data_wait.time, "perf_counter", lambda: clock[0])

    class Batches:
        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Any:
            for number in range(4):
                clock[0] += 1
                yield number

    def step(_: Engine, __: object) -> None:
        clock[0] += 3

    trainer = Engine(step)
    DataWait().attach(trainer)
    trainer.run(Batches())
    assert trainer.state.metrics["data_wait"] == pytest.approx(0.25)
    assert trainer.state.metrics["steps_per_second"] == pytest.approx(0.25)


@pytest.mark.parametrize("mode", ["auto", "off", "bfloat16", True, False])
def test_a_processor_stays_in_float32(mode: str | bool) -> None:
    """Whatever is asked for, there is no half precision without a GPU."""
    mixed = MixedPrecision(mode, CPU)
    assert (mixed.enabled, mixed.autocast, mixed.state_dict()) == (False, {}, {})


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixedPrecision("half", CPU),
        lambda: WeightAverage(nn.Linear(1, 1), 1.0),
        lambda: GradientClip(-1.0),
        lambda: StopEarly(Engine(lambda _, __: None), -1),
    ],
)
def test_impossible_settings_are_refused(make: Any) -> None:
    """Each says which key of the configuration is wrong."""
    with pytest.raises(SettingsError, match=r"amp|ema_decay|gradient_clip|patience"):
        make()
