"""The tables of the engine's benchmark, and which targets hold."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.engine_targets import (
    ALL,
    CANDIDATES,
    NETWORK,
    REST,
    Rows,
    classes_of,
    group_repeats,
    label_mib,
    list_targets,
    median_of,
    outside_of,
    outside_of_peer,
)
from benchmarks.report import make_table


def to_markdown(found: Mapping[str, Rows], shape: Sequence[int], many: Sequence[int], window: int = 96) -> str:
    """The whole report.

    Args:
        found: the answers by table and row; a table that is not there is left out.
        shape: of the scan.
        many: of the part of it on which the peers run with 105 classes.
        window: voxels of a window along each axis.
    """
    parts = ["# Engine: what inference costs", "", INTRODUCTION.format(size=_times(shape), window=window)]
    makers = {
        "path": path_section,
        "length": lambda rows: length_section(rows, shape),
        "peers": lambda rows: peers_section(rows, shape, many),
        "runtimes": runtimes_section,
        "peak": peak_section,
        "gpu": gpu_section,
    }
    for name, rows in found.items():
        failed = [f"- {row}: {values['failed']}" for row, values in rows.items() if "failed" in values]
        good = {row: values for row, values in rows.items() if "failed" not in values}
        parts += ["", makers[name](good) if good else f"## {name}", *(["", "Failed:", *failed] if failed else [])]
    targets = list_targets(found)
    if targets:
        parts += ["", "## Targets", "", make_table(["target", "measured", ""], targets, texts=3)]
    return "\n".join(parts)


INTRODUCTION = (
    "A generated CT of {size} voxels of 1 x 0.8 x 0.8 mm; grid of 1.5 mm, windows of {window}^3, half of a window as "
    "overlap; network B0 in 3D. CPU seconds are those of all threads of the process, on one thread where nothing else "
    "is said; every measurement has a process of its own. *Structured* bundles: the shipped bundle's trained backbone "
    "and decoder, and a last layer fitted by multinomial regression to parts of phantoms' organs (clusters of the "
    "decoder's features; with 105 classes of the whole body), so that labels look as organs do: no accuracy is "
    "claimed. *Random* bundles: random weights, with a last layer scaled so that all classes compete everywhere: more "
    "border than any user's case."
)


def path_section(rows: Rows) -> str:
    """The whole path: steps by number of classes, then every bundle in one line each.

    Args:
        rows: answers of ``run_path``, several for some bundles.
    """
    groups = group_repeats(rows)
    main = {name: cases for name, cases in groups.items() if "structured" in name and "stride4 one" in name}
    steps = _names(case["cpu"] for cases in main.values() for repeat in cases for case in repeat["cases"])
    table = []
    for step in steps:
        cells = []
        for answers in main.values():
            cold, warm = (median_of(answers, number, "cpu", step) for number in (0, 1))
            cells += [f"{cold:.2f}", f"{warm:.2f} ({median_of(answers, 1, 'wall', step):.2f})"]
        table.append([step, *cells])
    head = ["step", *(f"{classes_of(name)} classes, {kind}" for name in main for kind in ("cold", "warm (wall)"))]
    lines = ["## The whole path", "", PATH_WORDS, "", make_table(head, table), "", *_start_lines(main), ""]
    lines += [make_table(PATH_HEAD, [_path_row(name, answers) for name, answers in groups.items()], texts=2)]
    return "\n".join(lines)


PATH_WORDS = (
    "DICOM in; NIfTI, measurements, overlay and record out. CPU seconds; *cold* is the first case of a process with "
    "loading the model, *warm* the next one (with wall seconds). Below, *outside* is all but the step `network`, the "
    "network's own forward passes; the last columns also write a DICOM SEG. What is made once for a machine and a "
    "bundle (compiled kernels, the network's need of memory) was made before, on another scan."
)

PATH_HEAD = [
    "bundle",
    "processor",
    "classes found, foreground, border cells",
    "all, cold CPU (wall) s",
    "all, warm CPU (wall) s",
    "outside, cold CPU s",
    "outside, warm CPU s",
    "peak MiB",
    "with SEG: outside, warm CPU s",
    "peak MiB",
]


def _path_row(name: str, answers: list[Mapping[str, Any]]) -> list[str]:
    bundle, _, processor = name.partition(" ")
    labels = answers[0]["cases"][0]["labels"]
    look = f"{labels['classes']}, {100 * labels['foreground']:.0f} %, {100 * labels['border']:.0f} %"
    totals = [f"{median_of(answers, n, 'cpu', ALL):.1f} ({median_of(answers, n, 'wall', ALL):.1f})" for n in (0, 1)]
    outside = [f"{outside_of(answers, n):.2f}" for n in range(3)]
    peaks = [
        max(max(repeat["cases"][n]["peak_mib"] for n in numbers) for repeat in answers) for numbers in ((0, 1), (2,))
    ]
    return [bundle, processor, look, *totals, *outside[:2], f"{peaks[0]:.0f}", outside[2], f"{peaks[1]:.0f}"]


def _start_lines(main: Mapping[str, list[Mapping[str, Any]]]) -> list[str]:
    answers = [repeat for repeats in main.values() for repeat in repeats]
    if not answers:
        return []
    start = statistics.median(each["start_cpu_s"] for each in answers)
    load = statistics.median(each["load"]["cpu"]["load"] for each in answers)
    loaded = max(each["loaded_mib"] for each in answers)
    text = (
        f"Before a first case come {start:.1f} CPU-seconds for Python, torch and all imports; loading the "
        f"model takes {load:.2f}, and the process then holds {loaded:.0f} MiB."
    )
    return [text]


def length_section(rows: Rows, shape: Sequence[int]) -> str:
    """Peak memory by the number of slices.

    Args:
        rows: answers by number of slices.
        shape: of the scan, for rows and columns.
    """
    table = []
    for name, answer in rows.items():
        peak, volume = answer["cases"][0]["peak_mib"], label_mib(int(name), shape)
        table.append([name, f"{peak:.0f}", f"{volume:.0f}", f"{peak - volume:.0f}"])
    head = ["slices", "peak MiB", "label volume MiB", "peak less labels"]
    return "\n".join(["## Memory over length", "", "14 classes, structured, first case.", "", make_table(head, table)])


def peers_section(rows: Rows, shape: Sequence[int], many: Sequence[int]) -> str:
    """Side by side with MONAI and nnU-Net.

    Args:
        rows: answers by classes and candidate.
        shape: of the scan with 14 classes.
        many: of that with 105.
    """
    table = []
    for name, answer in rows.items():
        classes, _, candidate = name.partition(" ")
        outside, ours = outside_of_peer(answer), rows.get(f"{classes} ours")
        ratio = f"{outside / outside_of_peer(ours):.1f}x" if ours and candidate != "ours" else ""
        size = _times(shape if classes == "14" else many)
        inside = answer["cpu"].get("network: logits to full size")
        network = f"{answer['cpu'][NETWORK]:.1f}" + (f" ({inside:.1f})" if inside is not None else "")
        agreement = f"{100 * answer['agreement']:.2f} %" if "agreement" in answer else ""
        steps = ", ".join(
            f"{step} {seconds:.1f}" for step, seconds in answer["cpu"].items() if not step.startswith((NETWORK, ALL))
        )
        table.append(
            [
                *(
                    f"{CANDIDATES[candidate]} {answer.get('version', '')}".strip(),
                    classes,
                    size,
                    network,
                    f"{outside:.2f}",
                    ratio,
                ),
                *(f"{answer['peak_mib']:.0f}", agreement, steps),
            ]
        )
    head = ["", "classes", "scan", "network CPU s (of that to full size)", "outside CPU s", "to ours", "peak MiB"]
    head += ["labels as ours", "steps outside, CPU s"]
    return "\n".join(["## Side by side", "", PEERS_WORDS, "", make_table(head, table)])


PEERS_WORDS = (
    "NIfTI in, NIfTI out, the same network (eager, float32, BatchNorm folded), window and overlap, Gaussian blending, "
    "no mirroring, one thread, first case of a process, models loaded before; glibc's allocator as it comes for all. "
    "The others are given logits at the window's full size, and the interpolation to it is counted as network, which "
    "is in their favour. MONAI: the chain of its organ bundles (probabilities of all classes inverted, then argmax). "
    "nnU-Net: `predict_from_files_sequential`. With 105 classes one copy of MONAI's probabilities of the whole scan "
    "is 33 GB, so all three run on its middle part, of the size that is told; nothing is extrapolated. Labels differ "
    "because each places the grid of 1.5 mm, interpolates and pads in its own way."
)


def runtimes_section(rows: Rows) -> str:
    """Every runtime for the shipped bundle.

    Args:
        rows: the one answer.
    """
    answer = rows["all"]
    exact = next((row for row in answer["rows"] if "cpu_s" in row), None)
    table = []
    for row in answer["rows"]:
        name = f"{row['runtime']} {row['precision']}"
        if "skipped" in row or exact is None:
            table.append([name, *[""] * 6, row.get("skipped", "").replace("|", "/").replace("\n", " ")])
            continue
        dice = ", ".join(f"{structure} {value:.4f}" for structure, value in row["dice"].items())
        loss = max(exact["dice"][structure] - value for structure, value in row["dice"].items())
        table.append(
            [
                *(name, f"{1000 * row['cpu_s']:.0f}", f"{exact['cpu_s'] / row['cpu_s']:.2f}x"),
                *(f"{row['agreement']:.6f}", f"{row['agreement_marked']:.5f}", f"{loss:+.4f}"),
                *(f"{row['open_wall_s']:.0f}", dice),
            ]
        )
    head = ["runtime", "CPU ms a window", "faster", "labels as eager float32", "of those marked by either"]
    head += ["largest loss of Dice", "to open, wall s", "Dice"]
    words = (
        f"Window {_times(answer['window'])}; labels and mean Dice against exact labels on "
        f"{', '.join(answer['cases'])}, by the whole engine. INT8 was calibrated on another phantom."
    )
    return "\n".join(["## Runtimes, shipped bundle", "", words, "", make_table(head, table)])


def peak_section(rows: Rows) -> str:
    """The machine's peaks and each network's share.

    Args:
        rows: the one answer.
    """
    peaks, networks = rows["all"]["peaks"], rows["all"]["networks"]
    first = [[name, f"{value:.0f}"] for name, value in peaks.items()]
    table = []
    for row in networks:
        speed = row["gflop"] / row["cpu_s"]
        best = max(value for name, value in peaks.items() if name.endswith(row["precision"]))
        copied = row["gbytes"] / row["cpu_s"]
        table.append(
            [
                *(f"{row['network']}, {_times(row['window'])}", f"{row['runtime']} {row['precision']}"),
                *(f"{1000 * row['cpu_s']:.0f}", f"{row['gflop']:.1f}", f"{speed:.0f}"),
                *(f"{100 * speed / peaks['GEMM ' + row['precision']]:.0f} %", f"{100 * speed / best:.0f} %"),
                f"{copied:.0f} ({100 * copied / peaks['copy GB/s']:.0f} %)",
            ]
        )
    head = ["network", "runtime", "CPU ms", "GFLOP", "GFLOP/s", "of GEMM", "of the best", "GB/s (of a copy)"]
    words = (
        "One thread. Traffic is what eager operators read and write, in the precision's size; a runtime that joins "
        "operators moves less than that."
    )
    tables = make_table(["measured", "GFLOP/s"], first), "", words, "", make_table(head, table, texts=2)
    return "\n".join(["## Share of the machine's peak", "", *tables])


def gpu_section(rows: Rows) -> str:
    """The whole path on a GPU, or that there is none.

    Args:
        rows: answers by classes and precision.
    """
    if "none" in rows:
        return f"## GPU\n\n{rows['none']['none']}."
    table = []
    for name, answer in rows.items():
        cold, warm = answer["cases"][:2]
        share = f"{100 * warm['wall'][NETWORK] / warm['wall'][ALL]:.0f} %"
        outside = f"{warm['wall'][ALL] - warm['wall'][NETWORK]:.2f}"
        table.append(
            [
                *(name, f"{cold['wall'][ALL] + answer['load']['wall']['load']:.2f}", f"{warm['wall'][ALL]:.2f}"),
                *(f"{warm['wall'][NETWORK]:.2f}", outside, share),
                f"{max(cold['vram_mib'], warm['vram_mib']):.0f}",
            ]
        )
    head = ["classes, precision", "cold with loading, wall s", "warm, wall s", "network", "outside", "network's share"]
    return "\n".join(["## GPU", "", make_table([*head, "VRAM MiB (torch)"], table)])


def _names(tables: Iterable[Mapping[str, float]]) -> list[str]:
    found = list(dict.fromkeys(name for table in tables for name in table if name != ALL))
    return [*found, REST, ALL] if found else []


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
