"""One event of a journal: its line in the file, and its differences from another event."""

import json
from collections.abc import Mapping
from typing import Any

OWN_KINDS = frozenset({"header", "call", "use", "send", "fail", "scope", "process"})
_OWN_FIELDS = frozenset({"kind", "seq", "key", "scope", "t", "replayed"})
_TIMES = frozenset({"t", "seconds", "date"})
_SECRETS = frozenset({"api_key", "apikey", "authorization", "password", "secret", "access_token", "auth_token"})
_HIDDEN = "(not recorded)"


def check(kind: str, fields: Mapping[str, Any]) -> None:
    """Refuse the names that the journal writes itself."""
    if kind in OWN_KINDS:
        raise ValueError(f"{kind!r} is a kind that the journal writes itself: use another word")
    taken = _OWN_FIELDS & fields.keys()
    if taken:
        raise ValueError(f"{sorted(taken)[0]!r} is a field that the journal writes itself: use another name")


def encode(event: dict[str, Any]) -> bytes:
    """An event as a line of the file."""
    try:
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 has no bytes for
        return json.dumps(event, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def parse(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None if it is torn or is not an event."""
    if not line.endswith(b"\n"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("kind"), str) else None


def jsonable(value: Any) -> Any:
    """The value as it reads back from JSON, with secrets hidden."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, float):
        return float(value) if value == value and abs(value) != float("inf") else repr(float(value))
    if isinstance(value, str):
        return str.__str__(value)
    if kind is dict or isinstance(value, Mapping):
        return {
            str(key): _HIDDEN if str(key).lower() in _SECRETS and item is not None else jsonable(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(item) for item in value), key=repr)
    if isinstance(value, int):
        return int(value)
    for name in ("to_dict", "model_dump"):
        method = getattr(value, name, None)
        if callable(method):
            return jsonable(method())
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    raise TypeError(
        f"a journal holds text, numbers, lists and mappings; {kind.__name__} is none of these: {value!r:.200}"
    )


def timeless(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event or reply without its times, of which the seconds of a `usage` are one."""
    return {
        key: timeless(item) if key == "usage" and isinstance(item, dict) else item
        for key, item in event.items()
        if key not in _TIMES
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The difference of two events: both in full if their kinds differ, else the keys that differ, nested ones too."""
    if then.get("kind") != now.get("kind"):
        return f": recorded was {show(then)}, now it is {show(now)}"
    before, after = _parted(then, now)
    return f" ({now['kind']}): recorded was {show(before)}, now it is {show(after)}"


def _parted(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    before, after = {}, {}
    for key in sorted({*then, *now}):
        old, new = then.get(key), now.get(key)
        if key in then and key in now and old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            old, new = _parted(old, new)
        if key in then:
            before[key] = old
        if key in now:
            after[key] = new
    return before, after


def show(event: Mapping[str, Any]) -> str:
    """An event in a message, cut at 300 characters."""
    text = json.dumps(event, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 300 else f"{text[:300]}..."
