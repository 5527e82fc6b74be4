"""Training records: a call with the right reply, and a call with a better and a worse one."""

from __future__ import annotations

from dataclasses import dataclass

from promptgrad import lm


@dataclass(frozen=True, slots=True)
class Conversation:
    """One call of a module with the reply that it should get.

    Attributes:
        messages: The messages that the program sends.
        reply: The text of the reply that the model should give.
        path: Path of the module in the program.
        example_id: `Example.id` of its example; "" if there is none.
        score: Score of the run that the call was part of; None if no metric judged it.
        calls: Calls of tools in the reply, behind its text.
        tools: The tools that the program declares beside the messages, as JSON text; "" for none.
    """

    messages: tuple[lm.Message, ...]
    reply: str
    path: str = ""
    example_id: str = ""
    score: float | None = None
    calls: tuple[lm.ToolCall, ...] = ()
    tools: str = ""

    @property
    def content(self) -> lm.Content:
        """The whole reply: its text, or its parts where it calls tools."""
        if not self.calls:
            return self.reply
        return (*([lm.TextPart(self.reply)] if self.reply else ()), *self.calls)


@dataclass(frozen=True, slots=True)
class Preference:
    """One call of a module with a reply that is better than another.

    Attributes:
        messages: The messages that the program sends.
        chosen: The better reply.
        rejected: The worse reply.
        path: Path of the module in the program.
        example_id: `Example.id` of its example; "" if there is none.
    """

    messages: tuple[lm.Message, ...]
    chosen: str
    rejected: str
    path: str = ""
    example_id: str = ""
