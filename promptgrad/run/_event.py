"""One event of a journal: its line in the file, and its differences from another event."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.content import Audio, File, History, Image, Turn

SCHEMA = 6
"""Version of the file's format. Version 1 held replies of text alone, version 2 no checksums, version 3 did not say
which row had got no answer, version 4 had the bytes of images in the replies, and version 5 did not say which row had
come too late for a `deadline`; all can be resumed."""
SEALED = 3
"""The first version in which each line has a checksum."""
BY_ROW = 4
"""The first version that says which row got no answer."""
EXHAUSTED = "exhausted"
"""Kind of the event that records that a limit of the budget, which it names, ended the block of work before it."""
BEGINNING = b'{"kind":"header"'
"""How a journal begins."""
OWN_KINDS = frozenset({"header", "blob", "call", "use", "send", "fail", "scope", "process", "closed"})
_OWN_FIELDS = frozenset({"kind", "seq", "key", "scope", "t", "replayed", "#"})
_SEAL = late_pattern(rb',"#":"([0-9a-f]{8})"}\n\Z')
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
    """An event as a line of the file, which ends in the checksum of what is before it: `,"#":"1f00ba42"}`."""
    try:
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 has no bytes for
        line = json.dumps(event, separators=(",", ":"), allow_nan=False).encode()
    return b'%b,"#":"%08x"}\n' % (line[:-1], zlib.crc32(line[:-1]))


def is_sealed(line: bytes) -> bool:
    """Whether a line ends in the checksum of what is before it."""
    seal = _SEAL.search(line, max(len(line) - 20, 0))
    return seal is not None and int(seal[1], 16) == zlib.crc32(line[: seal.start()])


def parse(line: bytes, *, sealed: bool = False) -> dict[str, Any]:
    """The event in a line.

    Args:
        line: A whole line of the file.
        sealed: Whether it must have a checksum; lines that earlier versions wrote have none.

    Raises:
        ValueError: It is not an event as it was written; the message says why.
    """
    if line.endswith(b"}\r\n"):  # git or an editor turned the ends of lines into those of Windows; nothing else changed
        line = line[:-2] + b"\n"
    whole = is_sealed(line)
    if sealed and not whole:
        raise ValueError("its checksum does not fit")
    try:
        event = json.loads(line, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        raise ValueError("it is not an event of a journal")
    _check_form(event)
    seal = event.pop("#", None)
    if not whole and (seal or (event["kind"] in ("header", "process") and SEALED <= event["schema"] <= SCHEMA)):
        raise ValueError("its checksum does not fit")
    return event


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_FORMS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "blob": {"key": str, "data": str},
    "call": {"key": str, "scope": str, "reply": dict},
    "use": {"key": str, "scope": str},
    "send": {"key": str},
    "fail": {"key": str},
    "scope": {"scope": str, "event": str},
    "header": {"schema": int},
    "process": {"schema": int},
}
"""What the events have that the journal writes itself."""
_EVERY: dict[str, type | tuple[type, ...]] = {"seq": int, "t": (int, float), "key": str, "scope": str}
_USAGE = ("input_tokens", "output_tokens", "usd")


def _check_form(event: Mapping[str, Any]) -> None:
    """Refuse an event whose own fields are not what the journal writes."""
    kind = event["kind"]
    wanted = _FORMS.get(kind, {})
    if missing := wanted.keys() - event.keys():
        raise ValueError(f"its event of kind {kind!r} has no {sorted(missing)[0]!r}")
    for name, form in {**_EVERY, **wanted}.items():
        if name in event and (not isinstance(event[name], form) or isinstance(event[name], bool)):
            raise ValueError(f"{name!r} of its event of kind {kind!r} is {event[name]!r:.80}")
    if "scope" in event and kind not in OWN_KINDS and "key" not in event and "seq" not in event:
        raise ValueError(f"its event of kind {kind!r} has no 'key'")
    for name in ("row", "call") if kind == "fail" else ():
        if not isinstance(event.get(name, ""), str):
            raise ValueError(f"{name!r} of its event of kind {kind!r} is {event[name]!r:.80}")
    if kind == "fail" and (type(event.get("turn", 0)) is not int or not 0 <= event.get("turn", 0) < 1e12):
        raise ValueError(f"the turn of its event of kind 'fail' is {event['turn']!r:.80}")
    waited = event.get("waited", 0) if kind == "fail" else 0
    if type(waited) not in (int, float) or not 0 <= waited < 1e12:
        raise ValueError(f"how long its event of kind 'fail' waited is {waited!r:.80}")
    if not 0 <= event.get("t", 0) < 1e12:
        raise ValueError(f"its time is {event['t']!r:.80}")
    if kind == "scope" and event["event"] not in ("open", "close"):
        raise ValueError(f"a scope is opened or closed, not {event['event']!r:.80}")
    if kind in ("call", "fail"):
        usage = (event if kind == "fail" else event["reply"]).get("usage")
        if usage is not None and not isinstance(usage, dict):
            raise ValueError(f"the usage of its reply is {usage!r:.80}")
        for name in _USAGE:
            amount = (usage or {}).get(name)
            if amount is not None and (
                not isinstance(amount, (int, float)) or isinstance(amount, bool) or not 0 <= amount < 1e15
            ):
                raise ValueError(f"the {name} of its reply are {amount!r:.80}")


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
    if isinstance(value, (Image, Audio, File)):
        return value.fact()
    if isinstance(value, (History, Turn)):
        return jsonable(value.__record__()[1])
    for name in ("to_dict", "model_dump"):
        method = getattr(value, name, None)
        if callable(method):
            return jsonable(method())
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    raise TypeError(
        f"a journal holds text, numbers, lists and mappings; {kind.__name__} is none of these: {value!r:.200}"
    )


def amounts(usage: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """What one paid call adds to the sums: 1, its tokens, its price, and 1 if the price is unknown.

    The price is in whole 1e-12 dollars, so that a sum does not depend on its order.
    """
    tokens = int(usage.get("input_tokens") or 0) + int(usage.get("output_tokens") or 0)
    usd = usage.get("usd")
    return 1, tokens, 0 if usd is None else round(usd * 1e12), int(usd is None)


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


_OF_A_RUN = {
    "program": "the class of the program",
    "source": "the program's code, or a value that it closes over",
    "start": "the program's first values, its fields or its language models",
    "optimizer": "the optimizer or its settings",
    "metric": "the metric's code, or a value that it closes over",
}
"""What the keys of the event "run" stand for, where their names do not say it."""


def cause(then: Mapping[str, Any], now: Mapping[str, Any], first: str) -> str:
    """Why a resumed run may have come to another event.

    Args:
        then: The recorded event.
        now: The present one.
        first: Kind of the first event of the journal.
    """
    if then.get("kind") == now.get("kind") == "run":
        before, after = _parted(then, now)
        changed = ", ".join(_OF_A_RUN.get(key, f"the {key}") for key in sorted({*before, *after}))
        return f"What changed: {changed}"
    if first == "run":
        return (
            "Program, data, metric, seed and budget are those of the run, so something that they use is not: a program "
            "or a metric that draws at random, keeps a state from call to call, or reads a clock or file; or a package"
        )
    return "The program, the data, the metric, the seed or the budget changed"


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
