"""`record`: writes a program's calls to a file, from which `replay` answers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgrad._pipes import not_a_file
from promptgrad.content import apart, together
from promptgrad.errors import LMError, ReplayError
from promptgrad.lm._channel import Recorded, in_front
from promptgrad.lm._codec import digested, inline
from promptgrad.lm._settings import current

if TYPE_CHECKING:
    from promptgrad.lm._base import LM
    from promptgrad.lm._prices import Prices
    from promptgrad.lm._request import Request

SCHEMA = 4
"""Version of the file. Those of version 1, whose replies are text alone, 2, without blobs, and 3, without blobs of
replies, can still be read."""
_BLOB = "blob:"
"""What stands before a digest in place of bytes, which are written once; base64 has no colon."""
_LARGE = 750
"""Bytes of an image or file above which they are written once for all requests."""
_FACTS = ("status", "body", "retry_after")


class Cassette:
    """A recording: the language models, and for each request the replies in their order.

    `record` and `replay` make it and pass it to their block.

    Attributes:
        path: The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lms: list[dict[str, Any]] = []
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._blobs: dict[str, str] = {}
        self._lock = threading.Lock()
        self._schema = SCHEMA

    @property
    def lms(self) -> tuple[str, ...]:
        """Names of the language models on record."""
        return tuple(known["name"] for known in self._lms)

    def __len__(self) -> int:
        """Number of replies and errors on record."""
        return sum(map(len, self._entries.values()))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        plural = "y" if len(self) == 1 else "ies"
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} repl{plural})"

    def _read(self) -> None:
        """Read the file."""
        self._check()
        try:
            self._read_lines()
        except UnicodeDecodeError as error:
            raise ReplayError(f"{self.path} is not a cassette, or is damaged: it is not UTF-8 ({error})") from error

    def _check(self) -> None:
        if odd := not_a_file(self.path):
            raise ReplayError(f"{self.path} is not a cassette: {odd}")

    def _read_lines(self) -> None:
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
                    if kind == "cassette":
                        self._schema = entry["schema"]
                    _check(entry)
                    if kind == "lm":
                        self._lms.append(entry)
                    elif kind == "blob":
                        self._blobs[entry["key"]] = entry["data"]
                    elif kind != "cassette":
                        if self._blobs:
                            entry["request"] = _with_blobs(entry["request"], self._blobs)
                            if "content" in entry.get("reply", ()):
                                entry["reply"] = together(entry["reply"], self._blobs.get)
                        self._entries.setdefault(entry["key"], []).append(entry)
                except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
                    raise ReplayError(
                        f"{self.path} is not a cassette, or is damaged: line {number} is {line[:80]!r}"
                    ) from error
        for entries in self._entries.values():
            entries.sort(key=_turn)  # the file has them in the order in which they came back
        if not self._entries and not self._lms and self.path.stat().st_size == 0:
            raise ReplayError(f"{self.path} is empty: record something first, with promptgrad.lm.record(path)")


_FORMS: dict[str, dict[str, type]] = {
    "lm": {"name": str},
    "blob": {"key": str, "data": str},
    "call": {"key": str, "request": dict, "reply": dict},
    "error": {"key": str, "request": dict, "error": dict},
}


def _check(entry: Mapping[str, Any]) -> None:
    """Refuse an entry that is not what a recorder writes."""
    for name, form in _FORMS.get(entry["kind"], {}).items():
        if not isinstance(entry[name], form):
            raise TypeError(name)
    if not isinstance(entry.get("turn", -1), int):
        raise TypeError("turn")


def _with_blobs(value: Any, blobs: Mapping[str, str]) -> Any:
    """A request on record with the bytes of its images and files.

    Raises:
        KeyError: Some are not on record.
    """
    if isinstance(value, dict):
        data = value.get("data")
        if "type" in value and isinstance(data, str) and data.startswith(_BLOB):
            return {**value, "data": blobs[data.removeprefix(_BLOB)]}
        return {key: _with_blobs(item, blobs) for key, item in value.items()}
    return [_with_blobs(item, blobs) for item in value] if isinstance(value, list) else value


def _turn(entry: Mapping[str, Any]) -> int:
    """The position of a reply among those to the same request; replies without a model call come first."""
    turn: int = entry.get("turn", -1)
    return turn


class Recorder(Cassette):
    """A cassette that is being written."""

    def __init__(self, path: str | os.PathLike[str], *, append: bool) -> None:
        super().__init__(path)
        self._turns: dict[str, int] = {}
        self._check()
        if self.path.exists() and self.path.stat().st_size:
            if not append:
                raise FileExistsError(
                    f"{self.path} exists: delete it to record anew, or write record(path, append=True) to add to it"
                )
            self._read()
            if self._schema == SCHEMA:
                return
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._write({"kind": "cassette", "schema": SCHEMA})

    def next_turn(self, key: str) -> int:
        """Number of equal requests before this one, so that equal ones side by side keep their order on record."""
        with self._lock:
            known = self._entries.get(key, ())
            turn = self._turns.get(key, max((_turn(entry) for entry in known), default=-1)) + 1
            self._turns[key] = turn
            return turn

    def has_reply(self, key: str) -> bool:
        """True if a reply to the request is on record."""
        with self._lock:
            return any("reply" in entry for entry in self._entries.get(key, ()))

    def write_reply(
        self, lm: LM, request: Request, key: str, reply: Mapping[str, Any], turn: int | None = None
    ) -> None:
        """Write a reply; `turn` is None for one that came without a model call."""
        self._add("call", lm, request, key, turn, reply=dict(reply))

    def write_error(self, lm: LM, request: Request, key: str, error: LMError, turn: int) -> None:
        """Write an error of an LM."""
        facts = {name: value for name in _FACTS if (value := getattr(error, name, None)) is not None}
        self._add("error", lm, request, key, turn, error={"type": type(error).__name__, "message": str(error), **facts})

    def _add(self, kind: str, lm: LM, request: Request, key: str, turn: int | None, **what: Any) -> None:
        placed = {} if turn is None else {"turn": turn}
        fresh: dict[str, str] = {}

        def blob(data: bytes) -> str:
            if len(data) <= _LARGE:
                return inline(data)
            digest = digested(data)
            if digest not in self._blobs:
                fresh[digest] = inline(data)
            return _BLOB + digest

        asked = request.to_dict(blob)
        if "content" in what.get("reply", ()):  # else it is text alone
            what["reply"] = apart(what["reply"], fresh)
        entry = {"kind": kind, "key": key, "lm": 0, "request": asked, **placed, **what}
        with self._lock:
            for digest, data in fresh.items():
                if digest not in self._blobs:
                    self._blobs[digest] = ""  # it is in the file
                    self._write({"kind": "blob", "key": digest, "data": data})
            entry["lm"] = self._number(lm)
            self._entries.setdefault(key, []).append(entry)
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
            **({"constrains": True} if lm.constrains else {}),
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
        with open(self.path, "ab", buffering=0, opener=_private) as file:
            start, view = file.tell(), memoryview(line.encode("ascii"))
            try:
                while view:
                    view = view[file.write(view) :]
            except OSError as error:
                file.truncate(start)
                raise ReplayError(f"cannot write to the cassette {self.path}: {error.strerror or error}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@contextmanager
def record(path: str | os.PathLike[str], *, append: bool = False) -> Iterator[Cassette]:
    """Write every request to a language model, with its reply or error, to a file that `replay` answers from.

    It applies to this context, and to the tasks and worker threads started from it. Replies from a cache or from the
    journal of a resumed run are written too, and so are errors of LMs. The file is JSON lines: a header with the
    schema's version, the language models (name and identity, never a key), and the calls, each written before its reply
    is used, and with the number of equal requests before it (`turn`). It holds prompts and replies in full: look
    through it before you publish it. Blocks nest: inside a `replay`, the replayed replies are recorded.

    Cost: no LM call of its own.

    Args:
        path: The file; its folder is made.
        append: Add to a file that exists.

    Raises:
        FileExistsError: The file exists, and `append` is not given.
        ReplayError: With `append`: the file is not a cassette. From a call: the file cannot be written, as on a full
            disk; it ends with the last call that was written whole.
    """
    cassette = Recorder(path, append=append)
    with in_front(partial(Recorded, cassette)):
        yield cassette
