"""The canonical journal: the events of a run, whatever the timing of its calls and the number of its processes."""

from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad.run._event import OWN_KINDS, timeless


def fold(events: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The canonical journal of a run, and what it leaves out because its scope did not end; see `Journal.canonical`."""
    ordered: list[dict[str, Any]] = []
    keyed: dict[tuple[str, str, str], dict[str, Any]] = {}
    replies: dict[str, Any] = {}
    opened: dict[str, int] = {}
    for event in events:
        kind = event["kind"]
        if "seq" in event:
            ordered.append(timeless(event))
        elif kind == "scope":
            step = 1 if event["event"] == "open" else -1
            opened[event["scope"]] = opened.get(event["scope"], 0) + step
        elif kind in ("call", "use"):
            if kind == "call":
                replies[event["key"]] = _comparable(event["reply"])
            keyed["call", event["scope"], event["key"]] = {}
        elif "scope" in event and kind not in OWN_KINDS:
            keyed[kind, event["scope"], event["key"]] = timeless(event)
    kept = ordered
    left: list[dict[str, Any]] = []
    for (kind, scope, key), found in sorted(keyed.items()):
        entry = found or {"kind": kind, "scope": scope, "key": key, "reply": replies.get(key)}
        (kept if _ended(scope, opened) else left).append(entry)
    return kept, left


def _comparable(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply without times, and without log-probabilities, whose last digits depend on what was decoded beside it."""
    trace = reply.get("trace")
    if isinstance(trace, Mapping):
        reply = {**reply, "trace": {name: value for name, value in trace.items() if name != "logprobs"}}
    return timeless(reply)


def _ended(scope: str, opened: Mapping[str, int]) -> bool:
    """Whether a scope and all scopes around it, except for the run itself, were closed as often as opened."""
    if not scope:
        return opened.get("", 0) == 0
    parts = scope.split("/")
    return all(opened.get("/".join(parts[:end]), 0) == 0 for end in range(1, len(parts) + 1))
