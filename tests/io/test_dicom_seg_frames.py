"""Facts about `effvit_med.io.dicom_seg_frames`: the file is the one that highdicom alone would write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import OutputError
from effvit_med.io import dicom_seg, dicom_seg_frames
from effvit_med.io.dicom_seg import SegOptions, write_dicom_seg
from effvit_med.io.dicom_seg_frames import Frame, PackedFrames
from effvit_med.volume import Segmentation
from tests.io.source_series import axial, random_labels, segment, write_series


def write_by_highdicom_alone(segmentation: Segmentation, path: Path, kind: str) -> None:
    """Hand all voxels to highdicom, and write what it makes of them."""
    labels = segmentation.labels
    values = [label.value for label in segmentation.table if (labels == label.value).any()] or [1]
    pixels = labels
    if kind == "binary":
        pixels = np.zeros_like(labels)
        for number, value in enumerate(values, 1):
            pixels[labels == value] = number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom_seg, "mark_slices", lambda *_: pixels)
        patch.setattr(dicom_seg, "shrink_headers", list)
        patch.setattr(dicom_seg, "fill_binary", lambda *_, **__: None)
        patch.setattr(dicom_seg, "fill_labelmap", lambda *_: None)
        write_dicom_seg(segmentation, path, SegOptions(kind))


@pytest.mark.filterwarnings("ignore:The number of bytes of compressed pixel data")
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("values", [(0, 1, 2, 3, 7), (0, 7), (0,)], ids=["several", "one", "none"])
@pytest.mark.parametrize("shape", [(5, 12, 10), (4, 9, 11), (1, 8, 9)])
def test_the_file_is_that_of_highdicom(
    tmp_path: Path, kind: str, values: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    """Several structures, one or none, frames that fill whole bytes or not: the same bytes, and the same pixels.

    Only the byte that pads packed pixels to an even number and the choices of the compressor may differ.
    """
    volume = write_series(tmp_path, axial(shape))
    segmentation = segment(volume, random_labels(shape, values=values))
    write_dicom_seg(segmentation, tmp_path / "ours.dcm", SegOptions(kind))
    write_by_highdicom_alone(segmentation, tmp_path / "theirs.dcm", kind)
    ours, theirs = (pydicom.dcmread(tmp_path / name) for name in ("ours.dcm", "theirs.dcm"))
    assert np.array_equal(ours.pixel_array, theirs.pixel_array)
    heads = [path.read_bytes().partition(b"\xe0\x7f\x10\x00OB")[0] for path in sorted(tmp_path.glob("*rs.dcm"))]
    assert len(heads[0]) > 2000
    assert heads[0] == heads[1]


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9)),
    sizes=st.lists(st.integers(0, 7), max_size=30),
    places=st.lists(st.integers(0, 40), max_size=4),
)
def test_packed_frames_read_like_a_file(shape: tuple[int, int, int], sizes: list[int], places: list[int]) -> None:
    """Reads of any size from any place give what they give of the bytes all at once."""
    labels = np.random.default_rng(0).choice(np.array([0, 3, 5], np.uint8), shape)
    frames = [Frame(index, value) for value in (3, 5) for index in range(shape[0])]
    bits = np.concatenate([(labels[frame.index] == frame.value).ravel() for frame in frames])
    whole = np.packbits(bits, bitorder="little").tobytes()
    whole += bytes(len(whole) % 2)
    ours, theirs = PackedFrames(labels, frames), io.BytesIO(whole)
    for place in [0, *places]:
        assert (ours.seek(min(place, len(whole))), theirs.seek(min(place, len(whole)))) == (ours.tell(), theirs.tell())
        for size in sizes:
            assert ours.read(size) == theirs.read(size)
        assert ours.tell() == theirs.tell()
    assert ours.seek(0, io.SEEK_END) == len(whole)
    assert ours.seek(0) == 0
    assert ours.read() == whole


def test_frames_of_an_unknown_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If highdicom said something new of each frame, it would be noticed and not be lost."""
    build = dicom_seg.hd.seg.Segmentation

    def build_more(*args: Any, **options: Any) -> Any:
        dataset = build(*args, **options)
        for item in dataset.PerFrameFunctionalGroupsSequence:
            item.FrameVOILUTSequence = []
        return dataset

    monkeypatch.setattr(dicom_seg.hd.seg, "Segmentation", build_more)
    volume = write_series(tmp_path, axial())
    with pytest.raises(OutputError, match="a form that is not known"):
        write_dicom_seg(segment(volume, random_labels(axial().shape)), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_pixels_that_change_between_writing_and_checking_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that was packed wrongly is found by reading the file."""
    honest = PackedFrames.read

    def spoil(self: PackedFrames, size: int | None = -1, /) -> bytes:
        content = bytearray(honest(self, size))
        if content:
            content[-1] ^= 1
        return bytes(content)

    monkeypatch.setattr(dicom_seg_frames.PackedFrames, "read", spoil)
    volume = write_series(tmp_path, axial((3, 8, 8)))
    with pytest.raises(OutputError, match="differs from the labels"):
        write_dicom_seg(segment(volume, random_labels((3, 8, 8))), tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()
