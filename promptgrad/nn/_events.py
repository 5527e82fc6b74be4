"""The events of `Module.stream`: what a program says of its calls while they run."""

from dataclasses import dataclass
from typing import Any

from promptgrad.lm import Usage


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened in a call of a streamed program. Its kinds are the classes that derive from it.

    Attributes:
        path: Path of the module in the program that is streamed; empty for that program itself, and the name of the
            class in parentheses for a module that is no part of it.
        call: Number of the call in this stream, from 0, which tells calls apart that run side by side.
    """

    path: str
    call: int


@dataclass(frozen=True, slots=True)
class CallBegun(StreamEvent):
    """A module asks its language model.

    Attributes:
        lm: Name of the language model.
    """

    lm: str


@dataclass(frozen=True, slots=True)
class FieldDelta(StreamEvent):
    """More of the text of an output.

    All deltas of a field since the call began, or since the last `Voided` of the call, are the text of the field.

    Attributes:
        field: Name of the output.
        delta: The text.
    """

    field: str
    delta: str


@dataclass(frozen=True, slots=True)
class PartialValue(StreamEvent):
    """What is complete so far of an output that is a list or an object, each part checked against its type.

    Attributes:
        field: Name of the output.
        value: A list of the items that are complete, or a dict of the fields that are. The last part may itself be
            partial: an object that is not complete yet is a dict.
    """

    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class FieldFinished(StreamEvent):
    """An output is complete.

    Attributes:
        field: Name of the output.
        value: Its value, as in the prediction.
    """

    field: str
    value: Any


@dataclass(frozen=True, slots=True)
class ThoughtDelta(StreamEvent):
    """More of the model's reasoning before its answer, which is no part of any field.

    Attributes:
        delta: The text.
    """

    delta: str


@dataclass(frozen=True, slots=True)
class ToolPiece(StreamEvent):
    """More of a tool call that the model writes.

    Attributes:
        index: Index of the tool call in the reply.
        id: Its id, in its first piece; empty afterwards.
        name: The tool's name, in its first piece; empty afterwards.
        arguments: More of the JSON text of its arguments.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Voided(StreamEvent):
    """What was streamed of the fields of this call does not count. They come again, or the call ends with an error.

    Attributes:
        reason: Why: the reply did not parse and the model is asked again, or it reads otherwise as a whole.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class CallEnded(StreamEvent):
    """A module has its outputs, or has failed.

    Attributes:
        usage: What the call cost, with all re-asks.
        error: Why it failed; empty if it did not.
    """

    usage: Usage
    error: str = ""


@dataclass(frozen=True, slots=True)
class ToolBegun(StreamEvent):
    """An agent calls a tool; `path` is that of the tool, and of the agent where there is no such tool.

    Attributes:
        name: Name of the tool.
        id: The id of the call in the model's reply; empty where calls are written as text.
        arguments: Its arguments, as JSON text, as the model wrote them.
    """

    name: str
    id: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolEnded(StreamEvent):
    """A call of a tool has its result, or has failed, or was not made.

    Attributes:
        result: What the model is shown.
        failed: Whether it failed or was not made.
    """

    result: str
    failed: bool = False
