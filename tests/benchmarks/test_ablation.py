"""What the ablation of the training recipe says."""

from __future__ import annotations

from pathlib import Path

import yaml

from benchmarks.ablation import AS_PLANNED, VARIANTS, Trial, _name_case, _read_row, average_seeds, to_markdown

TRAIN = Path(__file__).parents[2] / "configs" / "train.yaml"


def _run(variant: str, seed: int, **dice: float) -> dict[str, object]:
    return {"set": "hearts", "variant": variant, "seed": seed, "steps": 10, "training_s": 60.0, "dice": dice}


def test_every_variant_sets_keys_that_there_are() -> None:
    """A key that no training knows would be refused after an hour."""
    known = yaml.safe_load(TRAIN.read_text(encoding="utf-8"))
    wanted = {name.partition("::")[0] for values in VARIANTS.values() for name in values}
    assert wanted <= set(known)


def test_variants_are_compared_case_by_case() -> None:
    """The difference is that of the same cases, averaged over seeds."""
    runs = [
        _run(AS_PLANNED, 0, a=0.5, b=0.9),
        _run("augmentation: none", 0, a=0.6, b=0.9),
        _run("augmentation: none", 1, a=0.8, b=1.0),
    ]
    row = next(line for line in to_markdown(runs).splitlines() if line.startswith("| augmentation: none"))
    assert row.split("|")[2:4] == [" 0.8250 ", " +0.1250 (+0.0500 to +0.2000) "]
    assert row.endswith("| 2 |")


def test_seeds_are_averaged_by_case() -> None:
    """Not over all cases at once."""
    assert average_seeds([_run("x", 0, a=0.2, b=1.0), _run("x", 1, a=0.4, b=0.0)]) == {"a": 0.3, "b": 0.5}


def test_cases_are_named_without_the_machine() -> None:
    """The last folder tells frames of one name apart."""
    assert _name_case("/somewhere/data/patient_1/image.nii.gz") == "patient_1/image.nii.gz"


def test_structures_that_nobody_marked_have_no_dice() -> None:
    """MONAI writes nan for them; the mean of the row is not taken."""
    assert _read_row({"filename": "a", "class0": "0.5", "class1": "nan", "mean": "0.5"}) == [0.5, None]


def test_runs_have_places_of_their_own() -> None:
    """Also those whose names differ in signs alone."""
    trials = [Trial("hearts", variant, seed) for variant in VARIANTS for seed in (0, 1)]
    assert len({trial.folder for trial in trials}) == len(trials)
