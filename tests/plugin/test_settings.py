"""The plugin's page in napari's Preferences, and what is made of a choice that cannot be used."""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from napari_effvit_med.settings import CLICK_EXTENT_RANGE_MM, CORRECTIONS, PLUGIN, PluginSettings, read_settings
from napari_effvit_med.state import DEVICES
from tests.conftest import ROOT

MANIFEST = ROOT / "napari_plugin" / "napari_effvit_med" / "napari.yaml"


@pytest.fixture(name="chosen")
def _chosen(request: pytest.FixtureRequest) -> Any:
    """The settings as napari 0.9 keeps them, in a folder of the test."""
    settings = pytest.importorskip("napari.settings", reason="napari is not here: pip install '.[napari]'")
    if not hasattr(settings, "get_plugin_settings"):
        pytest.skip("this napari has no settings of plugins; 0.9 has")
    request.getfixturevalue("plugin_settings")
    with request.getfixturevalue("npe2pm").tmp_plugin(manifest=str(MANIFEST)):
        yield settings.get_plugin_settings(PLUGIN).panel


def test_the_page_has_the_defaults_of_the_code() -> None:
    """What the manifest declares is what holds where there is no napari."""
    page = yaml.safe_load(MANIFEST.read_text("utf-8"))["contributions"]["configurations"]["panel"]["properties"]
    assert PluginSettings.of({name: entry["default"] for name, entry in page.items()}) == PluginSettings()
    assert set(page) == set(PluginSettings.__dataclass_fields__)
    assert tuple(page["device"]["enum"]) == DEVICES
    assert tuple(page["corrections"]["enum"]) == CORRECTIONS
    assert (page["click_extent_mm"]["minimum"], page["click_extent_mm"]["maximum"]) == CLICK_EXTENT_RANGE_MM


def test_a_choice_in_the_preferences_is_read(chosen: Any, tmp_path: Path) -> None:
    """Through the real manifest and napari's own settings."""
    assert read_settings() == PluginSettings()
    chosen.device = "cpu"
    chosen.click_extent_mm = 35
    chosen.save_nifti = False
    chosen.reviews_folder = str(tmp_path)
    assert read_settings() == PluginSettings(
        device="cpu", click_extent_mm=35.0, save_nifti=False, reviews_folder=tmp_path
    )


def test_napari_refuses_what_the_page_does_not_offer(chosen: Any) -> None:
    """The limits of the manifest hold when a value is typed in."""
    for name, value in (("device", "tpu"), ("click_extent_mm", 500)):
        with pytest.raises(ValueError, match=r"tpu|120"):
            setattr(chosen, name, value)


def test_napari_shows_the_page(chosen: Any, viewer: Any, qtbot: Any) -> None:
    """The dialog of the Preferences can be built with every field, and typing in one is a choice."""
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog

    dialog = PreferencesDialog(parent=viewer.window._qt_window)
    qtbot.addWidget(dialog)
    from qtpy.QtWidgets import QComboBox

    (devices,) = (box for box in dialog.findChildren(QComboBox) if box.findText("mps") >= 0)
    devices.setCurrentText("cpu")
    assert read_settings().device == "cpu"
    dialog.close()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("device", "tpu", "auto, cpu, cuda, mps"),
        ("corrections", "magic", "image, network"),
        ("prompt_bundle", 3, "not a name or path"),
        ("click_extent_mm", 500, "from 20 to 120 mm"),
        ("click_extent_mm", float("nan"), "not a number"),
        ("click_extent_mm", True, "not a number"),
        ("save_nifti", "yes", "neither true nor false"),
        ("reviews_folder", "reviews", "not a whole path"),
        ("reviews_folder", 3, "not a path"),
        ("reviews_folder", str(MANIFEST), "a file, not a folder"),
        ("reviews_folder", "~nobody_has_this_name/reviews", "home"),
    ],
)
def test_a_bad_value_is_said_and_its_default_holds(
    name: str, value: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are kept."""
    good = {"save_dicom_seg": False} | {name: value}
    with caplog.at_level(logging.WARNING):
        assert PluginSettings.of(good) == PluginSettings(save_dicom_seg=False)
    assert name in caplog.text
    assert said in caplog.text


def test_the_home_folder_can_be_written_short() -> None:
    """A tilde is the home of the user."""
    assert PluginSettings.of({"reviews_folder": "~/mine"}).reviews_folder == Path("~/mine").expanduser()


def test_without_napari_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts use the plugin's functions without a window."""
    genuine: Callable[..., Any] = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("napari.settings"):
            raise ImportError(name)
        return genuine(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert read_settings() == PluginSettings()


def test_what_napari_does_not_know_has_defaults(request: pytest.FixtureRequest) -> None:
    """The plugin is imported, but not installed."""
    pytest.importorskip("napari", reason="napari is not here: pip install '.[napari]'")
    request.getfixturevalue("npe2pm")
    assert read_settings() == PluginSettings()


def test_a_broken_file_of_settings_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever napari raises, there are settings, and the log says what it was."""
    settings = pytest.importorskip("napari.settings", reason="napari is not here: pip install '.[napari]'")

    def fail(_: str) -> None:
        raise TypeError("a list, not a mapping")

    monkeypatch.setattr(settings, "get_plugin_settings", fail, raising=False)
    assert read_settings() == PluginSettings()
    assert "a list, not a mapping" in caplog.text
