"""Facts about `effvit_med.io.batch_report`: one page on a whole batch."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import InputError, OutputError
from effvit_med.io import batch_report
from effvit_med.io.batch_report import write_batch_report
from effvit_med.io.report_rows import STATES, read_rows, to_case

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'"


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', self.text, re.DOTALL)
        assert found is not None
        self.data: list[dict[str, Any]] = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag down; the parser calls this."""
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of a name."""
        return [attrs for name, attrs in self.tags if name == tag]


def row(case_id: str, verdict: str | None = "pass", **more: Any) -> dict[str, Any]:
    """A row of the manifest of a segmented case."""
    quality = {
        "verdict": verdict,
        "reasons": [{"code": "WRONG_MODALITY", "message": "The scan is MR."}] if verdict == "fail" else [],
        "structures": [
            {"structure": "liver", "verdict": verdict, "reasons": []},
            {"structure": "spleen", "verdict": None, "reasons": [{"code": "NOT_FOUND", "message": "not found"}]},
        ],
        "out_of_distribution": 1.25,
        "out_of_distribution_reason": "",
    }
    return {
        "case_id": case_id,
        "status": "done",
        "quality": quality,
        "volumes_ml": {"liver": 1234.5, "spleen": None},
        "seconds": {"read": 1.0, "network": 2.5},
        "outputs": {"overlay": f"{case_id}/overlay.png", "record": f"{case_id}/record.json"},
        **more,
    }


def test_the_worst_stand_first(tmp_path: Path) -> None:
    """Failed verdicts, failures, refusals, reviews, and then what passes, whatever the order of the rows."""
    rows = [
        row("e"),
        row("d", "review"),
        {"case_id": "c", "status": "refused", "code": "MISSING_SLICES"},
        {"case_id": "b", "status": "failed", "code": "CRASHED"},
        row("a", "fail"),
        row("f", None),
    ]
    page = Page(write_batch_report(rows, tmp_path))
    assert [each["case"] for each in page.data] == ["a", "b", "c", "d", "f", "e"]
    assert [each["state"] for each in page.data] == ["fail", "failed", "refused", "review", "not judged", "pass"]


def test_a_page_is_made_from_the_manifest(tmp_path: Path) -> None:
    """The path of a manifest gives the same page as its rows."""
    rows = [row("a"), row("b", "review")]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    from_path = write_batch_report(manifest, tmp_path).read_bytes()
    assert from_path == write_batch_report(rows, tmp_path).read_bytes()
    assert read_rows(manifest) == rows


@pytest.mark.parametrize("text", ["{broken", "[1]", '{"case_id": "a"}\n"text"'])
def test_a_broken_manifest_is_an_error_with_its_line(text: str, tmp_path: Path) -> None:
    """The line that is no case is named."""
    (tmp_path / "manifest.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"Line [12] of"):
        write_batch_report(tmp_path / "manifest.jsonl", tmp_path)


def test_a_missing_manifest_or_folder_is_an_error(tmp_path: Path) -> None:
    """No manifest to read and no folder to write into are told by name."""
    with pytest.raises(InputError, match=r"manifest\.jsonl"):
        write_batch_report(tmp_path / "manifest.jsonl", tmp_path)
    with pytest.raises(OutputError, match="nowhere"):
        write_batch_report([row("a")], tmp_path / "nowhere")


def test_text_is_text(tmp_path: Path) -> None:
    """Markup in any field appears as it is and never as markup."""
    evil = {
        "case_id": EVIL,
        "status": "failed",
        "code": EVIL,
        "message": EVIL,
        "findings": [{"code": EVIL, "message": EVIL}],
        "quality": {"reasons": [{"code": EVIL, "message": EVIL}], "structures": [{"structure": EVIL}]},
        "volumes_ml": {EVIL: 1.0},
        "outputs": {EVIL: EVIL},
    }
    page = Page(write_batch_report([evil], tmp_path, title=EVIL))
    assert len(page.all("script")) == 2
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.data[0]["case"] == EVIL
    assert page.data[0]["against"][0] == {"code": EVIL, "message": EVIL}


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    """No tag names another file or address, and the page forbids its browser to load any."""
    page = Page(write_batch_report([row("a")], tmp_path))
    for tag, attrs in page.tags:
        assert not {"src", "href", "srcset", "action"} & set(attrs), tag
    (policy,) = [attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/overlay.png", "javascript:alert(1)", "C:\\data\\a.png", ""])
def test_only_paths_below_the_folder_are_linked(path: str, tmp_path: Path) -> None:
    """An absolute path, one that climbs, or an address is no link."""
    page = Page(write_batch_report([row("a", outputs={"overlay": path, "record": "a/b c#1.json"})], tmp_path))
    assert page.data[0]["files"] == [{"kind": "record", "href": "a/b%20c%231.json"}]
    assert page.data[0]["overlay"] == ""


def test_outputs_with_hashes_lie_in_the_folder_of_their_case() -> None:
    """Where the manifest gives name and hash of a file, the link leads into the case's own folder."""
    case = to_case({"case_id": "CT_1", "outputs": {"overlay": {"file": "overlay.png", "bytes": 1, "sha256": "ab"}}})
    assert case.overlay == "CT_1/overlay.png"
    assert case.files == ({"kind": "overlay", "href": "CT_1/overlay.png"},)
    assert to_case({"case_id": "..", "outputs": {"overlay": {"file": "overlay.png"}}}).overlay == ""


def test_small_pictures_lie_in_the_page(tmp_path: Path) -> None:
    """An overlay becomes a small picture of a few kB inside the page."""
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (990, 1400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a" / "overlay.png")
    picture = Page(write_batch_report([row("a")], tmp_path)).data[0]["picture"]
    assert picture.startswith("data:image/webp;base64,")
    assert len(picture) < 40_000


def test_many_pictures_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of cases the page names the pictures instead of holding them."""
    monkeypatch.setattr(batch_report, "MOST_PICTURES", 1)
    page = Page(write_batch_report([row("a"), row("b")], tmp_path))
    assert [each["picture"] for each in page.data] == ["a/overlay.png", "b/overlay.png"]


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_broken_picture_is_left_out(content: bytes | None, tmp_path: Path) -> None:
    """A picture that is not there or not whole leaves its place empty and the report standing."""
    (tmp_path / "a").mkdir()
    if content is not None:
        (tmp_path / "a" / "overlay.png").write_bytes(content)
    page = Page(write_batch_report([row("a")], tmp_path))
    assert page.data[0]["picture"] == ""


@pytest.mark.parametrize(
    "lacking", [{}, {"case_id": None, "status": None, "quality": None}, {"seconds": "3", "volumes_ml": [1]}]
)
def test_what_a_row_lacks_is_left_out(lacking: dict[str, Any], tmp_path: Path) -> None:
    """A row without most of its fields is a case all the same."""
    page = Page(write_batch_report([lacking], tmp_path))
    assert page.data[0]["state"] == "pending"
    assert page.data[0]["seconds"] is None
    assert page.data[0]["structures"] == []


def test_no_case_gives_an_empty_page(tmp_path: Path) -> None:
    """A batch without cases is a page that says so."""
    assert Page(write_batch_report([], tmp_path)).data == []


def test_what_was_not_judged_is_no_reproach() -> None:
    """That a rule had nothing to go by stands apart from what speaks against a result."""
    quality = {
        "verdict": "review",
        "reasons": [],
        "structures": [
            {
                "structure": "liver",
                "verdict": "review",
                "reasons": [
                    {"code": "TOUCHES_EDGE", "message": "touches"},
                    {"code": "CONFIDENCE_NOT_JUDGED", "message": "not judged"},
                ],
            }
        ],
        "out_of_distribution": None,
        "out_of_distribution_reason": "no reference",
    }
    case = to_case(row("a", quality=quality))
    assert case.codes == ["TOUCHES_EDGE"]
    assert case.notes == ("Intensities: no reference.", "not judged")


def test_findings_may_be_codes_or_sentences() -> None:
    """A list of codes, of mappings, or the text of a table gives the same codes."""
    for findings in (["A", "B"], [{"code": "A", "message": "x"}, {"code": "B"}], "A;B", "A B"):
        assert to_case(row("a", findings=findings)).codes == ["A", "B"]


def test_a_code_is_not_said_twice() -> None:
    """A message that begins with its code, and a finding that the verdict names as well, stand once."""
    refused = to_case({"status": "refused", "code": "NO_GEOMETRY", "message": "NO_GEOMETRY: No position."})
    assert refused.against == ({"code": "NO_GEOMETRY", "message": "No position."},)
    assert refused.message == ""
    assert to_case(row("a", "fail", findings=["WRONG_MODALITY", "PADDING"])).codes == ["WRONG_MODALITY", "PADDING"]
    assert to_case(row("a", "fail", findings=["WRONG_MODALITY"])).findings == ()


def test_every_state_has_a_meaning() -> None:
    """Whoever hovers over a state is told what it means."""
    assert set(batch_report.MEANINGS) == set(STATES)


def test_the_notice_stands_on_the_page(tmp_path: Path) -> None:
    """The page says that it is not for clinical use."""
    assert "Not for clinical use" in write_batch_report([row("a")], tmp_path).read_text(encoding="utf-8")
