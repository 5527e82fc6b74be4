"""`replay`: runs a program again without any language model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from promptgrad.errors import NoLMError, ReplayError, recall
from promptgrad.lm._base import LM
from promptgrad.lm._cassette import Cassette
from promptgrad.lm._channel import Replayed, in_front
from promptgrad.lm._completion import Completion
from promptgrad.lm._parts import show, to_content
from promptgrad.lm._prices import Prices
from promptgrad.lm._request import Request
from promptgrad.lm._settings import current, lay, lift
from promptgrad.lm._transport import Transport

if TYPE_CHECKING:
    from promptgrad.lm._channel import ModelCall

_COMPARED = 500  # most recorded requests that an unknown one is compared with
_SHOWN = 40  # most lines of the difference to the nearest one


class RecordedLM(Transport):
    """A recorded language model, with its name, identity, adapter and prices; inside `replay` with its replies."""

    in_place = True

    def __init__(self, fact: Mapping[str, Any]) -> None:
        super().__init__(fact["name"], adapter=fact.get("adapter", "chat"))
        self._identity = fact["identity"]
        self.constrains = bool(fact.get("constrains"))  # so that the requests are the same
        prices = fact.get("prices")
        self._prices: Prices | None = None if prices is None else (prices[0], prices[1])

    @property
    def prices(self) -> Prices | None:
        """The prices that the recorded LM had."""
        return self._prices

    async def _send(self, request: Request, key: str) -> Completion:
        raise ReplayError(f"{self.name!r} is a recorded language model: it answers only inside promptgrad.lm.replay()")


class Player(Cassette):
    """A cassette that answers.

    Attributes:
        strict: True if an unknown request is refused.
        unknown: The refusals so far.
    """

    def __init__(self, path: str | os.PathLike[str], *, strict: bool) -> None:
        super().__init__(path)
        self.strict = strict
        self.unknown: list[ReplayError] = []
        self._played: dict[str, int] = {}
        self._read()
        for key, entries in self._entries.items():
            if any("reply" in entry for entry in entries):  # an error that a retry overcame
                self._entries[key] = [entry for entry in entries if "reply" in entry]

    @property
    def unused(self) -> tuple[dict[str, Any], ...]:
        """The recorded requests that have not been made, in JSON types."""
        return tuple(entries[0]["request"] for key, entries in self._entries.items() if not self._played.get(key))

    def lm(self, name: str | None = None) -> LM:
        """A language model that has only the replies on record, in place of the one that was recorded.

        Args:
            name: Name of the language model, where several were recorded.

        Raises:
            ReplayError: None has this name, or no name is given and several were recorded.
        """
        found = [known for known in self._lms if name is None or known["name"] == name]
        if len(found) != 1:
            names = ", ".join(map(repr, self.lms)) or "no language model"
            raise ReplayError(f"{self.path} holds {names}: write .lm(name) with the name of one of them")
        return RecordedLM(found[0])

    def fallback(self) -> LM | None:
        """The recorded language model, if it is the only one."""
        return RecordedLM(self._lms[0]) if len(self._lms) == 1 else None

    def default(self) -> LM | None:
        """The recorded language model that was the default of the context or the process."""
        found = [known for known in self._lms if known.get("default")]
        return RecordedLM(found[-1]) if found else None

    def play(self, call: ModelCall) -> Mapping[str, Any] | None:
        """The reply on record, in the recorded order; a request that is made more often gets the last reply again.

        None where a request is not on record and may go to its own language model.

        Raises:
            LMError: An error is on record.
            ReplayError: The request is not on record.
        """
        digest = call.digest
        with self._lock:
            entries = self._entries.get(digest)
            if entries is not None:
                place = self._played.get(digest, 0)
                self._played[digest] = place + 1
                entry = entries[min(place, len(entries) - 1)]
        if entries is None:
            if self.strict or isinstance(call.lm, RecordedLM):
                self._refuse(call.lm, call.request)
            return None
        if "error" in entry:
            raise recall(entry["error"])
        reply: Mapping[str, Any] = entry["reply"]
        return reply

    def _refuse(self, lm: Transport, request: Request) -> NoReturn:
        error = ReplayError(self._explain(lm, request), request=request.to_dict())
        with self._lock:
            self.unknown.append(error)
        raise error

    def _explain(self, lm: Transport, request: Request) -> str:
        head = f"{self.path} holds no reply to this request of {lm.name!r}"
        if not self._entries:
            return f"{head}: nothing was recorded"
        from difflib import SequenceMatcher, unified_diff

        wanted = _lines(request.to_dict())
        text = "\n".join(wanted)
        nearest, best = None, -1.0
        for number, entries in enumerate(self._entries.values()):
            if number >= _COMPARED:
                break
            other = "\n".join(_lines(entries[0]["request"]))
            matcher = SequenceMatcher(None, text, other, autojunk=len(text) > 2000)
            if matcher.real_quick_ratio() > best and matcher.quick_ratio() > best and (ratio := matcher.ratio()) > best:
                nearest, best = entries[0], ratio
        if nearest is None:  # not reached: there is at least one
            return head
        known = self._lms[nearest["lm"]]
        difference = list(unified_diff(_lines(nearest["request"]), wanted, "recorded", "asked", lineterm="", n=1))
        if not difference:
            return (
                f"{head}, but one to the same request of another language model.\n"
                f"  recorded  {known['identity']}\n  asked     {lm.identity()}\n"
                "Give the program the recorded one: model.to(cassette.lm()), in `with replay(path) as cassette:`"
            )
        if len(difference) > _SHOWN:
            difference = [*difference[:_SHOWN], f"... and {len(difference) - _SHOWN} lines more"]
        lines = "\n".join("  " + line for line in difference)
        return (
            f"{head}. The nearest one on record ({best:.0%} alike) differs in:\n{lines}\n"
            "The program, its data, its options or a seed changed: record again, or write replay(path, strict=False) "
            "to have what is unknown asked of the language model"
        )


def _lines(request: Mapping[str, Any]) -> list[str]:
    lines = []
    for message in request["messages"]:
        lines.append(f"[{message['role']}]")
        lines += show(to_content(message["content"])).splitlines()
    lines += [f"{name} = {json.dumps(value)}" for name, value in request.items() if name != "messages"]
    return lines


@contextmanager
def replay(path: str | os.PathLike[str], *, strict: bool = True) -> Iterator[Player]:
    """Answer every request from a file that `record` wrote; nothing is sent, so no key and no network is needed.

    A training run replays with the same decisions, calls and canonical journal. The program may keep its language
    models, which then send nothing, or use recorded ones in their place: `model.to(cassette.lm())`. A recorded default
    (`configure`, `context`) is the default of the block if there is no other; and where nothing is set at all, the
    recorded LM is used, if there is only one. Caches begin empty, as in a new process. Blocks nest: inside a `record`,
    and not strict, unknown requests are recorded.

    Equal requests get their replies in the order of the requests, not of the replies, and the last reply again where
    there are more requests; a retried request counts at its last attempt. Threads that make equal requests side by side
    may make them in another order than before: give each its own `replicate`. Errors that no retry overcame are raised
    again.

    Cost: no LM call; with `strict=False`, one for each request that is not on record.

    Args:
        path: The file.
        strict: Refuse a request that is not on record; otherwise it goes to the program's own language model.

    Raises:
        ReplayError: A request is not on record (the message shows the nearest one that is, and how it differs), or
            the file is not a cassette. Where the program kept such an error as data, it is raised when the block ends.
        FileNotFoundError: There is no such file.
    """
    cassette = Player(path, strict=strict)
    default = {"lm": cassette.default()} if current().lm is None else {}
    token = lay(fallback=cassette.fallback(), **default)
    try:
        with in_front(partial(Replayed, cassette)):
            yield cassette
    except NoLMError as error:
        if cassette.unknown and error is not cassette.unknown[0]:
            raise cassette.unknown[0] from error
        raise
    finally:
        lift(token)
    if cassette.unknown:
        raise cassette.unknown[0]
