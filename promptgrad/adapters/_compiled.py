"""What `Adapter.compile` makes: a signature with an instruction and demos, rendered once."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from promptgrad.adapters._inside import part_at, place_at, split_path, type_at
from promptgrad.adapters._place import ValuePlace, alternatives
from promptgrad.adapters._turns import merged, message_of
from promptgrad.adapters._values import missing_input
from promptgrad.lm import Completion, Message, Prefix, Request

if TYPE_CHECKING:
    from promptgrad.adapters._base import Adapter, Format
    from promptgrad.adapters._feed import ReplyFeed


class Compiled:
    """A signature with an instruction and demos, rendered once; a call adds one user message.

    Attributes:
        answer: Gives a reply without thoughts in its text: they are its reasoning.
        read: Gives the outputs of such a reply that came to its end, as `parse`.
        outputs: Names of the outputs that a reply holds.
        prefix: The system message and the demos, encoded and digested.
        adapter: The adapter that rendered it.
        signature: The signature.
        response_format: JSON text for `Request.response_format`, or None.
        skipped: Demos left out because they have no input or no output of the signature.
    """

    __slots__ = (
        "_format",
        "_grammar",
        "_remind",
        "adapter",
        "answer",
        "outputs",
        "prefix",
        "read",
        "response_format",
        "signature",
        "skipped",
    )

    def __init__(
        self, adapter: Adapter, form: Format, prefix: Prefix, response_format: str | None, skipped: int, *, remind: bool
    ) -> None:
        self.adapter = adapter
        self._format = form
        self.answer: Callable[[Completion], Completion] = form.answer
        self.read: Callable[[Completion], dict[str, Any]] = form.parse
        self._grammar: str | None = None
        self._remind = remind
        self.prefix = prefix
        self.signature = signature = form.signature
        self.outputs = tuple(signature.outputs if adapter.first_outputs is None else adapter.first_outputs(signature))
        self.response_format = response_format
        self.skipped = skipped

    def request_tail(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages of this call after the prefix: earlier turns, if there are some, and its own.

        Raises:
            InputError: An input is missing, or cannot be written.
        """
        content = self._format.user(inputs, remind=self._remind)
        return self._after_turns(inputs, message_of("user", content))

    def _after_turns(self, inputs: Mapping[str, Any], said: Message) -> tuple[Message, ...]:
        """The message of this call behind the earlier turns among its inputs, if there are some."""
        form = self._format
        if not form.aside:
            return (said,)
        for name in form.aside:
            if name not in inputs:
                raise missing_input(name, self.signature)
        return merged([*form.turns_before(inputs), said])

    def ask(
        self,
        inputs: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        held: bool = False,
        after: tuple[Message, ...] = (),
    ) -> tuple[Compiled, Request]:
        """What reads the reply of one call, and its request: all that an adapter has a say in.

        Args:
            inputs: A value for every input.
            options: Options of the request. They go before those that the format asks for, such as its schema.
            held: Whether the language model holds replies to a grammar.
            after: Messages of a conversation that goes on after the prompt.

        Raises:
            InputError: An input is missing, or cannot be written.
        """
        form, reader = self._format, self
        content = form.user(inputs, remind=self._remind)
        if content.__class__ is str and not form.aside:
            tail: tuple[Message, ...] = (Message("user", content),)
        else:
            tail = self._after_turns(inputs, message_of("user", content))
        if after:
            tail = continued(tail, after)
        if self.response_format is not None:
            options = {"response_format": self.response_format, **options}
        elif held and self.grammar is not None:
            options = {"grammar": self.grammar, **options}
        if form.is_varied:
            reader = Compiled(
                self.adapter,
                form.for_call(inputs),
                self.prefix,
                self.response_format,
                self.skipped,
                remind=self._remind,
            )
            if more := {**form.options(inputs), **dict(options.get("extra", ()))}:
                options = {**options, "extra": tuple(sorted(more.items()))}
        return reader, (Request(self.prefix, tail, **options) if options else Request.bare(self.prefix, tail))

    def messages(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """Every message of this call, exactly as it is sent."""
        return self.prefix.messages + self.request_tail(inputs)

    def parse(self, reply: Completion | str) -> dict[str, Any]:
        """The outputs that a completion, or a text in place of one, holds, in the signature's order.

        Raises:
            ParseError: An output is missing, or its value does not fit; or the model refused; or the reply was cut.
            ContentFilterError: A filter of the provider stopped the reply.
        """
        return self._format.parse_whole(reply)

    def feed(self) -> ReplyFeed | None:
        """What reads one reply as it is written; None if each field comes whole, at the end."""
        from promptgrad.adapters._turn_end_feed import TurnEndFeed

        feed = self._format.feed()
        return None if feed is None else TurnEndFeed(feed)

    @property
    def grammar(self) -> str | None:
        """What a reply may be, for an LM that holds it to that; None leaves it free."""
        if self._grammar is None:
            self._grammar = self._format.grammar() or ""
        return self._grammar or None

    def output_of(self, path: str) -> str:
        """The output of which a path names the value or a part; "" for none."""
        name, _ = split_path(path)
        return name if name in self.signature.outputs else ""

    def part_of(self, fields: Mapping[str, Any], path: str) -> Any:
        """The value of an output, or a part of it, as `items[0].kind`.

        Raises:
            LookupError: There is none.
        """
        name, steps = split_path(path)
        return part_at(fields[name], steps)

    def alternatives(self, path: str) -> tuple[Any, ...]:
        """The values that an output or a part of it may have, if it is a `Literal`, an enum or a bool; else ()."""
        name, steps = split_path(path)
        return alternatives(type_at(self.signature.outputs[name].annotation, steps))

    def place(self, reply: str, path: str) -> ValuePlace | None:
        """Where the value of an output or a part of it stands in a reply; None where the reply does not show it."""
        name, steps = split_path(path)
        whole = self._format.place(reply, name)
        return whole if whole is None or not steps else place_at(reply, whole, steps)

    def write(self, path: str, value: Any) -> str:
        """The value of an output, or one of the alternatives of a part of it, as it stands in a reply."""
        name, steps = split_path(path)
        if not steps:
            return self._format.write(name, value)
        return json.dumps(value.value if isinstance(value, enum.Enum) else value, ensure_ascii=False)

    def check_end(self, completion: Completion) -> None:
        """Refuse a reply that did not come to its end, as `Format.check_end` does."""
        self._format.check_end(completion)

    def __repr__(self) -> str:
        return f"Compiled({self.signature!r}, {len(self.prefix)} messages)"


def continued(tail: tuple[Message, ...], more: tuple[Message, ...]) -> tuple[Message, ...]:
    """A conversation with more messages. Two texts of the user in a row become one: some models refuse them."""
    if tail and more and tail[-1].role == more[0].role == "user":
        said, next_said = tail[-1].content, more[0].content
        if isinstance(said, str) and isinstance(next_said, str):
            return (*tail[:-1], Message("user", f"{said}\n\n{next_said}"), *more[1:])
    return tail + more
