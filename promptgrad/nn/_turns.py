"""`Turns`: the turns of a conversation that follow the prompt of a call."""

from collections.abc import Iterable, Mapping
from typing import Any

from promptgrad.errors import SignatureError
from promptgrad.lm import Content, Message, Part, TextPart, ToolCall, ToolResult


class Turns:
    """What was said after the prompt: the messages, and the values that they were made of.

    `predict(question=..., turns=turns)` sends the messages after its own prompt, so that a conversation grows by what
    is new and its beginning stays as it was sent before. The values are what the graph sees: texts keep their origin.

    Args:
        messages: The messages, in order.
        values: What they were made of.
    """

    __slots__ = ("messages", "values")

    def __init__(self, messages: Iterable[Message] = (), values: Iterable[Any] = ()) -> None:
        self.messages = tuple(messages)
        self.values = tuple(values)

    def more(self, messages: Iterable[Message], values: Iterable[Any]) -> "Turns":
        """The conversation with more turns."""
        return Turns((*self.messages, *messages), (*self.values, *values))

    def __repr__(self) -> str:
        return f"<Turns of {len(self.messages)} messages>"


def as_turns(turns: Any) -> Turns | None:
    """The turns that a call was given; None where there are none.

    Raises:
        TypeError: They are no `Turns`.
    """
    if turns is not None and not isinstance(turns, Turns):
        raise TypeError(f"turns= is an nn.Turns(messages), not {type(turns).__name__}")
    return turns


def with_turns(inputs: Mapping[str, Any], turns: Turns | None) -> Mapping[str, Any]:
    """The inputs of a call as the graph keeps them."""
    return inputs if turns is None or not turns.messages else {**inputs, "turns": list(turns.values)}


def refuse_turns(inputs: Iterable[str], agent: str) -> None:
    """Refuse the input of an agent that has the name by which its steps are given their turns.

    Raises:
        SignatureError: There is one.
    """
    if "turns" in inputs:
        raise SignatureError(f"the input 'turns' has the name by which a {agent} passes on its steps: rename it")


def answered(written: Content, name: str, told: str, media: tuple[Part, ...] = ()) -> list[Message]:
    """A reply and what is said to it: behind a reply that calls a function stands its result, as providers ask."""
    if isinstance(written, str) or not any(isinstance(part, ToolCall) for part in written):
        return [Message("assistant", written), Message("user", (TextPart(told), *media) if media else told)]
    parts = tuple(ToolCall(name, part.name, part.arguments) if isinstance(part, ToolCall) else part for part in written)
    shown = [Message("user", media)] if media else []
    return [Message("assistant", parts), Message("tool", (ToolResult(name, told),)), *shown]
