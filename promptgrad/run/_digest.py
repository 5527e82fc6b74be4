"""Digests of parameter values, equal in every process."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


def value_digest(value: Any) -> str:
    """Digest of a parameter's value: text, numbers, sequences and mappings of them, or examples.

    Equal values have equal digests in every process. An object with an `id` that is text (an `Example`) counts as
    that id, one with a `to_dict` method as its dict, and one with `__content__` as what this returns.

    Raises:
        TypeError: The value has no content that could be compared across processes.
    """
    text = json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {"!": {str(key): _plain(item) for key, item in value.items()}}
        return {"!pairs": sorted(([_plain(key), _plain(item)] for key, item in value.items()), key=json.dumps)}
    if isinstance(value, (set, frozenset)):
        return {"!set": sorted((_plain(item) for item in value), key=json.dumps)}
    identity = getattr(value, "id", None)
    if isinstance(identity, str):
        return {"!id": identity}
    for name in ("to_dict", "model_dump", "__content__"):
        method = getattr(value, name, None)
        if callable(method):
            return {f"!{type(value).__qualname__}": _plain(method())}
    kind = type(value)
    if dataclasses.is_dataclass(value) and not kind.__dataclass_params__.repr:  # its own may leave something out
        return {
            f"!{kind.__qualname__}": _plain(
                {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            )
        }
    described = repr(value)
    if " at 0x" not in described:
        return {f"!{type(value).__qualname__}": described}
    raise TypeError(f"a {type(value).__name__} has no content that another process could compare: {described}")
