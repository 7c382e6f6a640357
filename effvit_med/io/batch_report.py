"""One page on a whole batch: a sortable table with pictures, the worst first, that needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

import effvit_med
from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.io.atomic import write_text
from effvit_med.io.report_rows import MEANINGS, STATES, ReportCase, read_rows, to_case

REPORT_FILE = "report.html"

MOST_PICTURES = 2000
"""Up to so many cases their small pictures lie in the page itself, about 12 kB each; beyond, it names the files."""

_PAGE = Path(__file__).parent / "report_page"
_PICTURE_PX = 350  # a quarter of an overlay's width; the style sheet shows two of its slices in the table
_PICTURE_QUALITY = 60
_THREADS = 4  # decoding a picture needs no lock of Python's


def write_batch_report(rows: Path | Iterable[Mapping[str, Any]], folder: Path, title: str = "Batch report") -> Path:
    """Write ``report.html``: every case of a batch, the worst first, each to be opened by a click.

    The page is one file that loads nothing from the network; it links to the outputs of each case by relative paths, so
    it belongs into the folder of the batch. It holds what the manifest holds and the small pictures, and says nothing
    else about patients.

    Args:
        rows: of the manifest, or the path of ``manifest.jsonl``.
        folder: where to; outputs of the rows are paths below it.
        title: head of the page.

    Returns:
        The path of the page.

    Raises:
        InputError: if the manifest cannot be read.
        OutputError: if the page cannot be written.
    """
    cases = [to_case(row) for row in (read_rows(rows) if isinstance(rows, Path) else rows)]
    cases.sort(key=lambda case: (case.rank, case.case_id))
    inline = len(cases) <= MOST_PICTURES
    with ThreadPoolExecutor(_THREADS) as pool:
        pictures = list(pool.map(lambda case: _picture(folder, case.overlay, inline=inline), cases))
    css, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(autoescape=True, loader=FileSystemLoader(_PAGE), undefined=StrictUndefined)
    counts = [(state, sum(case.state == state for case in cases)) for state in STATES]
    text = environment.get_template("page.html.j2").render(
        title=title,
        notice=NOT_FOR_CLINICAL_USE,
        version=effvit_med.__version__,
        facts=_facts(cases),
        counts=[(state, count) for state, count in counts if count],
        meanings=MEANINGS,
        inline=inline,
        cases=[_line(case, picture) for case, picture in zip(cases, pictures, strict=True)],
        data=[_entry(case, picture) for case, picture in zip(cases, pictures, strict=True)],
        css=Markup(css),  # noqa: S704 - our own file
        js=Markup(script),  # noqa: S704 - our own file
        css_hash=_hash(css),
        js_hash=_hash(script),
    )
    path = folder / REPORT_FILE
    write_text(path, text)
    return path


def _facts(cases: Sequence[ReportCase]) -> list[tuple[str, str]]:
    """What stands at the head of the page."""
    times = [case.seconds for case in cases if case.seconds is not None]
    done = sum(case.state in ("fail", "review", "not judged", "pass") for case in cases)
    looked = sum(case.state in ("fail", "failed", "refused", "review") for case in cases)
    facts = [("cases", f"{len(cases):,}"), ("segmented", f"{done:,}"), ("to look at", f"{looked:,}")]
    if times:
        facts.append(("time of all cases", _duration(sum(times))))
        facts.append(("median of a case", _duration(statistics.median(times))))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _line(case: ReportCase, picture: str) -> dict[str, Any]:
    names = ("case_id", "state", "codes", "structures_found", "structures_total", "score", "seconds")
    return {name: getattr(case, name) for name in names} | {"picture": bool(picture)}


def _entry(case: ReportCase, picture: str) -> dict[str, Any]:
    """What the script knows of a case."""
    structures = [row["name"] for row in case.structures if row["volume"] is not None or row["verdict"]]
    return {
        "case": case.case_id,
        "state": case.state,
        "rank": case.rank,
        "reasons": len(case.codes),
        "found": case.structures_found if case.structures_total else None,
        "score": case.score,
        "seconds": case.seconds,
        "words": " ".join([case.case_id, case.state, *case.codes, *structures]),
        "message": case.message,
        "trace": case.trace,
        "against": case.against,
        "notes": case.notes,
        "findings": case.findings,
        "structures": case.structures,
        "files": case.files,
        "phases": case.phases,
        "picture": picture,
        "overlay": quote(case.overlay),
    }


def _picture(folder: Path, overlay: str, *, inline: bool) -> str:
    """The address of a small picture of a case: its own bytes, or the path of the large one; empty if there is none."""
    if not overlay:
        return ""
    if not inline:
        return quote(overlay)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(folder / overlay) as large:
                picture = large.convert("RGB")
        small = picture.resize((_PICTURE_PX, max(1, picture.height * _PICTURE_PX // picture.width)), reducing_gap=1.0)
    except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return ""  # a picture that is missing or broken is no reason to have no report
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=_PICTURE_QUALITY, method=0)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _hash(text: str) -> str:
    """A text's name in a Content-Security-Policy, so that the page runs and shows nothing but our own."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
