"""What the first bytes of a file say: its media type, the size of an image, the length of a sound, pages of a PDF."""

from __future__ import annotations

import io
from collections.abc import Iterator

from promptgrad._patterns import late_pattern

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"\xff\xf3", "audio/mpeg"),
    (b"\xff\xf2", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_WITHIN = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}  # of a RIFF file
_BRANDS = {b"avif": "image/avif", b"heic": "image/heic", b"mif1": "image/heif", b"M4A ": "audio/mp4"}
TOLD = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/bmp", "image/tiff", "image/webp", "application/pdf"}
    | {"audio/wav", "audio/x-wav", "audio/ogg"}
)
"""The media types whose files always begin with the bytes by which they are known here."""
_NO_SIZE = frozenset({0xC4, 0xC8, 0xCC})  # markers of JPEG among those of frames, which are no frames
_PAGE = late_pattern(rb"/Type\s*/Page\b(?!s)")
_MOST_SEGMENTS = 1_000


def media_type_of(data: bytes) -> str:
    """The media type that the first bytes tell; empty where they do not."""
    for start, kind in _STARTS:
        if data.startswith(start):
            return kind
    if data.startswith(b"RIFF"):
        return _WITHIN.get(data[8:12], "")
    return _BRANDS.get(data[8:12], "") if data[4:8] == b"ftyp" else ""


def is_text(data: bytes) -> bool:
    """Whether bytes are a text in UTF-8, by its beginning."""
    start = data[:4096]
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # else a sign is cut
            return False
        text = start[: error.start].decode()
    return not any(sign < " " and sign not in "\t\n\r\f" for sign in text)


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height of an image in pixels, from its header; None where they are not told, or not understood.

    Reads PNG, JPEG, GIF, WebP and BMP; nothing is decoded.
    """
    try:
        found = _size(data)
    except IndexError:
        return None
    return found if found is not None and min(found) > 0 else None


def _size(data: bytes) -> tuple[int, int] | None:
    kind = media_type_of(data)
    if kind == "image/png" and data[12:16] == b"IHDR" and len(data) >= 24:
        return _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    if kind == "image/gif" and len(data) >= 10:
        return _number(data, 6, 2), _number(data, 8, 2)
    if kind == "image/bmp" and len(data) >= 26:
        return _number(data, 18, 4), abs(int.from_bytes(data[22:26], "little", signed=True))
    if kind == "image/webp" and len(data) >= 30:
        return _webp_size(data)
    if kind == "image/jpeg":
        return next(_jpeg_frames(data), None)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8 ":
        return _number(data, 26, 2) & 0x3FFF, _number(data, 28, 2) & 0x3FFF
    if chunk == b"VP8L":
        bits = _number(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return (_number(data, 24, 3) + 1, _number(data, 27, 3) + 1) if chunk == b"VP8X" else None


def _jpeg_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """The sizes of the frames of a JPEG, of which there is one as a rule."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        length = _number(data, at + 1, 2, "big")
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE and len(data) >= at + 8:
            yield _number(data, at + 6, 2, "big"), _number(data, at + 4, 2, "big")
        at += 1 + length


def _number(data: bytes, at: int, count: int, order: str = "little") -> int:
    return int.from_bytes(data[at : at + count], "big" if order == "big" else "little")


def seconds_of(data: bytes) -> float | None:
    """The length of a WAV file in seconds; None for other sounds, and for what cannot be read."""
    import wave

    if media_type_of(data) != "audio/wav":
        return None
    try:
        with wave.open(io.BytesIO(data)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError):
        return None


def pages_of(data: bytes) -> int | None:
    """The pages of a PDF, as far as its objects are not compressed; None where none is found."""
    return (len(_PAGE.findall(data)) or None) if media_type_of(data) == "application/pdf" else None
