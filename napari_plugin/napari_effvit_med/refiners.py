"""What answers a click: the image alone, or a promptable network, as the user has chosen. No Qt here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_effvit_med.settings import PluginSettings

if TYPE_CHECKING:
    from effvit_med.review import NetworkRefiner


def make_refiner(settings: PluginSettings) -> NetworkRefiner | None:
    """What the corrections are answered with; None for what looks at the image alone.

    The network is loaded at the first click; what is wrong with it is said there.

    Args:
        settings: what the user prefers.
    """
    if settings.corrections != "network":
        return None
    from effvit_med.review import NetworkRefiner

    return NetworkRefiner(settings.prompt_bundle or None, settings.device)
