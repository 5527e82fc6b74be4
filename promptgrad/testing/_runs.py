"""Runs in the contract suite of optimizers: their results, and the comparison of two of them."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptgrad import nn
from promptgrad.run import Journal
from promptgrad.testing._promise import must
from promptgrad.train import FitResult


@dataclass(frozen=True)
class Done:
    """A run that has ended.

    Attributes:
        result: Its result.
        state: The program's values after the run.
        folder: Folder of its journal.
        asked: Number of calls that reached the language model in this process.
    """

    result: FitResult
    state: dict[str, Any]
    folder: Path
    asked: int

    @property
    def journal(self) -> Journal:
        """The journal, to read."""
        return Journal(self.folder / "journal.jsonl", readonly=True)

    @cached_property
    def canonical(self) -> list[dict[str, Any]]:
        """What the journal decides, in an order that does not depend on concurrency."""
        return self.journal.canonical()

    @property
    def lines(self) -> list[bytes]:
        """The lines of the journal's file."""
        return (self.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore the warnings of a run on little or failing data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def values_of(model: nn.Module) -> dict[str, Any]:
    """The state of a program: values, flags, and the identity of its language model."""
    found: dict[str, Any] = {path: parameter.data for path, parameter in model.named_parameters()}
    found |= {f"{path} requires_grad": parameter.requires_grad for path, parameter in model.named_parameters()}
    return found | {f"{path} training": module.training for path, module in model.named_modules()}


def same_run(one: Done, other: Done, what: str) -> None:
    """Fail unless two runs made the same decisions."""
    __tracebackhide__ = True
    first, second = one.canonical, other.canonical
    must(
        first == second,
        f"{what} have different journals, {difference(first, second)}: take all chance from session.rng and "
        "session.spawn, and decide between blocks, never inside",
    )
    for name in ("outcome", "values", "best", "calls", "history"):
        here, there = getattr(one.result, name), getattr(other.result, name)
        if name == "history":
            here, there = map(repr, here), map(repr, there)
            here, there = list(here), list(there)
        must(here == there, f"{what} differ in result.{name}: {here!r} and {there!r}")
    must(one.state == other.state, f"{what} leave different programs: {difference(one.state, other.state)}")


def difference(first: Any, second: Any) -> str:
    """The first place where two values differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *second]:
            if first.get(key) != second.get(key):
                return f"at {key!r}: {difference(first.get(key), second.get(key))}"
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        for place, pair in enumerate(zip(first, second)):  # noqa: B905 - their lengths are compared below
            if pair[0] != pair[1]:
                return f"at {place}: {difference(*pair)}"
        return f"{len(first)} and {len(second)} entries"
    return f"{str(first)[:300]} and {str(second)[:300]}"


def sent_once(done: Done, what: str) -> None:
    """Fail if a call was sent after its reply was in the journal."""
    __tracebackhide__ = True
    paid: set[str] = set()
    for event in done.journal.events():
        if event["kind"] == "call":
            paid.add(event["key"])
        elif event["kind"] == "send":
            must(event["key"] not in paid, f"{what} sent a call again whose reply is in the journal: {event['key']}")


def lost_in(lines: Sequence[bytes]) -> int:
    """Calls in flight at the end of a journal, or given up since the last decision."""
    stopped = 0
    flying: Counter[str] = Counter()
    for event in map(json.loads, lines):
        if event["kind"] == "send":
            flying[event["key"]] += 1
        elif event["kind"] in ("call", "fail") and "row" not in event:
            flying.pop(event["key"], None)
            stopped += event.get("lost") is True
        elif "seq" in event:
            stopped = 0
    return stopped + flying.total()


def reasons(done: Done) -> None:
    """Fail if a proposal that was not tried has no reason, or has one without words."""
    __tracebackhide__ = True
    for event in done.journal.events():
        if event["kind"] != "proposal":
            continue
        must("refused" in event, f"the proposal {event} does not say whether it was refused: add refused=None or why")
        refused, text = event["refused"], event.get("text")
        must(
            refused is None or (isinstance(refused, str) and refused.strip() != ""),
            f"the proposal {event} was refused for the reason {refused!r}, and a text is expected",
        )
        must(refused is not None or text is not None, f"the proposal {event} has no text, and no reason why")
