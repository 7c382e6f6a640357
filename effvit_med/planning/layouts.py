"""The layouts in which data sets to train on come: the Decathlon's, nnU-Net's, and two folders."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effvit_med.engine.head import read_nnunet_labels
from effvit_med.errors import InputError, SettingsError
from effvit_med.io.label_files import image_stem, is_image_file
from effvit_med.planning.training_set import TrainingCase, TrainingSet, make_table, order_cases, structure_name
from effvit_med.volume import Finding

_CHANNEL = re.compile(r"_\d{4}$")
_IMAGES = ("imagesTr", "images", "image", "imgs")
_LABELS = ("labelsTr", "labels", "label", "masks", "mask", "segmentations")


def find_training_set(place: Path, channel: int = 0, labels: str = "") -> TrainingSet:
    """The cases of a data set; no pixels are read.

    Args:
        place: a ``dataset.json`` of the Medical Segmentation Decathlon or of nnU-Net, a folder with one, or a folder
            with ``images`` and ``labels`` (``imagesTr`` and ``labelsTr``) whose files have the same names, or whose
            label maps have the name of their image and more behind it.
        channel: of several channels of a case, the one to learn from, counted from 0.
        labels: the folder of the labels, where it has another name: in ``place`` or anywhere.

    Raises:
        InputError: if it is no such data set, or files that it names are not there.
        SettingsError: if there is no such channel.
    """
    listed = place if place.is_file() else place / "dataset.json"
    if not listed.is_file() or labels:
        return _read_folders(place, labels)
    try:
        document = json.loads(listed.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{listed} is no readable JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{listed} holds no data set: expected names and values, found {type(document).__name__}.")
    is_nnunet = "channel_names" in document or "file_ending" in document
    try:
        return _read_nnunet(listed, document, channel) if is_nnunet else _read_decathlon(listed, document)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise InputError(f"{listed} is no dataset.json of the Decathlon's or of nnU-Net's kind: {error!r}.") from error


def _read_decathlon(listed: Path, document: Mapping[str, Any]) -> TrainingSet:
    folder = listed.parent
    cases, held = [], set()
    names = {int(value): str(name) for value, name in (document.get("labels") or {}).items()}
    for part in ("training", "validation"):
        for row in document.get(part) or []:
            if not isinstance(row, Mapping) or "label" not in row:
                continue  # the Decathlon's test images have no labels
            image = folder / row["image"]
            name = str(
                row.get("case") or row.get("name") or _name_of(row["image"], [r["image"] for r in document[part]])
            )
            looked_for = _read_annotated(row["annotated"], names) if "annotated" in row else None
            cases.append(TrainingCase(name, image, folder / row["label"], str(row.get("group", name)), looked_for))
            if part == "validation":
                held.add(name)
    modalities = list((document.get("modality") or document.get("channel_names") or {}).values())
    ignore = document.get("ignore")
    return TrainingSet(
        name=str(document.get("name") or folder.resolve().name),
        layout="decathlon",
        cases=order_cases(cases, listed),
        table=make_table({value: name for value, name in names.items() if value != ignore}),
        ignore=None if ignore is None else int(ignore),
        modality=_modality(modalities),
        given_split=frozenset(held),
        licence=str(document.get("licence") or document.get("license") or ""),
        reference=str(document.get("reference") or ""),
        findings=_note_channels(listed, len(modalities), 0),
    )


def _read_annotated(entries: Sequence[object], names: Mapping[int, str]) -> tuple[str, ...]:
    """The names of the structures that were looked for, which a list gives by name or by label value."""
    return tuple(structure_name(names[each] if isinstance(each, int) else str(each)) for each in entries)


def _name_of(image: str, all_images: Sequence[str]) -> str:
    """A case's name: that of its file, with its folder where files of several folders have one name."""
    stem = image_stem(Path(image))
    alike = sum(image_stem(Path(other)) == stem for other in all_images)
    return stem if alike == 1 else f"{Path(image).parent.name}_{stem}"


def _read_nnunet(listed: Path, document: Mapping[str, Any], channel: int) -> TrainingSet:
    folder, ending = listed.parent, str(document["file_ending"])
    channels = {int(key): str(name) for key, name in document["channel_names"].items()}
    if channel not in channels:
        told = ", ".join(f"{number} ({name})" for number, name in channels.items())
        raise SettingsError(f"The channel is {channel}; {listed} has {told}.")
    cases = []
    if "dataset" in document:
        for name, row in document["dataset"].items():
            cases.append(TrainingCase(name, folder / row["images"][channel], folder / row["label"], name))
    else:
        for label in sorted((folder / "labelsTr").glob(f"*{ending}")):
            name = label.name.removesuffix(ending)
            cases.append(TrainingCase(name, folder / "imagesTr" / f"{name}_{channel:04d}{ending}", label, name))
    try:
        names, head, ignore = read_nnunet_labels(document["labels"], document.get("regions_class_order"))
    except SettingsError as error:
        raise InputError(f"{listed}: {error}") from error
    return TrainingSet(
        name=str(document.get("name") or folder.resolve().name),
        layout="nnU-Net",
        cases=order_cases(cases, listed),
        table=make_table(names),
        head=head,
        ignore=ignore,
        modality=_modality([channels[channel]]),
        licence=str(document.get("licence") or document.get("license") or ""),
        reference=str(document.get("reference") or ""),
        findings=_note_channels(listed, len(channels), channel),
    )


def _note_channels(listed: Path, count: int, channel: int) -> tuple[Finding, ...]:
    if count < 2:
        return ()
    text = f"{listed.name} names {count} channels a case; only channel {channel} is learnt from."
    return (Finding("MANY_CHANNELS", text),)


def _read_folders(place: Path, labels: str) -> TrainingSet:
    if not place.is_dir():
        raise InputError(f"{place} is neither a folder nor a dataset.json.")
    images = next((place / name for name in _IMAGES if (place / name).is_dir()), None)
    named = [Path(labels), place / labels] if labels else [place / name for name in _LABELS]
    maps = next((folder for folder in named if folder.is_dir()), None)
    if images is None or maps is None:
        inside = sorted(entry.name for entry in place.iterdir() if entry.is_dir())[:8]
        raise InputError(
            f"{place} has no dataset.json and no folders images and labels (or imagesTr and labelsTr); in it are "
            f"{', '.join(inside) or 'no folders'}. A folder of labels of another name is named with --labels."
        )
    pairs, findings = _pair_up(images, maps)
    cases = [TrainingCase(name, image, label, name) for name, (image, label) in pairs.items()]
    return TrainingSet(place.resolve().name, "folders", order_cases(cases, place), findings=findings)


def _pair_up(images: Path, maps: Path) -> tuple[dict[str, tuple[Path, Path]], tuple[Finding, ...]]:
    """Images with their label maps: of one name, or the label map's name begins with the image's."""
    found = {_CHANNEL.sub("", image_stem(path)): path for path in _files(images)}
    labels = {image_stem(path): path for path in _files(maps)}
    pairs = {name: (image, labels[name]) for name, image in found.items() if name in labels}
    if not pairs:
        starting = {name: [each for each in labels if each.startswith(name)] for name in found}
        several = {name: each for name, each in starting.items() if len(each) > 1}
        if several:
            name, each = next(iter(several.items()))
            raise InputError(
                f"Several files of {maps} belong to {name}: {', '.join(sorted(each))}. Leave one for each image, or "
                "list the pairs in a dataset.json."
            )
        pairs = {name: (found[name], labels[each[0]]) for name, each in starting.items() if each}
    if not pairs:
        raise InputError(f"No file in {maps} has the name of one in {images}; name label maps as their images.")
    used = {label for _, label in pairs.values()}
    alone = sorted([n for n in found if n not in pairs] + [n for n, path in labels.items() if path not in used])
    text = f"{len(alone)} files have no partner and are left out: {', '.join(alone[:5])}{', ...' * (len(alone) > 5)}"
    return pairs, (Finding("NO_PARTNER", text),) if alone else ()


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and is_image_file(path))


def _modality(names: Sequence[object]) -> str:
    """The DICOM word for what a data set calls its channel; empty where it cannot be told."""
    words = " ".join(map(str, names[:1])).upper()
    if re.search(r"\bCT\b", words):
        return "CT"
    return "MR" if re.search(r"\bMRI?\b|\bT1|\bT2|FLAIR|\bADC\b", words) else ""
