"""Bytes of images, sounds and files in states, journals and cassettes: each is written once, known by its digest."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

KINDS = frozenset({"image", "audio", "file"})
_LARGE = 1_000
"""Characters of base64 above which bytes stand apart."""


def apart(value: Any, blobs: dict[str, str]) -> Any:
    """A value in JSON types, with a digest in place of the bytes of each image, which are added to `blobs`."""
    if isinstance(value, Mapping):
        data = value.get("data")
        if value.get("type") in KINDS and isinstance(data, str) and len(data) > _LARGE and "blob" not in value:
            digest = _digest(data)
            blobs[digest] = data
            return {
                ("blob" if key == "data" else key): digest if key == "data" else item for key, item in value.items()
            }
        return {key: apart(item, blobs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [apart(item, blobs) for item in value]
    return value


def _digest(data: str) -> str:
    """The digest of the bytes, which is that of the image; of the text itself where it is no base64."""
    try:
        raw = b64decode(data, validate=True)
    except ValueError:
        raw = data.encode("utf-8", "surrogatepass")
    return blake2b(raw, digest_size=16).hexdigest()


def together(value: Any, find: Callable[[str], str | None]) -> Any:
    """The value that `apart` was given; `find` gives the bytes of a digest, and None for one that is not known."""
    if isinstance(value, dict):
        digest = value.get("blob")
        data = find(digest) if value.get("type") in KINDS and isinstance(digest, str) else None
        if data is not None:
            return {("data" if key == "blob" else key): data if key == "blob" else item for key, item in value.items()}
        return {key: together(item, find) for key, item in value.items()}
    return [together(item, find) for item in value] if isinstance(value, list) else value
