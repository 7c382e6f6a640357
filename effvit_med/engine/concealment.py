"""Names of files, UIDs and dates become digests where they would stand in logs, records and manifests.

A digest is a pseudonym, not anonymity: who has a list of names can try them all.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from effvit_med.io import DicomSeries
from effvit_med.io.cases import Case

_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){5,}(?!\w)")
_DATE = re.compile(
    r"(?<![0-9A-Za-z.])(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])[0-9T:.+-]*(?![0-9A-Za-z])"
)
_TELLS_APART = re.compile(r"(?<=this is the one of )(.+)(?=\.$)")
_PLAIN_VALUE = re.compile(r"[\w ,.\\-]{0,6}|absent")
_WORD_EDGE = re.compile(r"(?<!\w)(?=\S)|(?<=\S)(?!\w)")
_SHORT_NUMBER = re.compile(r"\d{0,4}")
_WORD = re.compile(r"[a-z]{0,12}|[/\\.]+|CT|MR|PT|DICOM")


def digest(text: str, length: int = 8) -> str:
    """The first hex digits of the SHA-256 of a text.

    Examples:
        >>> digest("a name")
        '36e96c62'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def conceal_uid(uid: str) -> str:
    """A UID as ``uid_`` and a digest; empty stays empty."""
    return f"uid_{digest(uid, 16)}" if uid else ""


def conceal_file(name: str) -> str:
    """A name of a file or folder as ``file_`` and a digest; empty stays empty."""
    return f"file_{digest(name)}" if name else ""


@dataclass(frozen=True)
class Concealment:
    """What hides the names of an input in texts.

    Attributes:
        names: of files and folders.
        uids: of a case.
    """

    names: frozenset[str] = field(default_factory=frozenset)
    uids: frozenset[str] = field(default_factory=frozenset)

    def text(self, text: str) -> str:
        """A text without the names, without UIDs and dates, and without values by which volumes were told apart.

        Numbers of up to four digits stay, even where a file is called so: they are counts more often than names.

        Examples:
            >>> Concealment(frozenset({"DOE JANE 1.dcm"})).text("The file DOE JANE 1.dcm of 20240131 is cut off.")
            'The file file_6b5f149e of (date) is cut off.'
        """
        if text in self.names:
            return conceal_file(text)
        if text in self.uids:
            return conceal_uid(text)
        text = self._without_names(text)
        text = _UID.sub(lambda found: conceal_uid(found.group().rstrip(".")) + "." * found.group().endswith("."), text)
        text = _TELLS_APART.sub(_hide_value, text)
        return _DATE.sub("(date)", text)

    def plain(self, value: Any) -> Any:
        """Plain values for JSON, every text of which goes through `text`, at any depth; keys stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self._under(key, each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(each) for each in value]
        return value

    def _under(self, key: str, value: Any) -> Any:
        """A value of a mapping; our own times stay, UIDs and names of files are hashed whatever they look like."""
        if key == "started":
            return value
        if key == "path" and isinstance(value, str):
            return conceal_file(value)
        return conceal_uid(value) if key.endswith("_uid") and isinstance(value, str) else self.plain(value)

    def names_in(self, texts: Iterable[str]) -> frozenset[str]:
        """The names that `text` would hide in some texts.

        Examples:
            >>> sorted(Concealment(frozenset({"DOE.dcm", "ROE.dcm"})).names_in(["ROE.dcm is cut off."]))
            ['ROE.dcm']
        """
        return frozenset(text[start:end] for text in texts for start, end in self._find_names(text))

    def _without_names(self, text: str) -> str:
        parts: list[str] = []
        done = 0
        for start, end in self._find_names(text):
            parts += [text[done:start], conceal_file(text[start:end])]
            done = end
        return "".join([*parts, text[done:]])

    def _find_names(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a name lies between two edges of words, the longest first; none overlaps another."""
        if not self.names:
            return
        edges = sorted({found.start() for found in _WORD_EDGE.finditer(text)} | {0, len(text)})
        done = 0
        for index, start in enumerate(edges):
            if start < done:
                continue
            last = bisect.bisect_right(edges, start + self._longest)
            for end in reversed(edges[index + 1 : last]):
                name = text[start:end]
                if name in self.names and not _SHORT_NUMBER.fullmatch(name):
                    yield start, end
                    done = end
                    break

    @cached_property
    def _longest(self) -> int:
        """The characters of the longest name."""
        return max(map(len, self.names), default=0)


def conceal_case(case: Case, beside: frozenset[str] = frozenset()) -> Concealment:
    """What hides the names of a case's files and folders, and its UIDs.

    Args:
        case: whose files and UIDs are known.
        beside: names of other files that its findings mention.
    """
    if not isinstance(case, DicomSeries):
        return Concealment(name_parts([case.path]) | beside)
    uids = {case.study_instance_uid, case.series_instance_uid, *case.sop_instance_uids} - {""}
    return Concealment(name_parts(case.files) | beside, frozenset(uids))


def name_parts(paths: Iterable[Path]) -> frozenset[str]:
    """The names of files, with and without their ending, of their folders, and the paths as they are written.

    Of folders, and of files without their ending, a plain short word such as ``scan`` stays readable: our messages
    use it, too. The whole name of a file is always among them.
    """
    paths = frozenset(paths)
    folders = {path.parent for path in paths}
    whole = {path.name for path in paths}
    parts = {part for path in paths for part in (path.name.split(".")[0], path.stem)}
    parts |= {str(path) for path in paths} | {str(folder) for folder in folders}
    parts |= {part for folder in folders for part in folder.parts}
    names = whole | {part for part in parts if not _WORD.fullmatch(part)}
    return frozenset(names | {name.strip() for name in names}) - {""}


def _hide_value(found: re.Match[str]) -> str:
    value = found.group()
    return value if _PLAIN_VALUE.fullmatch(value) and not re.search(r"\d{5,}", value) else f"value_{digest(value)}"
