"""The bundles that come with effvit-med, by name: what there is, whether it is whole, what its card says.

The default bundle lies at the root of the checkout (or of the package data of a wheel), the others in ``bundles/NAME``
there. Nothing here needs the network, nor torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import effvit_med
from effvit_med.errors import InputError

MODEL_FILE = Path("configs") / "model.yaml"
PROMPT_FILE = Path("configs") / "prompt.yaml"
METADATA_FILE = Path("configs") / "metadata.json"
SUMS_FILE = "SHA256SUMS"
SHELF = "bundles"
DEFAULT_BUNDLE = "abdomen-phantom"

_CONTRACT = "contract.json"  # of an exported model
_CARDS = (Path("docs") / "README.md", Path("docs") / "bundle_card.md")  # the second: of the checkout's root


@dataclass(frozen=True)
class Shipped:
    """A bundle on the shelf.

    Attributes:
        name: what ``--bundle`` calls it.
        folder: where it lies.
        version: of its ``model.yaml``; empty if that cannot be read.
        description: one sentence of it.
        modalities: what it was trained on.
        structures: what it segments.
        spatial_dims: 2 or 3; 0 if it cannot be read.
        photographs: whether it is made for photographs.
        prompts: whether it segments what prompts point at, and knows no structures of its own.
        problem: why it cannot be used; empty if it can.
    """

    name: str
    folder: Path
    version: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    spatial_dims: int = 0
    photographs: bool = False
    prompts: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Verified:
    """Whether the files of a bundle are those that were shipped.

    Attributes:
        name: of the bundle.
        checked: how many files have the bytes that the list says.
        problems: what is wrong, one sentence for each file; empty if all is well.
    """

    name: str
    checked: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """What is known of a bundle.

    Attributes:
        shipped: where it lies and what it segments.
        text: its card, in Markdown; empty if there is none.
        metadata: the plain values of its ``metadata.json``; empty if there is none.
    """

    shipped: Shipped
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def shipped_bundle() -> Path:
    """The folder of the default bundle: package data of a wheel, or the checkout itself."""
    package = Path(effvit_med.__file__).parent
    inside = package / "_bundle"
    return inside if inside.is_dir() else package.parent


def shipped_folders() -> dict[str, Path]:
    """The folder of each bundle on the shelf by its name, the default one first.

    Examples:
        >>> next(iter(shipped_folders()))
        'abdomen-phantom'
    """
    root = shipped_bundle()
    shelf = root / SHELF
    others = sorted(shelf.iterdir()) if shelf.is_dir() else []
    return {DEFAULT_BUNDLE: root, **{each.name: each for each in others if is_bundle(each)}}


def is_bundle(folder: Path) -> bool:
    """Whether a folder holds a model that knows structures, or networks that are prompted.

    Args:
        folder: any.
    """
    return (folder / MODEL_FILE).is_file() or (folder / PROMPT_FILE).is_file()


def find_bundle(bundle: Path | str | None = None) -> Path:
    """The folder of a bundle: a path stands for itself, a plain name for a bundle of the shelf.

    Args:
        bundle: a folder, or the name of a bundle of the shelf; None for the default one. A word is a name, unless
            there is a folder or file of that path and no bundle of that name.

    Raises:
        SettingsError: if it is a plain word that is neither the name of a bundle nor a path.

    Examples:
        >>> find_bundle("abdomen-phantom") == find_bundle()
        True
        >>> find_bundle("abdomen")
        Traceback (most recent call last):
        ...
        effvit_med.errors.SettingsError: There is no bundle or folder 'abdomen'; the nearest are abdomen-phantom...
    """
    if bundle is None:
        return shipped_bundle()
    folders = shipped_folders()
    name = str(bundle)
    if name in folders:
        return folders[name]
    path = Path(bundle)
    if path.exists() or len(path.parts) != 1 or path.is_absolute():
        return path
    from effvit_med.networks.presets import refuse_unknown  # here, since it takes torch along

    raise refuse_unknown("bundle or folder", name, folders)


def read_colour_weights(bundle: Path | str | None = None) -> tuple[float, float, float] | None:
    """The colour weights of a bundle or an exported model, without loading what runs it.

    Args:
        bundle: as of `find_bundle`.

    Returns:
        Shares of red, green and blue, or None where it is not made for photographs or cannot be read, which is told
        where its model is opened.

    Raises:
        SettingsError: if no bundle has the name.
    """
    folder = find_bundle(bundle)
    try:
        if (folder / MODEL_FILE).is_file():
            weights = yaml.safe_load((folder / MODEL_FILE).read_text(encoding="utf-8")).get("colour_weights")
        else:
            weights = json.loads((folder / _CONTRACT).read_text(encoding="utf-8"))["model"].get("colour_weights")
        red, green, blue = weights
        return float(red), float(green), float(blue)
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        return None


def list_bundles() -> tuple[Shipped, ...]:
    """Every bundle on the shelf, the default one first; what is wrong with one is said in it."""
    return tuple(_describe(name, folder) for name, folder in shipped_folders().items())


def verify_bundle(name: str | Path) -> Verified:
    """Compare the files of a bundle with its ``SHA256SUMS``.

    Args:
        name: of a bundle of the shelf, or a folder.

    Returns:
        What is wrong: a file that is missing or has other bytes, and weights or configs that the list does not have.

    Raises:
        SettingsError: if there is no such bundle.
        InputError: if it has no list, or the list is no list of sums.
    """
    folder = find_bundle(name)
    sums = _read_sums(folder)
    problems = []
    for file, digest in sums.items():
        try:
            found = _digest(folder / file)
        except OSError as error:
            problems.append(f"{file} cannot be read: {error.strerror}.")
            continue
        if found != digest:
            problems.append(f"{file} has the SHA-256 {found}, {SUMS_FILE} says {digest}.")
    checked = len(sums) - len(problems)
    problems += [f"{file} is not in {SUMS_FILE}." for file in _decisive_files(folder) if file not in sums]
    return Verified(str(name), checked, tuple(problems))


def write_sums(folder: Path) -> Path:
    """Write the ``SHA256SUMS`` of a bundle: of its weights, configs, card and licence.

    Args:
        folder: the bundle.

    Returns:
        The file.

    Raises:
        OutputError: if it cannot be written.
        InputError: if a file cannot be read.
    """
    from effvit_med.io.atomic import write_text

    extra = [name for name in ("LICENSE", "docs/README.md", "plan.json", "plan.md") if (folder / name).is_file()]
    try:
        lines = [f"{_digest(folder / name)}  {name}\n" for name in sorted([*_decisive_files(folder), *extra])]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.") from error
    write_text(folder / SUMS_FILE, "".join(lines))
    return folder / SUMS_FILE


def read_card(name: str | Path) -> Card:
    """What is known of a bundle: its card and its metadata.

    Args:
        name: of a bundle of the shelf, or a folder.

    Raises:
        SettingsError: if there is no such bundle.
        InputError: if it is no bundle.
    """
    folder = find_bundle(name)
    if not is_bundle(folder):
        raise InputError(f"{folder} is no effvit-med bundle: it has no {MODEL_FILE}.")
    card = next((folder / each for each in _CARDS if (folder / each).is_file()), None)
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metadata = {}
    text = card.read_text(encoding="utf-8") if card else ""
    known = {path: name for name, path in shipped_folders().items()}
    return Card(_describe(known.get(folder, folder.name), folder), text, metadata if isinstance(metadata, dict) else {})


def _describe(name: str, folder: Path) -> Shipped:
    if not (folder / MODEL_FILE).is_file():
        return _describe_prompted(name, folder)
    try:
        content = yaml.safe_load((folder / MODEL_FILE).read_text(encoding="utf-8"))
        weights = [content["weights"]] if isinstance(content["weights"], str) else list(content["weights"])
        missing = [each for each in weights if not (folder / each).is_file()]
        return Shipped(
            name=name,
            folder=folder,
            version=str(content["version"]),
            description=str(content.get("description", "")),
            modalities=tuple(str(each) for each in content.get("modalities") or ()),
            structures=tuple(str(label["name"]) for label in content["labels"]),
            spatial_dims=int(content["network"]["spatial_dims"]),
            photographs=content.get("colour_weights") is not None,
            problem=f"The weights {missing[0]} are not there." if missing else "",
        )
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        return Shipped(name, folder, problem=f"{MODEL_FILE} cannot be understood: {why}.")


def _describe_prompted(name: str, folder: Path) -> Shipped:
    try:
        content = yaml.safe_load((folder / PROMPT_FILE).read_text(encoding="utf-8"))
        parts = {dims: content.get(key) for key, dims in (("slices", 2), ("blocks", 3)) if content.get(key)}
        missing = [part["weights"] for part in parts.values() if not (folder / part["weights"]).is_file()]
        return Shipped(
            name=name,
            folder=folder,
            version=str(content["version"]),
            description=str(content.get("description", "")),
            spatial_dims=max(parts),
            prompts=True,
            problem=f"The weights {missing[0]} are not there." if missing else "",
        )
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        return Shipped(name, folder, prompts=True, problem=f"{PROMPT_FILE} cannot be understood: {why}.")


def _decisive_files(folder: Path) -> list[str]:
    """The weights and the configs, as paths from the folder."""
    found = [path for part in ("configs", "models") for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found if not path.name.startswith(".")]


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{folder} has no {SUMS_FILE} that can be read, so it cannot be verified ({error})."
        ) from error
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.partition("  ")
        inside = name and not Path(name).is_absolute() and ".." not in Path(name).parts
        if len(digest) != 64 or not inside:
            raise InputError(f"{path}: line {number} is no SHA-256 with the path of a file of the bundle.")
        sums[name] = digest.lower()
    if not sums:
        raise InputError(f"{path} is empty, so the bundle cannot be verified.")
    return sums


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
