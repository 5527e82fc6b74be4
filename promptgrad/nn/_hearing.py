"""What hears the calls of a streamed program: from the pieces of their replies to the events of the stream."""

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from promptgrad.adapters import Compiled, ReplyFeed
from promptgrad.lm import Completion, Delta, Listener, ReasoningDelta, Request, TextDelta, ToolCall, Usage
from promptgrad.nn._call import Around, Ask, Call, Companion
from promptgrad.nn._events import (
    CallBegun,
    CallEnded,
    FieldDelta,
    FieldFinished,
    PartialValue,
    StreamEvent,
    ThoughtDelta,
    ToolBegun,
    ToolEnded,
    ToolPiece,
    Voided,
)
from promptgrad.nn._mailbox import Mailbox
from promptgrad.nn._structure import plan_of

if TYPE_CHECKING:
    from promptgrad.nn._calling import Calling
    from promptgrad.nn._module import Module


class Hearing(Around):
    """One stream, as the calls of its program see it.

    Attributes:
        program: The program that is streamed.
        mailbox: Where its events go.
        outer: The stream around it, of a program that streams one of its modules itself; it hears the same calls.
    """

    __slots__ = ("_calls", "mailbox", "outer", "program")

    def __init__(self, program: "Calling", mailbox: Mailbox, outer: "Hearing | None") -> None:
        self.program = program
        self.mailbox = mailbox
        self.outer = outer
        self._calls = count()

    async def join(self, call: Call) -> "HeardCall":
        """Hear a call, which begins as soon as the reader of the stream is not too far behind."""
        heard = HeardCall(await self._places(call.module))
        heard.tell(CallBegun, call.lm.name)
        return heard

    async def begin_tool(self, module: "Module", call: ToolCall) -> "HeardTool":
        """A call of a tool begins, as soon as the reader of the stream is not too far behind."""
        heard = HeardTool(await self._places(module))
        heard.tell(ToolBegun, call.name, call.id, call.arguments)
        return heard

    async def _places(self, module: "Module") -> list[tuple[Mailbox, str, int]]:
        places = []
        hearing: Hearing | None = self
        while hearing is not None:
            await hearing.mailbox.room()
            path = plan_of(hearing.program).paths.get(module)
            places.append(
                (hearing.mailbox, f"({type(module).__name__})" if path is None else path, next(hearing._calls))
            )
            hearing = hearing.outer
        return places


class _Heard:
    """A call, as the streams tell it that hear it.

    Args:
        places: For each stream that hears it: its mailbox, the path of the module and the number of the call.
    """

    __slots__ = ("_places",)

    def __init__(self, places: list[tuple[Mailbox, str, int]]) -> None:
        self._places = places

    def tell(self, kind: type[StreamEvent], *facts: Any) -> None:
        """An event of this call, for each stream that hears it."""
        for mailbox, path, number in self._places:
            mailbox.put(kind(path, number, *facts))


class HeardTool(_Heard):
    """One call of a tool by an agent, as its stream tells it."""

    __slots__ = ()

    def end(self, result: str, *, failed: bool) -> None:
        """The call has this result."""
        self.tell(ToolEnded, result, failed)


class HeardCall(_Heard, Companion):
    """One call of a `Predict`, as its stream tells it.

    Args:
        places: As for `_Heard`.
    """

    __slots__ = ("_ask", "_compiled", "_failure", "_feed", "_finished", "_given", "_parts")

    def __init__(self, places: list[tuple[Mailbox, str, int]]) -> None:
        super().__init__(places)
        self._feed: ReplyFeed | None = None
        self._failure: Exception | None = None
        self._given: dict[str, list[str]] = {}
        self._finished: dict[str, Any] = {}
        self._parts = False  # of lists and objects, some were told

    def begin(self, compiled: Compiled, ask: Ask) -> Ask:
        self._compiled, self._ask = compiled, ask
        return self._listen

    async def _listen(self, request: Request) -> Completion:
        """Ask the language model, and tell what its reply holds as it is written."""
        self._feed = self._compiled.feed()
        listener = Listener(self._hear, request.prefix.begins)
        completion = await self._ask(request.replace(listener=listener))
        listener.finish(self._compiled.answer(completion))
        if self._failure is not None:
            raise self._failure
        return completion

    def _hear(self, delta: Delta) -> None:
        """A piece of the reply, in the thread of the transport."""
        if isinstance(delta, ReasoningDelta):
            self.tell(ThoughtDelta, delta.text)
            return
        if not isinstance(delta, TextDelta):
            self.tell(ToolPiece, delta.index, delta.id, delta.name, delta.arguments)
        feed = self._feed
        if feed is None or self._failure is not None:
            return
        try:
            if isinstance(delta, TextDelta):
                found = feed.feed(delta.text)
            else:
                found = feed.feed_call(delta.index, delta.name, delta.arguments)
            for kind, field, value in found:
                self._tell_field(kind, field, value)
        except Exception as error:  # noqa: BLE001 - the caller gets it, not the transport, which has no part in it
            self._failure = error

    def _tell_field(self, kind: str, field: str, value: Any) -> None:
        if kind == "delta":
            given = self._given.get(field)
            if given is None:
                given = self._given[field] = []
            given.append(value)
            self.tell(FieldDelta, field, value)
        elif kind == "partial":
            self._parts = True
            self.tell(PartialValue, field, value)
        else:
            self._finish_field(field, value)

    def _finish_field(self, field: str, value: Any) -> None:
        """Tell the value of a field, after the rest of its text."""
        known = self._compiled.signature.outputs.get(field)
        if isinstance(value, str) and (known is None or known.is_text):
            rest = value[sum(map(len, self._given.get(field, ()))) :]
            if rest:
                self._given.setdefault(field, []).append(rest)
                self.tell(FieldDelta, field, rest)
        self._finished[field] = value
        self.tell(FieldFinished, field, value)

    def again(self, reason: str) -> None:
        """What was told of the fields does not count."""
        if self._given or self._finished or self._parts:
            self._given, self._finished, self._parts = {}, {}, False
            self.tell(Voided, reason)

    def end(self, outputs: Mapping[str, Any], usage: Usage) -> None:
        """Tell what was not told yet of the outputs."""
        if not all(map(self._stands, outputs, outputs.values())):
            self.again("as a whole the reply reads otherwise")
        for field, value in outputs.items():
            if field not in self._finished:
                self._finish_field(field, value)
        self.tell(CallEnded, usage)

    def _stands(self, field: str, value: Any) -> bool:
        """Whether what was told of a field is true."""
        if field in self._finished:
            told = self._finished[field]
            return bool(told == value) or repr(told) == repr(value)  # a NaN is no other
        given = "".join(self._given.get(field, ()))
        return not given or (isinstance(value, str) and value.startswith(given))

    def fail(self, error: Exception, usage: Usage) -> None:
        said = f"{type(error).__name__}: {error}"
        self.again(said)
        self.tell(CallEnded, usage, said)
