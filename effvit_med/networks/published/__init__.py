"""Published checkpoints: their layouts, how their weights are made to fit, and how they are loaded."""

from effvit_med.networks.published.loading import LoadReport, load_published

__all__ = ["LoadReport", "load_published"]
