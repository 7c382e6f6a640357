"""What the panel knows, as plain values: neither Qt nor napari."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from effvit_med.engine.shelf import SHELF, find_bundle, shipped_bundle
from effvit_med.errors import InputError, SettingsError
from effvit_med.volume import LabelTable

if TYPE_CHECKING:
    from effvit_med.io.inspection import Entry, VolumeEntry

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class ScanRow:
    """One line of the list of scans.

    Attributes:
        case_id: as of `effvit_med.io.cases.DicomSeries`; empty where nothing can be read.
        title: modality, size and spacing.
        status: ``read``, ``findings`` or ``refused``.
        details: what the user should know, with what can be done about it; may have several lines.
    """

    case_id: str
    title: str
    status: str
    details: str

    @property
    def can_open(self) -> bool:
        """Whether there is a volume to open."""
        return self.status != "refused"


def rows_of(entries: Sequence[Entry]) -> tuple[ScanRow, ...]:
    """The lines of the list; what can be opened comes first.

    Args:
        entries: of an input, as `effvit_med.io.inspection.inspect_input` gives them.
    """
    rows = [_row(entry, volume) for entry in entries for volume in entry.volumes]
    return tuple(sorted(rows, key=lambda row: not row.can_open))


def _row(entry: Entry, volume: VolumeEntry) -> ScanRow:
    messages = [finding.message for finding in volume.findings]
    details = "\n".join([*messages, *([volume.remedy] if volume.remedy else [])])
    grid = volume.geometry
    if grid is None:
        return ScanRow(volume.case_id, f"{entry.modality or entry.kind} {entry.name}".strip(), volume.status, details)
    size = " × ".join(str(size) for size in grid.shape)
    spacing = " × ".join(f"{step:.3g}" for step in grid.spacing_mm)
    title = f"{volume.case_id or entry.name}: {size} voxels of {spacing} mm"
    return ScanRow(volume.case_id, title, volume.status, details)


@dataclass(frozen=True)
class ModelCard:
    """What a bundle says of its model, read without loading what runs it.

    Attributes:
        folder: of the bundle; None for the one that comes with effvit-med.
        name: of the model.
        version: of the model.
        description: one sentence.
        modalities: DICOM Modality values it was trained on; empty if it does not matter.
        structures: names of what it finds.
        has_weights: whether its weights are on the disk.
    """

    folder: Path | None
    name: str
    version: str
    description: str
    modalities: tuple[str, ...]
    structures: tuple[str, ...]
    has_weights: bool

    @property
    def summary(self) -> str:
        """A few lines for the user."""
        lines = [self.description, f"Finds {', '.join(self.structures)}."]
        if not self.has_weights:
            lines.append("Its weights are not on this machine.")
        return "\n".join(line for line in lines if line)

    def doubt(self, modality: str) -> str:
        """Why the model may be wrong for a scan of a modality; empty if nothing speaks against it."""
        if not modality or not self.modalities or modality in self.modalities:
            return ""
        return f"The model was trained on {', '.join(self.modalities)}, not on {modality}: its result may be nonsense."


def shelf_folder() -> str:
    """Where the bundles lie that come with effvit-med beside the default one; empty if there are none."""
    folder = shipped_bundle() / SHELF
    return str(folder) if folder.is_dir() else ""


def read_card(folder: Path | None = None) -> ModelCard:
    """What a bundle says of its model.

    Args:
        folder: of the bundle, or the name of one that comes with effvit-med; None for the default one.

    Raises:
        InputError: if the folder is no bundle.
        SettingsError: if there is neither a folder nor a bundle of that name.
    """
    place = find_bundle(folder)
    path = place / "configs" / "model.yaml"
    try:
        content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        table = LabelTable.from_dicts(content["labels"])
        named = content["weights"]
        weights = [named] if isinstance(named, str) else list(named)
        return ModelCard(
            folder=folder,
            name=str(content["name"]),
            version=str(content["version"]),
            description=str(content.get("description", "")),
            modalities=tuple(str(each) for each in content.get("modalities", ())),
            structures=tuple(label.name for label in table),
            has_weights=all((place / each).is_file() for each in weights),
        )
    except OSError as error:
        raise InputError(f"{place} is no bundle: {path.name} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, SettingsError) as error:
        raise InputError(f"{path} is no model file: {' '.join(str(error).split())[:200]}") from error


class Countdown:
    """How many seconds are left, from the windows that are done.

    The first report of the network's phase starts the clock, so that loading the model does not count.

    Examples:
        >>> countdown = Countdown()
        >>> countdown.update("network", 0, 10, 100.0), countdown.update("network", 1, 10, 102.0)
        (None, 18.0)
    """

    def __init__(self) -> None:
        self._phase = ""
        self._start = (0, 0.0)

    def update(self, phase: str, done: int, total: int, now_s: float) -> float | None:
        """Take in a report.

        Args:
            phase: what is done.
            done: how many windows are done.
            total: how many there are.
            now_s: of a clock.

        Returns:
            Seconds left; None where it is not known yet.
        """
        if phase != self._phase:
            self._phase, self._start = phase, (done, now_s)
        first, since = self._start
        if phase != "network" or done <= first or total <= 0:
            return None
        return (now_s - since) / (done - first) * (total - done)


def describe_seconds(seconds: float | None, after: str = " left") -> str:
    """Time as people say it.

    Args:
        seconds: how many; None if that is not known.
        after: what is said behind it.

    Examples:
        >>> describe_seconds(3.2), describe_seconds(100, ""), describe_seconds(None)
        ('4 s left', '1 min 40 s', '')
    """
    if seconds is None:
        return ""
    whole = int(-(-seconds // 1))
    return (f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s") + after
