"""What the tables say of what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.engine_report import path_section, to_markdown
from benchmarks.engine_targets import list_targets, outside_of_peer

SHAPE, MANY = (300, 512, 512), (144, 256, 256)


def case(outside: float, network: float = 10.0, peak: float = 500.0) -> dict[str, Any]:
    """A case whose steps make up all but a second of it."""
    steps = {"network": network, "read": outside - 1.0, "all": network + outside}
    labels = {"classes": 5, "foreground": 0.1, "border": 0.2}
    return {"cpu": steps, "wall": steps, "peak_mib": peak, "vram_mib": 0.0, "labels": labels, "outputs": "nifti"}


def path_answer(*outside: float, peak: float = 500.0) -> dict[str, Any]:
    """A process with one case for each figure."""
    load = {"cpu": {"load": 0.1}, "wall": {"load": 0.1}}
    cases = [case(each, peak=peak) for each in outside]
    return {"cases": cases, "start_cpu_s": 1.5, "load": load, "loaded_mib": 300.0}


def peer(outside: float, **more: float) -> dict[str, Any]:
    """A candidate."""
    return {"cpu": {"network": 5.0, "prepare": outside, "all": 5.0 + outside}, "peak_mib": 1.0, **more}


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """The verdict of each target."""
    return {text: verdict for text, _, verdict in list_targets(found)}


def test_network_time_does_not_move_what_is_outside() -> None:
    """Outside is the whole without the network."""
    assert outside_of_peer({"cpu": {"network": 300.0, "all": 303.0}}) == 3.0


def test_budget_is_judged_by_the_median_of_the_repeats() -> None:
    """One slow process of three does not break a target, two do; cold and warm are judged apart."""
    rows = {
        f"structured-14-stride4 one thread {n}": path_answer(cold, 2.5, 3.0) for n, cold in enumerate((2.9, 9, 2.8))
    }
    found = verdicts({"path": rows})
    assert found["outside the network at most 3 CPU s, 14 classes, cold"] == "holds"
    rows["structured-14-stride4 one thread 2"] = path_answer(8.0, 2.5, 3.0)
    found = verdicts({"path": rows})
    assert found["outside the network at most 3 CPU s, 14 classes, cold"] == "MISSED"
    assert found["outside the network at most 3 CPU s, 14 classes, warm"] == "holds"


def test_memory_is_judged_by_the_largest_of_the_repeats() -> None:
    """A single process above 1 GiB misses the target."""
    rows = {f"structured-3-stride4 one thread {n}": path_answer(1, 1, 1, peak=p) for n, p in enumerate((900, 1100))}
    assert verdicts({"path": rows}) == {"peak at most 1 GiB, 3 classes": "MISSED"}


@pytest.mark.parametrize(("slope", "verdict"), [(1.0, "holds"), (1.5, "MISSED")])
def test_memory_over_length_is_without_the_labels(slope: float, verdict: str) -> None:
    """One byte a voxel may grow with the scan, that of the labels; half a byte more may not."""
    rows = {
        str(slices): {"cases": [case(2.0, peak=600 + slope * slices * 512 * 512 / 2**20)]}
        for slices in (300, 600, 1200)
    }
    assert list(verdicts({"length": rows}).values()) == [verdict]


@pytest.mark.parametrize(("theirs", "verdict"), [(10.1, "holds"), (9.9, "MISSED")])
def test_peers_are_judged_by_what_is_outside_the_network(theirs: float, verdict: str) -> None:
    """Five times less at 14 classes."""
    rows = {"14 ours": peer(2.0), "14 monai": peer(theirs, agreement=0.99)}
    assert verdicts({"peers": rows}) == {"at least 5 times less outside the network than MONAI, 14 classes": verdict}
    assert f"{theirs / 2:.1f}x" in to_markdown({"peers": rows}, SHAPE, MANY)


def test_runtime_targets_compare_with_eager() -> None:
    """Speed, agreement and Dice are those beside eager float32."""
    usual = {"agreement": 0.9995, "agreement_marked": 0.99, "open_wall_s": 1.0, "notes": ""}
    rows = [
        {"runtime": "eager", "precision": "float32", "cpu_s": 0.3, "dice": {"liver": 0.95}, **usual},
        {"runtime": "openvino", "precision": "bfloat16", "cpu_s": 0.11, "dice": {"liver": 0.95}, **usual},
        {"runtime": "openvino", "precision": "int8", "cpu_s": 0.08, "dice": {"liver": 0.944}, **usual},
        {"runtime": "compile", "precision": "float32", "skipped": "no compiler"},
    ]
    answer = {"rows": rows, "window": [64, 96, 96], "cases": ["ct_axial"]}
    found = verdicts({"runtimes": {"all": answer}})
    assert found["openvino bfloat16 at least 3 times as fast as eager"] == "MISSED"
    assert found["openvino bfloat16: labels as eager at least 0.999"] == "holds"
    assert found["openvino INT8: loss of Dice at most 0.005"] == "MISSED"
    assert "no compiler" in to_markdown({"runtimes": {"all": answer}}, SHAPE, MANY)


def test_what_no_step_holds_is_told() -> None:
    """A second that no step accounts for stands as a row of its own."""
    text = path_section({"structured-14-stride4 one thread 0": path_answer(3.0, 3.0, 3.0)})
    assert "| everything else | 1.00 | 1.00 (1.00) |" in text


def test_failed_rows_are_named_and_do_not_hide_the_others() -> None:
    """A peer that died of its memory stands below the table of the others."""
    rows = {"14 ours": peer(2.0), "14 monai": {"failed": "killed, most likely for its memory"}}
    text = to_markdown({"peers": rows}, SHAPE, MANY)
    assert "- 14 monai: killed, most likely for its memory" in text
    assert "| effvit-med | 14 |" in text
