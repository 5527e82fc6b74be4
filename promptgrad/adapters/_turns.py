"""The earlier turns of a conversation as messages, cut to a number of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from promptgrad.adapters._base import Format
from promptgrad.adapters._kinds import members
from promptgrad.adapters._pieces import joined
from promptgrad.content import History, Turn
from promptgrad.errors import InputError, ParseError
from promptgrad.lm import Content, Message, TextPart, expected_tokens
from promptgrad.signature import Field

_FRAME = 5
"""Tokens that a message takes beside its content: its role, and signs of its beginning and end."""


def is_history(annotation: Any) -> bool:
    """Whether the values of a type are histories; `History | None` is one."""
    kinds = [kind for kind in members(annotation) if kind is not type(None)]
    return bool(kinds) and all(isinstance(kind, type) and issubclass(kind, History) for kind in kinds)


def messages_of(history: History | None, form: Format) -> list[Message]:
    """The turns of a history as messages; the oldest are left out where they are too many tokens, which is said.

    Args:
        history: The turns.
        form: Writes the exchanges that are given by fields, as it writes demos.

    Raises:
        InputError: The fields of an exchange do not fit the signature.
    """
    if history is None:
        return []
    turns = [_messages(number, turn, form) for number, turn in enumerate(history.turns, 1)]
    if history.max_tokens is None or _size(turns) <= history.max_tokens:
        return [message for turn in turns for message in turn]
    kept: list[Sequence[Message]] = []
    room = history.max_tokens - expected_tokens(_note(len(turns))) - _FRAME
    for turn in reversed(turns):
        room -= _size([turn])
        if room < 0:
            break
        kept.insert(0, turn)
    while kept and kept[0][0].role == "assistant":  # an answer whose question is left out
        del kept[0]
    said = Message("user", _note(len(turns) - len(kept)))
    return [said, *(message for turn in kept for message in turn)]


def _note(count: int) -> str:
    return f"(The first {'turn' if count == 1 else f'{count} turns'} of this conversation {_is(count)} left out.)"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _size(turns: Iterable[Sequence[Message]]) -> int:
    return sum(expected_tokens(message.content) + _FRAME for turn in turns for message in turn)


def _messages(number: int, turn: Turn, form: Format) -> Sequence[Message]:
    if turn.role:
        content = turn.content if isinstance(turn.content, str) else joined(turn.content)
        return (Message(turn.role, "".join(("", content)) if isinstance(content, str) else content),)
    fields = turn.content
    inputs = _values(number, fields, form.signature.inputs)
    outputs = _values(number, fields, form.signature.outputs)
    if not inputs and not outputs:
        known = ", ".join(form.signature.fields)
        raise InputError(
            f"turn {number} of the history has no field of the signature: its fields are {', '.join(fields)}, and "
            f"those of the signature are {known}; a turn of a chat is written ('user', text)"
        )
    made = []
    if inputs:
        made.append(Message("user", form.demo_user(inputs, ())))
    if outputs:
        made.append(Message("assistant", form.assistant(outputs)))
    return made


def _values(number: int, given: Any, fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in given:
            values[name] = _value(number, field, given[name])
    return values


def _value(number: int, field: Field, value: Any) -> Any:
    try:
        checked = field.validate("".join(("", value)) if isinstance(value, str) else value)
    except (InputError, ParseError) as error:
        raise InputError(f"turn {number} of the history does not fit the signature: {error}") from error
    return checked


def merged(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Messages in which no two in a row are of the same role: some models refuse them."""
    made: list[Message] = []
    for message in messages:
        if made and made[-1].role == message.role:
            made[-1] = Message(message.role, _both(made[-1].content, message.content))
        else:
            made.append(message)
    return tuple(made)


def _both(one: Content, other: Content) -> Content:
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return joined([*([one] if isinstance(one, str) else _pieces(one)), "\n\n", *_pieces(other)])


def _pieces(content: Content) -> list[Any]:
    if isinstance(content, str):
        return [content]
    return [part.text if isinstance(part, TextPart) else part for part in content]
