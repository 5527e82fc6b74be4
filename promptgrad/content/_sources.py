"""What media are made of: files, addresses, `data:` URLs, images of PIL and JSON, each within a bound."""

from __future__ import annotations

import io
import mimetypes
import os
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from promptgrad._patterns import late_pattern
from promptgrad._pipes import not_a_file
from promptgrad.content._sniff import TOLD, is_text, media_type_of

MOST_BYTES = 50_000_000
"""Bytes that an image, a sound or a file may have: more than the providers take in one request."""

Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | Any
"""What media are made of: bytes, a `Path` that is read, an address, a `data:` URL, or an image of PIL."""

_SCHEME = late_pattern(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_SEEN = ("image", "audio", "video")
_PDF_STARTS = 1024
"""Bytes within which readers accept the beginning of a PDF."""
_ADDRESSES = frozenset({"http", "https", "gs", "s3"})


def checked_address(what: str, text: str) -> str:
    """A text as an address.

    Raises:
        ValueError: No provider could load it.
    """
    scheme = _SCHEME.match(text)
    if scheme is not None and (scheme[1].lower() == "data" or scheme[1].lower() in _ADDRESSES):
        return text
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    if scheme is not None and len(scheme[1]) > 1:
        raise ValueError(f"{what} is loaded by the provider from http: and https: addresses, not from {shown!r}")
    raise ValueError(f"{shown!r} is no address: {what}.read({shown!r}) reads a file, {what}(data) takes its bytes")


def read_file(path: str | os.PathLike[str], media_type: str) -> tuple[bytes, str]:
    name = os.fspath(path)
    if odd := not_a_file(path):
        raise ValueError(f"{name} cannot be read: {odd}")
    with open(path, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if not data:
        raise ValueError(f"{name} is empty: there is nothing in it to send")
    if len(data) > MOST_BYTES:
        raise ValueError(f"{name} is larger than {size_text(MOST_BYTES)}, the most that is read")
    return data, media_type or checked_type(name, data)


def checked_type(name: str, data: bytes) -> str:
    """The media type of a file: what its first bytes tell, else what its name says, where they do not contradict it.

    Raises:
        ValueError: Neither tells, or what the name says is not so: a page of an error that was saved as `cat.jpg`.
    """
    named, told = mimetypes.guess_type(name)[0] or "", media_type_of(data)
    if not (named or told):
        raise ValueError(f"the media type of {name!r} is not known from its name: pass media_type=")
    family = named.partition("/")[0]
    if family not in _SEEN and named != "application/pdf":
        return named or told
    if told.partition("/")[0] == family != "application":
        return named if told == "audio/mpeg" else told  # providers refuse a JPEG called a PNG; ID3 may precede others
    if named == told or (named == "application/pdf" and b"%PDF-" in data[:_PDF_STARTS]):
        return named
    if told or named in TOLD or (is_text(data) and not named.endswith("xml")):
        what = told or ("a text" if is_text(data) else "something else")
        raise ValueError(
            f"{name!r} is no {named}, as its name says: it is {what}, and begins with {data[:24]!r}; pass media_type= "
            "if it is what you mean"
        )
    return named


_ALIKE = {
    "png": {
        **dict.fromkeys(("CMYK", "YCbCr", "HSV", "LAB", "RGBX", "F"), "RGB"),
        **dict.fromkeys(("PA", "RGBa"), "RGBA"),
        **{"La": "LA", "I": "I;16"},
    },
    "jpeg": dict.fromkeys(("RGBA", "LA", "P", "PA", "HSV", "LAB", "I", "F"), "RGB"),
}
"""For a format, the modes of PIL that its files cannot have, and what is as good to see."""


def encoded(image: Any, media_type: str) -> tuple[bytes, str]:
    """The bytes of an image of PIL, in the format of its file or as PNG."""
    form = media_type.rpartition("/")[2] or str(getattr(image, "format", None) or "png").lower()
    form = form if form in ("png", "jpeg", "gif", "webp") else "png"
    mode = _ALIKE.get(form, {}).get(getattr(image, "mode", ""))
    data = io.BytesIO()
    try:
        (image if mode is None else image.convert(mode)).save(data, form.upper())
    except OSError as error:
        raise ValueError(f"the image of PIL cannot be written as {form}: {error}") from error
    return data.getvalue(), f"image/{form}"


def from_json(kind: str, form: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in the JSON form of a part.

    Raises:
        ValueError: It is another form.
    """
    arguments = {str(name): value for name, value in form.items() if name != "type"}
    if form.get("type", kind) != kind or not all(isinstance(value, str) for value in arguments.values()):
        raise ValueError(f"it is no JSON form of an {kind}: {{'type': {kind!r}, 'media_type': ..., 'data': base64}}")
    if "data" in arguments:
        arguments["data"] = b64decode(arguments["data"], validate=True)
    return arguments


def read_data_url(url: str) -> tuple[str, bytes]:
    head, comma, body = url[5:].partition(",")
    if not comma:
        raise ValueError(f"a data: URL has a comma before its data, and {url[:40]!r} has none")
    if len(body) > 2 * MOST_BYTES:
        raise ValueError(f"a data: URL of {size_text(len(body))} is too large")
    kind, *flags = head.split(";")
    return kind or "text/plain", b64decode(body) if "base64" in flags else unquote_to_bytes(body)


def public(url: str) -> str:
    """An address without its possibly secret parts: user, password, query and fragment."""
    before, mark, rest = url.partition("://")
    shown = rest.partition("?")[0].partition("#")[0]
    place, slash, path = shown.partition("/")
    return f"{before}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else before


def size_text(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
