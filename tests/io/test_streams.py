"""Facts about `effvit_med.io.streams`: bytes are hashed and packed on their way."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effvit_med.io.streams import Compressor, HashedFile


@given(content=st.binary(max_size=300), taken=st.integers(0, 400), packed=st.booleans(), tail=st.binary(max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_digest_is_of_the_whole_file(tmp_path: Path, content: bytes, taken: int, packed: bool, tail: bytes) -> None:
    """However much is read of it, and whatever follows, the digest is that of all bytes of the file."""
    stored = gzip.compress(content) if packed else b"-" + content + tail
    (tmp_path / "file").write_bytes(stored)
    with HashedFile(tmp_path / "file") as file:
        assert file.is_compressed == packed
        assert file.stream.read(taken) == (content if packed else stored)[:taken]
        assert file.finish() == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("has_isal", [True, False])
@pytest.mark.parametrize("runs", [True, False])
def test_packed_content_comes_back_and_is_always_the_same(
    monkeypatch: pytest.MonkeyPatch, has_isal: bool, runs: bool
) -> None:
    """With and without isal the stream is gzip with no time in it."""
    if not has_isal:
        monkeypatch.setitem(sys.modules, "isal", None)
        monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    content = bytes(1000) + bytes(range(256)) * 3
    made = []
    for size in (1, 7):
        file = io.BytesIO()
        output = Compressor(file, compress=True, runs=runs)
        for start in range(0, len(content), size):
            output.write(content[start : start + size])
        output.finish()
        made.append(file.getvalue())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]) == content
    assert made[0][4:8] == bytes(4)


def test_uncompressed_content_is_written_as_it_is() -> None:
    """Without compression the bytes are those that were given."""
    file = io.BytesIO()
    output = Compressor(file, compress=False)
    output.write(b"abc")
    output.finish()
    assert file.getvalue() == b"abc"
