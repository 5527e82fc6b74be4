"""Bytes of images, sounds and files in a saved state: each is written once, at the end, and known by its digest."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

KINDS = frozenset({"image", "audio", "file"})
_LARGE = 1_000
"""Characters of base64 above which bytes stand at the end."""


def apart(value: Any, blobs: dict[str, str]) -> Any:
    """A value in JSON types, with a digest in place of the bytes of each image, which are added to `blobs`."""
    if isinstance(value, Mapping):
        data = value.get("data")
        if value.get("type") in KINDS and isinstance(data, str) and len(data) > _LARGE and "blob" not in value:
            digest = blake2b(data.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
            blobs[digest] = data
            return {
                ("blob" if key == "data" else key): digest if key == "data" else item for key, item in value.items()
            }
        return {key: apart(item, blobs) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [apart(item, blobs) for item in value]
    return value


def together(value: Any, blobs: Mapping[str, str]) -> Any:
    """The value that `apart` was given."""
    if isinstance(value, dict):
        digest = value.get("blob")
        if value.get("type") in KINDS and isinstance(digest, str) and digest in blobs:
            return {
                ("data" if key == "blob" else key): blobs[digest] if key == "blob" else item
                for key, item in value.items()
            }
        return {key: together(item, blobs) for key, item in value.items()}
    return [together(item, blobs) for item in value] if isinstance(value, list) else value


def _renamed(form: Mapping[str, Any], old: str, new: str, value: str) -> dict[str, Any]:
    return {(new if key == old else key): (value if key == old else item) for key, item in form.items()}
