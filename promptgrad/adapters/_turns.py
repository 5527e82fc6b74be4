"""The earlier turns of a conversation as messages, cut to a number of tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._kinds import members
from promptgrad.adapters._pieces import joined
from promptgrad.content import History, Turn
from promptgrad.errors import InputError, ParseError
from promptgrad.lm import Content, Message, Part, Request, TextPart, ToolCall, ToolResult, expected_tokens
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._base import Format

_FRAME = 5
"""Tokens that a message takes beside its content: its role, and signs of its beginning and end."""


def histories(signature: Signature) -> list[str]:
    """The inputs that are earlier turns, which stand in messages of their own."""
    return [name for name, field in signature.inputs.items() if is_history(field.annotation)]


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
    asked = {name: field for name, field in form.signature.inputs.items() if name not in form.aside}
    inputs = _values(number, fields, asked)
    outputs = _values(number, fields, form.demo_fields)
    if not inputs and not outputs:
        known = ", ".join([*asked, *form.demo_fields])
        raise InputError(
            f"turn {number} of the history has no field of the signature: its fields are {', '.join(fields)}, and "
            f"those of the signature are {known}; a turn of a chat is written ('user', text)"
        )
    made = []
    if inputs:
        made.append(message_of("user", form.demo_user(inputs, ())))
    if outputs:
        made += answered(form.assistant(outputs), f"turn_{number}")
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


def message_of(role: str, content: Content) -> Message:
    """A message of what a format wrote, in which a text may stand among parts."""
    if isinstance(content, str):
        return Message(role, content)
    return Request.of([{"role": role, "content": content}]).tail[0]


def answered(content: Content, name: str) -> tuple[Message, ...]:
    """The reply of a demo or an earlier turn; its calls of tools have their results behind them, as providers ask.

    Args:
        content: What a format wrote.
        name: The beginning of the ids of the calls.
    """
    message = message_of("assistant", content)
    if isinstance(message.content, str) or not message.tool_calls:
        return (message,)
    parts: list[Part] = []
    results: list[Part] = []
    for part in message.content:
        if isinstance(part, ToolCall):
            part = ToolCall(f"{name}_{len(results) + 1}", part.name, part.arguments)
            results.append(ToolResult(part.id, "ok"))
        parts.append(part)
    return (Message(message.role, tuple(parts)), Message("tool", tuple(results)))


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
