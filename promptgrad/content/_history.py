"""`History`: the earlier turns of a conversation, as the value of a field."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from promptgrad._habits import refuses
from promptgrad.content._document import Document
from promptgrad.content._media import Audio, File, Image, Media

ROLES = ("user", "assistant")
"""Who speaks in a turn."""

_MEDIA = {kind.kind: kind for kind in (Image, Audio, File)}
_MOST_TURNS = 10_000


@dataclass(frozen=True, slots=True, repr=False)
class Turn:
    """What one side said, or one exchange by the fields of a signature.

    Args:
        role: `user` or `assistant`; empty for an exchange.
        content: A text, or a tuple of texts and of images, sounds and files; of an exchange, its fields by name, their
            values in JSON types: a document is a dict, a date a text.
    """

    role: str
    content: Any

    def __record__(self) -> tuple[None, dict[str, Any]]:
        return None, {self.role: self.content} if self.role else dict(self.content)

    def __hash__(self) -> int:
        return hash((self.role, repr(self.content)))

    def __repr__(self) -> str:
        if self.role:
            return f"{self.role}: {_brief(self.content)}"
        return ", ".join(f"{name}: {_brief(value)}" for name, value in self.content.items())


class History(Sequence[Turn]):
    """The earlier turns of a conversation, which stand as messages of their own in front of the question.

    A turn is what one side said, `("user", "Hi")` or `{"role": "user", "content": "Hi"}`, or an exchange by the fields
    of the signature, `{"question": "Hi", "answer": "Hello"}`, which is written as a demo is. A history does not change:
    `add` returns a longer one.

    With `max_tokens`, the oldest turns are left out of a prompt until the others are no more tokens than this, by an
    estimate that is 1.4 times what tokenizers in use make of English prose. The prompt then says how many were left
    out; the history keeps them.

    Args:
        turns: The turns, the oldest first. The thoughts of a model in a message are not said, and left out.
        max_tokens: The most tokens that the turns may take of a prompt.

    Raises:
        ValueError: A turn is neither of these, or is of another role: a system message is the instruction of a program.
            Or `max_tokens` is no whole number of at least 1.
    """

    __slots__ = ("max_tokens", "turns")
    turns: tuple[Turn, ...]
    max_tokens: int | None

    @refuses({"messages": "History([{'question': ..., 'answer': ...}, ...])"})
    def __init__(self, turns: Iterable[Any] = (), max_tokens: int | None = None) -> None:
        if isinstance(turns, (str, bytes, Mapping)):
            raise ValueError(f"a History is made of a list of turns, not of one {type(turns).__name__}")
        if max_tokens is not None:
            if isinstance(max_tokens, bool) or not isinstance(max_tokens, int):
                raise ValueError(f"max_tokens of a History is a whole number, not {max_tokens!r}")
            if max_tokens < 1:
                raise ValueError(f"max_tokens of a History is at least 1, not {max_tokens}")
        made = tuple(map(_turn, turns))
        if len(made) > _MOST_TURNS:
            raise ValueError(f"a History has {_MOST_TURNS} turns at most, not {len(made)}")
        object.__setattr__(self, "turns", made)
        object.__setattr__(self, "max_tokens", max_tokens)

    def add(self, *turns: Any, **fields: Any) -> History:
        """A history with more turns, or with one exchange by its fields: `history.add(question=..., answer=...)`."""
        return History((*self.turns, *turns, *([fields] if fields else [])), self.max_tokens)

    @classmethod
    def of(cls, value: Any) -> History:
        """Make one of what a field accepts: a history, a list of turns, or its JSON form.

        Raises:
            ValueError: It is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping) and value.get("type") == "history":
            return cls(value.get("turns", ()), value.get("max_tokens"))
        if isinstance(value, (list, tuple)):
            return cls(value)
        raise ValueError(f"a History is made of a list of turns, not of a {type(value).__name__}")

    def dump(self) -> dict[str, Any]:
        """It in JSON types; `of` reads it."""
        bound = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return {"type": "history", "turns": [_dumped(turn) for turn in self.turns], **bound}

    def __record__(self) -> tuple[None, dict[str, Any]]:
        return None, {"turns": list(self.turns)}

    def __content__(self) -> tuple[Any, ...]:
        """What makes it the value that it is, for digests."""
        return ("history", [(turn.role, turn.content) for turn in self.turns], self.max_tokens)

    def __getitem__(self, index: Any) -> Any:
        return History(self.turns[index], self.max_tokens) if isinstance(index, slice) else self.turns[index]

    def __len__(self) -> int:
        return len(self.turns)

    def __iter__(self) -> Iterator[Turn]:
        return iter(self.turns)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self.turns == other.turns and self.max_tokens == other.max_tokens

    def __hash__(self) -> int:
        return hash((self.turns, self.max_tokens))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a History does not change: history.add(...) returns a longer one")

    def __getattr__(self, name: str) -> Any:
        hint = ": it has `turns`, and history = history.add(...) makes a longer one" if name == "messages" else ""
        raise AttributeError(f"a History has no {name!r}{hint}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a History does not change")

    def __reduce__(self) -> tuple[type[History], tuple[Any, ...]]:
        return (History, (self.turns, self.max_tokens))

    def __repr__(self) -> str:
        bound = "" if self.max_tokens is None else f", max_tokens={self.max_tokens}"
        shown = "; ".join(map(repr, self.turns[-2:]))
        before = ": ... " if len(self.turns) > 2 else ": " if shown else ""
        return f"History({len(self.turns)} turn{'' if len(self.turns) == 1 else 's'}{bound}{before}{shown})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.of,
            serialization=core_schema.plain_serializer_function_ser_schema(History.dump, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "object"}}


def _turn(given: Any) -> Turn:
    if isinstance(given, Turn):
        return given
    if isinstance(given, Mapping):
        if [*given] == ["fields"] and isinstance(given["fields"], Mapping):  # the JSON form of an exchange
            return Turn("", {str(name): _restored(value) for name, value in given["fields"].items()})
        if given.keys() == {"role", "content"}:
            return _spoken(given["role"], given["content"])
        if given and all(isinstance(name, str) for name in given):
            return _exchange(given)
    elif isinstance(given, tuple) and len(given) == 2:
        return _spoken(*given)
    elif hasattr(given, "role") and hasattr(given, "content"):  # a Message
        return _spoken(given.role, given.content)
    elif hasattr(given, "keys") and hasattr(given, "items"):  # an Example
        return _exchange(given)
    shown = repr(given)
    raise ValueError(
        f"a turn is ('user', text), ('assistant', text), or the fields of an exchange, not {shown[:60]}: write "
        "History([{'question': ..., 'answer': ...}])"
    )


def _exchange(given: Any) -> Turn:
    return Turn("", {name: _held(value) for name, value in given.items()})


def _held(value: Any) -> Any:
    """A value in JSON types, with images, sounds and files among them, as a state has it; a text is the same object.

    A value of another type, such as a date, becomes one again where the field is written. What has no such form stays.
    """
    if isinstance(value, Enum):
        return _held(value.value)
    if value is None or isinstance(value, (str, bool, int, float, Media)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _held(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_held(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(_held, value), key=repr)
    if hasattr(value, "model_dump"):
        return _restored(value.model_dump(mode="json"))
    if hasattr(value, "to_dict"):
        return _held(value.to_dict())
    if is_dataclass(value):
        return {field.name: _held(getattr(value, field.name)) for field in fields(value)}
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        return to_jsonable_python(value)
    except PydanticSerializationError:
        return value


def _spoken(role: Any, content: Any) -> Turn:
    if role not in ROLES:
        raise ValueError(f"a turn is of the role 'user' or 'assistant', not {role!r}: only the program instructs")
    if isinstance(content, str):
        return Turn(role, content)
    parts = content if isinstance(content, (list, tuple)) else (content,)
    made = tuple(_part(part) for part in parts if getattr(part, "kind", "") != "reasoning")
    return Turn(role, made[0] if len(made) == 1 and isinstance(made[0], str) else made)


def _part(part: Any) -> Any:
    """A part of a turn; one of a message that is text alone, and a document, are their texts."""
    if isinstance(part, Document):
        return str(part)
    made = part.text if getattr(part, "kind", "") == "text" else _restored(part)
    if isinstance(made, (str, Media)):
        return made
    raise ValueError(
        f"a turn holds texts, images, sounds and files, not {_kind(part) or type(part).__name__!r}: write "
        "('user', ('What is it?', Image(url)))"
    )


def _kind(part: Any) -> str:
    """The kind of a part of a message, or of its form in some dialect; empty for what is none."""
    found = part.get("type") if isinstance(part, Mapping) else getattr(part, "kind", "")
    return found if isinstance(found, str) else ""


def restored(form: Any) -> Any:
    """Make an image, a sound, a file or a history of its JSON form, which `dump` returned.

    Raises:
        ValueError: It is none of these.
    """
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "history":
        return History.of(form)
    if kind not in _MEDIA:
        raise ValueError(f"the types of parts in a state are {', '.join([*_MEDIA, 'history'])}, not {kind!r}")
    return _MEDIA[kind].of(form)


def _restored(value: Any) -> Any:
    """A value from JSON, with the images in it."""
    if isinstance(value, Mapping):
        if value.get("type") in _MEDIA:
            return restored(value)
        if value.get("type") == "text" and isinstance(value.get("text"), str):
            return value["text"]
        return {name: _restored(item) for name, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


def _dumped(turn: Turn) -> dict[str, Any]:
    if not turn.role:
        return {"fields": {name: _plain(value) for name, value in turn.content.items()}}
    if isinstance(turn.content, str):
        return {"role": turn.role, "content": str.__str__(turn.content)}
    return {"role": turn.role, "content": [_plain(part) for part in turn.content]}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Media):
        return value.dump()
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise ValueError(f"a turn of the history holds a {type(value).__name__}, which has no JSON form")


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else f"{text[:37]}...") if isinstance(value, str) else text[:60]
