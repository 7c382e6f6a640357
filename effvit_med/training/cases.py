"""Cases prepared once, each in a file that is mapped into memory: of it only what a patch needs is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from effvit_med import __version__
from effvit_med.errors import InputError
from effvit_med.io.atomic import atomic_path, make_folder


class PreparedCases(Dataset[Any]):
    """A MONAI-style dataset whose cases are prepared when they are first asked for, and never again.

    The files take the place of a cache in memory: the system keeps what is used often there, as much as there is room,
    and worker processes and the processes of several GPUs share it. A case is prepared anew where its source files, the
    settings or the version of this package changed. Label maps of whole numbers below 256 are kept as bytes.

    Args:
        files: one mapping per case; each value is a path, or something that goes along unchanged.
        transform: prepares a case without any randomness; tensors and plain values come out.
        folder: where the files are kept; it may be removed when no run uses it.
        settings: what the preparation depends on beside the files, as text.
        byte_keys: entries that are kept as bytes where that loses nothing.
    """

    def __init__(
        self,
        files: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        folder: str | Path,
        settings: str = "",
        byte_keys: Sequence[str] = ("label",),
    ) -> None:
        self.files = list(files)
        self.transform = transform
        self.folder = Path(folder)
        self.settings = settings
        self.byte_keys = tuple(byte_keys)
        self._opened: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        """How many cases there are."""
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A case; its tensors lie in a file and are read where they are touched.

        Args:
            index: its number.

        Raises:
            IndexError: if there is no such case.
            InputError: if a source file is missing, or the case cannot be prepared.
            OutputError: if the prepared case cannot be written.
        """
        if not 0 <= index < len(self.files):
            raise IndexError(index)
        if index not in self._opened:
            path = self._path_of(self.files[index])
            if not path.exists():
                self._prepare(self.files[index], path)
            self._opened[index] = torch.load(path, mmap=True, weights_only=True)
        return dict(self._opened[index])

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process is started with: it opens files itself."""
        return {**self.__dict__, "_opened": {}}

    def _path_of(self, files: Mapping[str, Any]) -> Path:
        told = [self.settings, __version__, *(f"{key}: {_stamp(files[key])}" for key in sorted(files))]
        return self.folder / f"{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:32]}.pt"

    def _prepare(self, files: Mapping[str, Any], path: Path) -> None:
        case = {str(key): self._pack(str(key), value) for key, value in self.transform(files).items()}
        make_folder(self.folder)
        with atomic_path(path, durable=False) as temporary:
            torch.save(case, temporary)

    def _pack(self, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        plain = value.as_subclass(Tensor).contiguous()
        if key in self.byte_keys and torch.equal(plain, plain.to(torch.uint8).to(plain.dtype)):
            return plain.to(torch.uint8)
        return plain.clone()


def _stamp(value: Any) -> str:
    """What tells a file from the same file changed: where it is, its size and when it was last written."""
    path = Path(value) if isinstance(value, str | Path) else None
    if path is None or not path.is_absolute():
        return repr(value)
    try:
        parts = sorted(path.rglob("*")) if path.is_dir() else [path]
        known = [(part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return f"{path} {known}"
