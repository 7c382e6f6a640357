"""Which segmentation belongs to which reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effvit_med.engine.head import read_nnunet_labels
from effvit_med.engine.results import OUTPUT_FILES
from effvit_med.errors import InputError, SettingsError
from effvit_med.evaluation.alignment import place_on
from effvit_med.evaluation.overlapping import Maps, read_overlapping
from effvit_med.io.label_files import has_table, is_label_file, label_stem, read_labels
from effvit_med.io.photographs import is_photograph_name
from effvit_med.volume import Label, LabelTable, Segmentation
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

OUR_NAMES = tuple(OUTPUT_FILES[kind] for kind in ("nifti", "nrrd", "dicom-seg", "png"))
"""What ``effvit-med segment`` calls the label map in the folder of a case, in the order they are looked for."""

_COLOURS = ((230, 97, 1), (94, 60, 153), (0, 136, 55), (33, 102, 172), (178, 24, 43), (127, 188, 65))


@dataclass(frozen=True)
class Pair:
    """The files of one case.

    Attributes:
        case_id: the name they share.
        reference: the truth; of structures that overlap perhaps a map a structure.
        found: what is scored; None if there is none.
        image: the scan; None if it is not known.
    """

    case_id: str
    reference: Maps
    found: Path | None
    image: Path | None = None


@dataclass(frozen=True)
class References:
    """What there is to score against.

    Attributes:
        labels: path of the label map of each case, by the case's name; of structures that overlap perhaps the paths of
            several, by structure.
        images: path of the scan of each case, where known.
        table: what the values mean; None where each file tells itself, or none does.
        ignore: the value that marks what nothing is said about, where the data set names one.
        annotated: the names of what was annotated, of each case in which that was not everything.
        overlaps: whether cases have a map a structure, so that a voxel may belong to several.
    """

    labels: dict[str, Maps]
    images: dict[str, Path]
    table: LabelTable | None
    ignore: int | None = None
    annotated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    overlaps: bool = False

    def with_images(self, folder: Path | None) -> References:
        """The same with the scans of a folder, of the names of the cases; the same where none is given.

        Args:
            folder: of NIfTI, NRRD or MetaImage files, of photographs, or of one DICOM folder per case.

        Raises:
            InputError: if it is no folder, or holds nothing of the name of a case.
        """
        if folder is None:
            return self
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; give the one with the scans.")
        names = {_stem_of_image(path): path for path in sorted(folder.iterdir())}
        found = {case: names[plain] for case in self.labels for plain in (case, f"{case}_0000") if plain in names}
        if not found:
            raise InputError(f"Nothing in {folder} has the name of a case ({', '.join(sorted(self.labels)[:3])}, ...).")
        return replace(self, images={**self.images, **found})


def _stem_of_image(path: Path) -> str:
    if path.is_dir():
        return path.name
    return path.stem if is_photograph_name(path) else label_stem(path)


def find_references(place: Path, part: str = "", suffix: str = "") -> References:
    """The references in a folder, or in the list of a data set.

    Args:
        place: a folder of label maps, or a ``dataset.json`` in the manner of the Medical Segmentation Decathlon. What
            it calls ``ignore`` among its labels is ignored, and a case that names what was ``annotated`` counts for
            that alone. A case whose ``label`` is a mapping of structures to files has structures that may overlap.
            One of them that has no map is not there if it was annotated.
        part: which list of a ``dataset.json``: ``training``, ``validation`` or another of its lists; where left out,
            ``validation`` if there is one, else ``training``.
        suffix: what the names of label maps have behind the name of the case, such as ``_1stHO`` of
            ``Image_01L_1stHO.png``; files of a folder without it are not looked at.

    Raises:
        InputError: if there is none, the list is damaged, two files of a folder have one name, or a case neither has a
            map of a structure nor says what was annotated.
        SettingsError: if the list has no such part, a part is asked of a folder, or a suffix of a list.
    """
    if place.is_dir():
        if part:
            raise SettingsError(f"{place} is a folder and has no part {part!r}; give its dataset.json, or no part.")
        named = _by_stem(path for path in _list_maps(place) if label_stem(path).endswith(suffix))
        labels: dict[str, Maps] = {name.removesuffix(suffix): path for name, path in named.items()}
        if not labels:
            behind = f" whose names end in {suffix}" if suffix else ""
            raise InputError(f"{place} holds no label maps (NIfTI, NRRD, MetaImage, DICOM SEG, PNG, TIFF){behind}.")
        return References(labels, {}, None)
    if suffix:
        raise SettingsError(f"{place} is a list, which names its files itself; leave out the suffix {suffix!r}.")
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{place} is neither a folder nor a readable dataset.json: {why}.") from error
    try:
        return _read_list(place, document, part)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{place} is no dataset.json of the Decathlon's kind: {error!r}.") from error


def _read_list(place: Path, document: Any, part: str) -> References:
    parts = {name: rows for name, rows in document.items() if isinstance(rows, list) and name != "test"}
    labelled = {name: rows for name, rows in parts.items() if rows and isinstance(rows[0], dict) and "label" in rows[0]}
    chosen = part or ("validation" if "validation" in labelled else "training")
    if chosen not in labelled:
        raise SettingsError(f"{place} has no labelled part {chosen!r}; it has {', '.join(labelled) or 'none'}.")
    rows = labelled[chosen]
    overlaps = any(isinstance(row["label"], dict) for row in rows)
    names = [label_stem(Path(row["image"] if overlaps else row["label"])) for row in rows]
    labels = {name: _below(place.parent, row["label"]) for name, row in zip(names, rows, strict=True)}
    images = {name: place.parent / row["image"] for name, row in zip(names, rows, strict=True) if "image" in row}
    if len(labels) < len(rows):
        raise InputError(f"{place} lists two cases of one name in {chosen}; names must differ.")
    annotated = {name: tuple(row["annotated"]) for name, row in zip(names, rows, strict=True) if "annotated" in row}
    written, ignore = _read_labels(document)
    for name, row in zip(names, rows, strict=True):
        missing = set(written.values()) - set(row["label"]) if isinstance(row["label"], dict) else set()
        if missing and name not in annotated:
            raise InputError(
                f"{place}: {name} has no map of {sorted(missing)} and does not say what was `annotated`, so nobody "
                "knows whether it is there."
            )
    rows_of_table = tuple(
        Label(value, name, ANATOMICAL_STRUCTURE, colour=_COLOURS[number % len(_COLOURS)])
        for number, (value, name) in enumerate(sorted(written.items()))
    )
    table = LabelTable(rows_of_table) if rows_of_table else None
    return References(labels, images, table, ignore, annotated, overlaps)


def _below(folder: Path, label: Any) -> Maps:
    return {str(name): folder / path for name, path in label.items()} if isinstance(label, dict) else folder / label


def _read_labels(document: Mapping[str, Any]) -> tuple[dict[int, str], int | None]:
    """Names by value, of the Decathlon (value to name) or nnU-Net (name to value), and the value to ignore."""
    labels: Mapping[str, Any] = document.get("labels", {})
    if labels and not all(str(key).isdecimal() for key in labels):
        names, _, ignore = read_nnunet_labels(labels, document.get("regions_class_order"))
        return names, ignore
    names = {int(value): str(name) for value, name in labels.items() if int(value) > 0}
    ignore = document.get("ignore", next((value for value, name in names.items() if name == "ignore"), None))
    return {value: name for value, name in names.items() if value != ignore}, None if ignore is None else int(ignore)


def find_pairs(references: References, found: Path) -> list[Pair]:
    """Each reference with the segmentation of its name.

    Args:
        references: the truth.
        found: a folder with one label map per case (``CASE.nii.gz``), or one folder per case as
            ``effvit-med segment`` makes them.

    Returns:
        One pair per reference, in the order of the names; ``found`` is None where there is nothing of its name.

    Raises:
        InputError: if nothing in the folder has the name of any reference, or two files have one name.
    """
    if not found.is_dir():
        raise InputError(f"{found} is no folder; give one with a label map for each case.")
    flat = _by_stem(_list_maps(found))
    nested = {path.name: best for path in sorted(found.iterdir()) if path.is_dir() for best in _best_of(path)}
    twice = sorted(set(flat) & set(nested))
    if twice:
        raise InputError(f"{found} has both a file and a folder of results of {twice[0]}; leave one of them.")
    ours = flat | nested
    pairs = [
        Pair(name, path, ours.get(name), references.images.get(name))
        for name, path in sorted(references.labels.items())
    ]
    if not any(pair.found for pair in pairs):
        raise InputError(
            f"Nothing in {found} has the name of a reference ({', '.join(sorted(references.labels)[:3])}, ...); it has "
            f"{', '.join(sorted(ours)[:3]) or 'no label maps'}."
        )
    return pairs


def read_pair(
    pair: Pair, table: LabelTable | None = None, ignore: Sequence[int] = (), *, overlaps: bool = False
) -> tuple[Segmentation, Segmentation]:
    """Reference and segmentation of a case, with one label table.

    Args:
        pair: with both files.
        table: what the values mean; None for what the reference says, else what the segmentation says, else plain
            names of the values that one of the two has.
        ignore: values that mark what nothing is said about; the table need not have them. Of structures that overlap
            none.
        overlaps: whether a value may be the sum of those of structures that overlap.

    Raises:
        GeometryError: if the two do not share their voxels; only axes in another order and slices that a DICOM SEG
            leaves out as empty are made good.
        InputError: if a file cannot be read, holds values that are not in the table, or there is no segmentation; or
            as of `read_overlapping`.
        RefusedError: as of the reader of its format.
    """
    if pair.found is None:
        raise InputError(f"There is no segmentation of {pair.case_id}.")
    if overlaps or not isinstance(pair.reference, Path):
        if ignore:
            raise InputError("Where structures overlap every value is a sum of theirs, so none can be ignored.")
        return read_overlapping(pair.reference, pair.found, table)
    table = table or _agree_on_table(pair.reference, pair.found)
    known = {label.value for label in table}
    unnamed = [Label(value, f"ignored {value}", ANATOMICAL_STRUCTURE) for value in ignore if value not in known]
    table = LabelTable((*table, *unnamed))
    reference, found = read_labels(pair.reference, table), read_labels(pair.found, table)
    return reference, place_on(found, reference.geometry, sparse=pair.found.name.lower().endswith(".dcm"))


def _agree_on_table(reference: Path, found: Path) -> LabelTable:
    """Of two files, the table of the first that has one, else plain names of the values of both."""
    for path in (reference, found):
        if has_table(path):
            return read_labels(path).table
    tables = read_labels(reference).table, read_labels(found).table
    return LabelTable(tuple({label.value: label for table in tables for label in table}.values()))


def _best_of(folder: Path) -> Iterator[Path]:
    """The label map of a case's folder, if it has one."""
    yield from [path for path in (folder / name for name in OUR_NAMES) if path.is_file()][:1]


def _list_maps(folder: Path) -> list[Path]:
    """The label maps of a folder; pictures are some only where nothing else is: beside volumes they are previews."""
    maps = [path for path in sorted(folder.iterdir()) if path.is_file() and is_label_file(path)]
    return [path for path in maps if not is_photograph_name(path)] or maps


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        name = label_stem(path)
        if name in found:
            raise InputError(f"{found[name].name} and {path.name} in {path.parent} have one name; leave one of them.")
        found[name] = path
    return found
