"""What the user has chosen in napari's Preferences for this plugin; napari.yaml declares the page."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_effvit_med.state import DEVICES

PLUGIN = "effvit-med"
CORRECTIONS = ("image", "network")
CLICK_EXTENT_RANGE_MM = (20.0, 120.0)
_log = logging.getLogger(__name__)


def _default_folder() -> Path:
    return Path.home() / "effvit-med" / "reviews"


@dataclass(frozen=True)
class PluginSettings:
    """The choices, checked; each has the default of a new installation.

    Attributes:
        device: where models run: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        reviews_folder: where reviews are kept.
        corrections: what answers a click: ``image`` (the image about it alone) or ``network`` (a promptable one).
        prompt_bundle: name or folder of a bundle with promptable networks, or a file of EfficientViT-SAM weights; empty
            for the one that comes along.
        click_extent_mm: how far around a click a correction by the image alone looks.
        save_dicom_seg: whether finishing a review saves a DICOM SEG, where the scan is DICOM.
        save_nifti: whether it saves NIfTI.
        review_after_segmenting: whether a review begins as soon as a scan is segmented.
    """

    device: str = "auto"
    reviews_folder: Path = field(default_factory=_default_folder)
    corrections: str = "image"
    prompt_bundle: str = ""
    click_extent_mm: float = 60.0
    save_dicom_seg: bool = True
    save_nifti: bool = True
    review_after_segmenting: bool = True

    @classmethod
    def of(cls, values: Mapping[str, object]) -> PluginSettings:
        """Take what can be used; a value that cannot is logged, and the default holds.

        Args:
            values: by the names of the attributes; what is missing has its default, what is not known is not looked at.

        Examples:
            >>> PluginSettings.of({"device": "cpu", "click_extent_mm": 40}).click_extent_mm
            40.0
        """
        checked: dict[str, Any] = {}
        for name, check in _CHECKS.items():
            if name in values:
                try:
                    checked[name] = check(values[name])
                except (ValueError, RuntimeError) as error:  # RuntimeError: a home folder that nobody has
                    _log.warning(
                        "The setting %s of %s cannot be used (%s); its default holds. Change it in File > Preferences.",
                        name,
                        PLUGIN,
                        error,
                    )
        return cls(**checked)


def read_settings() -> PluginSettings:
    """Read the choices as napari has them now.

    Before napari 0.9, and where napari does not know the plugin, these are the defaults.
    Whatever is wrong with the file of the settings, this does not fail: it logs and takes defaults.
    """
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return PluginSettings()
    try:
        values = get_plugin_settings(PLUGIN).panel
        return PluginSettings.of({name: getattr(values, name) for name in _CHECKS if hasattr(values, name)})
    except KeyError:  # the plugin is not installed, only imported
        return PluginSettings()
    except Exception as error:  # noqa: BLE001  napari names no class for a broken file, and the panel must open
        _log.warning("The settings of %s cannot be read (%s: %s); defaults hold.", PLUGIN, type(error).__name__, error)
        return PluginSettings()


def _device(value: object) -> str:
    if value not in DEVICES:
        raise ValueError(f"{value!r} is not one of {', '.join(DEVICES)}")
    return str(value)


def _folder(value: object) -> Path:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a path")  # noqa: TRY004  one class for every bad value
    if not value.strip():
        return _default_folder()
    path = Path(value.strip()).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{value!r} is not a whole path from the root on")
    if path.exists() and not path.is_dir():
        raise ValueError(f"{value!r} is a file, not a folder")
    return path


def _click_extent(value: object) -> float:
    least, most = CLICK_EXTENT_RANGE_MM
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a number")
    if not least <= value <= most:
        raise ValueError(f"{value:g} mm is not from {least:g} to {most:g} mm")
    return float(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")  # noqa: TRY004
    return value


def _corrections(value: object) -> str:
    if value not in CORRECTIONS:
        raise ValueError(f"{value!r} is not one of {', '.join(CORRECTIONS)}")
    return str(value)


def _words(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a name or path")  # noqa: TRY004
    return value.strip()


_CHECKS: Mapping[str, Callable[[object], Any]] = {
    "device": _device,
    "reviews_folder": _folder,
    "corrections": _corrections,
    "prompt_bundle": _words,
    "click_extent_mm": _click_extent,
    "save_dicom_seg": _flag,
    "save_nifti": _flag,
    "review_after_segmenting": _flag,
}
