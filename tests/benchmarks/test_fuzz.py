"""Facts about `benchmarks.fuzz`: the reader stands a few hundred broken files, and what would be wrong is seen."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import fuzz, fuzz_child, fuzz_oracle
from benchmarks.fuzz_mutations import find_elements, mutate
from benchmarks.fuzz_seeds import MUTANT, make_seeds
from effvit_med.io import read_case
from effvit_med.volume import Geometry, Volume
from tests.acceptance.series import make_slice, save
from tests.acceptance.test_geometry import read_one


@pytest.fixture(name="setup")
def _setup(tmp_path: Path) -> fuzz_child.Setup:
    (tmp_path / "home").mkdir()
    fuzz.prepare(tmp_path / "home", real=False)
    return fuzz_child.Setup(str(tmp_path / "home"), str(tmp_path / "offenders"), seed=7, guided=False, limit=150)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
def test_the_reader_stands_a_short_run(setup: fuzz_child.Setup, guided: bool) -> None:
    """150 mutants of every kind: no crash, no hang, no foreign exception, no wrong place; all are counted."""
    if guided:
        pytest.importorskip("atheris")
    tried = fuzz.run(replace(setup, guided=guided), 300, seeds=1)
    assert not tried.offenders
    assert tried.inputs >= 150
    assert sum(sum(row.values()) for row in tried.table.values()) == tried.inputs
    assert len(tried.table) >= 4


def test_every_good_seed_is_read(setup: fuzz_child.Setup) -> None:
    """The seeds themselves, of every kind, are read: a mutant is one step away from a file that works."""
    bench = fuzz_child.Bench(setup)
    seeds = make_seeds() | {"directory": Path(setup.home, "corpus", "directory").read_bytes()}
    found = {name: bench.run(content) for name, content in seeds.items()}
    assert not [(name, outcome) for name, outcome in found.items() if outcome.status not in ("read", "findings")]
    assert {fuzz_child.kind_of(content) for content in seeds.values()} >= set(fuzz_child.KINDS) - {"other", "alone"}


def _moved(volume: Volume, **changes: object) -> Volume:
    return replace(volume, geometry=replace(volume.geometry, **changes))


@pytest.mark.parametrize("fault", ["shifted", "flipped", "stretched"])
def test_a_wrong_place_is_an_offence(fault: str, setup: fuzz_child.Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that shifts, flips or stretches a series without a word is found out."""

    def read_wrongly(case: object, options: object = None) -> Volume:
        volume = read_case(case)  # type: ignore[arg-type]
        affine = np.array(volume.geometry.affine)
        if fault == "shifted":
            affine[:3, 3] += affine[:3, 0]
        elif fault == "flipped":
            return _moved(volume, affine=volume.geometry.flipped(1).affine)
        else:
            affine[:3, 0] *= 1.2
        return _moved(volume, affine=affine)

    monkeypatch.setattr(fuzz_oracle, "read_case", read_wrongly)
    bench = fuzz_child.Bench(setup)
    outcome = bench.run(make_seeds()[f"slice_{MUTANT}"])
    assert (outcome.status, outcome.offence) == ("offence", "geometry")
    (line,) = Path(setup.offenders, "offenders.jsonl").read_text(encoding="utf-8").splitlines()
    assert Path(setup.offenders, json.loads(line)["file"]).read_bytes() == make_seeds()[f"slice_{MUTANT}"]


def test_a_foreign_exception_is_an_offence(setup: fuzz_child.Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not one of ours is named with its place."""

    def fail(case: object, options: object = None) -> Volume:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(fuzz_oracle, "read_case", fail)
    outcome = fuzz_child.Bench(setup).run(make_seeds()["nifti_int16"])
    assert outcome.offence == "exception"
    assert "ZeroDivisionError" in outcome.detail


DYING = """
from benchmarks import fuzz_child, fuzz_oracle
import os, signal, sys
def die(case, options=None):
    os.kill(os.getpid(), signal.SIGSEGV)
fuzz_oracle.read_case = die
sys.argv = ["fuzz_child", *sys.argv[1:]]
fuzz_child.main()
"""


def test_a_death_is_an_offence_with_its_input(
    setup: fuzz_child.Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The process that dies is started again, and the bytes that killed it are kept."""
    (tmp_path / "dying.py").write_text(DYING, encoding="utf-8")
    monkeypatch.setattr(fuzz, "CHILD", (str(tmp_path / "dying.py"),))
    tried = fuzz.run(replace(setup, limit=2), 60, seeds=1)
    assert {each["offence"] for each in tried.offenders} == {"crash"}
    assert tried.restarts >= 1
    assert all(Path(setup.offenders, each["file"]).stat().st_size for each in tried.offenders)


def test_the_same_seed_gives_the_same_mutants() -> None:
    """What a run tried can be tried again."""
    seeds = make_seeds()
    once = [mutate(seeds["slice_0"], random.Random(number)) for number in range(50)]
    assert once == [mutate(seeds["slice_0"], random.Random(number)) for number in range(50)]
    assert len(set(once)) > 40


def test_elements_of_sequences_are_found() -> None:
    """Positions of single frames are reached, inside two sequences."""
    tags = [element.tag for element in find_elements(make_seeds()["frames_CT"])]
    assert tags.count((0x0020, 0x0032)) == 6
    assert (0x7FE0, 0x0010) in tags


@pytest.mark.parametrize("second", [False, True], ids=["nifti1", "nifti2"])
def test_affines_are_worked_out_from_bytes(second: bool) -> None:
    """Sform and qform of our seeds are those that were written, in LPS."""
    affines = fuzz_oracle.nifti_affines(make_seeds()["nifti_two" if second else "nifti_int16"])
    expected = [[1.2, -0.1, 0, -30], [-0.1, -1.3, 0, 20], [0, 0, 2.5, 10], [0, 0, 0, 1]]
    assert np.allclose(affines[0], expected, atol=1e-5)
    (qform,) = fuzz_oracle.nifti_affines(make_seeds()["nifti_qform"])
    assert np.allclose(qform, np.diag([1.2, -1.3, 2.5, 1]), atol=1e-5)


@pytest.mark.parametrize("name", ["nifti_int16", "nifti_two"])
def test_units_of_a_header_are_heeded(name: str) -> None:
    """A header in metres has places a thousand times as far."""
    content = bytearray(make_seeds()[name])
    millimetres = fuzz_oracle.nifti_affines(bytes(content))[0]
    content[500 if name == "nifti_two" else 123] = 1
    assert np.allclose(fuzz_oracle.nifti_affines(bytes(content))[0][:3], millimetres[:3] * 1000)


def test_the_slice_that_is_changed_belongs_to_the_others(tmp_path: Path) -> None:
    """Unchanged, it makes a series of six with its neighbours."""
    from benchmarks.fuzz_seeds import STACK

    save(tmp_path, [make_slice(STACK, index) for index in range(6)])
    assert isinstance(read_one(tmp_path).geometry, Geometry)
    assert read_one(tmp_path).geometry.shape == (6, 32, 36)
