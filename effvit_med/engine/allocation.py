"""How the process allocates memory: freed memory is kept for the next tile, where glibc would hand it back.

glibc takes large blocks straight from the kernel and gives them back as soon as they are freed. A network frees every
feature map some milliseconds after it was made, so that each forward pass gets its memory anew, and the kernel clears
it page by page: a third of the time at 2048 x 2048, and the reason why time grows faster than the number of pixels.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

#: Parameters of mallopt and what they are set to here; all are C ints.
_PARAMETERS = (
    (-1, -1),  # M_TRIM_THRESHOLD: never give the top of the heap back (-1 becomes the largest size_t)
    (-2, 64 * 2**20),  # M_TOP_PAD: ask the kernel for this many bytes more than needed, so for fewer and larger pieces
    (-4, 0),  # M_MMAP_MAX: no block is a mapping of its own
    (-8, 1),  # M_ARENA_MAX: one heap; those of further threads hold no block above 64 MiB and would map it
)


class _Symbol(ctypes.Structure):
    """Dl_info of <dlfcn.h>: the shared object that holds an address."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def keep_freed_memory(environment: Mapping[str, str] | None = None) -> bool:
    """Tell glibc to keep freed memory for this process; whether it was told.

    Labels stay the same, bit for bit. Each forward pass after the first finds its memory in place: no page faults, and
    time that grows with the pixels. The cost is that the process keeps what it held at its peak until it ends, and
    that threads started later share one heap. So this is for programs, such as the command line, to call once as they
    start; a library must not change its host, and neither `effvit_med.engine.Segmenter` nor anything else here does.
    It works at any time, also after torch is imported, for what is allocated from then on.

    Nothing is done where there is no glibc (macOS, Windows, Alpine), where another allocator stands in for it (by
    ``LD_PRELOAD``), or where the user has tuned glibc's (``MALLOC_...``, ``GLIBC_TUNABLES=glibc.malloc...``).

    Args:
        environment: the environment variables; those of this process where left out.

    Returns:
        True if glibc now keeps freed memory.

    Source:
        mallopt(3) of the Linux manual; "Malloc Tunable Parameters" in the manual of the GNU C library.

    Examples:
        >>> keep_freed_memory({"MALLOC_TRIM_THRESHOLD_": "1048576"})  # the user's choice stands
        False
    """
    if is_tuned_by_user(os.environ if environment is None else environment):
        return False
    libc = _find_glibc()
    if libc is None:
        return False
    answers = [libc.mallopt(parameter, value) for parameter, value in _PARAMETERS]  # 1 where it was taken
    return all(answer == 1 for answer in answers)


def is_tuned_by_user(environment: Mapping[str, str]) -> bool:
    """Whether environment variables already say how memory is to be allocated.

    Args:
        environment: names and values.

    Examples:
        >>> is_tuned_by_user({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}), is_tuned_by_user({"HOME": "/home/me"})
        (True, False)
    """
    if "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return True
    return any(name.startswith("MALLOC_") for name in environment)


def _find_glibc() -> ctypes.CDLL | None:
    """glibc, if this process runs on it and allocates with it."""
    if not sys.platform.startswith("linux"):
        return None
    process = ctypes.CDLL(None)
    if not all(hasattr(process, name) for name in ("mallopt", "gnu_get_libc_version", "posix_memalign", "dladdr")):
        return None
    process.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    # torch allocates with posix_memalign, which every replacement has; malloc itself may be found in the executable
    same = _holder(process, "posix_memalign") == _holder(process, "gnu_get_libc_version") == _holder(process, "mallopt")
    return process if same else None


def _holder(process: ctypes.CDLL, name: str) -> int | None:
    """Where the shared object is loaded that holds a function."""
    process.dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Symbol))
    symbol = _Symbol()
    found = process.dladdr(ctypes.cast(process[name], ctypes.c_void_p), ctypes.byref(symbol))
    return symbol.base if found else None
