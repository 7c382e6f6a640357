"""nnU-Net on the same cases by its own recipe: its plans, preprocessing, augmentation, loss and inference.

It runs in the environment that ``make`` gives it, on one thread, without compiling and without processes beside it; on
a GPU ``EFFVIT_VERSUS_PROCESSES`` says how many draw its crops.
Only the length is ours: its 1000 epochs become at most ``EPOCHS`` equal parts of the budget, and its learning rate
falls with the time that is spent. The time of its own validation within an epoch is not counted. The test cases are
predicted with and without mirroring by its own predictor.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.engine_process import Stopwatch, peak_mib, reset_peak
from benchmarks.versus_models import Adapter
from benchmarks.versus_prediction import keep_scores
from benchmarks.versus_recipe import pad_to
from benchmarks.versus_runs import NNUNET_VERSION, RunFolder, read_request
from benchmarks.versus_sets import (
    TOLERANCE_MM,
    Case,
    LabelledSet,
    PreparedCase,
    describe_split,
    prepare_cases,
)
from benchmarks.versus_timing import middling, time_adapter
from benchmarks.versus_training import read_clock
from effvit_med.evaluation import StructureScore, score_case
from effvit_med.io.atomic import atomic_path, write_json
from effvit_med.io.label_files import read_labels
from effvit_med.networks.cost import count_parameters

EPOCHS = 20
DATASET_ID = 907
DATASET = f"Dataset{DATASET_ID}_versus"
PLANS = "nnUNetPlans"
MIRRORED, PLAIN = "mirrored", "plain"

LOOKS = 6
"""How often the watched cases are predicted: its predictor takes longer than many steps."""


def train_nnunet(request: Mapping[str, Any]) -> dict[str, Any]:
    """Plan, preprocess, train, predict and score, and keep the result in the run's folder.

    Args:
        request: of `RunFolder.request`.
    """
    folder = read_request(request)
    run = folder.run
    home = set_paths(folder)
    prepare(folder, home)
    trainer = make_trainer(folder, home)
    state = train_on(trainer, folder)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for name in (PLAIN, MIRRORED):
            predictor = make_predictor(trainer, mirrored=name == MIRRORED)
            found[name] = keep_scores(predict_cases(predictor, folder, folder.split.test, folder.path / name))
    configuration = trainer.configuration_manager
    with atomic_path(folder.path / "weights.pt") as temporary:
        torch.save(trainer.network.state_dict(), temporary)
    result = {
        "scores": found[PLAIN],
        "scores_mirrored": found[MIRRORED],
        "split": describe_split(folder.split),
        "steps": state["steps"],
        "epochs": state["steps"] * configuration.batch_size / len(folder.split.train),
        "spent_s": state["spent_s"],
        "curve": state["curve"],
        "parameters": count_parameters(trainer.network),
        "learning_rate": trainer.initial_lr,
        "train_peak_mib": state["peak"],
        "hit_limit": run.converge,
        "version": NNUNET_VERSION,
        "plan": {
            "configuration": configuration_of(run.labelled),
            "patch": list(configuration.patch_size),
            "batch": configuration.batch_size,
            "features": list(configuration.network_arch_init_kwargs["features_per_stage"]),
        },
    }
    folder.write("result.json", result)
    for path in Path(trainer.output_folder).glob("checkpoint_*.pth"):
        path.unlink()
    return {}


def configuration_of(labelled: LabelledSet) -> str:
    """That of its configurations which sees what the others see."""
    return "3d_fullres" if labelled.spatial_dims == 3 else "2d"


def set_paths(folder: RunFolder) -> Path:
    """Name nnU-Net its folders, before it is imported.

    Args:
        folder: of the run.

    Returns:
        The folder of its data, shared by all budgets of a split.
    """
    few = f"_few{folder.run.few}" if folder.run.few else ""
    digest = describe_split(folder.split)["digest"]
    home = folder.model_path / f"data_fold{folder.run.fold}{few}_{digest}"
    places = {"nnUNet_raw": home / "raw", "nnUNet_preprocessed": home / "preprocessed", "nnUNet_results": folder.path}
    for name, path in places.items():
        path.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(path.resolve())
    os.environ |= {"nnUNet_n_proc_DA": count_processes(folder), "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}
    return home


def count_processes(folder: RunFolder) -> str:
    """How many processes draw crops beside it."""
    return "0" if folder.run.device == "cpu" else os.environ.get("EFFVIT_VERSUS_PROCESSES", "4")


def prepare(folder: RunFolder, home: Path) -> None:
    """Write the training cases in its layout, and let it plan and preprocess; once for all budgets of a split.

    Args:
        folder: of the run.
        home: of `set_paths`.
    """
    done = home / "prepared.json"
    if done.exists():
        return
    labelled, split = folder.run.labelled, folder.split
    watched = [case for case in split.watched if case not in split.train]
    raw = home / "raw" / DATASET
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for case in (*split.train, *watched):
        write_image(labelled, case, raw / "imagesTr")
        if labelled.unit == "px":
            mask = read_labels(case.label, labelled.table).labels[0]
            Image.fromarray(mask.astype(np.uint8)).save(raw / "labelsTr" / f"{case.name}.png")
        else:
            shutil.copyfile(case.label, raw / "labelsTr" / f"{case.name}.nii.gz")
    channels = {"0": "R", "1": "G", "2": "B"} if labelled.unit == "px" else {"0": "MRI"}
    description = {
        "channel_names": channels,
        "labels": {"background": 0, **{name: value for value, name in enumerate(labelled.structures, 1)}},
        "numTraining": len(split.train) + len(watched),
        "file_ending": ending_of(labelled),
    }
    if labelled.unit != "px":
        description["overwrite_image_reader_writer"] = "NibabelIO"  # which is there on every machine
    write_json(raw / "dataset.json", description)
    start = time.process_time()
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([DATASET_ID], num_processes=1, show_progress_bar=False)
    os.environ |= {"nnUNet_n_proc_DA": "1"}  # the planner takes it for a number of threads
    plan_experiments([DATASET_ID])
    os.environ |= {"nnUNet_n_proc_DA": count_processes(folder)}
    preprocess([DATASET_ID], PLANS, (configuration_of(labelled),), (1,), show_progress_bar=False)
    names = {"train": [c.name for c in split.train], "val": [c.name for c in (watched or split.watched)]}
    write_json(home / "preprocessed" / DATASET / "splits_final.json", [names])
    write_json(done, {"cpu_s": time.process_time() - start})


def ending_of(labelled: LabelledSet) -> str:
    """Of image files."""
    return ".png" if labelled.unit == "px" else ".nii.gz"


def write_image(labelled: LabelledSet, case: Case, folder: Path) -> Path:
    """An image as nnU-Net reads it; it gets all three colours of a photograph.

    Args:
        labelled: the set.
        case: one of its cases.
        folder: where to.
    """
    path = folder / f"{case.name}_0000{ending_of(labelled)}"
    if labelled.unit == "px":
        Image.open(case.image).convert("RGB").save(path)
    else:
        shutil.copyfile(case.image, path)
    return path


def make_trainer(folder: RunFolder, home: Path) -> Any:
    """Its trainer for the budget, ready to train, at its last checkpoint if there is one.

    Args:
        folder: of the run.
        home: of `set_paths`.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(folder.run.seed)
    np.random.seed(folder.run.seed)  # noqa: NPY002  it draws from the global generator
    preprocessed = home / "preprocessed" / DATASET
    plans = json.loads((preprocessed / f"{PLANS}.json").read_text(encoding="utf-8"))
    plans["continue_training"] = False
    dataset = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    configuration = configuration_of(folder.run.labelled)
    trainer = nnUNetTrainer(plans, configuration, 0, dataset, torch.device(folder.run.device))
    trainer.num_epochs = EPOCHS
    trainer.num_val_iterations_per_epoch = 1
    trainer.initialize()
    latest = latest_of(trainer)
    if latest.exists() and folder.read("progress.json"):
        trainer.load_checkpoint(str(latest))
    return trainer


def latest_of(trainer: Any) -> Path:
    """Where its state is kept after each part of the budget."""
    return Path(trainer.output_folder) / "checkpoint_latest.pth"


def train_on(trainer: Any, folder: RunFolder) -> dict[str, Any]:
    """Its training loop, by the clock: an epoch ends when its part of the budget is spent.

    Args:
        trainer: of `make_trainer`.
        folder: takes progress.

    Returns:
        ``steps``, ``spent_s``, ``curve`` and ``peak``.
    """
    state = (folder.read("progress.json") if trainer.current_epoch else None) or {
        "steps": 0,
        "spent_s": 0.0,
        "curve": [],
        "peak": 0.0,
    }
    trainer.on_train_start()
    reset_peak()
    budget_s = folder.run.minutes * 60
    while trainer.current_epoch < EPOCHS and state["spent_s"] < budget_s:
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        outputs = []
        # a step can take longer than a part: its epochs are then fewer
        end_s = (math.floor(state["spent_s"] / budget_s * EPOCHS + 1e-9) + 1) * budget_s / EPOCHS
        while state["spent_s"] < end_s:
            start = read_clock(folder.run.device)
            trainer.lr_scheduler.step(min(0.999, state["spent_s"] / budget_s) * EPOCHS)
            outputs.append(trainer.train_step(next(trainer.dataloader_train)))
            state["spent_s"] += read_clock(folder.run.device) - start
            state["steps"] += 1
        trainer.on_train_epoch_end(outputs)
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        state["peak"] = max(state["peak"], peak_mib())
        if state["spent_s"] >= len(state["curve"]) * budget_s / LOOKS or state["spent_s"] >= budget_s:
            _look(trainer, folder, state)
        with atomic_path(latest_of(trainer)) as temporary:  # by itself it would keep the last but one
            trainer.save_checkpoint(str(temporary))
        trainer.on_epoch_end()
        folder.write("progress.json", state)
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):  # its processes would outlive it
            loader._finish()  # noqa: SLF001  as its own end of training does
    return state


def _look(trainer: Any, folder: RunFolder, state: dict[str, Any]) -> None:
    """Add a point to the curve: the watched cases through its predictor without mirroring, not counted."""
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    with torch.inference_mode():
        scores = predict_cases(
            make_predictor(trainer, mirrored=False), folder, folder.split.watched, folder.path / "looks"
        )
    dice = [row.dice for rows in scores.values() for row in rows if row.dice is not None]
    state["curve"].append((state["spent_s"], float(np.mean(dice))))
    trainer.set_deep_supervision_enabled(True)


def make_predictor(trainer: Any, *, mirrored: bool) -> Any:
    """Its predictor with the trainer's network; half of a window of overlap, as it has it by default.

    Args:
        trainer: trained.
        mirrored: whether images are mirrored along every axis that training mirrored.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=mirrored,
        perform_everything_on_device=False,
        device=trainer.device,
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [{name: value.clone() for name, value in trainer.network.state_dict().items()}],
        trainer.dataset_json,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    return predictor


def predict_cases(
    predictor: Any, folder: RunFolder, cases: Sequence[Case], output: Path
) -> dict[str, tuple[StructureScore, ...]]:
    """Scores of cases through its predictor, from files to files.

    Args:
        predictor: of `make_predictor`.
        folder: of the run.
        cases: those wanted.
        output: folder for images and labels.
    """
    labelled = folder.run.labelled
    output.mkdir(parents=True, exist_ok=True)
    inputs = [[str(write_image(labelled, case, output).resolve())] for case in cases]
    outputs = [str((output / case.name).resolve()) for case in cases]
    predictor.predict_from_files_sequential(inputs, outputs, overwrite=True)
    scores = {}
    for case in cases:
        path = output / f"{case.name}{ending_of(labelled)}"
        truth = read_labels(case.label, labelled.table)
        found = read_labels(path, labelled.table)
        scores[case.name] = score_case(truth, found, TOLERANCE_MM)
    return scores


def time_nnunet(request: Mapping[str, Any]) -> dict[str, Any]:
    """What its predictor takes for the test case of middling size, and its network alone in each runtime.

    The network alone is timed on one of its windows; the time is multiplied by how many its predictor lays over the
    case, and neither preprocessing nor blending is in it.

    Args:
        request: of `RunFolder.request`.
    """
    folder = read_request(request)
    labelled = folder.run.labelled
    trainer = make_trainer(folder, set_paths(folder))
    trainer.set_deep_supervision_enabled(False)
    trainer.network.load_state_dict(torch.load(folder.path / "weights.pt", map_location="cpu"))
    trainer.network.eval()
    chosen = middling(prepare_cases(labelled, folder.split.test, folder.cache))
    case = next(each for each in folder.split.test if each.name == chosen.name)
    rows: dict[str, Any] = {}
    for name in (PLAIN, MIRRORED):
        row: dict[str, Any] = {"case": case.name}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            cpu, wall, peak = _time_predictor(make_predictor(trainer, mirrored=name == MIRRORED), folder, case)
            row |= {"cpu_s": cpu, "peak_mib": peak} if threads == 1 else {"wall_2_s": wall}
        rows[f"its predictor, {name}"] = {**row, "agreement": 1.0}
    torch.set_num_threads(1)
    rows |= _time_network(trainer, labelled, chosen)
    return {"rows": rows}


def _time_predictor(predictor: Any, folder: RunFolder, case: Case) -> tuple[float, float, float]:
    """CPU seconds, wall seconds and peak of the windows of a case; the median of up to three calls after one."""
    watch = Stopwatch()
    original = predictor.predict_logits_from_preprocessed_data
    taken: list[tuple[float, float]] = []

    def timed(*args: Any, **options: Any) -> Any:
        with watch.phase("windows"):
            logits = original(*args, **options)
            logits.argmax(0)
        return logits

    predictor.predict_logits_from_preprocessed_data = timed
    reset_peak()
    while len(taken) < 4 and (len(taken) < 2 or sum(wall for _, wall in taken) < 30):
        watch = Stopwatch()
        predict_cases(predictor, folder, [case], folder.path / "timed")
        taken.append((watch.cpu["windows"], watch.wall["windows"]))
    cpu, wall = (float(np.median([pair[number] for pair in taken[1:]])) for number in (0, 1))
    return cpu, wall, peak_mib()


def _time_network(trainer: Any, labelled: LabelledSet, chosen: PreparedCase) -> dict[str, Any]:
    """One window of its plan in each runtime, times the number of its windows over the case."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    configuration = trainer.configuration_manager
    window = tuple(int(edge) for edge in configuration.patch_size)
    slices = 1 if labelled.spatial_dims == 3 else chosen.values.shape[1]
    size = chosen.values.shape[1:] if labelled.spatial_dims == 3 else chosen.values.shape[2:]
    covered = tuple(max(edge, least) for edge, least in zip(size, window, strict=True))
    count = slices * math.prod(len(steps) for steps in compute_steps_for_sliding_window(covered, window, 0.5))
    box = window if labelled.spatial_dims == 3 else (1, *window)
    values, labels = (part[tuple(slice(edge) for edge in (1, *box)[-part.ndim :])] for part in pad_to(chosen, box))
    one = PreparedCase(chosen.name, values, labels, chosen.grid, chosen.reference)
    adapter = Adapter(_Coloured(trainer.network, trainer.num_input_channels), labelled.spatial_dims)
    rows = time_adapter(labelled, adapter.eval(), one)
    for row in rows.values():
        row["windows"] = count
        for name in ("cpu_s", "wall_2_s"):
            if name in row:
                row[name] *= count
    return {f"network alone, {name}": row for name, row in rows.items()}


class _Coloured(torch.nn.Module):
    """Its network behind one channel, which is given as often as it has channels."""

    def __init__(self, network: torch.nn.Module, channels: int) -> None:
        super().__init__()
        self.network = network
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits at the image's size."""
        repeats = [1, self.channels] + [1] * (x.dim() - 2)
        y: torch.Tensor = self.network(x.repeat(*repeats))
        return y
