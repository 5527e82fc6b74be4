"""`record`: a program's calls are written to a file, from which `replay` answers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad.errors import LMError, ReplayError
from promptgrad.lm._completion import Completion
from promptgrad.lm._settings import current

if TYPE_CHECKING:
    from promptgrad.lm._base import LM
    from promptgrad.lm._cache import Cache
    from promptgrad.lm._prices import Prices
    from promptgrad.lm._request import Request
    from promptgrad.lm._transport import Transport

SCHEMA = 1
FACTS = ("status", "body", "retry_after")


class Cassette:
    """What was recorded: the language models, and for each request the replies in their order.

    `record` and `replay` make it and give it to their block.

    Attributes:
        path: The file.
        final: Whether an error is what was recorded, so that it is no use to try again.
    """

    final = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lms: list[dict[str, Any]] = []
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    @property
    def lms(self) -> tuple[str, ...]:
        """Names of the language models on record."""
        return tuple(known["name"] for known in self._lms)

    def __len__(self) -> int:
        """How many replies and errors are on record."""
        return sum(map(len, self._entries.values()))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        plural = "y" if len(self) == 1 else "ies"
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} repl{plural})"

    async def reach(self, lm: Transport, request: Request, asked: Request, key: str) -> Completion:
        """Get a reply for a transport. `asked` is the request with the transport's defaults, `key` as for `_send`."""
        raise NotImplementedError

    def keep(self, lm: LM, request: Request, reply: Mapping[str, Any]) -> None:
        """Take note of a reply that came from elsewhere: a cache, the journal of a resumed run."""

    def cache(self, cache: Cache) -> Cache:
        """What answers in place of a cache."""
        return cache

    def fallback(self) -> LM | None:
        """The language model of a call for which none is set; None where there is none here either."""
        return None

    def _read(self) -> None:
        """Take over what is on file."""
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    entry = json.loads(line)
                    kind = entry["kind"]
                    if number == 1 and kind != "cassette":
                        raise KeyError(kind)
                    if kind == "cassette" and entry["schema"] > SCHEMA:
                        raise ReplayError(
                            f"{self.path} has schema {entry['schema']}, and this version reads up to {SCHEMA}: "
                            "upgrade promptgrad"
                        )
                    if kind == "lm":
                        self._lms.append(entry)
                    elif kind != "cassette":
                        self._entries.setdefault(entry["key"], []).append(entry)
                except (ValueError, KeyError, TypeError) as error:
                    raise ReplayError(
                        f"{self.path} is no cassette, or is damaged: line {number} is {line[:80]!r}"
                    ) from error
        for entries in self._entries.values():
            entries.sort(key=_turn)  # they are on file in the order in which they came back
        if not self._entries and not self._lms and self.path.stat().st_size == 0:
            raise ReplayError(f"{self.path} is empty: record something first, with promptgrad.lm.record(path)")


def _turn(entry: Mapping[str, Any]) -> int:
    """The place of a reply among those to the same request; what was not asked of a model comes first."""
    turn: int = entry.get("turn", -1)
    return turn


running: ContextVar[Cassette | None] = ContextVar("promptgrad.cassette", default=None)

current_cassette = running.get


class Recorder(Cassette):
    """A cassette that is being written."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool) -> None:
        super().__init__(path)
        self._turns: dict[str, int] = {}
        if self.path.exists() and self.path.stat().st_size:
            if not append:
                raise FileExistsError(
                    f"{self.path} exists: delete it to record anew, or write record(path, append=True) to add to it"
                )
            self._read()
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write({"kind": "cassette", "schema": SCHEMA})

    async def reach(self, lm: Transport, request: Request, asked: Request, key: str) -> Completion:
        """Send the request, and write what comes back."""
        turn = self._next_turn(request.digest(lm.identity()))
        try:
            completion = await lm._send(asked, key)
        except LMError as error:
            facts = {name: value for name in FACTS if (value := getattr(error, name, None)) is not None}
            fact = {"type": type(error).__name__, "message": str(error), **facts}
            self._add("error", lm, request, turn=turn, error=fact)
            raise
        self._add("call", lm, request, turn=turn, reply=lm._record(completion))
        return completion

    def _next_turn(self, key: str) -> int:
        """How often the request was asked before, so that equal ones side by side keep their order on record."""
        with self._lock:
            known = self._entries.get(key, ())
            turn = self._turns.get(key, max((_turn(entry) for entry in known), default=-1)) + 1
            self._turns[key] = turn
            return turn

    def keep(self, lm: LM, request: Request, reply: Mapping[str, Any]) -> None:
        """Write a reply, unless the request has one on record."""
        with self._lock:
            known = any("reply" in entry for entry in self._entries.get(request.digest(lm.identity()), ()))
        if not known:
            self._add("call", lm, request, reply=dict(reply))

    def _add(self, kind: str, lm: LM, request: Request, **what: Any) -> None:
        entry = {"kind": kind, "key": request.digest(lm.identity()), "lm": 0, "request": request.to_dict(), **what}
        with self._lock:
            entry["lm"] = self._number(lm)
            self._entries.setdefault(entry["key"], []).append(entry)
            self._write(entry)

    def _number(self, lm: LM) -> int:
        identity = lm.identity()
        for number, known in enumerate(self._lms):
            if known["identity"] == identity:
                return number
        prices: Prices | None = getattr(lm.transport, "prices", None)
        fact: dict[str, Any] = {
            "kind": "lm",
            "name": lm.name,
            "identity": identity,
            "adapter": lm.adapter,
            "prices": prices,
        }
        default = current().lm
        if default is not None and default.identity() == identity:
            fact["default"] = True
        self._lms.append(fact)
        self._write(fact)
        return len(self._lms) - 1

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)


@contextmanager
def record(path: str | os.PathLike[str], *, append: bool = False) -> Iterator[Cassette]:
    """Write every request to a language model, and what came back, to a file that `replay` answers from.

    It holds for this context, and for the tasks and worker threads started from it. Also what a cache or the journal
    of a resumed run answers is written, and errors of LMs are. The file is JSON lines: a header with the
    schema's version, the language models (name and identity, never a key), and the calls, each written before its
    reply is used, and with the number of equal requests that were asked before it (`turn`). Prompts and replies are in
    it in full: look through it before you publish it.

    Cost: no LM call of its own.

    Args:
        path: The file; its folder is made.
        append: Add to a file that exists.

    Raises:
        FileExistsError: The file exists, and `append` is not given.
        ReplayError: With `append`: the file is no cassette.
    """
    cassette = Recorder(path, append=append)
    token = running.set(cassette)
    try:
        yield cassette
    finally:
        running.reset(token)
