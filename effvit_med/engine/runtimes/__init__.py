"""Runtimes: what runs a network on tiles, behind one interface.

``eager`` is torch itself and always there. ``compile`` is torch made into native code, ``onnx`` is ONNX Runtime,
``openvino`` the fastest on a processor, ``tensorrt`` for CUDA devices. `open_runtime` opens one by name;
`choose_runtime` finds the fastest by a short measurement that is kept.
"""

from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.choice import Choice, choose_runtime
from effvit_med.engine.runtimes.opening import RUNTIMES, available_runtimes, open_runtime
from effvit_med.engine.runtimes.request import Runtime, RuntimeName, RuntimeRequest

__all__ = [
    "RUNTIMES",
    "Choice",
    "Runtime",
    "RuntimeName",
    "RuntimeRequest",
    "available_runtimes",
    "cache_folder",
    "choose_runtime",
    "open_runtime",
]
