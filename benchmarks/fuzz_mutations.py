"""How a good file becomes a bad one: bytes, DICOM elements, NIfTI header fields and entries of archives are changed."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_BYTES = 200_000

ByteMutator = Callable[[bytes, int], bytes]

_LONG_FORMS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_DIGITS = frozenset({b"DS", b"IS"})
_TEXTS = [
    b"0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e308", b"1e-308", b"", b"1\\2", b"0\\0", b"1\\0\\0\\0\\1\\0",
    b"0\\0\\0\\0\\0\\0", b"-1\\0\\0\\0\\-1\\0", b"1\\0\\0\\0.7\\0.7\\0", b"99999999999999999999", b"0.0000001", b"1,5",
    b" ", b"\\", b"\\\\", b"\x00", b"2147483648", b"-32769", b"65536", b"1.5\\", b"1 2 3",
]  # fmt: skip
_UIDS = [
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.5", b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80",
    b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.91", b"1.2.840.10008.1.2.4.201", b"1.2.840.10008.5.1.4.1.1.2",
    b"1.2.840.10008.5.1.4.1.1.4.1", b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.3", b"",
]  # fmt: skip
_NUMBERS = [0, 1, 2, 8, 12, 16, 32, 255, 256, 4095, 32767, 32768, 65535]
_WIDE = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x10000, 100_000]
_FLOATS = [0.0, -1.0, 1.0, 1e30, -1e30, float("nan"), float("inf"), 1e-30, 2.5]
_NIFTI_FIELDS = {
    "dim": (40, "h", 8), "intent": (68, "h", 1), "datatype": (70, "h", 1), "bitpix": (72, "h", 1),
    "pixdim": (76, "f", 8), "vox_offset": (108, "f", 1), "scl": (112, "f", 2), "units": (123, "b", 1),
    "codes": (252, "h", 2), "quatern": (256, "f", 6), "srow": (280, "f", 12),
}  # fmt: skip


@dataclass(frozen=True)
class Element:
    """Where an element of an explicit little-endian file stands.

    Attributes:
        start: of its tag.
        value: where its value starts.
        end: behind its value.
        tag: group and element.
        vr: two letters.
    """

    start: int
    value: int
    end: int
    tag: tuple[int, int]
    vr: bytes


def find_elements(content: bytes) -> list[Element]:
    """The elements of an explicit little-endian file, those of sequences too, as far as they can be followed.

    Args:
        content: a DICOM file.

    Source:
        DICOM PS3.5 section 7.1.2 (data element structure with explicit VR).
    """
    found: list[Element] = []
    at = 132 if content[128:132] == b"DICM" else 0
    while at + 8 <= len(content) and len(found) < 5000:
        group, element = struct.unpack_from("<HH", content, at)
        vr = content[at + 4 : at + 6]
        if group == 0xFFFE:  # items and their ends have no VR; what they hold follows
            at += 8
            continue
        if not (vr.isalpha() and vr.isupper()):
            break
        long = vr in _LONG_FORMS
        start = at + (12 if long else 8)
        if start > len(content):
            break
        (length,) = struct.unpack_from("<I" if long else "<H", content, at + (8 if long else 6))
        end = start if length == 0xFFFFFFFF else min(start + length, len(content))
        found.append(Element(at, start, end, (group, element), vr))
        at = start if vr == b"SQ" else end
    return found


def mutate(content: bytes, draw: random.Random, mutate_bytes: ByteMutator | None = None) -> bytes:
    """A changed copy.

    Args:
        content: of a file.
        draw: what decides.
        mutate_bytes: another mutator of plain bytes, used for a part of the changes; called with a seed.
    """
    changed = content
    for _ in range(draw.choice([1, 1, 1, 2, 3, 5])):
        changed = _mutate_once(changed, draw, mutate_bytes)
    return changed[:MAX_BYTES]


def _mutate_once(content: bytes, draw: random.Random, mutate_bytes: ByteMutator | None) -> bytes:
    if content[:2] == b"\x1f\x8b" and draw.random() < 0.8:
        return _mutate_packed(content, draw, mutate_bytes)
    if content[:2] == b"PK" and draw.random() < 0.7:
        return _mutate_archive(content, draw, mutate_bytes)
    if content[344:348] in (b"n+1\x00", b"ni1\x00") and draw.random() < 0.7:
        return _mutate_nifti(content, draw)
    if draw.random() < 0.75:
        elements = find_elements(content)
        if len(elements) > 3:
            return _mutate_element(content, elements, draw)
    if mutate_bytes and draw.random() < 0.5:
        return mutate_bytes(content, draw.randrange(2**31))
    return change_bytes(content, draw)


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Bits flipped, bytes written over, put in, taken out or doubled, or the end cut off.

    Args:
        content: any.
        draw: what decides.
    """
    if not content:
        return bytes([draw.randrange(256)])
    data = bytearray(content)
    at = draw.randrange(min(len(data), draw.choice([400, 2000, len(data)])))
    match draw.randrange(7):
        case 0:
            data[at] ^= 1 << draw.randrange(8)
        case 1:
            data[at : at + 4] = struct.pack("<I", draw.choice(_WIDE))
        case 2:
            data[at:at] = draw.randbytes(draw.choice([1, 2, 4, 16]))
        case 3:
            del data[at : at + draw.choice([1, 2, 4, 64, 1000])]
        case 4:
            data[at:at] = data[at : at + draw.choice([8, 64, 512])]
        case 5:
            del data[at:]
        case _:
            data[at : at + 8] = draw.randbytes(8)
    return bytes(data)


def _mutate_element(content: bytes, elements: list[Element], draw: random.Random) -> bytes:
    element = draw.choice(elements)
    if draw.random() < 0.5:  # what decides place and size, more often than its share
        telling = [each for each in elements if each.tag[0] in (0x0028, 0x0020, 0x5200) or each.tag == (2, 0x10)]
        element = draw.choice(telling or elements)
    value = content[element.value : element.end]
    match draw.randrange(8):
        case 0:
            return content[: element.start] + content[element.end :]
        case 1:
            return content[: element.end] + content[element.start :]
        case 2:
            other = draw.choice(elements)
            return _with_value(content, element, content[other.value : other.end][:4096])
        case 3:
            wrong = draw.choice([b"DS", b"SQ", b"UN", b"OW", b"US", b"LO", b"FD"])
            return content[: element.start + 4] + wrong + content[element.start + 6 :]
        case 4:
            length = struct.pack("<H", draw.choice(_NUMBERS))
            return content[: element.start + 6] + length + content[element.start + 8 :]
        case _:
            return _with_value(content, element, _new_value(element, value, draw))


def _new_value(element: Element, value: bytes, draw: random.Random) -> bytes:
    packed: dict[bytes, tuple[str, Sequence[float]]] = {
        b"US": ("<H", _NUMBERS), b"SS": ("<H", _NUMBERS), b"UL": ("<I", _WIDE), b"SL": ("<I", _WIDE),
        b"FD": ("<d", _FLOATS), b"FL": ("<f", _FLOATS),
    }  # fmt: skip
    if element.vr in packed:
        form, numbers = packed[element.vr]
        return struct.pack(form, draw.choice(numbers))
    if element.vr == b"UI":
        return draw.choice(_UIDS)
    if element.vr in _DIGITS:
        return _new_numbers(value, draw)
    if element.vr in _LONG_FORMS and len(value) > 16:
        return change_bytes(value, draw)
    return draw.choice([*_TEXTS, value * 2, value[::-1], b"\xff" * 16])


def _new_numbers(value: bytes, draw: random.Random) -> bytes:
    """Other numbers: one of many moved a little or far, two exchanged, the sign changed, or nonsense."""
    parts = value.strip(b" \x00").split(b"\\")
    at = draw.randrange(len(parts))
    match draw.randrange(5):
        case 0:
            return draw.choice(_TEXTS)
        case 1:
            other = draw.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        case 2:
            parts[at] = parts[at][1:] if parts[at][:1] == b"-" else b"-" + parts[at]
        case 3:
            parts[at] = draw.choice(_TEXTS).split(b"\\")[0]
        case _:
            try:
                number = float(parts[at]) + draw.choice([1e-5, 0.003, 0.05, 0.3, 1, 2, 2.5, 7, -1, -2.5, 400])
            except ValueError:
                number = 1.0
            parts[at] = f"{number:.6g}".encode()
    return b"\\".join(parts)


def _with_value(content: bytes, element: Element, value: bytes) -> bytes:
    value = value[:MAX_BYTES]
    value += (b"\x00" if element.vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    long = element.vr in _LONG_FORMS
    length = struct.pack("<I" if long else "<H", len(value) if long else len(value) & 0xFFFF)
    head = content[element.start : element.value - len(length)]
    return content[: element.start] + head + length + value + content[element.end :]


def _mutate_nifti(content: bytes, draw: random.Random) -> bytes:
    start, kind, count = draw.choice(list(_NIFTI_FIELDS.values()))
    data = bytearray(content)
    at = start + struct.calcsize(kind) * draw.randrange(count)
    if kind == "f":
        values = [*_FLOATS, struct.unpack_from("<f", data, at)[0] * -1]
        struct.pack_into("<f", data, at, draw.choice(values))
    else:
        limit = 32767 if kind == "h" else 127
        struct.pack_into("<" + kind, data, at, draw.choice([-1, 0, 1, 2, 3, 4, 7, 8, 16, 64, limit]))
    return bytes(data)


def _mutate_packed(content: bytes, draw: random.Random, mutate_bytes: ByteMutator | None) -> bytes:
    try:
        plain = zlib.decompressobj(31).decompress(content, MAX_BYTES)
    except zlib.error:
        return change_bytes(content, draw)
    return gzip.compress(_mutate_once(plain, draw, mutate_bytes), 1, mtime=0)


def _mutate_archive(content: bytes, draw: random.Random, mutate_bytes: ByteMutator | None) -> bytes:
    """One entry changed, renamed, left out or doubled, and packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(info.filename, archive.open(info).read(MAX_BYTES)) for info in archive.infolist()[:20]]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError):
        return change_bytes(content, draw)
    if not entries:
        return change_bytes(content, draw)
    at = draw.randrange(len(entries))
    name, inside = entries[at]
    match draw.randrange(4):
        case 0:
            entries[at] = (draw.choice(["../../up.dcm", "/root.dcm", "a\\b", "", "x" * 300, "n\x00l", "CON"]), inside)
        case 1:
            del entries[at]
        case 2:
            entries.append((f"again/{name}", inside))
        case _:
            entries[at] = (name, _mutate_once(inside, draw, mutate_bytes))
    return pack_zip(entries)


def pack_zip(entries: list[tuple[str, bytes]]) -> bytes:
    """An archive of entries, the same bytes each time.

    Args:
        entries: names and contents.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, (name, inside) in enumerate(entries):
            archive.writestr(zipfile.ZipInfo(name or f"e{number}"), inside, zipfile.ZIP_DEFLATED)
    return packed.getvalue()
