"""The super-resolution decoder: its numbers, as data. Ours; nothing was published."""

from __future__ import annotations

from effvit_med.networks.presets.decoders import DecoderPreset

#: More work at the input's own resolution than for labels, where the detail is; less where the maps are coarse.
SUPER_RESOLUTION = DecoderPreset(widths=(16, 32, 32, 48, 64, 96, 128), depths=(3, 2, 1, 1, 1, 1))
